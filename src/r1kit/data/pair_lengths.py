"""Balances preference pairs so that the longer answer is chosen as often as it is rejected."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence


def balanced(differences: Sequence[int], seed: int) -> list[int]:
    """Indices of the pairs to keep, in order. A difference is the chosen answer's length minus the rejected one's.

    Differences up to 1, 3, 7, 15 ... form bands. In each band, as many pairs have a longer chosen answer as a longer
    rejected one: `balanced([5, 6, -4, 0], seed=0)` keeps index 2, index 3 and one of 0 and 1.
    """
    bands: defaultdict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for index, difference in enumerate(differences):
        if difference:
            bands[abs(difference).bit_length()][difference > 0].append(index)
    kept = [index for index, difference in enumerate(differences) if not difference]
    for band, sides in sorted(bands.items()):
        count = min(map(len, sides))
        for side in sides:
            kept += random.Random(f"lengths/{seed}/{band}").sample(side, count)
    return sorted(kept)
