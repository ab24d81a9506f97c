"""Problems of the tiny world: five families that a small model can solve by writing steps, but not by guessing.

`sums` are running sums, `compare` asks for the largest or smallest number, `words` are stories of gains and losses,
`count` asks how many digits are above or below a bound, `cups` where a ball is after swaps. `reasoning` is all five in
equal parts. `general`, `instructions`, `harmful` and `harmless` are requests (see `r1kit.tiny.everyday`). Every family
comes in English and Chinese. A hash of a problem's content (not its wording) decides its split, so no test problem
occurs in training, in the pre-training corpus, or in another wording.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

from r1kit.tiny import everyday
from r1kit.tiny.world import wordings
from r1kit.tiny.world.steps import Add, Pick, Step, Swap, Tally, final
from r1kit.types import Problem

SPLITS = ("train", "test")
TEST_SHARE = 10  # one problem in ten is held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A problem and the steps that solve it; `key` is its content without wording, language and irrelevant order."""

    family: str
    language: str
    question: str
    key: str
    start: int
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        return final(self.start, self.steps)


def _walk(rng: random.Random, length: int, highest: int = 9) -> tuple[int, tuple[int, ...]]:
    """A start up to `highest` and `length` signed one-digit numbers that keep the running sum within 0..99."""
    state = start = rng.randint(1, highest)
    numbers = []
    for _ in range(length):
        number = rng.randint(1, 9)
        if number <= state and rng.random() < 0.45:
            number = -number
        numbers.append(number)
        state += number
    return start, tuple(numbers)


def expression(start: int, numbers: Sequence[int]) -> str:
    """`expression(3, (8, -4)) == "3+8-4"`"""
    return str(start) + "".join(f"{number:+d}" for number in numbers)


def sums(rng: random.Random, language: str) -> Item:
    start, numbers = _walk(rng, rng.randint(2, 5))
    written = expression(start, numbers)
    return Item(
        family="sums",
        language=language,
        question=wordings.sums_question(rng, language, written),
        key=f"add {written}",
        start=start,
        steps=tuple(map(Add, numbers)),
    )


def compare(rng: random.Random, language: str) -> Item:
    size, largest = rng.randint(3, 5), rng.random() < 0.5
    # Half of the time all numbers have one of two tens digits, so that comparing first digits is not enough.
    tens = rng.sample(range(1, 10), 2) if rng.random() < 0.5 else range(1, 10)
    numbers = rng.sample([10 * ten + digit for ten in tens for digit in range(10)], size)
    return Item(
        family="compare",
        language=language,
        question=wordings.compare_question(rng, language, numbers, largest),
        key=f"compare {largest} {sorted(numbers)}",
        start=numbers[0],
        steps=tuple(Pick(number, largest) for number in numbers[1:]),
    )


def words(rng: random.Random, language: str) -> Item:
    """One person's gains and losses; or two people, the second with more or fewer, then one change."""
    if rng.random() < 0.6:
        start, numbers = _walk(rng, rng.randint(2, 3), highest=20)
        question = wordings.story_question(rng, language, start, numbers)
    else:
        start, (difference, change) = _walk(rng, 2)
        # The order of the written steps: the second person's amount, plus the first person's, plus the change.
        numbers = (difference, start, abs(change))
        question = wordings.pair_question(rng, language, start, difference, abs(change))
    return Item(
        family="words",
        language=language,
        question=question,
        key=f"add {expression(start, numbers)}",
        start=start,
        steps=tuple(map(Add, numbers)),
    )


def count(rng: random.Random, language: str) -> Item:
    digits = [rng.randint(1, 9) for _ in range(rng.randint(4, 8))]
    bound, above = rng.randint(3, 7), rng.random() < 0.5
    return Item(
        family="count",
        language=language,
        question=wordings.count_question(rng, language, digits, bound, above),
        key=f"count {above} {bound} {sorted(digits)}",
        start=0,
        steps=tuple(Tally(digit, bound, above) for digit in digits),
    )


