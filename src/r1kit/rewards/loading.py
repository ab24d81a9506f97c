"""From reward specs to a scorer: functions found by name or dotted path, options checked."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import PydanticUserError, ValidationError, validate_call

from r1kit.rewards.columns import Configured, RewardFunction, configured
from r1kit.rewards.registry import REWARDS
from r1kit.rewards.scorer import Part, Scorer
from r1kit.rewards.spec import RewardSpec
from r1kit.settings import SettingsError, import_function, nearest

TAKEN = ("mean", "std")  # metrics reward/mean and reward/std
MAKER = "a reward needs a parameter `completions`; a function without it is called as a maker with the options"


def build(specs: Sequence[RewardSpec]) -> Scorer:
    """Load all reward functions before any work starts; raises `SettingsError` for unknown or invalid options."""
    if not specs:
        raise SettingsError("no rewards are given: name at least one, such as accuracy")
    for label, count in Counter(spec.title for spec in specs).items():
        if count > 1:
            raise SettingsError(
                f"reward {label!r} is named {count} times: its parts could not be told apart; give each a label"
            )
        if label in TAKEN:
            raise SettingsError(f"reward {label!r} would be logged as reward/{label}, which is taken: give it a label")
    parts = []
    for spec in specs:
        chat = spec.name.startswith("trl.") if spec.chat is None else spec.chat
        is_for = spec.is_for if spec.only or spec.skip else None
        parts.append(Part(spec.title, spec.weight, _function(spec), chat, is_for))
    return Scorer(tuple(parts))


def source_file(spec: RewardSpec) -> Path | None:
    """The file with the code of a reward that is named by dotted path."""
    return None if spec.name in REWARDS else Path(inspect.getfile(import_function(spec.name, "reward")))


def _function(spec: RewardSpec) -> RewardFunction:
    if spec.name in REWARDS:
        return _make(spec, REWARDS[spec.name])
    function: RewardFunction = import_function(spec.name, "reward")
    if inspect.isbuiltin(function):
        expected = "expected a reward function, or a function that returns one"
        raise SettingsError(f"reward {spec.name!r} is built into Python: {expected}")
    parameters = inspect.signature(function).parameters
    if not {"completions", "completion_ids", "prompts"} & parameters.keys():
        try:
            made = _make(spec, function)
        except SettingsError as error:
            raise SettingsError(f"{error} ({MAKER})") from error
        except LookupError as error:  # a function that looks for `completions` in its keywords
            raise SettingsError(f"reward {spec.name}: {type(error).__name__}: {error} ({MAKER})") from error
        _require_keywords(spec, made)
        return made
    _require_keywords(spec, function)
    _check_options(spec, function)
    return configured(function, **spec.options) if spec.options else function


def _make(spec: RewardSpec, maker: Any) -> RewardFunction:
    """Call a maker of reward functions, its options checked and converted by its annotations."""
    _check_options(spec, maker)
    try:
        function: RewardFunction = validate_call(maker)(**spec.options)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise SettingsError(f"reward {spec.name}: {'; '.join(lines)}") from None
    except (ValueError, TypeError) as error:
        raise SettingsError(f"reward {spec.name}: {error}") from error
    except PydanticUserError as error:  # a class, for example
        neither = "is neither a reward function nor a function that returns one"
        raise SettingsError(f"reward {spec.name} {neither}") from error
    if not callable(function):
        raise SettingsError(f"reward {spec.name} returned {type(function).__name__}: expected a reward function")
    return function


def _require_keywords(spec: RewardSpec, function: RewardFunction) -> None:
    """Raise `SettingsError` for a function that does not take any keyword: columns and hooks come as keywords."""
    function = function.function if isinstance(function, Configured) else function
    if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()):
        raise SettingsError(
            f"reward {spec.name} takes no `**columns`: end its parameters with `**columns`, for the columns of the "
            "task and hooks such as log_metric come as keywords"
        )


def _check_options(spec: RewardSpec, function: Any) -> None:
    """Raise `SettingsError` for an option that is no parameter of the function."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in spec.options:
        if name not in parameters:
            raise SettingsError(f"reward {spec.name} has no option {name!r}: {nearest(name, parameters)}")
