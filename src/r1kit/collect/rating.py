"""Verdicts and scores of responses: rules first, a judge where no rule can tell; unknown stays unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from r1kit.collect.prompting import Request
from r1kit.curate import formats
from r1kit.curate.ngrams import numbers
from r1kit.curate.record import asked
from r1kit.judges import GenerativeVerifier, RubricJudge
from r1kit.rewards import reasoning
from r1kit.rewards.verdicts import verify
from r1kit.types import Message, Verdict
from r1kit.verifiers.language import LANGUAGES, count_words, share

MIN_NUMBERS = 3  # of a chain without words, lest a lone answer pass for one
MAX_FAILED = 0.2  # of a batch's verdicts: beyond it the verifier is broken, and what it says is not used


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What is known of one response; scores are from 0 to 1, None where nobody can tell."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def correct(self) -> bool | None:
        """False where one verdict says wrong, True where one says right and none wrong."""
        known = [verdict.correct for verdict in self.verdicts.values() if verdict.correct is not None]
        return all(known) if known else None


@dataclass
class Rater:
    """Rates responses; `tally` counts what could not be told.

    Rules give verdicts, except for sources that match `judge_sources`. `judge` compares with the reference where they
    do not tell. `helpful` scores responses of general requests, `depth` the reasoning in place of the rule for it.
    """

    judge: GenerativeVerifier | None = None
    helpful: RubricJudge | None = None
    depth: RubricJudge | None = None
    judge_sources: tuple[str, ...] = ()
    tally: Counter[str] = field(default_factory=Counter)

    def rate(self, requests: Sequence[Request], responses: Sequence[str]) -> list[Rating]:
        """One rating for each pair. Raises ValueError where a verifier breaks on many of them."""
        verdicts: list[dict[str, Verdict]] = [{} for _ in requests]
        self._by_rule(requests, responses, verdicts)
        if self.judge is not None:
            self._by_judge(self.judge, requests, responses, verdicts)
        scores = self._scores(requests, responses)
        return [Rating(verdicts=one, scores=other) for one, other in zip(verdicts, scores, strict=True)]

    def _by_rule(self, requests: Sequence[Request], responses: Sequence[str], found: list[dict[str, Verdict]]) -> None:
        by_name: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            problem = request.problem
            if problem.verifier and problem.answer.strip() and not self._is_judged(problem.source):
                by_name.setdefault(problem.verifier, []).append(place)
        for name, places in by_name.items():
            verdicts = verify(
                name, [responses[one] for one in places], [requests[one].problem.answer for one in places]
            )
            outcomes = Counter(f"verdicts {verdict.outcome}" for verdict in verdicts)
            self.tally.update(outcomes)
            _refuse_broken(name, verdicts)
            for place, verdict in zip(places, verdicts, strict=True):
                found[place][name] = verdict

    def _is_judged(self, source: str) -> bool:
        return any(fnmatchcase(source, pattern) for pattern in self.judge_sources)

    def _by_judge(
        self,
        judge: GenerativeVerifier,
        requests: Sequence[Request],
        responses: Sequence[str],
        found: list[dict[str, Verdict]],
    ) -> None:
        """Ask about the pairs with a reference on which no rule has a verdict."""
        places = [
            place
            for place, request in enumerate(requests)
            if request.problem.answer.strip() and all(verdict.correct is None for verdict in found[place].values())
        ]
        given = [requests[place] for place in places]
        verdicts = judge.verify(
            [responses[place] for place in places],
            [one.problem.answer for one in given],
            [_asked(one) for one in given],
        )
        self.tally.update(f"judge {verdict.outcome}" for verdict in verdicts)
        for place, verdict in zip(places, verdicts, strict=True):
            found[place]["judge"] = verdict

    def _scores(self, requests: Sequence[Request], responses: Sequence[str]) -> list[dict[str, float | None]]:
        questions = [_asked(request) for request in requests]
        if self.helpful is not None:
            found = self.helpful.assess(responses, questions)
            return [
                {"helpfulness": one.score, "language": _language(request, response)}
                for one, request, response in zip(found, requests, responses, strict=True)
            ]
        judged = self.depth.assess(responses, questions) if self.depth is not None else None
        scores = []
        for place, (request, response) in enumerate(zip(requests, responses, strict=True)):
            scores.append(
                {
                    "reasoning": _depth(request, response) if judged is None else judged[place].score,
                    "language": _language(request, response),
                    "format": float(formats.split(response) is not None),
                }
            )
        return scores

    def counts(self) -> Counter[str]:
        """The tally, with those of the judges."""
        judges = {"judge": self.judge, "helpfulness judge": self.helpful, "reasoning judge": self.depth}
        counted = Counter(self.tally)
        for name, judge in judges.items():
            if judge is not None:
                told = judge.tally
                counted.update(
                    {
                        f"{name} replies": told.replies,
                        f"{name} unreadable": told.unreadable,
                        f"{name} refused": told.refused,
                    }
                )
        return counted


def _asked(request: Request) -> str:
    """What a judge reads of a request: the turns before the question too."""
    return asked((*request.history, Message(role="user", content=request.problem.prompt)))


def _refuse_broken(name: str, verdicts: Sequence[Verdict]) -> None:
    failed = [verdict for verdict in verdicts if verdict.outcome == "failed"]
    if len(failed) > max(3, MAX_FAILED * len(verdicts)):
        raise ValueError(
            f"verifier {name} failed on {len(failed)} of {len(verdicts)} responses ({failed[0].detail[:200]}): mend "
            "it; nothing was decided by it"
        )


def _depth(request: Request, response: str) -> float | None:
    """The rule's score of the reasoning; None for bare notation (`35 87 -> 87, 87 30 -> 87`), which it cannot read."""
    parts = formats.split(response)
    if parts is None:
        return 0.0
    found = reasoning.quality(parts.reasoning, parts.summary, request.problem.prompt).score
    shown = len(numbers(parts.reasoning))
    if not found and shown >= MIN_NUMBERS and count_words(parts.reasoning).total() <= shown:
        return None
    return found


def _language(request: Request, response: str) -> float | None:
    language = request.problem.language
    return share(response, language) if language in LANGUAGES else None
