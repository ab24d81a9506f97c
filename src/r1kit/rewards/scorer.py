"""Reward functions combined into one `Reward` per completion."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.numeric import LARGEST
from r1kit.rewards.completion_form import in_form
from r1kit.rewards.part import HOOKS, NOT_DATA, RESERVED, PartResult, RewardError, RewardPart
from r1kit.types import Reward


@dataclass(frozen=True)
class Scorer:
    """The rewards of a stage: `scorer(completions, **columns)` gives one `Reward` per completion.

    The total is the weighted sum of the parts that are not None, or None if all are. It is also None if any part could
    not judge and has no value for that: otherwise the remaining parts would score the completion as if it were wrong.

    A metric that a reward function logs is named `rewards/<label of the part>/<its name>`, so it can replace no other.
    """

    parts: tuple[RewardPart, ...]

    def __call__(
        self, completions: Sequence[Any], data: Mapping[str, Sequence[Any]] | None = None, /, **columns: Any
    ) -> list[Reward]:
        """`columns` go to every part, and `data`, the columns of the data, to functions of the user's own.

        Such a function gets each column of the data under its own name, in place of one of `columns` if both have it.
        """
        rows = len(completions)
        for name, values in columns.items():
            if name in RESERVED and isinstance(values, list | tuple):
                raise ValueError(f"column {name!r} has the name of a reserved argument of reward functions: rename it")
            if isinstance(values, list | tuple) and len(values) != rows:
                raise ValueError(f"column {name!r} has {len(values)} values for {rows} completions: give one for each")
        by_part = [self._score(part, completions, data or {}, columns) for part in self.parts]
        return [self._combine([results[row] for results in by_part]) for row in range(rows)]

    @property
    def has_own(self) -> bool:
        """Whether a function is the user's own, and so gets the columns of the data."""
        return any(part.is_own for part in self.parts)

    def check(self, names: Collection[str]) -> None:
        """Raise `RewardError` if a function of the user's own needs a column that is not among `names`."""
        for part in self.parts:
            if part.is_own:
                part.require({*names, *HOOKS})

    def _score(
        self,
        part: RewardPart,
        completions: Sequence[Any],
        data: Mapping[str, Sequence[Any]],
        columns: Mapping[str, Any],
    ) -> list[PartResult]:
        """One result per completion; those that the part does not apply to keep a value of None."""
        results = [PartResult() for _ in completions]
        places = part.places(columns, len(completions))
        if not places:
            return results

        def applicable(values: Any) -> Any:
            """The values of the completions that the part applies to; an argument that is no column stays as it is."""
            return [values[place] for place in places] if isinstance(values, list | tuple) else values

        arguments = {name: applicable(values) for name, values in columns.items()}
        chat, texts = False, {"completions": applicable(list(completions))}
        if part.is_own:
            arguments |= {name: applicable(values) for name, values in data.items() if name not in NOT_DATA}
        if part.is_own or part.chat is not None:
            try:
                prompts, conversations = arguments.get("prompts"), applicable(data.get("prompt"))
                chat, texts = in_form(part.chat, texts["completions"], prompts, conversations)
            except ValueError as error:
                raise RewardError(f"reward {part.label!r}: {error}") from error
        arguments |= texts | part.hooks(applicable(results), columns)
        for result, value in zip(applicable(results), part.call(arguments, chat), strict=True):
            result.value = value
        return results

    def _combine(self, results: Sequence[PartResult]) -> Reward:
        """The reward of one completion from the results of all parts."""
        pairs = list(zip(self.parts, results, strict=True))
        notes: dict[str, Any] = {}
        for part, result in pairs:
            for name, value in result.notes.items():  # a name that an earlier part has taken gets the label in front
                notes[f"{part.label}/{name}" if name in notes else name] = value
        known = [part.weight * result.value for part, result in pairs if result.value is not None]
        for part, result in pairs:
            if result.value is not None and abs(part.weight * result.value) > LARGEST:
                product = f"{result.value:g} with the weight {part.weight:g}"
                raise RewardError(f"reward {part.label!r} is {product}: expected at most {LARGEST:g} in size, scale it")
        is_judged = bool(known) and not any(result.is_undecided for result in results)
        # a part of weight 0 only watches: its verdict counts if no other part gives one
        weighted_first = sorted(pairs, key=lambda pair: pair[0].weight == 0)
        return Reward(
            total=math.fsum(known) if is_judged else None,
            parts={part.label: result.value for part, result in pairs},
            verdict=next((result.verdict for _, result in weighted_first if result.verdict is not None), None),
            notes=notes,
        )
