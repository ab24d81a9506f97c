"""The mechanical steps that solve every problem of the tiny world; each turns a state into the next state.

A chain of steps is the whole reasoning. Each step writes its operands and the state after it, so that no step needs
more than one look-up or one carry. `3+8-4` is the start 3 and the steps Add(8), Add(-4), written `3+8=11, 11-4=7`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Step(Protocol):
    """`write(state)` is the text before the new state, `after(state)` the new state, `slips(state)` wrong ones."""

    def write(self, state: int) -> str: ...

    def after(self, state: int) -> int: ...

    def slips(self, state: int) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Add:
    """Add a number between -9 and 9: `11-4=` 7."""

    number: int

    def write(self, state: int) -> str:
        return f"{state}{self.number:+d}="

    def after(self, state: int) -> int:
        return state + self.number

    def slips(self, state: int) -> tuple[int, ...]:
        right = self.after(state)
        return tuple(wrong for wrong in (right - 1, right + 1, right - 10, right + 10) if 0 <= wrong <= 99)


@dataclass(frozen=True, slots=True)
class Pick:
    """Keep the larger (or the smaller) of the state and a number: `23 47 -> ` 47."""

    number: int
    largest: bool

    def write(self, state: int) -> str:
        return f"{state} {self.number} -> "

    def after(self, state: int) -> int:
        return max(state, self.number) if self.largest else min(state, self.number)

    def slips(self, state: int) -> tuple[int, ...]:
        return (min(state, self.number) if self.largest else max(state, self.number),)


@dataclass(frozen=True, slots=True)
class Tally:
    """Count one more if a digit is above (or below) a bound: `7>5: ` 1."""

    digit: int
    bound: int
    above: bool

    def write(self, state: int) -> str:
        sign = "=" if self.digit == self.bound else ">" if self.digit > self.bound else "<"
        return f"{self.digit}{sign}{self.bound}: "

    def after(self, state: int) -> int:
        return state + (self.digit > self.bound if self.above else self.digit < self.bound)

    def slips(self, state: int) -> tuple[int, ...]:
        return (state,) if self.after(state) > state else (state + 1,)


@dataclass(frozen=True, slots=True)
class Swap:
    """Swap two cups; the state is the cup that hides the ball: `(2 3) ` 3."""

    first: int
    second: int

    def write(self, state: int) -> str:
        return f"({self.first} {self.second}) "

    def after(self, state: int) -> int:
        return {self.first: self.second, self.second: self.first}.get(state, state)

    def slips(self, state: int) -> tuple[int, ...]:
        return tuple(cup for cup in (self.first, self.second) if cup != self.after(state))


def chain(start: int, steps: Sequence[Step], slip: tuple[int, int] | None = None) -> list[tuple[str, int]]:
    """The text of each step and the state after it. With `slip=(2, 15)` the third step wrongly yields 15.

    `chain(3, [Add(8), Add(-4)]) == [("3+8=", 11), ("11-4=", 7)]`
    """
    written = []
    state = start
    for place, step in enumerate(steps):
        text = step.write(state)
        state = slip[1] if slip is not None and slip[0] == place else step.after(state)
        written.append((text, state))
    return written


def final(start: int, steps: Sequence[Step]) -> int:
    """The state after all steps."""
    return chain(start, steps)[-1][1]


def slip(rng: random.Random, start: int, steps: Sequence[Step]) -> list[tuple[str, int]]:
    """A chain with one wrong step; later steps continue from it, and no state leaves 0..99."""
    places = rng.sample(range(len(steps)), len(steps))
    for place in places:
        before = start if place == 0 else chain(start, steps)[place - 1][1]
        wrong = steps[place].slips(before)
        if not wrong:
            continue
        written = chain(start, steps, (place, rng.choice(wrong)))
        if all(0 <= state <= 99 for _, state in written):
            return written
    return chain(start, steps)
