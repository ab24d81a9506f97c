"""A verifier with planted errors: `accuracy` whose verdicts are flipped at known rates."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from r1kit.rewards.accuracy import accuracy_reward, expected_correctness


def planted_reward(
    completions: Sequence[Any],
    problem_id: Sequence[str],
    trainer_state: Any = None,
    false_positives: float = 0.0,
    false_negatives: float = 0.0,
    corrects: bool = False,
    **columns: Any,
) -> list[float | None]:
    """Right and wrong by the verifier, flipped by step, problem and place in the group; `corrects`: then corrected."""
    step, place, flipped = getattr(trainer_state, "global_step", 0), Counter[str](), []
    columns = {name: value for name, value in columns.items() if not name.startswith("log_")}
    for value, key in zip(accuracy_reward(completions, **columns), problem_id, strict=True):
        chance = random.Random(f"planted/{step}/{key}/{place[key]}").random()
        place[key] += 1
        flipped.append(chance >= false_negatives if value == 1.0 else chance < false_positives)
    if corrects:
        return [*expected_correctness(flipped, problem_id, false_positives, false_negatives)]
    return [float(value) for value in flipped]
