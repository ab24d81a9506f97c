"""Rewards of control arms (docs/guides/controls.md): chance, and the answer on which the group agrees.

Neither reads the reference.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from r1kit import verifiers
from r1kit.rewards.inputs import RewardFunction, configured, names_column, problem_keys, texts
from r1kit.rewards.verdicts import verdicts_of, verify
from r1kit.verifiers import THINKING, extract
from r1kit.verifiers.meaning import meaning

# Verifiers whose references are what a response gives as its answer, so that an answer can take a reference's place.
VOTING = ("math", "number", "last-number", "exact", "choice")


def get_random_reward(*, seed: int = 0) -> RewardFunction:
    """`random_reward` with its seed."""
    return configured(random_reward, seed=seed)


def random_reward(completions: Sequence[Any], *, seed: int, **columns: Any) -> list[float]:
    """1.0 or 0.0 with equal chance (Shao et al. 2025, Spurious Rewards, section 2).

    The value depends on the seed, the step, the problem and the completion's place in its group, so a resumed run draws
    the same ones.
    """
    step = getattr(columns.get("trainer_state"), "global_step", 0)
    drawn: Counter[str] = Counter()
    values = []
    for key in problem_keys(columns, len(completions), "random_reward"):
        values.append(float(random.Random(f"random reward/{seed}/{step}/{key}/{drawn[key]}").random() < 0.5))
        drawn[key] += 1
    return values


def get_majority_reward(*, verifier: str = "math") -> RewardFunction:
    """`majority_reward` with a default verifier."""
    verifiers.find(verifier)
    return configured(majority_reward, default_verifier=verifier)


def majority_reward(completions: Sequence[Any], *, default_verifier: str, **columns: Any) -> list[float | None]:
    """1.0 for an answer that equals the most frequent one of its group, otherwise 0.0 (TTRL, Zuo et al. 2025).

    0.0 for a group without answers, None if the verifier failed. It gives no verdicts, because what the group agrees on
    may be wrong.
    """
    responses = texts(completions)
    named = names_column("verifier", columns, len(responses), default_verifier, "majority_reward")
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(problem_keys(columns, len(responses), "majority_reward")):
        groups.setdefault(key, []).append(row)
    references = [""] * len(responses)
    for rows in groups.values():
        agreed = majority([responses[row] for row in rows], named[rows[0]])
        for row in rows:
            references[row] = agreed
    verdicts = verdicts_of(responses, {"answer": references, "verifier": named}, default_verifier, "majority_reward")
    failed = [verdict is not None and verdict.outcome == "failed" for verdict in verdicts]
    if (log_undecided := columns.get("log_undecided")) is not None:
        log_undecided(failed)
    return [
        None if broken else float(verdict is not None and verdict.correct is True)
        for verdict, broken in zip(verdicts, failed, strict=True)
    ]


def majority(responses: Sequence[str], verifier: str) -> str:
    """The most frequent answer of the responses that can serve as a reference; "" if there is none.

    Votes are for values, not spellings. Among equally frequent answers, the first one wins. Raises ValueError for a
    verifier whose references are no answers, such as `code`.
    """
    kind = verifier.removesuffix(THINKING)
    if kind not in VOTING:
        raise ValueError(
            f"a group cannot vote on the answers of verifier {verifier!r}, whose references are no answers: leave the "
            f"control majority out, or its problems (it knows {', '.join(VOTING)})"
        )
    if verifier.endswith(THINKING):
        responses = [extract.answered_in_thinking(response) for response in responses]
    answers = [extract.extract(response, last_number=kind == "last-number") for response in responses]
    spellings: dict[Any, str] = {}
    votes: Counter[Any] = Counter()
    for answer in answers:
        if answer:
            spellings.setdefault(meaning(answer), answer)
            votes[meaning(answer)] += 1
    for value, _ in votes.most_common():
        answer = spellings[value]
        # "about a dozen or so" is no number: as a reference it would leave the whole group without verdicts
        if verify(kind, [extract.as_response(answer, kind)], [answer])[0].correct:
            return answer
    return ""
