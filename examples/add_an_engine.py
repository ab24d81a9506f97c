"""An engine of your own: anything that turns prompts into completions, here a program, measured like a model.

Run it: python examples/add_an_engine.py. A client of another server, or another sampler, has the same shape.
In this folder: r1kit eval calculator --engine add_an_engine:Calculator --task tiny/sums. For stages that ask an engine:
--set 'few-shot.engine={"kind": "custom", "model": "calculator", "path": "add_an_engine:Calculator"}'
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from r1kit.chat import ChatFormat
from r1kit.engines import Engine, Report
from r1kit.evaluate.measurement import measure
from r1kit.evaluate.table import text_table
from r1kit.types import Completion, Problem, Prompt, SamplingParams


@dataclass(frozen=True)
class Calculator(Engine):
    """Adds the numbers of the question, and is off by one with probability `slips`."""

    model: str  # MODEL of the command line
    slips: float = 0.2

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """One list per prompt, in order, each with `params.n` completions."""
        return [[self.answer(prompt, params.seed, sample) for sample in range(params.n)] for prompt in prompts]

    def answer(self, prompt: Prompt, seed: int, sample: int) -> Completion:
        rng = random.Random(f"{seed}/{prompt.problem_id}/{sample}")  # the same completion whatever else is sampled
        numbers = re.findall(r"-?\d+", prompt.messages[-1].content)
        total = sum(map(int, numbers)) + (rng.random() < self.slips)
        text = f"<think>{' + '.join(numbers)} = {total}</think> <answer>{total}</answer>"
        # No token ids and no log-probs: enough to be measured or to write training data, but not to be trained by RL.
        return Completion(token_ids=(), logprobs=(), text=text, finish_reason="stop")


def main() -> None:
    problems = [
        Problem(id=f"sum/{n}", prompt=f"What is {n} + {3 * n}?", answer=str(4 * n), verifier="number", source="sums")
        for n in range(1, 51)
    ]
    sampling = SamplingParams(n=4, temperature=1.0)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "completions.jsonl"
        summary = measure(Calculator("calculator"), problems, ChatFormat(), sampling, out, lambda done, total: None)
    print(text_table({"calculator": summary}))


if __name__ == "__main__":
    main()
