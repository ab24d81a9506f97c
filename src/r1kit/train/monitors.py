"""What an RL run watches beside its reward: verdicts that fail, and the known ways to cheat.

All are numbers per step, written to metrics.jsonl and judged in the health part of the report; only verdicts that fail
stop the run, since nothing good can be learned from them. A second opinion on some verdicts is in `audit`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean

from r1kit import chat
from r1kit.rewards.length import repetition
from r1kit.types import Group, Outcome, Rollout
from r1kit.verifiers import exact, extract, number
from r1kit.verifiers.language import LANGUAGES, is_mixed, share

Complete = Callable[[str], str]  # the whole response of a completion, what the prompt prefilled included

MISSING = ("unknown", "failed")
_WINDOW = 64  # problems; fewer say little about a data set's references
_NUMBER = re.compile(r"(?<![\w.])-?\d(?:[\d,]{0,20}\d)?(?:\.\d{1,12})?(?:/\d{1,12})?(?!\w)")


class VerdictError(ValueError):
    """Too many verdicts of a step cannot be given: what is learned from the rest would be chance."""


def verdict_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """The shares of verdicts that cannot tell (`unknown`, for any reason) and that the verifier failed to give."""
    found = [outcome for group in groups for outcome in _outcomes(group)]
    if not found:
        return {}
    return {"verifier/unknown": _missing(found), "verifier/failed": found.count("failed") / len(found)}


@dataclass
class Alarm:
    """Raises `VerdictError` where verdicts are missing above a rate.

    Failures of the verifier count step by step (two at least). References that cannot be used count over the last
    `_WINDOW` problems or more, since a problem brings a whole group of them; a resumed run counts anew.
    """

    limit: float
    seen: list[tuple[Group, list[Outcome]]] = field(default_factory=list)  # a problem and its verdicts

    def check(self, step: int, groups: Sequence[Group]) -> None:
        judged = [(group, outcomes) for group in groups if (outcomes := _outcomes(group))]
        failed = [verdict for _, found in judged for verdict in found].count("failed")
        total = sum(len(found) for _, found in judged)
        if failed > max(1, self.limit * total):
            what = f"the verifier failed on {failed} of {total} completions"
            raise VerdictError(self._message(step, what, judged, "mend the verifier"))
        self.seen = [*self.seen, *judged][-max(_WINDOW, len(judged)) :]
        rate = fmean(_missing(found) for _, found in self.seen) if self.seen else 0.0
        if len(self.seen) >= _WINDOW and rate > self.limit:
            what = f"{rate:.0%} of the verdicts on the last {len(self.seen)} problems cannot tell"
            raise VerdictError(self._message(step, what, self.seen, "mend or drop problems whose answers are unusable"))

    def _message(self, step: int, what: str, judged: Sequence[tuple[Group, list[Outcome]]], remedy: str) -> str:
        group = next(group for group, found in reversed(judged) if _missing(found))
        verdicts = [one.reward.verdict for one in group.rollouts]
        detail = next(verdict.detail for verdict in verdicts if verdict is not None and verdict.correct is None)
        return (
            f"step {step}: {what} (max_unknown_rate is {self.limit:g}), such as {group.problem.id} by "
            f"{group.problem.verifier!r}: {detail}. Nothing was learned from this step; its completions are in "
            f"rollouts/step-{step:06d}.jsonl. To go on from the step before: {remedy}, or raise max_unknown_rate, and "
            "run the same command again"
        )


def _outcome(rollout: Rollout) -> Outcome | None:
    return None if rollout.reward.verdict is None else rollout.reward.verdict.outcome


def _outcomes(group: Group) -> list[Outcome]:
    """The outcomes of the group's verdicts; rollouts without a verdict are left out."""
    return [outcome for rollout in group.rollouts if (outcome := _outcome(rollout)) is not None]


def _extracted(rollout: Rollout) -> str | None:
    """The answer that the verifier found in the response; None if it found none."""
    return (rollout.reward.verdict.extracted or None) if rollout.reward.verdict is not None else None


def _missing(verdicts: Sequence[Outcome]) -> float:
    """The share of verdicts that cannot tell."""
    return sum(verdict in MISSING for verdict in verdicts) / len(verdicts)


def hack_metrics(groups: Sequence[Group], complete: Complete) -> dict[str, float]:
    """How the completions of a step look where rewards are known to be cheated; shares are between 0 and 1.

    `hack/format_only`: in form and wrong. `hack/copied`: wrong, and nothing but a number of the prompt.
    `hack/one_answer`: how much oftener the commonest answer is given than it is right. `hack/repetition`: of word
    trigrams, those that came before. `language/other`: most words are not in the problem's script.
    """
    rollouts = [one for group in groups for one in group.rollouts]
    responses = [complete(one.completion.text) for one in rollouts]
    row = {
        "hack/repetition": fmean(repetition(text) for text in responses),
        "language/mixed": fmean(is_mixed(text) for text in responses),
    }
    spoken = [
        share(text, group.problem.language)
        for group, texts in zip(groups, _split(responses, groups), strict=True)
        if group.problem.language in LANGUAGES
        for text in texts
    ]
    known = [value for value in spoken if value is not None]
    if known:
        row["language/other"] = fmean(value < 0.5 for value in known)
    verdicts = [_outcome(one) for one in rollouts]
    decided = [at for at, verdict in enumerate(verdicts) if verdict in ("right", "wrong")]
    if decided:
        in_form = {at for at in decided if chat.parse(responses[at]).well_formed}
        row["hack/format_only"] = fmean(verdicts[at] == "wrong" and at in in_form for at in decided)
    for name in ("right", "wrong"):
        lengths = [len(rollouts[at].completion.token_ids) for at in decided if verdicts[at] == name]
        if lengths:
            row[f"completion/length_{name}"] = fmean(lengths)
    return row | _copied(groups) | _one_answer(groups)


def _split(values: Sequence[str], groups: Sequence[Group]) -> list[list[str]]:
    """A flat list per group."""
    rest = iter(values)
    return [[next(rest) for _ in group.rollouts] for group in groups]


def _copied(groups: Sequence[Group]) -> dict[str, float]:
    copied: list[bool] = []
    for group in groups:
        shown = "\n".join(turn.content for turn in group.rollouts[0].prompt.messages if turn.role != "system")
        values = {_value(match[0]) for match in _NUMBER.finditer(shown or group.problem.prompt)} - {None}
        for one in group.rollouts:
            verdict, given = _outcome(one), _extracted(one)
            if verdict in ("right", "wrong"):
                copied.append(verdict == "wrong" and given is not None and _value(given) in values)
    return {"hack/copied": fmean(copied)} if copied else {}


def _one_answer(groups: Sequence[Group]) -> dict[str, float]:
    """Shares over completions; references are counted as often as they are asked for."""
    given = Counter(
        _plain(answer) for group in groups for one in group.rollouts if (answer := _extracted(one)) is not None
    )
    if not given or len({group.problem.id for group in groups}) < 2:
        return {}
    (commonest, count), asked = given.most_common(1)[0], sum(len(group.rollouts) for group in groups)
    right = sum(len(group.rollouts) for group in groups if _plain(extract.reference(group.problem.answer)) == commonest)
    return {"hack/one_answer": max(0.0, (count - right) / asked)}


def _plain(answer: str) -> str:
    value = _value(answer)
    return exact.normalise(answer[: extract.MAX_ANSWER_CHARS]) if value is None else str(value)


def _value(answer: str) -> Fraction | None:
    if len(answer) > extract.MAX_ANSWER_CHARS:
        return None
    found = number.parse(answer)
    return None if found is None else found.value
