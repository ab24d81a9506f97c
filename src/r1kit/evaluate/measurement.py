"""Measure a model: sample every problem, verify the completions, keep a row for each, summarise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1kit.chat import ChatFormat, whole_response
from r1kit.data.journal import Journal
from r1kit.data.jsonl import read_rows
from r1kit.engines import Engine, Report, require_all
from r1kit.evaluate.metrics import Scored, score
from r1kit.evaluate.statistics import Summary, summarise
from r1kit.types import Completion, Problem, Prompt, SamplingParams, Verdict
from r1kit.verifiers import find, verify_all


def check_verifiers(problems: Sequence[Problem]) -> None:
    """Raise ValueError for a problem without a verifier, or with one that does not exist."""
    for problem in problems:
        if not problem.verifier:
            lacks = "it has no reference answer and no verifier"
            raise ValueError(f"{problem.id} cannot be evaluated: {lacks}; leave the problem out")
    for name in {problem.verifier for problem in problems}:
        find(name)


def measure(
    engine: Engine,
    problems: Sequence[Problem],
    chat: ChatFormat,
    sampling: SamplingParams,
    out: Path,
    report: Report,
    *,
    tokenizer: Any = None,
    batch: int = 512,
) -> Summary:
    """Append a row per completion to `out`, and summarise them. Problems with all their rows there are not sampled.

    `tokenizer` renders prompts and counts tokens. Without one, the engine gets messages, and lengths in tokens are
    known only if it returns token ids. Rows are written after about `batch` completions, at least one problem. Raises
    `StoreError` if rows of an earlier attempt are not those that it wrote.
    """
    with Journal(out, keeps_stateless=True):  # cuts off what a killed attempt left
        pass
    done = {(row["problem_id"], row["sample"]) for row in read_rows(out, missing_ok=True)}
    left = [each for each in problems if any((each.id, sample) not in done for sample in range(sampling.n))]
    size = max(1, batch // sampling.n)
    with Journal(out, keeps_stateless=True) as rows:
        for start in range(0, len(left), size):
            part = left[start : start + size]
            finished = (len(problems) - len(left) + start) * sampling.n

            def report_all(n: int, _: int, finished: int = finished) -> None:
                report(finished + n, len(problems) * sampling.n)

            prompts = [prompt_of(problem, chat, tokenizer) for problem in part]
            answers = engine.generate(prompts, sampling, report_all)
            require_all(answers, prompts, sampling.n)
            judged = judge(part, prompts, answers, tokenizer)
            rows.append([row for row in judged if (row["problem_id"], row["sample"]) not in done], {})
    ids = {problem.id for problem in problems}
    return summarise([Scored.from_row(row) for row in read_rows(out) if row["problem_id"] in ids])


def prompt_of(problem: Problem, chat: ChatFormat, tokenizer: Any) -> Prompt:
    """The prompt as token ids; as messages alone without a tokenizer."""
    if tokenizer is None:
        return Prompt(problem_id=problem.id, messages=chat.messages(problem), token_ids=())
    return chat.render(problem, tokenizer)


def judge(
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Completion]],
    tokenizer: Any = None,
) -> list[dict[str, Any]]:
    """One row per completion: the fields of `Scored`, the question, the reference answer and the response."""
    flat = [
        (problem, sample, completion, whole_response(prompt, completion))
        for problem, prompt, completions in zip(problems, prompts, answers, strict=True)
        for sample, completion in enumerate(completions)
    ]
    verdicts: dict[int, Verdict] = {}
    for name in {problem.verifier for problem in problems}:
        chosen = [i for i, (problem, *_) in enumerate(flat) if problem.verifier == name]
        responses, references = [flat[i][3] for i in chosen], [flat[i][0].answer for i in chosen]
        verdicts |= dict(zip(chosen, verify_all(name, responses, references), strict=True))
    count = None if tokenizer is None else lambda text: len(tokenizer.encode(text, add_special_tokens=False))
    return [
        asdict(score(problem, completion, verdicts[i], response, sample, count))
        | {"question": problem.prompt, "answer": problem.answer, "completion": response}
        for i, (problem, sample, completion, response) in enumerate(flat)
    ]
