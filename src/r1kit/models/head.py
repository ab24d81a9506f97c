"""The language-model head, applied only to positions that predict a token, with its gradient formed on the way.

Full logits of a large vocabulary are most of a small model's memory traffic. Here the logits of each chunk of targets
are computed once: the loss and d(loss)/d(logits) come from the chunk, and two products carry the gradient to the hidden
states and to the head's weight before the next chunk reuses the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from r1kit.models.batch import Targets
from r1kit.models.compute import compute_dtype_of
from r1kit.models.packed_weight import PackedWeight

WITHOUT_TOKEN = "ids_without_token"  # a buffer of models whose vocabulary is larger than their tokenizer's
NEVER = -1e9  # logit of an id without a token
CHUNK_LOGITS = 8 * 1024 * 1024  # per chunk: 32 MB in fp32, which malloc keeps for the next chunk
SLICE_ROWS = 2048  # of the weight's gradient, which are added at a time


@dataclass(frozen=True)
class Head:
    """logits = softcap((hidden W^T + b) * scale) / temperature, as the model's own head computes them.

    Ids without a token (`without_token`, the padding of many embeddings) have probability 0 in sampling and training.
    """

    weight: Tensor  # [V, d]
    bias: Tensor | None  # [V]
    scale: float = 1.0
    softcap: float | None = None
    without_token: Tensor | None = None  # ids, int64; None if each id has a token
    packed: PackedWeight | None = None  # the weight inside `packed_weights`
    grad_dtype: torch.dtype | None = None  # of the two products that carry the gradient; None: that of their inputs

    @staticmethod
    def of(model: Any) -> Head:
        """Read the head off a Hugging Face model, with the scalings that some architectures put on logits."""
        linear = model.get_output_embeddings()
        config = model.config.get_text_config()  # of Gemma 4 a part of the whole
        # Cohere multiplies by `logit_scale`; Granite divides by `logits_scaling`, and HyperCLOVA X multiplies by it
        scale = getattr(config, "logit_scale", None) or 1.0
        scaling = getattr(config, "logits_scaling", None) or 1.0
        scale *= scaling if config.model_type == "hyperclovax" else 1 / scaling
        # on a CPU logits are computed in fp32 and only their gradient's products in bf16; on a GPU autocast decides
        rounds_grad = linear.weight.device.type == "cpu" and compute_dtype_of(model) == torch.bfloat16
        softcap = getattr(config, "final_logit_softcapping", None)
        return Head(
            weight=linear.weight,
            bias=getattr(linear, "bias", None),
            scale=scale,
            softcap=softcap,
            without_token=getattr(model, WITHOUT_TOKEN, None),
            packed=getattr(linear, "packed", None),
            grad_dtype=torch.bfloat16 if rounds_grad else None,
        )

    def logits(self, hidden: Tensor, temperature: float = 1.0) -> Tensor:
        """[n, d] -> [n, V] in fp32. A temperature of 0 (greedy sampling) counts as 1."""
        assert hidden.shape[-1] == self.weight.shape[1], "hidden states are as wide as the head's input"
        # fp32 from here on: bf16 keeps 8 bits, too few for a log-sum-exp over a vocabulary
        if self.packed is not None:
            logits = self.packed.product(hidden, self.bias)
        else:
            logits = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        if self.without_token is not None:
            # not -inf: in an entropy, 0 * -inf would be NaN; exp of this is 0 at any temperature
            logits = logits.index_fill_(1, self.without_token, NEVER)
        return logits if temperature in (0.0, 1.0) else logits / temperature

    def derivative(self, logits: Tensor, temperature: float = 1.0) -> Tensor | float:
        """d(logits)/d(hidden W^T + b), from the result of `logits`: a number, or [n, V] with a soft cap."""
        scale = self.scale if temperature in (0.0, 1.0) else self.scale / temperature
        if self.softcap is None:
            return scale
        # `logits` are divided by the temperature already, the cap was on those before
        return scale * (1 - (logits * (temperature or 1.0) / self.softcap).square())  # tanh' = 1 - tanh^2

    def logprobs(self, hidden: Tensor, targets: Targets, temperature: float) -> Tensor:
        """log pi of each target [N], among the ids of its sampling mask, from hidden states [T, d] of the row.

        Without a gradient.
        """
        pieces = []
        with torch.no_grad():
            for start in range(0, len(targets), self.chunk_size()):
                chunk = slice(start, start + self.chunk_size())
                logits = self.logits(hidden[targets.positions[chunk]], temperature)  # [n, V]
                if targets.sampling_mask is not None:
                    logits = targets.sampling_mask[chunk].apply(logits, NEVER)
                target_logits = logits.gather(1, targets.token_ids[chunk, None])[:, 0]  # [n]
                pieces.append(target_logits - logits.logsumexp(dim=-1))
        return torch.cat(pieces) if pieces else hidden.new_zeros(0)

    def chunk_size(self) -> int:
        """Targets per chunk."""
        return max(32, CHUNK_LOGITS // self.weight.shape[0])


class ChunkLoss(NamedTuple):
    """The loss of one chunk, its gradient [n, V] by the logits, and sums for the log."""

    loss: Tensor
    grad_logits: Tensor  # may reuse the memory of the logits
    sums: dict[str, Tensor]


class Chunk(NamedTuple):
    """Positions [n] in the packed row, and the loss as a function of their logits [n, V]."""

    positions: Tensor
    loss: Callable[[Tensor], ChunkLoss]


class FusedHead(torch.autograd.Function):
    """Head and loss in one: (hidden [T, d], weight, bias) -> loss, with the sums of all chunks.

    The forward pass computes the gradients too, so the logits of a chunk are never kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        chunks: Iterable[Chunk],
        temperature: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]  # none in a batch that is only measured
        grad_hidden = torch.zeros_like(hidden) if needs_hidden else None
        grad_weight, grad_bias = None, None
        grad_dtype = head.grad_dtype or hidden.dtype
        factor = weight if head.grad_dtype is None else weight.to(grad_dtype)  # [V, d]
        total, sums = hidden.new_zeros((), dtype=torch.float32), dict[str, Tensor]()
        for positions, loss in chunks:  # in order: the order of these sums decides the last bits
            states = hidden[positions]  # [n, d]
            logits = head.logits(states, temperature)  # [n, V]
            derivative = head.derivative(logits, temperature)  # before `loss` overwrites the logits
            value, grad, chunk_sums = loss(logits)
            del logits  # or the next chunk's would be allocated beside them
            if isinstance(derivative, Tensor) or derivative != 1.0:  # 1 would be a pass over memory
                grad = grad.mul_(derivative)
            grad = grad.to(grad_dtype)  # [n, V], by the linear output
            if needs_weight:
                grad_weight = _add_product(grad_weight, grad.T, states.to(grad_dtype), weight.dtype)  # [V, d]
            if needs_bias:
                bias_sum = grad.sum(0, dtype=weight.dtype)  # [V]
                grad_bias = bias_sum if grad_bias is None else grad_bias.add_(bias_sum)
            if grad_hidden is not None:  # under autocast the product is bf16
                grad_hidden.index_add_(0, positions, (grad @ factor).to(states.dtype))
            total = total + value
            for name, amount in chunk_sums.items():
                sums[name] = sums[name] + amount if name in sums else amount
        if needs_weight and grad_weight is None:  # a batch without targets: FSDP expects a gradient from every rank
            grad_weight = torch.zeros_like(weight)
        if needs_bias and grad_bias is None:
            grad_bias = weight.new_zeros(len(weight))
        assert grad_weight is None or grad_weight.shape == weight.shape, "a gradient has its tensor's shape"
        ctx.grads = (grad_hidden, grad_weight, grad_bias)  # neither inputs nor outputs, so no reference cycle
        return total, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: None) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, ()  # one backward pass: the gradients are scaled in place and given away
        return (*(grad if grad is None else grad.mul_(grad_loss) for grad in grads), None, None, None)


def _add_product(total: Tensor | None, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """total + left @ right, in place: a second [V, d] would be the largest tensor of a small model."""
    if total is None:
        return (left @ right).to(dtype)
    # autocast does not reach addmm_, which would multiply in fp32
    if left.dtype == total.dtype and not torch.is_autocast_enabled(left.device.type):
        return total.addmm_(left, right)
    # in slices that stay in the processor's cache: adding bf16 to fp32 at once takes as long as the product
    for rows, factor in zip(total.split(SLICE_ROWS), left.split(SLICE_ROWS), strict=True):
        rows += (factor @ right).to(dtype)
    return total
