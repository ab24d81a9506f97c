"""Reward functions combined into one `Reward` per completion."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from r1kit.event_loop import run_blocking
from r1kit.rewards.columns import Configured, RewardFunction
from r1kit.store import to_plain
from r1kit.types import Reward, Verdict

RESERVED = ("completions", "log_metric", "log_extra", "log_verdicts", "log_undecided")  # arguments, so not columns


class RewardError(ValueError):
    """A reward function ended the process, cannot take its arguments, or returned something other than numbers."""


@dataclass(frozen=True)
class Part:
    """A reward function with its weight; `is_for` says which problem sources it applies to (None: all)."""

    label: str
    weight: float
    function: RewardFunction
    chat: bool = False
    is_for: Callable[[str], bool] | None = None

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

    def __call__(self, completions: Sequence[Any], /, **columns: Any) -> list[Reward]:
        rows = len(completions)
        for name, values in columns.items():
            if name in RESERVED and values is not None and not callable(values):
                raise ValueError(f"column {name!r} has the name of a reserved argument of reward functions: rename it")
            if isinstance(values, list | tuple) and len(values) != rows:
                raise ValueError(f"column {name!r} has {len(values)} values for {rows} completions: give one for each")
        by_part = [self._score(part, completions, columns) for part in self.parts]
        return [self._combine([results[row] for results in by_part]) for row in range(rows)]

    def _score(self, part: Part, completions: Sequence[Any], columns: dict[str, Any]) -> list[PartResult]:
        """One result per completion; those that the part does not apply to keep a value of None."""
        results = [PartResult() for _ in completions]
        places = part.places(columns, len(completions))
        if places:
            chosen = [results[place] for place in places]
            selected = {
                name: [values[place] for place in places] if isinstance(values, list | tuple) else values
                for name, values in columns.items()
            }
            values = _call(part, [completions[place] for place in places], selected | _hooks(part, chosen, columns))
            for result, value in zip(chosen, values, strict=True):
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
            raise ValueError(f"reward {part.label!r} logs {len(values)} {name!r} for {len(results)} completions")
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
        columns["log_metric"](f"rewards/{part.label}/{name}", value)

    hooks = {"log_extra": log_extra, "log_verdicts": log_verdicts, "log_undecided": log_undecided}
    return hooks | ({"log_metric": log_metric} if columns.get("log_metric") is not None else {})


def _require_columns(part: Part, columns: Mapping[str, Any]) -> None:
    """Raise `RewardError` if a parameter without a default has no column."""
    function, options = part.function, {"completions"}
    if isinstance(function, Configured):
        options |= function.options.keys()
        function = function.function
    for name, parameter in inspect.signature(function).parameters.items():
        is_variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if is_variable or parameter.default is not parameter.empty or name in columns or name in options:
            continue
        if name in RESERVED:
            raise RewardError(f"reward {part.label!r} gets no {name} here: give the parameter the default None")
        known = ", ".join(sorted(other for other in columns if other not in RESERVED)) or "none"
        remedy = "add it to the task, or give the parameter a default"
        raise RewardError(f"reward {part.label!r} needs the column {name!r}: {remedy} (columns: {known})")


def _call(part: Part, completions: list[Any], columns: dict[str, Any]) -> list[float | None]:
    """Call a reward function, sync or async: a finite number or None per completion, or an error that names the reward.

    An exit inside the function is an error of the reward, not the end of the run.
    """

    async def result_of(awaitable: Any) -> Any:
        return await awaitable

    if part.chat:
        completions = [[{"role": "assistant", "content": c}] if isinstance(c, str) else c for c in completions]
    name, rows = f"reward {part.label!r}", len(completions)
    _require_columns(part, columns)
    try:
        values = part.function(completions=completions, **columns)
        values = run_blocking(result_of(values)) if inspect.isawaitable(values) else values
    except SystemExit as error:
        exit_call = f"{name} called sys.exit({error.code!r})"
        raise RewardError(f"{exit_call}: a reward function returns numbers and never exits") from error
    except (TypeError, AttributeError) as error:
        is_text = not part.chat and any(isinstance(completion, str) for completion in completions)
        if is_text and ("string indices" in str(error) or "'str' object has no attribute" in str(error)):
            remedy = "if it expects lists of messages, as TRL's do, set its option `chat` to true"
            raise RewardError(f"{name} gets completions as text and raised {error!r}: {remedy}") from error
        raise
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise RewardError(f"{name} returned {type(values).__name__}: expected a list of {rows} numbers")
    if len(values) != rows:
        raise RewardError(f"{name} returned {len(values)} values for {rows} completions")
    for value in values:
        if value is not None and (not isinstance(value, Real) or not math.isfinite(value)):
            raise RewardError(f"{name} returned {value!r}: expected a finite number or None")
    return [None if value is None else float(value) for value in values]
