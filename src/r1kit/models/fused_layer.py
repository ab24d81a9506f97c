"""A decoder layer of Llama's form in few passes over memory, on packed weights.

In a layer's own code, norms, rotations, activations, sums and casts are operations of their own: each goes through
memory, most of it fresh, and together they cost a third of what the products cost. Here a layer is two functions with
attention between them. They work on a few rows at a time, which stay in the processor's cache; products of one input
are one product; and the backward pass computes again what is cheap, so a layer keeps half as much memory.

`has_form` says which layers look like it; whether they compute it, numbers decide (models/preflight.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from r1kit.models.attention import Layout, Softmax
from r1kit.models.packed_weight import PackedWeight

ROWS = 128  # of a layer: a few arrays of them stay in the cache
PARTS = {
    "": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "self_attn": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
}
LINEAR = (*(f"self_attn.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down")))


def has_form(layer: nn.Module) -> bool:
    """Whether a layer has the parts of Llama's, each as it was made: no adapters, hooks or activation checkpointing."""
    parts = dict(layer.named_modules())
    if any(name not in parts or {n for n, _ in parts[name].named_children()} != own for name, own in PARTS.items()):
        return False
    linear = [parts[name] for name in LINEAR]
    norms = [parts["input_layernorm"], parts["post_attention_layernorm"]]
    changed = any("forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks for part in parts.values())
    return (
        not changed
        and all(type(part) is nn.Linear for part in linear)
        and len({part.bias is None for part in linear[:3]}) == 1
        and all(part.bias is None for part in linear[3:])
        and all([name for name, _ in norm.named_parameters()] == ["weight"] and _epsilon(norm) for norm in norms)
        and len({weight.requires_grad for weight in layer.parameters()}) == 1
    )


def _epsilon(norm: nn.Module) -> float:
    """The number that a norm adds to its mean square, by the names in transformers; 0 for a norm that has none."""
    return float(getattr(norm, "variance_epsilon", None) or getattr(norm, "eps", None) or 0.0)


class FusedLayer:
    """The forward pass of a layer, with the packs of its weights; they must not change while it is in use."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.dtype, self.attention = dtype, attention
        self.norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self.inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.rest = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        self.heads = PackedWeight([linear.weight for linear in self.inputs], dtype)  # [(H + 2 H_kv) D, d]
        self.out, self.down = (PackedWeight([linear.weight], dtype) for linear in (attention.o_proj, mlp.down_proj))
        self.gates = PackedWeight([mlp.gate_proj.weight, mlp.up_proj.weight], dtype)  # [2 F, d]
        biases = [linear.bias for linear in self.inputs if linear.bias is not None]
        self.biases, self.bias = biases, torch.cat(biases).detach().to(dtype) if biases else None
        self.window = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))

    def forward(
        self, hidden_states: Tensor, *_: Any, position_embeddings: tuple[Tensor, Tensor], layout: Layout, **__: Any
    ) -> Tensor:
        """[B, T, d] -> [B, T, d], as the layer's own forward pass."""
        batch, tokens, _width = hidden_states.shape
        x, attention = hidden_states.flatten(0, 1), self.attention  # [N, d]
        cos, sin = (angles.flatten(0, 1) for angles in position_embeddings)  # [N, D]
        weights = [self.norms[0].weight, *(linear.weight for linear in self.inputs), *self.biases]
        heads = _Inputs.apply(x, cos, sin, self, *weights)  # [N, (H + 2 H_kv) D]
        sizes = [linear.out_features // attention.head_dim for linear in self.inputs]
        parts = heads.view(batch, tokens, -1, attention.head_dim).split(sizes, dim=2)  # [B, T, H, D] each
        q, k, v = (part.transpose(1, 2) for part in parts)
        attended = layout.attend(attention.layer_idx, q, k, v, Softmax(attention.scaling, self.window))  # [B, T, H, D]
        weights = [self.norms[1].weight, *(linear.weight for linear in self.rest)]
        return _Rest.apply(attended.reshape(len(x), -1), x, self, *weights).view_as(hidden_states)  # type: ignore[no-any-return]


class _Inputs(torch.autograd.Function):
    """Norm, then queries, keys and values with their rotations: x [N, d] -> [N, (H + 2 H_kv) D]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, layer: FusedLayer, *weights: Tensor) -> Tensor:
        normed, scale = x.new_empty(x.shape, dtype=layer.dtype), _scale(x, layer.norms[0])
        for rows in _row_slices(x):
            _norm(x[rows], scale[rows], weights[0], normed[rows])
        heads = layer.heads.product(normed, layer.bias)
        _rotate(heads, cos, sin, layer, back=False)
        ctx.layer = layer
        ctx.save_for_backward(x, scale, normed, cos, sin, weights[0])
        return heads

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, scale, normed, cos, sin, weight), layer = ctx.saved_tensors, ctx.layer
        grad = grad.contiguous()  # of the split, so nobody else reads it
        _rotate(grad, cos, sin, layer, back=True)
        by_x, by_norm = torch.empty_like(x), torch.zeros_like(weight)
        by_normed = layer.heads.product_back(grad)
        for rows in _row_slices(x):
            by_x[rows] = _norm_back(by_normed[rows], x[rows], scale[rows], weight, by_norm)
        by_weights = _by_weights(grad, normed, layer.inputs)
        by_biases: Sequence[Tensor] = ()
        if layer.biases:
            by_biases = grad.sum(0, dtype=weight.dtype).split([len(bias) for bias in layer.biases])
        return (by_x, None, None, None, by_norm, *by_weights, *by_biases)


class _Rest(torch.autograd.Function):
    """Output of attention [N, H D], residual, norm, gated MLP, residual: x [N, d] -> [N, d]."""

    @staticmethod
    def forward(ctx: Any, attended: Tensor, x: Tensor, layer: FusedLayer, *weights: Tensor) -> Tensor:
        middle, normed = layer.out.product(attended), x.new_empty(x.shape, dtype=layer.dtype)
        sums, scale = torch.empty_like(x), x.new_empty(len(x), 1)
        for rows in _row_slices(x):
            torch.add(x[rows], middle[rows], out=sums[rows])
            scale[rows] = _scale(sums[rows], layer.norms[1])
            _norm(sums[rows], scale[rows], weights[0], normed[rows])
        gates = layer.gates.product(normed)  # [N, 2 F]
        product = gates.new_empty(len(gates), gates.shape[1] // 2)
        for rows in _row_slices(x):
            gate, up = gates[rows].chunk(2, dim=1)
            torch.mul(F.silu(gate), up, out=product[rows])
        ctx.layer = layer
        ctx.save_for_backward(attended, sums, scale, normed, gates, weights[0])
        return sums + layer.down.product(product)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (attended, sums, scale, normed, gates, weight), layer = ctx.saved_tensors, ctx.layer
        low, by_gates = grad.to(layer.dtype, copy=True), torch.empty_like(gates)
        product = layer.down.product_back(low)  # its gradient; row by row the product itself takes its place
        for rows in _row_slices(grad):
            (gate, up), (by_gate, by_up) = gates[rows].chunk(2, dim=1), by_gates[rows].chunk(2, dim=1)
            active = F.silu(gate)
            torch.mul(product[rows], active, out=by_up)
            torch.ops.aten.silu_backward.grad_input(product[rows].mul_(up), gate, grad_input=by_gate)
            torch.mul(active, up, out=product[rows])
        by_down = _by_weights(low, product, layer.rest[3:])
        by_normed = layer.gates.product_back(by_gates)
        by_x, by_norm = torch.empty_like(sums), torch.zeros_like(weight)
        for rows in _row_slices(grad):
            by_sums = _norm_back(by_normed[rows], sums[rows], scale[rows], weight, by_norm)
            low[rows] = torch.add(by_sums, grad[rows], out=by_x[rows])
        by_out, by_pair = _by_weights(low, attended, layer.rest[:1]), _by_weights(by_gates, normed, layer.rest[1:3])
        return (layer.out.product_back(low), by_x, None, by_norm, *by_out, *by_pair, *by_down)


def _row_slices(x: Tensor) -> Iterator[slice]:
    """Slices of `ROWS` rows, which stay in the processor's cache from one operation to the next."""
    return (slice(start, start + ROWS) for start in range(0, len(x), ROWS))


def _scale(x: Tensor, norm: nn.Module) -> Tensor:
    """[N, 1], the inverse root of the mean square of each row."""
    means: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True).square() / x.shape[1]
    return means.add_(_epsilon(norm)).rsqrt_()


def _norm(x: Tensor, scale: Tensor, weight: Tensor, out: Tensor) -> None:
    """RMSNorm: x * scale * weight into `out`, which may be of a lower precision."""
    out.copy_((x * scale).mul_(weight))


def _norm_back(grad: Tensor, x: Tensor, scale: Tensor, weight: Tensor, by_weight: Tensor) -> Tensor:
    """The gradient by x; that by the weight is added to `by_weight`."""
    unit, grad = x * scale, grad.to(x.dtype, copy=True)
    product = grad * unit
    by_weight += product.sum(0)
    mean = (product @ weight).div_(x.shape[1])  # [N]
    return grad.mul_(weight).addcmul_(unit, mean[:, None], value=-1).mul_(scale)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor, layer: FusedLayer, *, back: bool) -> None:
    """Turn queries and keys [N, .] by their angles [N, D], in place; `back` is the transpose of that."""
    width = layer.attention.head_dim
    turned = sum(linear.out_features for linear in layer.inputs[:2])
    for rows in _row_slices(heads):
        low = heads[rows, :turned].view(-1, turned // width, width)  # [n, H + H_kv, D]
        own, cosines, sines = low.to(cos.dtype), cos[rows, None], sin[rows, None]
        (first, second), (sine, other) = own.chunk(2, dim=2), sines.chunk(2, dim=2)
        result = own * cosines
        # forward: first' = first cos - second sin, second' = second cos + first sin
        halves = (second, other, first, sine) if back else (second, sine, first, other)
        result[..., : width // 2].addcmul_(halves[0], halves[1], value=1 if back else -1)
        result[..., width // 2 :].addcmul_(halves[2], halves[3], value=-1 if back else 1)
        low.copy_(result)


def _by_weights(grad: Tensor, states: Tensor, linear: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """Gradients of weights whose outputs stand side by side in `grad` [N, .]."""
    whole = (grad.T @ states).to(linear[0].weight.dtype)
    return whole.split([each.out_features for each in linear])  # type: ignore[no-any-return]
