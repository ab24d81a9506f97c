"""Engines turn prompts into completions. `local` shares the learner's own tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from r1kit.types import Completion, Prompt, SamplingParams

Report = Callable[[int, int], None]  # (completions done, completions asked for)


class Engine(Protocol):
    """`params.n` completions for each prompt, in the prompts' order."""

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]: ...
