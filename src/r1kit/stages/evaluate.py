"""The stage `evaluate`: k samples of every held-out problem, judged by the verifiers that training uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from r1kit.chat import ChatFormat
from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.engines.engine_settings import DeviceSettings
from r1kit.engines.opening import open_policy_engine
from r1kit.evaluate.metrics import Scored, score
from r1kit.evaluate.statistics import Summary, summarise
from r1kit.pipeline import Context, Kind
from r1kit.settings import listed
from r1kit.stages.shared.fitting import Fitting, check_model
from r1kit.store import write_json
from r1kit.tasks import TaskSpec, load_tasks
from r1kit.types import Problem, SamplingParams

ROUNDS = 4  # how often the engine's rows are filled between two writes, which is what a stop can lose; fewer idle more


class EvaluateSettings(DeviceSettings):
    """The paper's sampling (section 3): temperature 0.6, top-p 0.95, k samples, pass@1 as their mean."""

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    chat: ChatFormat = ChatFormat()
    samples: int = Field(4, ge=1, description="k, completions per problem")
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    seed: int = 0

    _lists = field_validator("tasks", mode="before")(listed)

    def sampling(self) -> SamplingParams:
        return SamplingParams(
            n=self.samples, temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed
        )


def measure(
    engine: Any,
    problems: Sequence[Problem],
    chat: ChatFormat,
    sampling: SamplingParams,
    out: Path,
    report: Callable[[int, int], None],
) -> Summary:
    """Append a row per completion to `out`; problems that are in it already are not sampled again.

    Rows are written after about `ROUNDS` x `max_rows` completions, of one problem at least.
    """
    tokenizer = engine.tokenizer
    done: dict[str, int] = {}
    for row in read_rows(out, missing_ok=True):
        done[row["problem_id"]] = done.get(row["problem_id"], 0) + 1
    left = [problem for problem in problems if done.get(problem.id, 0) < sampling.n]
    size = max(1, ROUNDS * engine.max_rows // sampling.n)  # problems
    with RowWriter(out) as rows:
        for start in range(0, len(left), size):
            part = left[start : start + size]
            prompts = [chat.render(problem, tokenizer) for problem in part]
            before = len(problems) - len(left) + start
            answers = engine.generate(
                prompts, sampling, lambda n, _, b=before: report(b * sampling.n + n, len(problems) * sampling.n)
            )
            for scored in judge(part, answers, chat, tokenizer):
                if scored["sample"] >= done.get(scored["problem_id"], 0):
                    rows.append(scored)
    wanted = {problem.id for problem in problems}
    return summarise([Scored.from_row(row) for row in read_rows(out) if row["problem_id"] in wanted])


def judge(problems: Sequence[Problem], answers: Any, chat: ChatFormat, tokenizer: Any) -> list[dict[str, Any]]:
    """One row per completion: `Scored`, the question and the response."""
    from r1kit.verifiers import verify_all

    flat = [(p, n, c, chat.complete(c.text)) for p, cs in zip(problems, answers, strict=True) for n, c in enumerate(cs)]
    verdicts: dict[int, Any] = {}
    for name in {problem.verifier for problem in problems}:
        chosen = [i for i, (problem, *_) in enumerate(flat) if problem.verifier == name]
        found = verify_all(name, [flat[i][3] for i in chosen], [flat[i][0].answer for i in chosen])
        verdicts |= dict(zip(chosen, found, strict=True))

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    return [
        asdict(score(problem, completion, verdicts[i], text, number, count))
        | {"question": problem.prompt, "answer": problem.answer, "completion": text}
        for i, (problem, number, completion, text) in enumerate(flat)
    ]


def check(context: Context) -> None:
    """Refuse device, tasks and prompts that cannot work, before a stage starts."""
    check_model(context, training=False)


def run(context: Context) -> Mapping[str, Any]:
    """Leaves completions.jsonl and results.json."""
    from r1kit.models.load import load

    settings: EvaluateSettings = context.settings
    task = load_tasks(settings.tasks, training=False)
    policy = load(str(context.input("model")), device=settings.device)
    chat = settings.chat
    problems = Fitting(task, chat, policy, max_tokens=settings.max_tokens).problems

    def report(done: int, total: int) -> None:
        context.progress.step(done, total)

    engine = open_policy_engine(settings, policy)
    summary = measure(engine, problems, chat, settings.sampling(), context.folder / "completions.jsonl", report)
    write_json(context.folder / "results.json", summary.to_json())
    return {name: estimate.mean for name, estimate in summary.overall.items()}


EVALUATE = Kind(name="evaluate", run=run, settings=EvaluateSettings, version=2, check=check)
