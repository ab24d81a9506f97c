"""An OpenAI-compatible server for one model, over the local engine."""

from r1kit.serve.running import serve

__all__ = ["serve"]
