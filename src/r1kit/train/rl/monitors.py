"""What an RL run monitors beside its reward: undecided verdicts, and known ways to cheat.

All are numbers per step in metrics.jsonl, which the report's health section judges. Only undecided verdicts stop the
run, because what it learns from the rest would be chance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import fmean

from r1kit import chat
from r1kit.rewards.length import repetition
from r1kit.types import Group, Outcome, Rollout
from r1kit.verifiers import exact, extract, number
from r1kit.verifiers.language import LANGUAGES, is_mixed, share

Judged = tuple[Group, list[Outcome]]  # a group and the outcomes of its verdicts

_WINDOW = 64  # problems; fewer say little about a data set's references
_NUMBER = re.compile(r"(?<![\w.])-?\d(?:[\d,]{0,20}\d)?(?:\.\d{1,12})?(?:/\d{1,12})?(?!\w)")


class VerdictError(ValueError):
    """Too few completions of a step were judged; learning from the rest would be chance."""


def verdict_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Fractions of verdicts that are undecided for any reason (`unknown`), and that the verifier failed to give."""
    outcomes = [outcome for group in groups for outcome in _outcomes(group)]
    if not outcomes:
        return {}
    return {"verifier/unknown": _undecided(outcomes), "verifier/failed": outcomes.count("failed") / len(outcomes)}


@dataclass
class Alarm:
    """Raises `VerdictError` if more than `limit` of the verdicts are undecided, or if no completion got a reward.

    Failures of the verifier count per step (at least two). Unusable references count over the last `_WINDOW` problems
    or more, since each problem brings a whole group of them; a resumed run starts a new window.
    """

    limit: float  # max_unknown_rate
    window: list[Judged] = field(default_factory=list)

    def check(self, step: int, groups: Sequence[Group]) -> None:
        judged = [(group, outcomes) for group in groups if (outcomes := _outcomes(group))]
        total = sum(len(outcomes) for _, outcomes in judged)
        # one failure may be an accident (a worker killed for memory)
        failed = sum(outcomes.count("failed") for _, outcomes in judged)
        if failed > max(1, self.limit * total):
            problem = f"the verifier failed on {failed} of {total} completions"
            raise VerdictError(self._message(step, problem, judged, "repair the verifier"))
        # at least this step's problems, even if they are more than a window
        self.window = [*self.window, *judged][-max(_WINDOW, len(judged)) :]
        rate = fmean(_undecided(outcomes) for _, outcomes in self.window) if self.window else 0.0
        if len(self.window) >= _WINDOW and rate > self.limit:
            problem = f"{rate:.0%} of the verdicts on the last {len(self.window)} problems are undecided"
            remedy = "correct or drop problems with unusable answers"
            raise VerdictError(self._message(step, problem, self.window, remedy))
        if all(rollout.reward.total is None for group in groups for rollout in group.rollouts):
            raise VerdictError(
                f"step {step}: no completion got a reward (all parts gave None): the verifier failed or the rewards "
                f"do not apply to this task; see rollouts/step-{step:06d}.jsonl in the stage's folder"
            )

    def _message(self, step: int, problem: str, judged: Sequence[Judged], remedy: str) -> str:
        group = next(group for group, outcomes in reversed(judged) if _undecided(outcomes))
        verdicts = [rollout.reward.verdict for rollout in group.rollouts]
        detail = next(verdict.detail for verdict in verdicts if verdict is not None and verdict.correct is None)
        return (
            f"step {step}: {problem} (max_unknown_rate is {self.limit:g}), such as {group.problem.id} by "
            f"{group.problem.verifier!r}: {detail}. Nothing was learned from this step; its completions are in "
            f"rollouts/step-{step:06d}.jsonl. To continue from the step before: {remedy}, or raise max_unknown_rate, "
            "and run the same command again"
        )


