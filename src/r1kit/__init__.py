"""The DeepSeek-R1 recipe, from a base model to a reasoning model, as one resumable pipeline."""

__version__ = "0.1.0"
