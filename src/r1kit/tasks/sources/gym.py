"""Tasks from reasoning-gym's generators (extra `gym`), named `gym/<generator>`.

Splits use disjoint ranges of seeds. reasoning-gym's scorers give partial credit (0.01 for no answer at all, a share for
an answer that merely contains the right one), so they are avoided if the right answer is unique: `number` or `exact`
checks those problems. If many answers are right (`countdown`), the verifier `reasoning_gym` calls the scorer and
accepts a full score only; its reference is the whole entry as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r1kit.data.errors import DataError
from r1kit.settings import nearest
from r1kit.tasks.base import Task, position
from r1kit.tasks.sources.source import Generator
from r1kit.types import Problem

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec

SPLITS = ("train", "validation", "test")
# reasoning-gym generates items with Random(seed + index), so seeds 42 and 43 would share all but one of their items.
# Every (seed, split) gets its own range instead, as wide as the largest task.
STRIDE = 1_000_000
LAST_SEED = 2**32 // (STRIDE * len(SPLITS)) - 1  # some generators pass the seed to numpy, which takes 32 bits
INTEGER = re.compile(r"-?(0|[1-9]\d*)")
# These override the scorer only to be lenient about spelling or to grade near misses; the answer is still unique.
UNIQUE = frozenset({"arc_agi", "chain_sum", "gsm_symbolic", "products", "rearc", "rectangle_count", "self_reference"})


class GymSource(Generator):
    """`gym/<generator>`."""

    kind = "gym"
    ignores = ("columns", "language", "order", "calculations", "skip_invalid", "data")

    def claims(self, name: str) -> bool:
        return name.startswith("gym/")

    def load(self, spec: TaskSpec, split: str) -> Task:
        generator = spec.name.partition("/")[2]
        return load_gym(generator, split, seed=spec.seed, size=spec.size, options=spec.options, verifier=spec.verifier)


@dataclass(frozen=True, slots=True, kw_only=True)
class GymTask:
    """Problems of one generator, generated on access; `dataset` is reasoning-gym's object."""

    name: str
    generator: str
    dataset: Any
    is_unique: bool
    verifier: str | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Problem:
        index = position(index, len(self))
        entry = self.dataset[index]
        verifier, answer = self.reference(entry)
        return Problem(
            id=f"{self.name}/{index}",
            prompt=str(entry["question"]).strip(),
            answer=answer,
            verifier=verifier,
            source=f"gym/{self.generator}",
            columns={"difficulty": entry["metadata"].get("difficulty")},
        )

    def reference(self, entry: Mapping[str, Any]) -> tuple[str, str]:
        """The verifier that checks an entry, and the reference answer in its form."""
        answer = entry["answer"]
        if self.verifier:
            return self.verifier, str(answer)
        if self.is_unique and answer is not None:
            return ("number" if INTEGER.fullmatch(str(answer)) else "exact"), str(answer)
        return "reasoning_gym", json.dumps(entry, ensure_ascii=False, default=plain_data)


def plain_data(value: Any) -> Any:
    """numpy's numbers and arrays as plain data; raises TypeError for anything else that JSON cannot hold."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def load_gym(
    generator: str,
    split: str,
    *,
    seed: int = 0,
    size: int = 1000,
    options: Mapping[str, Any] | None = None,
    verifier: str | None = None,
) -> GymTask:
    """`size` problems of a generator; `options` are its own settings. Raises `DataError` for a bad name or option."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise DataError("missing file", f"gym/{generator} needs reasoning-gym: pip install 'r1kit[gym]'") from None
    if generator not in DATASETS:
        hint = nearest(generator, DATASETS, prefix="gym/")
        raise DataError("missing file", f"reasoning-gym has no generator {generator!r}: {hint}")
    start = first_seed(split, seed, size)
    try:
        dataset = reasoning_gym.create_dataset(generator, seed=start, size=size, **dict(options or {}))
    except (AssertionError, TypeError, ValueError) as error:
        raise DataError("wrong type", f"gym/{generator} refuses the options {dict(options or {})}: {error}") from None
    base = reasoning_gym.factory.ProceduralDataset
    return GymTask(
        name=f"gym/{generator}/{split}/{seed}",
        generator=generator,
        dataset=dataset,
        is_unique=generator in UNIQUE or type(dataset).score_answer is base.score_answer,
        verifier=verifier,
    )


def first_seed(split: str, seed: int, size: int) -> int:
    """The first seed of a split's range."""
    if split not in SPLITS:
        raise DataError("missing file", f"there is no split {split!r}: gym tasks have {', '.join(SPLITS)}")
    if not 0 <= seed <= LAST_SEED:
        raise DataError("wrong type", f"seed is {seed}: gym tasks take 0 to {LAST_SEED}")
    if not 1 <= size <= STRIDE:
        raise DataError("wrong type", f"size is {size}: gym tasks hold 1 to {STRIDE} problems")
    return (seed * len(SPLITS) + SPLITS.index(split)) * STRIDE
