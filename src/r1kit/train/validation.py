"""Measures on held-out data during training, and early stopping on one of them, for all loops."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1kit import ranks
from r1kit.train import checkpoints
from r1kit.train.learner import Learner


@dataclass(frozen=True)
class Validation:
    """A function that measures held-out data: once before training, then after each `every` steps and after the last.

    Early stopping follows the value named `watch`; it ignores the measurement before the first step.
    """

    measure: Callable[[], dict[str, float]]
    every: int
    watch: str = "validation/loss"
    higher_is_better: bool = False
    patience: int = 0


@dataclass
class Best:
    """The step and value of the best measurement so far, and the number of measurements since."""

    step: int = 0
    value: float | None = None
    since: int = 0

    def update(self, step: int, value: float, higher_is_better: bool) -> bool:
        """Record a value; returns whether it is the best. NaN and infinity never are."""
        # strictly better: of equal values the earliest stays, which took the fewest updates
        improves = self.value is None or (value > self.value if higher_is_better else value < self.value)
        is_best = math.isfinite(value) and improves
        if is_best:
            self.step, self.value, self.since = step, value, 0
        else:
            self.since += 1
        return is_best

    def facts(self, unit: str) -> dict[str, Any]:
        """For the manifest: `{"best_step": 20, "best_validation": 0.91}`; empty without a validation."""
        return {f"best_{unit}": self.step, "best_validation": self.value} if self.value is not None else {}


class EarlyStopping:
    """The validation of a loop, or none: it measures when due, keeps the best weights and decides when to stop.

    `state` belongs in every checkpoint; a new `EarlyStopping` continues from it. After a resume, steps may be trained
    again with other results. So the best weights are in a folder named by their step (`best/step-000015`): those that
    the checkpoint refers to stay, and a step that is the best again replaces its folder before anything refers to it.
    """

    def __init__(
        self, validation: Validation | None, learner: Learner, stage: Path, state: Mapping[str, Any] | None = None
    ) -> None:
        self.validation, self.learner, self.stage = validation, learner, stage
        self.best = Best(**((state or {}).get("best") or {}))

    @property
    def state(self) -> dict[str, Any]:
        return {"best": asdict(self.best)} if self.validation else {}

    @property
    def is_over(self) -> bool:
        return bool(self.validation and self.validation.patience and self.best.since >= self.validation.patience)

    @property
    def reason(self) -> str:
        """Why training stops: `no probe/accuracy above 0.912 (step 20) in 3 validations`."""
        if self.validation is None:
            return ""
        watched, best = self.validation.watch, self.best
        if best.value is None:
            return f"no finite {watched} in {best.since} validations"
        side = "above" if self.validation.higher_is_better else "below"
        return f"no {watched} {side} {best.value:.3g} (step {best.step}) in {best.since} validations"

    def before(self) -> dict[str, float]:
        """The measures before the first step; empty without a validation."""
        return self._measure(self.validation) if self.validation else {}

    def after(self, step: int, *, last: bool) -> dict[str, float]:
        """The measures after a step; empty if none are due."""
        validation = self.validation
        if validation is None or (step % validation.every and not last):
            return {}
        row = self._measure(validation)
        # the weights are written before the next checkpoint refers to them
        value = row.get(validation.watch)
        if value is not None and self.best.update(step, value, validation.higher_is_better) and validation.patience:
            self.learner.save_weights(checkpoints.best_folder(self.stage, step))
            checkpoints.prune_best(self.stage, step)
        return row

    def finish(self) -> Best:
        """With patience, load the best weights; returns of which step they are. Leaves the whole model up to date."""
        if self.validation and self.validation.patience and self.best.value is not None:
            self.learner.load_weights(checkpoints.best_folder(self.stage, self.best.step))
        self.learner.whole_model()
        return self.best

    def _measure(self, validation: Validation) -> dict[str, float]:
        started = time.perf_counter()
        self.learner.whole_model()  # engines answer with the newest weights
        row = ranks.gather(validation.measure())[0]  # of the first rank: all must decide alike when to stop
        if validation.patience and validation.watch not in row:
            raise ValueError(
                f"patience follows {validation.watch}, but the validation measured {', '.join(row) or 'nothing'}: "
                "nothing could be judged for it; set patience to 0 or watch another value"
            )
        return row | {"time/validation_s": time.perf_counter() - started}