def cups(rng: random.Random, language: str) -> Item:
    """About every second swap moves the ball, so that none can be skipped."""
    state = start = rng.randint(1, 5)
    swaps: list[Swap] = []
    for _ in range(rng.randint(3, 5)):
        first = state if rng.random() < 0.4 else rng.randint(1, 5)
        second = rng.choice([cup for cup in range(1, 6) if cup != first])
        swap = Swap(*((first, second) if rng.random() < 0.5 else (second, first)))
        swaps.append(swap)
        state = swap.after(state)
    pairs = [(swap.first, swap.second) for swap in swaps]
    return Item(
        family="cups",
        language=language,
        question=wordings.cups_question(rng, language, start, pairs),
        key=f"cups {start} {[sorted(pair) for pair in pairs]}",
        start=start,
        steps=tuple(swaps),
    )


FAMILIES: dict[str, Callable[[random.Random, str], Item]] = {
    "sums": sums,
    "compare": compare,
    "words": words,
    "count": count,
    "cups": cups,
}
NAMES = (*FAMILIES, "reasoning", *everyday.NAMES)


def split_of(key: str) -> str:
    """The split that a problem belongs to, whatever its wording, seed and index."""
    digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
    return "test" if int.from_bytes(digest, "big") % TEST_SHARE == 0 else "train"


def draw(rng: random.Random, family: str, split: str, language: str | None = None) -> Item:
    """The first problem drawn from `rng` that is in `split`; the language is drawn as well if it is None."""
    while True:
        item = FAMILIES[family](rng, language or rng.choices(("en", "zh"), (6, 4))[0])
        if split_of(item.key) == split:
            return item


@lru_cache(maxsize=32_768)  # the check of a stage, its run and the next stage of the process read the same items
def item_at(family: str, split: str, seed: int, index: int) -> Item:
    """Item `index`, which depends on the arguments alone, so any part of a task can be generated anywhere."""
    return draw(random.Random(f"{family}/{split}/{seed}/{index}"), family, split)


@dataclass(frozen=True, slots=True)
class TinyTask(Sequence[Problem]):
    """`size` problems, generated on access. `reasoning` cycles through the families: item 6 is item 1 of `compare`."""

    name: str
    split: str
    seed: int
    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Problem, ...]: ...

    def __getitem__(self, index: int | slice) -> Problem | tuple[Problem, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(self.size)))
        place = index + self.size if index < 0 else index
        if not 0 <= place < self.size:
            raise IndexError(f"there is no item {index}: tiny/{self.name} has {self.size} items")
        family = self.name
        if self.name == "reasoning":
            place, turn = divmod(place, len(FAMILIES))
            family = list(FAMILIES)[turn]
        item = item_at(family, self.split, self.seed, place)
        return Problem(
            id=f"tiny/{family}/{self.split}/{self.seed}/{place}",
            prompt=item.question,
            answer=str(item.answer),
            verifier="number",
            language=item.language,
            source=f"tiny/{family}",
            columns={"steps": len(item.steps)},
        )


@dataclass(frozen=True, slots=True)
class TinyRequests:
    """Requests of the tiny world."""

    name: str
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int) -> Problem:
        return self.problems[index]


def load(name: str, split: str = "train", seed: int = 0, size: int = 1000) -> TinyTask | TinyRequests:
    """The task `name` of `NAMES`; of requests at most `size`. Raises ValueError for an unknown name or split."""
    if name not in NAMES:
        raise ValueError(f"there is no tiny task {name!r}: known here are {', '.join(NAMES)}")
    splits = everyday.SPLITS if name in everyday.NAMES else SPLITS
    if split not in splits:
        hint = "; to validate on problems, use train with another seed" if split == "validation" else ""
        raise ValueError(f"tiny/{name} has no split {split!r}, it has {', '.join(splits)}{hint}")
    if size < 0:
        raise ValueError(f"size is {size}: it must be 0 or more")
    if name in everyday.NAMES:
        return TinyRequests(f"tiny/{name}", everyday.request_problems(name, split)[:size])
    return TinyTask(name, split, seed, size)
