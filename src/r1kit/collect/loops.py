"""The two loops of the stage `generate`: requests to rated samples, and kept samples to rated rewritings.

Both go through a `Journal`, batch by batch in a fixed order, so memory is that of one batch, and a run that was killed
goes on and comes to the rows that it would have come to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from r1kit.collect.prompting import General, Request, turns
from r1kit.collect.rating import Rater, Rating
from r1kit.collect.requests import Requests
from r1kit.collect.rewriting import Rewriter, Rewritten
from r1kit.collect.teachers import Asked, AskingSettings, References
from r1kit.curate.record import CuratedSample, from_row
from r1kit.data.journal import Journal
from r1kit.data.jsonl import lines, read_rows
from r1kit.engines import Report
from r1kit.engines.ask import Answers
from r1kit.pipeline import Progress
from r1kit.types import Completion, Message, Problem

# Samples between two looks at the disk: what a kill of a local model can cost (a server's replies are cached one by
# one). Fewer would let its batch run empty more often.
BATCH = 1024
TOLD = 3  # refused prompts that are shown
T = TypeVar("T")


@dataclass(frozen=True)
class Making:
    """What makes the samples of one stage."""

    stage: str
    settings: AskingSettings
    asked: Asked | References
    rater: Rater

    def rows(self, requests: Sequence[Request], answers: Sequence[Answers]) -> list[CuratedSample]:
        """The samples of some requests, rated, in order; those that were refused have none."""
        drawn = [
            (request, number, one, self.asked.response(request, one))
            for request, completions in zip(requests, answers, strict=True)
            if not isinstance(completions, str)
            for number, one in enumerate(completions)
        ]
        ratings = self.rater.rate([request for request, *_ in drawn], [response for *_, response in drawn])
        rates = _pass_rates([request.problem.id for request, *_ in drawn], ratings)
        return [
            self._sample(request, number, completion, response, rating, rates[request.problem.id])
            for (request, number, completion, response), rating in zip(drawn, ratings, strict=True)
        ]

    def _sample(
        self, request: Request, number: int, completion: Completion, response: str, rating: Rating, rate: float | None
    ) -> CuratedSample:
        problem, settings, way = request.problem, self.settings, getattr(self.asked, "way", None)
        made_by: dict[str, Any] = {"stage": self.stage, "prompting": settings.prompting, "model": self.asked.model}
        if isinstance(self.asked, Asked):
            drawn = {"temperature": settings.temperature, "top_p": settings.top_p, "seed": settings.seed}
            made_by |= drawn | {"sample": number}
        hard = {"hard": way.is_hard(request)} if isinstance(way, General) else {}
        return CuratedSample(
            id=f"{self.stage}/{problem.id}#{number}",
            messages=(*turns(settings.row_system, request), Message(role="assistant", content=response)),
            problem_id=problem.id,
            source=problem.source,
            language=problem.language,
            answer=problem.answer or None,
            verdicts=rating.verdicts,
            scores=rating.scores,
            pass_rate=rate,
            tokens=len(completion.token_ids) or None,
            finish_reason=completion.finish_reason,
            made_by=made_by,
            metadata={"verifier": problem.verifier, **hard},
        )


def sample(making: Making, requests: Requests, journal: Journal, progress: Progress) -> None:
    """Ask for all samples that the journal does not have yet; what cannot be asked is refused before anything is."""
    asked, samples = making.asked, making.asked.samples
    total = requests.check(asked.check) * samples
    size = max(1, BATCH // samples)
    for batch in requests.batches(size, skip=journal.batches):
        done = journal.batches * size * samples
        answers = asked.answers(batch, _reporting(progress, done, total))
        before = making.rater.counts()
        rows = making.rows(batch, answers)
        refused = {one.problem.id: why for one, why in zip(batch, answers, strict=True) if isinstance(why, str)}
        if not journal.counts["prompts left out"]:
            for name, why in list(refused.items())[:TOLD]:
                progress.say(f"left out {name}: {why}")
        counts = {"asked": len(batch) * samples, "prompts left out": len(refused) * samples}
        journal.append(rows, making.rater.counts() - before + Counter(counts))
        progress.step(done + len(batch) * samples, total)
    journal.finish()


def _reporting(progress: Progress, done: int, total: int) -> Report:
    """Tells `progress` of completions as they come, on top of those that are done."""
    return lambda count, _: progress.step(min(done + count, total), total)


def _pass_rates(problems: Sequence[str], ratings: Sequence[Rating]) -> dict[str, float | None]:
    """Right samples over those that could be judged, for each problem; None where none could."""
    known: dict[str, list[bool]] = {name: [] for name in problems}
    for name, rating in zip(problems, ratings, strict=True):
        correct = rating.correct
        if correct is not None:
            known[name].append(correct)
    return {name: sum(one) / len(one) if one else None for name, one in known.items()}


def rewrite(selected: Path, rewriter: Rewriter, rater: Rater, journal: Journal, progress: Progress) -> None:
    """Rewrite all samples of a file that the journal does not have yet."""
    total = sum(1 for _ in lines(selected))
    rows = islice(read_rows(selected), journal.rows, None)
    for batch in _batches((from_row(row, file=str(selected)) for row in rows), BATCH):
        before, judged = Counter(rewriter.tally), rater.counts()
        found = rewriter.rewrite(batch, _reporting(progress, journal.rows, total))
        requests = [_request(one) for one in batch]
        ratings = rater.rate(requests, [one.response for one in found])
        made = [_rewriting(*row, rewriter) for row in zip(batch, found, ratings, strict=True)]
        counts = Counter({f"rewriter {name}": count for name, count in (rewriter.tally - before).items()})
        counts.update({f"rewriting {name}": count for name, count in (rater.counts() - judged).items()})
        journal.append(made, counts)
        progress.step(journal.rows, total)
    journal.finish()


def _rewriting(one: CuratedSample, found: Rewritten, rating: Rating, rewriter: Rewriter) -> CuratedSample:
    drawn = {"temperature": rewriter.settings.temperature, "top_p": rewriter.settings.top_p, "seed": rewriter.seed}
    detail = {"rewriter": found.detail} if found.detail else {}
    return CuratedSample(
        id=f"{one.id}/rewritten",
        messages=(*one.messages[:-1], Message(role="assistant", content=found.response)),
        problem_id=one.problem_id,
        source=one.source,
        language=one.language,
        answer=one.answer,
        verdicts=rating.verdicts,
        scores=rating.scores,
        pass_rate=one.pass_rate,
        tokens=found.tokens,
        finish_reason=found.finish_reason,
        parent=one.id,
        metadata={**one.metadata, **detail},
        made_by={**one.made_by, "prompting": "rewrite", "rewriter": {"model": rewriter.model, **drawn}},
    )


def _request(one: CuratedSample) -> Request:
    problem = Problem(
        id=one.problem_id,
        prompt=one.question,
        answer=one.answer or "",
        verifier=str(one.metadata.get("verifier") or ""),
        language=one.language,
        source=one.source,
    )
    return Request(problem=problem, history=one.messages[:-2])


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
