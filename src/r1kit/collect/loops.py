"""The two loops of the stage `generate`: requests become rated samples, and kept samples become rated rewritings.

Both write batches in a fixed order to a `Journal`. Memory is that of one batch, and a killed run resumes to the same
rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from r1kit.collect.prompting import General, Request, turns
from r1kit.collect.rating import Rater
from r1kit.collect.replicas import Answered
from r1kit.collect.requests import Requests
from r1kit.collect.responses import ReferenceResponses, ResponseModel, ResponseSettings
from r1kit.collect.rewriting import Rewriter
from r1kit.curate.record import CuratedSample, from_row
from r1kit.data.journal import Journal
from r1kit.data.jsonl import lines, read_rows
from r1kit.engines import Report
from r1kit.engines.ask import Answers
from r1kit.pipeline import Progress
from r1kit.types import Message, Problem

# Samples per batch: a kill of a local model costs at most one batch (a server's replies are cached one by one), and
# each batch ends with fewer rows in flight, so smaller ones would be slower.
BATCH = 1024
REFUSED_SHOWN = 3  # prompts


@dataclass(frozen=True)
class Generation:
    """Turns requests into the samples of one stage."""

    stage: str
    settings: ResponseSettings
    responses: ResponseModel | ReferenceResponses
    rater: Rater

    def samples(self, requests: Sequence[Request], answers: Sequence[Answers]) -> list[CuratedSample]:
        """The rated samples of some requests, in order; a refused request has none."""
        draws = [
            (request, number, completion, self.responses.response(request, completion))
            for request, completions in zip(requests, answers, strict=True)
            if not isinstance(completions, str)
            for number, completion in enumerate(completions)
        ]
        ratings = self.rater.rate([request for request, *_ in draws], [response for *_, response in draws])
        known: dict[str, list[bool]] = {}  # the verdicts by problem
        for (request, *_), rating in zip(draws, ratings, strict=True):
            known.setdefault(request.problem.id, []).extend([] if rating.correct is None else [rating.correct])
        rates = {name: sum(verdicts) / len(verdicts) if verdicts else None for name, verdicts in known.items()}
        settings, source, samples = self.settings, self.responses, []
        for (request, number, completion, response), rating in zip(draws, ratings, strict=True):
            problem = request.problem
            metadata: dict[str, Any] = {"verifier": problem.verifier}
            made_by: dict[str, Any] = {"stage": self.stage, "prompting": settings.prompting, "model": source.model}
            if isinstance(source, ResponseModel):
                sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "seed": settings.seed}
                made_by |= sampling | {"sample": number}
                if isinstance(source.prompting, General):
                    metadata["hard"] = source.prompting.is_hard(request)
            sample = CuratedSample(
                id=f"{self.stage}/{problem.id}#{number}",
                messages=(*turns(settings.row_system, request), Message(role="assistant", content=response)),
                problem_id=problem.id,
                source=problem.source,
                language=problem.language,
                answer=problem.answer or None,
                verdicts=rating.verdicts,
                scores=rating.scores,
                pass_rate=rates[problem.id],
                tokens=len(completion.token_ids) or None,
                finish_reason=completion.finish_reason,
                made_by=made_by,
                metadata=metadata,
            )
            samples.append(sample)
        return samples


def sample_all(
    generation: Generation,
    requests: Requests,
    journal: Journal,
    progress: Progress,
    replicas: Callable[[Iterable[list[Request]]], Answered] | None = None,
) -> None:
    """Add all samples that the journal lacks. All prompts are checked before the first one is sampled.

    `replicas` answer several batches side by side, in place of the model in this process.
    """
    responses, samples = generation.responses, generation.responses.samples
    total = requests.check(responses.check) * samples
    size = max(1, BATCH // samples)
    batches = requests.batches(size, skip=journal.batches)

    def answered_here() -> Answered:
        for batch in batches:
            done = journal.batches * size * samples
            yield batch, responses.answers(batch, _report_to(progress, done, total))

    with closing(answered_here() if replicas is None else replicas(batches)) as answered:
        for batch, answers in answered:
            done = journal.batches * size * samples
            before = generation.rater.counts()
            rows = generation.samples(batch, answers)
            refusals = [(request, why) for request, why in zip(batch, answers, strict=True) if isinstance(why, str)]
            if not journal.counts["prompts left out"]:
                for request, why in refusals[:REFUSED_SHOWN]:
                    progress.say(f"left out {request.problem.id}: {why}")
            counts = {"asked": len(batch) * samples, "prompts left out": len(refusals) * samples}
            journal.append(rows, generation.rater.counts() - before + Counter(counts))
            progress.step(done + len(batch) * samples, total)
    journal.finish()


def _report_to(progress: Progress, done: int, total: int) -> Report:
    """Shows completions as they arrive, on top of the `done` ones of earlier batches."""
    return lambda count, _: progress.step(min(done + count, total), total)


def rewrite_all(selected: Path, rewriter: Rewriter, rater: Rater, journal: Journal, progress: Progress) -> None:
    """Rewrite all samples of a file that the journal lacks."""
    total = sum(1 for _ in lines(selected))
    rest = (from_row(row, file=str(selected)) for row in islice(read_rows(selected), journal.rows, None))
    sampling = {"temperature": rewriter.settings.temperature, "top_p": rewriter.settings.top_p, "seed": rewriter.seed}
    made_by = {"prompting": "rewrite", "rewriter": {"model": rewriter.model, **sampling}}
    while batch := list(islice(rest, BATCH)):
        tally, judged = Counter(rewriter.tally), rater.counts()
        rewritings = rewriter.rewrite(batch, _report_to(progress, journal.rows, total))
        requests = [  # that the samples answer, as the rater needs them
            Request(
                problem=Problem(
                    id=sample.problem_id,
                    prompt=sample.question,
                    answer=sample.answer or "",
                    verifier=str(sample.metadata.get("verifier") or ""),
                    language=sample.language,
                    source=sample.source,
                ),
                history=sample.messages[:-2],
            )
            for sample in batch
        ]
        ratings = rater.rate(requests, [rewriting.response for rewriting in rewritings])
        rows = [
            replace(
                sample,
                id=f"{sample.id}/rewritten",
                messages=(*sample.messages[:-1], Message(role="assistant", content=rewriting.response)),
                verdicts=rating.verdicts,
                scores=rating.scores,
                tokens=rewriting.tokens,
                finish_reason=rewriting.finish_reason,
                parent=sample.id,
                metadata={**sample.metadata, **({"rewriter": rewriting.detail} if rewriting.detail else {})},
                made_by={**sample.made_by, **made_by},
            )
            for sample, rewriting, rating in zip(batch, rewritings, ratings, strict=True)
        ]
        counts = Counter({f"rewriter {name}": count for name, count in (rewriter.tally - tally).items()})
        counts.update({f"rewriting {name}": count for name, count in (rater.counts() - judged).items()})
        journal.append(rows, counts)
        progress.step(journal.rows, total)
    journal.finish()
