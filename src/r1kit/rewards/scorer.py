"""Reward functions combined into one `Reward` per completion."""

from __future__ import annotations

import inspect
import math
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
from r1kit.rewards.columns import Configured, RewardFunction
from r1kit.rewards.completion_form import in_form
from r1kit.store import to_plain
from r1kit.types import Reward, Verdict

# arguments of reward functions, so no columns
RESERVED = ("completions", "trainer_state", "log_metric", "log_extra", "log_verdicts", "log_undecided")
HOOKS = RESERVED[-3:]  # those that every call gets
NOT_DATA = (*RESERVED, "prompt", "prompts", "completion", "completion_ids")  # as in TRL, these are not the data's


class RewardError(ValueError):
    """A reward function failed, cannot take its arguments, or returned something other than numbers."""


@dataclass(frozen=True)
class Part:
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


@dataclass
class PartResult:
    """What one part says about one completion."""

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
class Scorer:
    """The rewards of a stage: `scorer(completions, **columns)` gives one `Reward` per completion.

    The total is the weighted sum of the parts that are not None, or None if all are. It is also None if any part could
    not judge and has no value for that: otherwise the remaining parts would score the completion as if it were wrong.

    A metric that a reward function logs is named `rewards/<label of the part>/<its name>`, so it can replace no other.
    """

    parts: tuple[Part, ...]

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
                _require_columns(part, {*names, *HOOKS})

    def _score(
        self, part: Part, completions: Sequence[Any], data: Mapping[str, Sequence[Any]], columns: Mapping[str, Any]
    ) -> list[PartResult]:
        """One result per completion; those that the part does not apply to keep a value of None."""
        results = [PartResult() for _ in completions]
        places = part.places(columns, len(completions))
        if not places:
            return results

        def chosen(values: Any) -> Any:
            return [values[place] for place in places] if isinstance(values, list | tuple) else values

        arguments = {name: chosen(values) for name, values in columns.items()}
        chat, replies = False, {"completions": chosen(list(completions))}
        if part.is_own:
            arguments |= {name: chosen(values) for name, values in data.items() if name not in NOT_DATA}
        if part.is_own or part.chat is not None:
            try:
                asked, conversations = arguments.get("prompts"), chosen(data.get("prompt"))
                chat, replies = in_form(part.chat, replies["completions"], asked, conversations)
            except ValueError as error:
                raise RewardError(f"reward {part.label!r}: {error}") from error
        arguments |= replies | _hooks(part, chosen(results), columns)
        for result, value in zip(chosen(results), _call(part, arguments, chat), strict=True):
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
        is_judged = bool(known) and not any(result.is_undecided for result in results)
        weighted_first = sorted(pairs, key=lambda pair: pair[0].weight == 0)
        return Reward(
            total=math.fsum(known) if is_judged else None,
            parts={part.label: result.value for part, result in pairs},
            verdict=next((result.verdict for _, result in weighted_first if result.verdict is not None), None),
            notes=notes,
        )


def _hooks(part: Part, results: Sequence[PartResult], columns: Mapping[str, Any]) -> dict[str, Any]:
    """The hooks of `RewardFunction`, which write into the results of the completions that the part applies to."""

    def pairs(name: str, values: Sequence[Any]) -> Iterable[tuple[PartResult, Any]]:
        if len(values) != len(results):
            raise RewardError(f"reward {part.label!r} logs {len(values)} {name!r} for {len(results)} completions")
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
                raise RewardError(f"reward {part.label!r} logs the verdict {verdict!r:.80}: expected a Verdict or None")
            result.verdict = verdict

    def log_undecided(flags: Sequence[bool]) -> None:
        for result, flag in pairs("undecided", flags):
            result.undecided = flag

    def log_metric(name: str, value: Any) -> None:
        if not isinstance(value, Real) and not hasattr(value, "item"):  # a tensor or array of one number has `item`
            raise RewardError(f"reward {part.label!r} logs the metric {name!r} as {value!r:.80}: expected a number")
        if not math.isfinite(value):  # a mean with NaN would be NaN, which JSON cannot hold
            warnings.warn(f"reward {part.label!r} logs the metric {name!r} as {value}: it is left out", stacklevel=2)
            return
        columns["log_metric"](f"rewards/{part.label}/{name}", value)

    hooks = {"log_extra": log_extra, "log_verdicts": log_verdicts, "log_undecided": log_undecided}
    return hooks | ({"log_metric": log_metric} if columns.get("log_metric") is not None else {})


