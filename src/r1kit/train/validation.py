"""Held-out measures in the middle of training, and early stopping on one of them: what all loops have in common."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1kit.train.learner import Learner


@dataclass(frozen=True)
class Validation:
    """A measure on held-out data before the first step and every some steps.

    `watch` names the value that early stopping looks at; the one before the first step is only there to compare with.
    """

    measure: Callable[[], dict[str, float]]
    every: int
    watch: str = "validation/loss"
    higher_is_better: bool = False
    patience: int = 0


@dataclass
class Best:
    """The best validation so far and how many came after it."""

    step: int = 0
    value: float | None = None
    since: int = 0

    def take(self, step: int, value: float, higher_is_better: bool) -> bool:
        """Note a value; whether it is the best."""
        beats = self.value is None or (value > self.value if higher_is_better else value < self.value)
        better = math.isfinite(value) and beats
        if better:
            self.step, self.value, self.since = step, value, 0
        else:
            self.since += 1
        return better

    def facts(self, unit: str) -> dict[str, Any]:
        """For the manifest: `{"best_step": 20, "best_validation": 0.91}`; empty where nothing was measured."""
        return {f"best_{unit}": self.step, "best_validation": self.value} if self.value is not None else {}


class EarlyStopping:
    """A loop's validation, or none: measures when it is due, keeps the best weights, says when it is over.

    `state` is what a checkpoint holds, and `EarlyStopping` goes on from it.
    """

    def __init__(
        self, validation: Validation | None, learner: Learner, folder: Path, state: Mapping[str, Any] | None = None
    ) -> None:
        self.validation, self.learner, self.folder = validation, learner, folder / "best"
        self.best = Best(**((state or {}).get("best") or {}))

    @property
    def state(self) -> dict[str, Any]:
        return {"best": asdict(self.best)} if self.validation else {}

    @property
    def is_over(self) -> bool:
        return bool(self.validation and self.validation.patience and self.best.since >= self.validation.patience)

    @property
    def words(self) -> str:
        """Why it is over: `3 validations without a better probe/accuracy than 0.912 (step 20)`."""
        watched, best = self.validation.watch if self.validation else "", self.best
        best_value = "one that is a number" if best.value is None else f"{best.value:.3g} (step {best.step})"
        return f"{best.since} validations without a better {watched} than {best_value}"

    def before(self) -> dict[str, float]:
        """The measures before the first step; empty without a validation."""
        return self._measured(self.validation)[0] if self.validation else {}

    def after(self, step: int, *, last: bool) -> dict[str, float]:
        """The measures after a step; empty where none are due."""
        validation = self.validation
        if validation is None or (step % validation.every and not last):
            return {}
        row, value = self._measured(validation)
        if value is not None and self.best.take(step, value, validation.higher_is_better) and validation.patience:
            self.learner.keep(self.folder)
        return row

    def finish(self) -> Best:
        """With patience, take back the best weights; returns when they were."""
        if self.validation and self.validation.patience and self.best.value is not None:
            self.learner.restore(self.folder)
        return self.best

    def _measured(self, validation: Validation) -> tuple[dict[str, float], float | None]:
        """All measures, and the one that is watched: with patience it must be there."""
        started = time.perf_counter()
        row = validation.measure()
        if validation.patience and validation.watch not in row:
            raise ValueError(
                f"patience follows {validation.watch}, and nothing could be judged for it: the validation gave "
                f"{', '.join(row) or 'nothing'}"
            )
        return row | {"time/validation_s": time.perf_counter() - started}, row.get(validation.watch)
