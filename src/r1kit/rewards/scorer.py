"""Rewards by name, with options and weights, combined into one `Reward` per completion."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Real
from pathlib import Path
from typing import Any

from pydantic import Field, PydanticUserError, ValidationError, field_validator, model_validator, validate_call

from r1kit.rewards.columns import RewardFunction, configured
from r1kit.rewards.registry import REWARDS
from r1kit.settings import Settings, SettingsError, listed, nearest
from r1kit.store import to_plain
from r1kit.types import Reward, Verdict

RESERVED = ("completions", "log_metric", "log_extra", "log_verdicts", "log_undecided")  # arguments, so not columns
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*")


class RewardSpec(Settings):
    """One part of the reward.

    `name` is a key of `REWARDS` or a dotted path, `package.module:function` (a reward function, or a maker of one);
    `options` are the maker's keywords. `chat` says whether the function wants conversational completions: None means
    that functions of TRL get them and all others get text. `only` and `skip` are patterns of problems' sources: to
    others the part does not apply. `label` tells two parts of one name apart.
    """

    name: str
    weight: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)
    chat: bool | None = None
    only: tuple[str, ...] = Field(default=(), description="patterns of the sources it is for; empty: all")
    skip: tuple[str, ...] = Field(default=(), description="patterns of the sources it is not for")
    label: str = Field(default="", description="the name under which it is logged; empty: its name")

    _lists = field_validator("only", "skip", mode="before")(listed)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """A plain text is the name."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name in REWARDS or _DOTTED.fullmatch(name):
            return name
        hint = nearest(name, REWARDS)
        raise ValueError(f"there is no reward {name!r}: {hint} (or give a dotted path like package.module:function)")

    @property
    def title(self) -> str:
        """The name under which the part is logged: its label, or the last piece of a dotted path."""
        return self.label or re.split(r"[.:]", self.name)[-1]

    def is_for(self, source: str) -> bool:
        """Whether the part applies to problems of that source."""
        if any(fnmatchcase(source, pattern) for pattern in self.skip):
            return False
        return not self.only or any(fnmatchcase(source, pattern) for pattern in self.only)


@dataclass(frozen=True)
class Part:
    """A reward function that is ready to be called."""

    label: str
    weight: float
    function: RewardFunction
    chat: bool = False
    is_for: Callable[[str], bool] | None = None  # by the problem's source; None: all

    def places(self, columns: Mapping[str, Any], rows: int) -> list[int]:
        """The completions that the part applies to; raises ValueError where nothing says what they are of."""
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
    undecided: bool = False  # flagged by `log_undecided`
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
    """

    parts: tuple[Part, ...]

    def __call__(self, completions: Sequence[Any], /, **columns: Any) -> list[Reward]:
        rows = len(completions)
        for name, values in columns.items():
            if name in RESERVED and values is not None and not callable(values):
                raise ValueError(
                    f"column {name!r} has the name of an argument that reward functions are given: rename it"
                )
            if isinstance(values, list | tuple) and len(values) != rows:
                raise ValueError(f"column {name!r} has {len(values)} values for {rows} completions: give one for each")
        by_part = [self._score(part, completions, columns) for part in self.parts]
        return [self._combine(results) for results in zip(*by_part, strict=True)]

    def _score(self, part: Part, completions: Sequence[Any], columns: dict[str, Any]) -> list[PartResult]:
        """One result per completion; those that the part does not apply to keep a value of None."""
        results = [PartResult() for _ in completions]
        places = part.places(columns, len(completions))
        chosen = [results[place] for place in places]

        def pairs(name: str, values: Sequence[Any]) -> Iterable[tuple[PartResult, Any]]:
            if len(values) != len(chosen):
                raise ValueError(f"reward {part.label!r} logs {len(values)} {name!r} for {len(chosen)} completions")
            return zip(chosen, values, strict=True)

        def log_extra(name: str, values: Sequence[Any]) -> None:
            for result, value in pairs(name, values):
                result.notes[name] = _storable(value)

        def log_verdicts(verdicts: Sequence[Verdict | None]) -> None:
            for result, verdict in pairs("verdicts", verdicts):
                result.verdict = verdict

        def log_undecided(flags: Sequence[bool]) -> None:
            for result, flag in pairs("undecided", flags):
                result.undecided = flag

        if chosen:
            hooks = {"log_extra": log_extra, "log_verdicts": log_verdicts, "log_undecided": log_undecided}
            some = _at(places, columns) if len(places) < len(completions) else columns
            values = self._call(part, [completions[place] for place in places], some | hooks)
            for result, value in zip(chosen, _checked(part.label, values, len(places)), strict=True):
                result.value = value
        return results

    def _call(self, part: Part, completions: Sequence[Any], columns: dict[str, Any]) -> Any:
        given = list(completions)
        if part.chat:
            given = [[{"role": "assistant", "content": one}] if isinstance(one, str) else one for one in given]
        result = part.function(completions=given, **columns)
        return _wait(result) if inspect.isawaitable(result) else result

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


def _at(places: Sequence[int], columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of some completions; what is no column stays as it is."""
    return {
        name: [values[place] for place in places] if isinstance(values, list | tuple) else values
        for name, values in columns.items()
    }


