"""Held-out tasks in the middle of training: what a loss does not show, answered by the weights as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, field_validator, model_validator

from r1kit.chat import ChatFormat
from r1kit.settings import Settings, listed
from r1kit.stages.shared import HIDDEN, Fitting
from r1kit.tasks import TaskSpec, load_tasks
from r1kit.types import SamplingParams

NAMES = {"pass@1": "accuracy"}


class ProbeSettings(Settings):
    """Problems that are answered greedily at every validation; no tasks, no probe.

    Several tasks show whether one got better at the cost of another. `watch`: early stopping follows the share of
    right answers rather than the loss.
    """

    tasks: tuple[TaskSpec, ...] = ()
    max_tokens: int = Field(256, ge=1)
    max_rows: int = Field(128, ge=1, json_schema_extra=HIDDEN)
    watch: bool = False

    _lists = field_validator("tasks", mode="before")(listed)

    @model_validator(mode="after")
    def _watches_something(self) -> ProbeSettings:
        if self.watch and not self.tasks:
            raise ValueError("watch follows the answers to the probe's tasks: name at least one task")
        return self


def make_probe(settings: ProbeSettings, policy: Any, chat: ChatFormat) -> Callable[[], dict[str, float]]:
    """A measure: `probe/accuracy`, `probe/format`, ... over all tasks and `probe/accuracy/<source>` for each."""
    from r1kit.engines.local import LocalEngine
    from r1kit.evaluate.metrics import Scored
    from r1kit.evaluate.statistics import summarise
    from r1kit.stages.evaluate import judge

    if not settings.tasks:
        return dict
    task = load_tasks(settings.tasks, training=False)
    problems = Fitting(task, chat, policy, max_tokens=settings.max_tokens).problems
    prompts = [chat.render(problem, policy.tokenizer) for problem in problems]
    greedy = SamplingParams(temperature=0.0, max_tokens=settings.max_tokens)
    engine = LocalEngine(policy, max_rows=settings.max_rows)

    def measure() -> dict[str, float]:
        found = judge(problems, engine.generate(prompts, greedy), chat, policy.tokenizer)
        summary = summarise([Scored.from_row(row) for row in found])
        if "pass@1" not in summary.overall:
            raise ValueError("the verifier could tell right from wrong for no answer of the probe: see its tasks")
        whole = {f"probe/{NAMES.get(name, name)}": estimate.mean for name, estimate in summary.overall.items()}
        by_source = summary.by_source if len(summary.by_source) > 1 else {}
        return whole | {
            f"probe/accuracy/{source}": metrics["pass@1"].mean
            for source, metrics in by_source.items() if "pass@1" in metrics
        }  # fmt: skip

    return measure