def hack_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Signs of known ways to cheat the reward, as fractions of the step's completions.

    `hack/format_only`: well formed and wrong. `hack/copied`: wrong, and the answer is just a number of the prompt.
    `hack/one_answer`: how much more often the most common answer is given than it is right. `hack/repetition`: repeated
    word trigrams. `language/mixed`: several languages. `language/other`: most words not in the problem's script.
    """
    rollouts = [(group, rollout) for group in groups for rollout in group.rollouts]
    responses = [chat.whole_response(rollout.prompt, rollout.completion) for _, rollout in rollouts]
    row = {
        "hack/repetition": fmean(repetition(text) for text in responses),
        "language/mixed": fmean(is_mixed(text) for text in responses),
    }
    shares = [
        share(text, group.problem.language)
        for (group, _), text in zip(rollouts, responses, strict=True)
        if group.problem.language in LANGUAGES
    ]
    # a response without words has no share
    if known := [value for value in shares if value is not None]:
        row["language/other"] = fmean(value < 0.5 for value in known)
    # right and wrong only: unknown verdicts say nothing about the policy
    decided = [
        (rollout, outcome, text)
        for (_, rollout), text in zip(rollouts, responses, strict=True)
        if (outcome := _outcome(rollout)) in ("right", "wrong")
    ]
    if decided:
        row["hack/format_only"] = fmean(
            outcome == "wrong" and chat.parse(text).well_formed for _, outcome, text in decided
        )
    for name in ("right", "wrong"):
        lengths = [len(rollout.completion.token_ids) for rollout, outcome, _ in decided if outcome == name]
        if lengths:
            row[f"completion/length_{name}"] = fmean(lengths)
    return row | _copied(groups) | _one_answer(groups)


def _copied(groups: Sequence[Group]) -> dict[str, float]:
    """The fraction of decided completions that are wrong and answer with a number of their prompt."""
    copied: list[bool] = []
    for group in groups:
        # without the system message, whose exemplars hold numbers of other problems
        prompt = "\n".join(turn.content for turn in group.rollouts[0].prompt.messages if turn.role != "system")
        numbers = {_as_number(match[0]) for match in _NUMBER.finditer(prompt or group.problem.prompt)} - {None}
        for rollout in group.rollouts:
            outcome, answer = _outcome(rollout), _extracted(rollout)
            if outcome in ("right", "wrong"):
                copied.append(outcome == "wrong" and answer is not None and _as_number(answer) in numbers)
    return {"hack/copied": fmean(copied)} if copied else {}


def _one_answer(groups: Sequence[Group]) -> dict[str, float]:
    """How much more often the step's most common answer is given than it is right; nothing for a single problem.

    Both are fractions of completions, so a problem that is drawn twice counts twice.
    """
    answers = Counter(
        _normalised(answer)
        for group in groups
        for rollout in group.rollouts
        if (answer := _extracted(rollout)) is not None
    )
    if not answers or len({group.problem.id for group in groups}) < 2:
        return {}
    (commonest, count), total = answers.most_common(1)[0], sum(len(group.rollouts) for group in groups)
    # how often it would be right: a task whose answers are mostly 0 is no sign of cheating
    right = sum(
        len(group.rollouts) for group in groups if _normalised(extract.reference(group.problem.answer)) == commonest
    )
    return {"hack/one_answer": max(0.0, (count - right) / total)}


def _outcome(rollout: Rollout) -> Outcome | None:
    return None if rollout.reward.verdict is None else rollout.reward.verdict.outcome


def _outcomes(group: Group) -> list[Outcome]:
    """The outcomes of the group's verdicts; rollouts without a verdict are left out."""
    return [outcome for rollout in group.rollouts if (outcome := _outcome(rollout)) is not None]


def _undecided(outcomes: Sequence[Outcome]) -> float:
    """The fraction of verdicts that are neither right nor wrong."""
    return sum(outcome in ("unknown", "failed") for outcome in outcomes) / len(outcomes)


def _extracted(rollout: Rollout) -> str | None:
    """The answer that the verifier extracted; None if it found none."""
    return (rollout.reward.verdict.extracted or None) if rollout.reward.verdict is not None else None


def _normalised(answer: str) -> str:
    """An answer in a form that equal answers share."""
    value = _as_number(answer)
    return exact.normalise(answer[: extract.MAX_ANSWER_CHARS]) if value is None else str(value)


def _as_number(answer: str) -> Fraction | None:
    """The answer as an exact number, if it is one."""
    if len(answer) > extract.MAX_ANSWER_CHARS:
        return None
    parsed = number.parse_number(answer)
    return None if parsed is None else parsed.value
