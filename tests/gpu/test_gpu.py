"""What only a GPU can show: its kernels against the CPU's, and the checks of `make gpu-check` in miniature."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from r1kit.models.attention import Softmax, causal_attention  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine"),
]
VARIANTS = {
    "plain": Softmax(0.3),
    "window": Softmax(0.3, window=5),
    "cap": Softmax(0.3, cap=2.0),
    "long window": Softmax(0.3, window=200),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("queries", "keys"), [(64, 64), (33, 100), (1, 7)])
@pytest.mark.parametrize(("name", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_attention_and_its_gradients_are_the_cpus(
    variant: str, queries: int, keys: int, name: str, tolerance: float
) -> None:
    torch.manual_seed(0)
    sizes = [(8, queries, 64), (2, keys, 64), (2, keys, 64), (8, queries, 64)]
    *inputs, grad = (torch.randn(3, *size).bfloat16().to(getattr(torch, name)) for size in sizes)
    sides = []
    for device in ("cpu", "cuda"):
        leaves = [x.detach().to(device).requires_grad_() for x in inputs]
        output = causal_attention(*leaves, VARIANTS[variant])
        output.backward(grad.to(device))
        sides.append([output.detach().cpu().float(), *(leaf.grad.cpu().float() for leaf in leaves)])
    for ours, theirs in zip(*sides, strict=True):
        assert float((ours - theirs).norm()) <= tolerance * float(ours.norm())


@pytest.mark.parametrize("name", ["parity in fp32", "gap tiny", "recorded tiny", "decode tiny", "train tiny"])
def test_the_checks_of_gpu_check_pass_in_miniature(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    gpu_check: Any = importlib.import_module("gpu_check")
    facts = dict(gpu_check.checks(gpu_check.Check("cuda", gpu_check.TINY)))[name]()
    assert facts.get("passes", True), facts
    for module in ("gpu_check", "_gpu_models"):
        sys.modules.pop(module)
