"""Answers that their own prompts hold."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")
FEW, MOST = 20, 0.8  # problems, below which the share says little; the share above which prompts leak


def share_at_one_place(pairs: Sequence[tuple[str, str]]) -> float:
    """The share of (prompt, reference) pairs whose reference is the last number of the prompt, or the first one.

    Problems that ask for one of their numbers have it at any place.
    """
    places = [0, 0]
    for prompt, reference in pairs:
        numbers = NUMBERS.findall(prompt)
        for place, index in enumerate((-1, 0)):
            places[place] += bool(numbers) and numbers[index] == reference.strip()
    return max(places) / len(pairs) if pairs else 0.0
