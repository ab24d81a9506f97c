"""Generation with the policy's own tensors: continuous batching on CPU or one GPU."""

from r1kit.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
