"""One part of the reward: a function, how it is called, and what it says about each completion."""

from __future__ import annotations

import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from r1kit.event_loop import run_blocking
from r1kit.numeric import finite, shown
from r1kit.rewards.inputs import Configured, RewardFunction
from r1kit.store import to_plain
from r1kit.types import Verdict

# arguments of reward functions, so no columns
RESERVED = ("completions", "trainer_state", "log_metric", "log_extra", "log_verdicts", "log_undecided")
HOOKS = RESERVED[-3:]  # those that every call gets
NOT_DATA = (*RESERVED, "prompt", "prompts", "completion", "completion_ids")  # as in TRL, these are not the data's


class RewardError(ValueError):
    """A reward function failed, cannot take its arguments, or returned something other than numbers."""


@dataclass
class PartResult:
    """The value, verdict and notes of one part for one completion."""

    value: float | None = None
    verdict: Verdict | None = None
    undecided: bool = False  # set by `log_undecided`
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_undecided(self) -> bool:
        """Whether the part could not judge the completion and has no value for that."""
        could_not_judge = self.undecided or (self.verdict is not None and self.verdict.correct is None)
        return self.value is None and could_not_judge


@dataclass(frozen=True)
class RewardPart:
    """A reward function with its weight; `is_for` says which problem sources it applies to (None: all).

    `chat`: whether it gets messages or text (None: the form of the data). A function of the user's own (`is_own`) gets
    the columns of the data.
    """

    label: str
    weight: float
    function: RewardFunction
    chat: bool | None = None
    is_for: Callable[[str], bool] | None = None
    is_own: bool = False

    def places(self, columns: Mapping[str, Any], rows: int) -> list[int]:
        """Indices of the completions that the part applies to; raises ValueError if it needs sources and has none."""
        if self.is_for is None:
            return list(range(rows))
        sources = columns.get("source")
        if sources is None:
            raise ValueError(f"reward {self.label!r} is for some sources only, and there is no column 'source'")
        return [place for place, source in enumerate(sources) if self.is_for(source or "")]

    def require(self, names: Collection[str]) -> None:
        """Raise `RewardError` if a parameter without a default has no column."""
        for name, is_needed in parameters_of(self.function).items():
            if not is_needed or name in names or name == "completions":
                continue
            if name in RESERVED:
                raise RewardError(f"reward {self.label!r} gets no {name} here: give the parameter the default None")
            remedy = "add it to the task, or give the parameter a default"
            raise RewardError(f"reward {self.label!r} needs the column {name!r}: {remedy} (columns: {_listed(names)})")

    def hooks(self, results: Sequence[PartResult], columns: Mapping[str, Any]) -> dict[str, Any]:
        """The hooks of `RewardFunction`, which write into the results of the completions that the part applies to."""

        def pairs(name: str, values: Sequence[Any]) -> Iterable[tuple[PartResult, Any]]:
            if len(values) != len(results):
                logs = f"reward {self.label!r} logs {len(values)} values of {name!r} for {len(results)} completions"
                raise RewardError(f"{logs}: log one for each")
            return zip(results, values, strict=True)

        def log_extra(name: str, values: Sequence[Any]) -> None:
            for result, value in pairs(name, values):
                try:
                    result.notes[name] = to_plain(value)
                except ValueError:  # JSON cannot hold it
                    result.notes[name] = str(value)[:1000]

        def log_verdicts(verdicts: Sequence[Any]) -> None:
            for result, verdict in pairs("verdicts", verdicts):
                if verdict is not None and not isinstance(verdict, Verdict):
                    logged = f"reward {self.label!r} logs the verdict {verdict!r:.80}"
                    raise RewardError(f"{logged}: expected a Verdict or None")
                result.verdict = verdict

        def log_undecided(flags: Sequence[bool]) -> None:
            for result, flag in pairs("undecided", flags):
                result.undecided = flag

        def log_metric(name: str, value: Any) -> None:
            if not isinstance(value, Real) and not hasattr(value, "item"):  # a tensor or array of one number has `item`
                logged = f"reward {self.label!r} logs the metric {name!r} as {shown(value)}"
                raise RewardError(f"{logged}: expected a number")
            if finite(value if isinstance(value, Real) else value.item()) is None:  # JSON cannot hold a mean with NaN
                metric = f"reward {self.label!r} logs the metric {name!r} as {shown(value)}"
                warnings.warn(f"{metric}: it is left out", stacklevel=2)
                return
            columns["log_metric"](f"rewards/{self.label}/{name}", value)

        hooks = {"log_extra": log_extra, "log_verdicts": log_verdicts, "log_undecided": log_undecided}
        return hooks | ({"log_metric": log_metric} if columns.get("log_metric") is not None else {})

    def call(self, arguments: dict[str, Any], chat: bool) -> list[float | None]:
        """Call the function, sync or async: a finite number or None per completion, or an error that names the reward.

        An exit inside the function is an error of the reward, not the end of the run.
        """

        async def result_of(awaitable: Any) -> Any:
            return await awaitable

        name, rows = f"reward {self.label!r}", len(arguments["completions"])
        self.require(arguments)
        try:
            values = self.function(**arguments)
            values = run_blocking(result_of(values)) if inspect.isawaitable(values) else values
            if hasattr(values, "tolist"):  # an array or tensor
                values = values.tolist()
            if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping):
                values = list(values)  # a generator runs here
        except SystemExit as error:
            exit_call = f"{name} called sys.exit({error.code!r})"
            raise RewardError(f"{exit_call}: a reward function returns numbers and never exits") from error
        except Exception as error:
            if not self.is_own or isinstance(error, RewardError):  # a hook has named the reward already
                raise
            raise RewardError(self._failure(error, arguments, chat)) from error
        if not isinstance(values, list):
            raise RewardError(f"{name} returned {type(values).__name__}: expected a list of {rows} numbers")
        if len(values) != rows:
            raise RewardError(f"{name} returned {len(values)} values for {rows} completions: return one for each")
        numbers: list[float | None] = []
        for value in values:
            number = value.item() if not isinstance(value, Real) and getattr(value, "ndim", None) == 0 else value
            if number is not None and finite(number) is None:
                raise RewardError(f"{name} returned {shown(value, 200)}: expected a finite number or None")
            numbers.append(finite(number))
        return numbers

    def _failure(self, error: Exception, arguments: Mapping[str, Any], chat: bool) -> str:
        """The message for an error inside a reward function of the user's own."""
        function: Any = self.function.function if isinstance(self.function, Configured) else self.function
        function = function.func if isinstance(function, partial) else function
        home = getattr(sys.modules.get(function.__module__), "__file__", None)
        frames = traceback.extract_tb(error.__traceback__)
        frame = next((frame for frame in reversed(frames) if frame.filename == home), frames[-1])
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        form = f"completions as {'lists of messages' if chat else 'text'}"
        message = f"reward {self.label!r} gets {form} and raised {type(error).__name__}: {error} ({place})"
        if isinstance(error, TypeError | AttributeError | KeyError | IndexError):  # signs of the other form
            other, setting = ("text", "false") if chat else ("lists of messages", "true")
            message += f"; if it expects {other}, set its option `chat` to {setting}"
        absent = [name for name in parameters_of(self.function) if name not in arguments and name not in RESERVED]
        absent_text = f"; it names {', '.join(absent)}, which the data lacks" if absent else ""
        return f"{message}. Its columns: {_listed(arguments)}{absent_text}"


def parameters_of(function: RewardFunction) -> dict[str, bool]:
    """The arguments that a reward function names, and whether it needs them."""
    return {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(set(names) - set(RESERVED))) or "none"
