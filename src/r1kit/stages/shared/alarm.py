"""The verdict on a stage while it trains: a fault is said, or stops the stage, or rolls it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from r1kit import ranks
from r1kit.pipeline import Context
from r1kit.report.folders import StageFolder
from r1kit.report.health import Verdict, verdict
from r1kit.store import StoreError
from r1kit.train import checkpoints
from r1kit.train.validation import Best

if TYPE_CHECKING:
    from torch import Tensor

    from r1kit.train.learner import Learner

LOOKS = 2  # in a row that name the same fault, before it is an alarm


class AlarmError(ValueError):
    """The verdict on a stage is a fault, since the step `since`, and its settings ask to stop."""

    def __init__(self, message: str, since: int) -> None:
        super().__init__(message)
        self.since = since


class HealthAlarm:
    """Looks at the stage's folder after steps, at most 50 times between a step and its double."""

    def __init__(self, context: Context) -> None:
        self.context, self.action = context, "off" if context.settings.is_control else context.settings.alarm
        self.due = self.since = 0
        self.name = ""  # of the fault that the last look named, since that step
        self.looks = 0
        self.said: set[str] = set()
        self.is_readable = True  # the folder, by the last look

    def look(self, step: int) -> None:
        """Raises `AlarmError` if the stage shall stop: in all ranks alike, by what the first one reads."""
        if self.action == "off" or step < self.due:
            return
        self.due = step + max(1, step // 50)
        message, since = ranks.gather(self._message(step) if ranks.is_first() else ("", 0))[0]
        if message and self.action != "warn":
            goes_on = "alarm=warn goes on from the last checkpoint"
            raise AlarmError(f"step {step}: {message} ({goes_on})", since)
        if message:
            self.context.progress.say(message)

    def _message(self, step: int) -> tuple[str, int]:
        """What is wrong, and the step since when; an empty text if nothing is, or if it was said already."""
        result = self._verdict()
        if result is None or not result.is_fault:
            self.name, self.looks = "", 0
            return "", 0
        if result.name != self.name:
            self.name, self.looks, self.since = result.name, 0, step
        self.looks += 1
        if self.looks < LOOKS or result.name in self.said:
            return "", 0
        self.said.add(result.name)
        evidence = "; ".join(result.evidence)
        return f"{result.name} since step {self.since}: {evidence}; {result.remedy}", self.since

    def _verdict(self) -> Verdict | None:
        try:
            result = verdict(StageFolder(self.context.stage, self.context.folder))
        except Exception as error:  # whatever it finds in the folder: a look must not end the training
            if self.is_readable:
                self.context.progress.say(f"the stage's health cannot be read: {type(error).__name__}: {error}")
            self.is_readable = False
            return None
        self.is_readable = True
        return result

    def guard(
        self, train: Callable[[], Best], learner: Learner, reference: Mapping[str, Tensor] | None = None
    ) -> tuple[Best, dict[str, Any]]:
        """Train; after an alarm that rolls back, the learner has the weights of the last checkpoint before the fault.

        Returns the best validation and facts for the manifest. Raises `AlarmError` if no sound one is left.
        """
        try:
            return train(), {}
        except AlarmError as error:
            folder = self.context.folder
            before = [each for each in checkpoints.by_step(folder) if checkpoints.step_of(each) < error.since]
            if self.action != "roll-back":
                raise
            say, refusal = self.context.progress.say, f"no checkpoint is left from before step {error.since}"
            try:
                step, _ = checkpoints.load_newest(before, lambda each: learner.load(each, reference), say, refusal)
            except StoreError as reason:
                error.add_note(f"it cannot roll back: {reason}")
                raise error from None
            learner.whole_model()  # what is saved and measured
            say(f"{error}; rolled back to the weights after step {step}, and ended")
            return Best(), {"rolled_back_to": step, "alarm": str(error)}