def _parameters(function: RewardFunction) -> dict[str, bool]:
    """The arguments that a reward function names, and whether it needs them."""
    return {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _require_columns(part: Part, names: Collection[str]) -> None:
    """Raise `RewardError` if a parameter without a default has no column."""
    for name, is_needed in _parameters(part.function).items():
        if not is_needed or name in names or name == "completions":
            continue
        if name in RESERVED:
            raise RewardError(f"reward {part.label!r} gets no {name} here: give the parameter the default None")
        remedy = "add it to the task, or give the parameter a default"
        raise RewardError(f"reward {part.label!r} needs the column {name!r}: {remedy} (columns: {_listed(names)})")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(set(names) - set(RESERVED))) or "none"


def _call(part: Part, arguments: dict[str, Any], chat: bool) -> list[float | None]:
    """Call a reward function, sync or async: a finite number or None per completion, or an error that names the reward.

    An exit inside the function is an error of the reward, not the end of the run.
    """

    async def result_of(awaitable: Any) -> Any:
        return await awaitable

    name, rows = f"reward {part.label!r}", len(arguments["completions"])
    _require_columns(part, arguments)
    try:
        values = part.function(**arguments)
        values = run_blocking(result_of(values)) if inspect.isawaitable(values) else values
        if hasattr(values, "tolist"):  # an array or tensor
            values = values.tolist()
        if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping):
            values = list(values)  # a generator runs here
    except SystemExit as error:
        exit_call = f"{name} called sys.exit({error.code!r})"
        raise RewardError(f"{exit_call}: a reward function returns numbers and never exits") from error
    except Exception as error:
        if not part.is_own or isinstance(error, RewardError):  # a hook has named the reward already
            raise
        raise RewardError(_failure(part, error, arguments, chat)) from error
    if not isinstance(values, list):
        raise RewardError(f"{name} returned {type(values).__name__}: expected a list of {rows} numbers")
    if len(values) != rows:
        raise RewardError(f"{name} returned {len(values)} values for {rows} completions")
    numbers: list[float | None] = []
    for value in values:
        number = value.item() if not isinstance(value, Real) and getattr(value, "ndim", None) == 0 else value
        if number is not None and (not isinstance(number, Real) or not math.isfinite(number)):
            raise RewardError(f"{name} returned {value!r:.200}: expected a finite number or None")
        numbers.append(None if number is None else float(number))
    return numbers


def _failure(part: Part, error: Exception, arguments: Mapping[str, Any], chat: bool) -> str:
    """The message for an error inside a reward function of the user's own."""
    function: Any = part.function.function if isinstance(part.function, Configured) else part.function
    function = function.func if isinstance(function, partial) else function
    home = getattr(sys.modules.get(function.__module__), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename == home), frames[-1])
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    form = f"completions as {'lists of messages' if chat else 'text'}"
    message = f"reward {part.label!r} gets {form} and raised {type(error).__name__}: {error} ({place})"
    if isinstance(error, TypeError | AttributeError | KeyError | IndexError):  # signs of the other form
        other = "text, set its option `chat` to false" if chat else "lists of messages, set its option `chat` to true"
        message += f"; if it expects {other}"
    absent = [name for name in _parameters(part.function) if name not in arguments and name not in RESERVED]
    absent_text = f"; it names {', '.join(absent)}, which the data lacks" if absent else ""
    return f"{message}. Its columns: {_listed(arguments)}{absent_text}"