def build(specs: Sequence[RewardSpec]) -> Scorer:
    """Make all reward functions before any work starts; raises `SettingsError` for options that cannot be meant."""
    if not specs:
        raise SettingsError("there is no reward: name at least one, such as accuracy")
    for label, times in Counter(spec.title for spec in specs).items():
        if times > 1:
            raise SettingsError(
                f"reward {label!r} is named {times} times: its parts could not be told apart; give each a label"
            )
    return Scorer(tuple(_part(spec) for spec in specs))


def source_file(spec: RewardSpec) -> Path | None:
    """The file with the code of a reward that is named by a dotted path."""
    return None if spec.name in REWARDS else Path(inspect.getfile(_imported(spec.name)))


def _part(spec: RewardSpec) -> Part:
    function, chat = _function(spec)
    return Part(spec.title, spec.weight, function, chat, spec.is_for if spec.only or spec.skip else None)


def _function(spec: RewardSpec) -> tuple[RewardFunction, bool]:
    """The reward function, and whether it wants conversational completions."""
    if spec.name in REWARDS:
        return _make(spec, REWARDS[spec.name]), bool(spec.chat)
    target = _imported(spec.name)
    chat = spec.name.startswith("trl.") if spec.chat is None else spec.chat
    if inspect.isbuiltin(target):
        raise SettingsError(f"reward {spec.name!r} is built into Python: expected a reward function, or a maker of one")
    takes = inspect.signature(target).parameters
    if not {"completions", "completion_ids", "prompts"} & takes.keys():
        return _make(spec, target), chat
    unknown = spec.options.keys() - takes.keys()
    if unknown and not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        raise SettingsError(f"reward {spec.name}: there is no option {', '.join(sorted(unknown))}")
    return configured(target, **spec.options) if spec.options else target, chat


def _make(spec: RewardSpec, maker: Any) -> RewardFunction:
    """Call a maker with its options checked and converted by its annotations."""
    takes = inspect.signature(maker).parameters
    for name in spec.options:
        if name not in takes and not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
            raise SettingsError(f"reward {spec.name} has no option {name!r}: {nearest(name, takes)}")
    try:
        made: RewardFunction = validate_call(maker)(**spec.options)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise SettingsError(f"reward {spec.name}: {'; '.join(lines)}") from None
    except (ValueError, TypeError) as error:
        raise SettingsError(f"reward {spec.name}: {error}") from error
    except PydanticUserError as error:  # a class, for example
        raise SettingsError(f"reward {spec.name} is neither a reward function nor a function that makes one") from error
    if not callable(made):
        raise SettingsError(f"reward {spec.name}: made {type(made).__name__}, expected a function")
    return made


def _imported(path: str) -> RewardFunction:
    module, _, function = path.rpartition(":" if ":" in path else ".")
    try:
        target: RewardFunction = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"reward {path!r} cannot be imported: {error}") from error
    if not callable(target):
        raise SettingsError(f"reward {path!r} is {type(target).__name__}, expected a function")
    return target


def _checked(label: str, values: Any, rows: int) -> list[float | None]:
    """One finite number or None per completion, or an error that names the reward."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise ValueError(f"reward {label!r} returned {type(values).__name__}: expected a list of {rows} numbers")
    if len(values) != rows:
        raise ValueError(f"reward {label!r} returned {len(values)} values for {rows} completions")
    for value in values:
        if value is not None and (not isinstance(value, Real) or not math.isfinite(value)):
            raise ValueError(f"reward {label!r} returned {value!r}: expected a finite number or None")
    return [None if value is None else float(value) for value in values]


def _storable(value: Any) -> Any:
    """A note as JSON can hold it; what it cannot hold, as text."""
    try:
        return to_plain(value)
    except ValueError:
        return str(value)[:1000]


def _wait(awaitable: Awaitable[Any]) -> Any:
    async def run() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run())
    with ThreadPoolExecutor(1) as thread:  # inside a running loop (a notebook) another loop needs another thread
        return thread.submit(asyncio.run, run()).result()
