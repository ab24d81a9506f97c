"""The order in which training visits a data set: all of it in each epoch, every epoch in an order of its own."""

from __future__ import annotations

import random


class EpochOrder:
    """The item at each position of an endless walk over `size` items: `order[size]` is the first of the second epoch.

    An epoch's order depends on `name`, `seed` and the epoch's number alone. So a resumed run needs nothing but its
    position to continue as if it had never stopped, and walks with different names are independent of each other.
    """

    def __init__(self, name: str, size: int, seed: int) -> None:
        self.name, self.size, self.seed = name, size, seed
        self._epoch, self._shuffled = -1, list[int]()  # of the last position that was looked up

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            self._epoch, self._shuffled = epoch, list(range(self.size))
            random.Random(f"{self.name}/{self.seed}/{epoch}").shuffle(self._shuffled)
        return self._shuffled[place]
