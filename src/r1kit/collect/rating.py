"""Verdicts and scores of responses: from rules first, from a judge if no rule can tell. Unknown stays unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from r1kit.collect.prompting import Request
from r1kit.curate import formats
from r1kit.curate.ngrams import numbers
from r1kit.curate.record import question_text
from r1kit.judges import GenerativeVerifier, PairwiseJudge, RubricJudge
from r1kit.rewards import reasoning
from r1kit.rewards.verdicts import verify
from r1kit.types import Message, Verdict
from r1kit.verifiers.language import LANGUAGES, count_words, share

MIN_NUMBERS = 3  # fewer numbers without words are a bare answer, not a chain of steps
MAX_FAILED = 0.2  # share of failed verdicts above which a verifier counts as broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """The verdicts on one response, and its scores from 0 to 1 (None: unknown)."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def correct(self) -> bool | None:
        """False if any verdict says wrong, True if one says right and none wrong, None if all are unknown."""
        known = [verdict.correct for verdict in self.verdicts.values() if verdict.correct is not None]
        return all(known) if known else None


@dataclass
class Rater:
    """Rates responses; `tally` counts verdicts by outcome.

    Rules give verdicts, except for sources that match `judge_sources`. `judge` compares with the reference if no rule
    has a verdict. `helpful` scores responses to general requests, `depth` the reasoning in place of the rule.
    """

    judge: GenerativeVerifier | None = None
    helpful: RubricJudge | None = None
    depth: RubricJudge | None = None
    judge_sources: tuple[str, ...] = ()
    tally: Counter[str] = field(default_factory=Counter)

    def rate(self, requests: Sequence[Request], responses: Sequence[str]) -> list[Rating]:
        """One rating for each pair; raises ValueError if a verifier fails on many of them."""
        verdicts: list[dict[str, Verdict]] = [{} for _ in requests]
        by_rule: dict[str, list[int]] = {}  # places of the pairs that a verifier judges
        for place, request in enumerate(requests):
            problem = request.problem
            is_judged = any(fnmatchcase(problem.source, pattern) for pattern in self.judge_sources)
            if problem.verifier and problem.answer.strip() and not is_judged:
                by_rule.setdefault(problem.verifier, []).append(place)
        for name, places in by_rule.items():
            references = [requests[place].problem.answer for place in places]
            ruled = verify(name, [responses[place] for place in places], references)
            self.tally.update(f"verdicts {verdict.outcome}" for verdict in ruled)
            failed = [verdict for verdict in ruled if verdict.outcome == "failed"]
            if len(failed) > max(3, MAX_FAILED * len(ruled)):
                raise ValueError(
                    f"verifier {name} failed on {len(failed)} of {len(ruled)} responses "
                    f"({failed[0].detail[:200]}): fix it; none of its verdicts was used"
                )
            for place, verdict in zip(places, ruled, strict=True):
                verdicts[place][name] = verdict
        if self.judge is not None:  # it judges each pair that has a reference and no verdict yet
            places = [
                place
                for place, request in enumerate(requests)
                if request.problem.answer.strip() and all(rule.correct is None for rule in verdicts[place].values())
            ]
            judged = self.judge.verify(
                [responses[place] for place in places],
                [requests[place].problem.answer for place in places],
                [_question(requests[place]) for place in places],
            )
            self.tally.update(f"judge {verdict.outcome}" for verdict in judged)
            for place, verdict in zip(places, judged, strict=True):
                verdicts[place]["judge"] = verdict
        scores = self._scores(requests, responses)
        return [Rating(verdicts=known, scores=parts) for known, parts in zip(verdicts, scores, strict=True)]

    def _scores(self, requests: Sequence[Request], responses: Sequence[str]) -> list[dict[str, float | None]]:
        questions = [_question(request) for request in requests]
        pairs = list(zip(requests, responses, strict=True))
        languages = [
            share(response, request.problem.language) if request.problem.language in LANGUAGES else None
            for request, response in pairs
        ]
        if self.helpful is not None:
            helpfulness = [assessment.score for assessment in self.helpful.assess(responses, questions)]
            return [{"helpfulness": a, "language": b} for a, b in zip(helpfulness, languages, strict=True)]
        if self.depth is not None:
            reasoning_scores = [assessment.score for assessment in self.depth.assess(responses, questions)]
        else:
            reasoning_scores = [_reasoning_score(*pair) for pair in pairs]
        in_format = [float(formats.split(response) is not None) for response in responses]
        columns = zip(reasoning_scores, languages, in_format, strict=True)
        return [{"reasoning": a, "language": b, "format": c} for a, b, c in columns]

    def counts(self) -> Counter[str]:
        """The tally together with the tallies of the judges."""
        judges = {"judge": self.judge, "helpfulness judge": self.helpful, "reasoning judge": self.depth}
        counts = Counter(self.tally)
        for name, judge in judges.items():
            counts += judge_counts(judge, name) if judge is not None else Counter()
        return counts


def judge_counts(judge: GenerativeVerifier | RubricJudge | PairwiseJudge, name: str = "judge") -> Counter[str]:
    """How many replies a judge gave, how many of them were unreadable, and how often it was refused."""
    return Counter({f"{name} {key}": getattr(judge.tally, key) for key in ("replies", "unreadable", "refused")})


def useless_helpers(counts: Mapping[str, int]) -> list[str]:
    """A line for each judge or rewriter of which no reply could be read; `counts` are those of a stage."""
    unreadable = {name.removesuffix(" unreadable"): n for name, n in counts.items() if name.endswith(" unreadable")}
    return [
        f"none of the {count:,} replies of the {name} could be read, so its part of the work is missing: ask another "
        "model, or raise its max_tokens"
        for name, count in unreadable.items()
        if count and count == counts.get(f"{name} replies")
    ]


def _question(request: Request) -> str:
    """The text of a request for a judge, including the turns before the question."""
    return question_text((*request.history, Message(role="user", content=request.problem.prompt)))


def _reasoning_score(request: Request, response: str) -> float | None:
    """The rule's score of the reasoning; None for bare notation (`35 87 -> 87, 87 30 -> 87`), which it cannot read."""
    parts = formats.split(response)
    if parts is None:
        return 0.0
    score = reasoning.quality(parts.reasoning, parts.summary, request.problem.prompt).score
    count = len(numbers(parts.reasoning))
    if not score and count >= MIN_NUMBERS and count_words(parts.reasoning).total() <= count:
        return None
    return score
