"""Models whose forward pass ends in a loss.

Every weight is used inside `forward` or a method named in `FORWARD_METHODS`, never from outside. So hooks on the
module, such as those with which FSDP gathers weights, run around each use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from r1kit.models import plain
from r1kit.models.attention import forward_layout
from r1kit.models.batch import Batch, Targets, Totals
from r1kit.models.head import NEVER, Chunk, ChunkLoss, FusedHead, Head
from r1kit.models.packed import PackedLayout
from r1kit.models.plain import plain_path

WHOLE_CHUNKS = 8  # chunks of the head that a sequence may fill; a longer one is split, and its logits computed twice


class LossOutput(NamedTuple):
    """The scalar to minimise, and sums for the log over `num_items` items (None: the tokens or scores of the input).

    To a loss of log-probs, the head adds `entropy_coef` x (sum of the entropies of the targets' distributions).
    """

    loss: Tensor
    sums: dict[str, Tensor]
    num_items: int | None = None
    entropy_coef: float = 0.0


Loss = Callable[[Tensor, Targets, Totals], LossOutput]  # of log-probs [N]
ScoreLoss = Callable[[Tensor, Batch, Totals], LossOutput]  # of scores [sequences], in the order of the batch


@runtime_checkable
class LogitsLoss(Protocol):
    """A loss that reads whole distributions over next tokens, such as distillation."""

    def chunks(self, batch: Batch, totals: Totals, temperature: float, size: int) -> Iterator[Chunk]:
        """All targets of the batch that this rank has, in chunks of at most `size`."""


AnyLoss = Loss | LogitsLoss | ScoreLoss


def per_token(loss: Loss) -> Loss:
    """Mark a loss that is a sum of independent terms per token, so that the head may split sequences."""
    loss.per_token = True  # type: ignore[attr-defined]
    return loss


def hidden_states(model: Any, token_ids: Tensor, layout: PackedLayout) -> Tensor:
    """Hidden states [T, d] of a packed row [1, T], of a language model or of a sequence classifier, on its path."""
    assert token_ids.shape == (1, len(layout.position_ids)), "the layout is of another row"
    if path := plain_path(model):
        return plain.hidden_states(model, path, token_ids, layout)
    # without the head, which is applied to the targets' positions only
    return forward_layout(model, token_ids, layout.position_ids[None], layout)[0]


class Net(nn.Module):
    """A Hugging Face model that takes packed rows."""

    FORWARD_METHODS: tuple[str, ...] = ()  # beside `forward`

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @classmethod
    def of(cls, model: Any) -> Self:
        """The net of a model; a net, sharded or not, stays as it is."""
        return model if isinstance(model, cls) else cls(model)


class PolicyNet(Net):
    """A language model with packed rows as its input and a loss as its output."""

    FORWARD_METHODS = ("hidden_states", "logits", "logprobs")

    def forward(self, batch: Batch, loss: Loss | LogitsLoss, totals: Totals, temperature: float = 1.0) -> LossOutput:
        """The loss of a packed row with its gradient; among the sums is the entropy of each target's distribution."""
        hidden, head = self.hidden_states(batch), Head.of(self.model)  # [T, d]
        if isinstance(loss, LogitsLoss):
            chunks = loss.chunks(batch, totals, temperature, head.chunk_size())
        else:
            # detached: the fused head forms the gradient to the hidden states itself
            chunks = _logprob_chunks(loss, head, hidden.detach(), batch, totals, temperature)
        weight, bias = head.weight, head.bias
        if not torch.is_grad_enabled():  # `FusedHead` looks at `requires_grad` alone, and would form gradients
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        value, sums = FusedHead.apply(hidden, weight, bias, head, chunks, temperature)
        return LossOutput(value, sums, len(batch.own_targets))

    def hidden_states(self, batch: Batch) -> Tensor:
        """[T, d]"""
        return hidden_states(self.model, batch.token_ids, batch.layout)

    def chunk_size(self) -> int:
        """Targets per chunk of the head."""
        return Head.of(self.model).chunk_size()

    def logits(self, states: Tensor) -> Tensor:
        """[n, d] -> [n, V] in fp32."""
        return Head.of(self.model).logits(states)

    def logprobs(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """log pi of each target [N], without a gradient."""
        with torch.no_grad():
            own = Head.of(self.model).logprobs(self.hidden_states(batch), batch.own_targets, temperature)
            return batch.layout.gather(own, batch.targets.positions)


class ScoreNet(Net):
    """A sequence classifier with one output, which is read at the last token of each packed sequence."""

    FORWARD_METHODS = ("scores",)

    def forward(self, batch: Batch, loss: ScoreLoss, totals: Totals, temperature: float = 1.0) -> LossOutput:
        """The loss of a packed row with its gradient; scores have no temperature."""
        scores = self.scores(batch.token_ids, batch.layout, batch.ends)  # [sequences]
        output = loss(scores, batch, totals)
        if batch.layout.place:
            # all ranks of a row compute its loss, which the first one counts; here it is 0, and has a gradient
            return LossOutput(output.loss - output.loss.detach(), {}, 0)
        return output if output.num_items is not None else output._replace(num_items=len(scores))

    def scores(self, token_ids: Tensor, layout: PackedLayout, ends: Tensor) -> Tensor:
        """Scores [sequences] in fp32 of a packed row [1, T] whose sequences end at `ends`."""
        states = hidden_states(self.model, token_ids, layout)[layout.local_positions(ends)]  # [own sequences, d]
        scores = self.model.score(states).float()[:, 0].clone()  # FSDP's hooks could miss the gradient of a view
        return layout.gather(scores, ends)


def net_of(model: Any) -> PolicyNet | ScoreNet:
    """The net of a language model or of a sequence classifier; a net, sharded or not, stays as it is."""
    if isinstance(model, PolicyNet | ScoreNet):
        return model
    # a classifier has no head over the vocabulary
    return ScoreNet(model) if model.get_output_embeddings() is None else PolicyNet(model)


def _logprob_chunks(
    loss: Loss, head: Head, hidden: Tensor, batch: Batch, totals: Totals, temperature: float
) -> Iterator[Chunk]:
    """Chunks for a loss of log-probs.

    The loss receives whole sequences (GSPO needs that) unless it is marked `per_token`. A sequence longer than
    `WHOLE_CHUNKS` chunks, or of which other ranks have tokens, takes two passes: its log-probs first, without keeping
    logits, and then chunk by chunk the gradient that follows from them. So memory stays bounded.
    """
    needs_whole, size = not getattr(loss, "per_token", False), head.chunk_size()
    layout, targets = batch.layout, batch.targets
    if needs_whole and layout.ranks > 1:
        own_indices = layout.local_indices(targets.positions)
        own_logprobs = head.logprobs(hidden, batch.own_targets, temperature)
        # every rank of the row computes the loss of all targets, and goes on with the gradient of its own
        output, grad = _gradient(loss, layout.gather(own_logprobs, targets.positions), targets, totals)  # [N]
        if len(own_indices) and own_indices[0]:  # the rank of the first target counts value and sums
            output = _uncounted(output)
        yield from _linear_chunks(batch.own_targets, output, grad[own_indices], totals, size)
        return
    for chunk in batch.own_targets.chunks(size, whole=needs_whole):
        if len(chunk) <= WHOLE_CHUNKS * size:  # in one pass, although the chunk may be larger than `size`
            yield Chunk(chunk.positions, partial(_logprob_loss, targets=chunk, totals=totals, loss=loss))
        else:
            output, grad = _gradient(loss, head.logprobs(hidden, chunk, temperature), chunk, totals)
            yield from _linear_chunks(chunk, output, grad, totals, size)


def _linear_chunks(targets: Targets, output: LossOutput, grad: Tensor, totals: Totals, size: int) -> Iterator[Chunk]:
    """The second pass of a loss whose gradient [n] by its log-probs is known.

    By the chain rule this is all that the pass needs: a linear loss with that gradient stands for the true one.
    """
    if not len(targets):  # a rank can have a part of a row in which nothing is trained; `split` gives one part of it
        return
    for part, part_grad in zip(targets.chunks(size, whole=False), grad.split(size), strict=True):
        linear = partial(_linear_loss, grad=part_grad, output=output)
        yield Chunk(part.positions, partial(_logprob_loss, targets=part, totals=totals, loss=linear))
        output = _uncounted(output)  # value and sums count once, with the first part


def _uncounted(output: LossOutput) -> LossOutput:
    """The output without value and sums, but with its entropy bonus: each part has entropies of its own."""
    return output._replace(loss=torch.zeros_like(output.loss), sums={})


def _logprob_loss(logits: Tensor, targets: Targets, totals: Totals, loss: Loss) -> ChunkLoss:
    """A loss of log-probs as one of logits [n, V], which are overwritten: d(log p_target)/d(logits) = onehot - p."""
    assert len(logits) == len(targets), "one row of logits for each target"
    if targets.sampling_mask is not None:  # ids outside of it get probability 0, and so no gradient
        logits = targets.sampling_mask.apply(logits, NEVER)
    probs = torch.softmax(logits, dim=-1)  # [n, V]
    # log-sum-exp [n], read off the largest logit and its probability: `logsumexp` is three more passes over [n, V]
    normaliser = logits.amax(dim=-1) - probs.amax(dim=-1).log()
    sampled = targets.token_ids[:, None]  # [n, 1]
    output, grad = _gradient(loss, logits.gather(1, sampled)[:, 0] - normaliser, targets, totals)
    # -sum p log p, where log p = logit - normaliser and the p of a row add up to 1; `dot` would lose three digits
    entropies = normaliser - logits.mul_(probs).sum(dim=-1)  # [n]
    entropy, value = entropies.sum(), output.loss.detach()
    if output.entropy_coef:
        value = value + output.entropy_coef * entropy
        # d(entropy)/d(logits) = -p (log p + entropy) = p (normaliser - entropy) - p logit
        bonus = logits.neg_().addcmul_(probs, (normaliser - entropies)[:, None])  # [n, V]
        probs.mul_(-grad[:, None]).add_(bonus, alpha=output.entropy_coef)
    else:
        probs.mul_(-grad[:, None])  # from here on d(loss)/d(logits)
    probs.scatter_add_(1, sampled, grad[:, None])
    return ChunkLoss(value, probs, {"entropy": entropy, **output.sums})


def _gradient(loss: Loss, logprobs: Tensor, targets: Targets, totals: Totals) -> tuple[LossOutput, Tensor]:
    """A loss of log-probs [n], and its gradient [n]."""
    assert len(logprobs) == len(targets), "one log-prob for each target"
    leaf = logprobs.detach().requires_grad_()  # cuts the graph: autograd sees the loss alone, not the head
    with torch.enable_grad():  # which is off in the forward pass of an autograd function such as `FusedHead`
        output = loss(leaf, targets, totals)
        assert output.loss.ndim == 0, "a loss is a scalar"
        (grad,) = torch.autograd.grad(output.loss, leaf)
    return output, grad


def _linear_loss(logprobs: Tensor, targets: Targets, totals: Totals, *, grad: Tensor, output: LossOutput) -> LossOutput:
    """A loss with the value of `output` and the gradient `grad` [n]."""
    # the bracket is 0 in value, so only its gradient counts
    return output._replace(loss=output.loss.detach() + (logprobs - logprobs.detach()) @ grad)
