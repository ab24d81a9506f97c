"""From reward specs to a scorer: functions found by name or dotted path, options checked."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError, validate_call

from r1kit.engines.engine_settings import OwnEngineSettings, parse_engine
from r1kit.rewards.completion_form import annotated_form
from r1kit.rewards.inputs import RewardFunction, configured
from r1kit.rewards.part import RewardPart
from r1kit.rewards.registry import REWARDS
from r1kit.rewards.scorer import Scorer
from r1kit.rewards.spec import RewardSpec
from r1kit.settings import SettingsError, import_function, nearest, readable

TAKEN = ("mean", "std")  # metrics reward/mean and reward/std
MAKER = "a reward needs a parameter `completions`; a function without it is called as a maker with the options"


def build(specs: Sequence[RewardSpec]) -> Scorer:
    """Load all reward functions before any work starts; raises `SettingsError` for unknown or invalid options."""
    if not specs:
        raise SettingsError("no rewards are given: name at least one, such as accuracy")
    for label, count in Counter(spec.title for spec in specs).items():
        if count > 1:
            raise SettingsError(
                f"{count} rewards are called {label!r}, so their parts could not be told apart: give "
                "each a label of its own"
            )
        if label in TAKEN:
            raise SettingsError(f"reward {label!r} would be logged as reward/{label}, which is taken: give it a label")
    parts = []
    for spec in specs:
        function = _make(spec, REWARDS[spec.name]) if spec.name in REWARDS else _own_function(spec)
        is_own = spec.name not in REWARDS and not spec.name.startswith("r1kit.")  # ours read the reference in `answer`
        chat = annotated_form(function) if is_own and spec.chat is None else spec.chat
        is_for = spec.is_for if spec.only or spec.skip else None
        parts.append(RewardPart(spec.title, spec.weight, function, chat, is_for, is_own))
    return Scorer(tuple(parts))


def source_files(spec: RewardSpec) -> dict[str, Path]:
    """The files with the code of a reward, by the ending of their names as inputs.

    Of a reward by dotted path, the file that defines the function or, for other objects, the class, and the module of
    the path if that is another file: it may hold an object's options. Of a judged reward, the file of an own engine.
    """
    if spec.name in REWARDS:
        engine = parse_engine(spec.options["engine"]) if "engine" in spec.options else None
        return {".engine": engine.source_file()} if isinstance(engine, OwnEngineSettings) else {}
    function = import_function(spec.name, "reward")
    module = getattr(sys.modules.get(re.split(r":|\.(?=\w+$)", spec.name)[0]), "__file__", None)
    is_plain = inspect.isfunction(function) or inspect.isclass(function)
    while isinstance(function, partial):
        function = function.func
    code = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    try:
        files = {"": Path(inspect.getfile(inspect.unwrap(code)))}
    except TypeError:  # written in C
        files = {}
    if module is not None and (not files or (not is_plain and Path(module) != files[""])):
        files[".module" if files else ""] = Path(module)
    return files


def _own_function(spec: RewardSpec) -> RewardFunction:
    """A function, partial, bound method or callable object by dotted path; or what a maker or class returns."""
    function: RewardFunction = import_function(spec.name, "reward")
    if inspect.isbuiltin(function):
        expected = "expected a reward function, or a function that returns one"
        raise SettingsError(f"reward {spec.name!r} is built into Python: {expected}")
    parameters = inspect.signature(function).parameters
    if inspect.isclass(function) or not {"completions", "completion_ids", "prompts"} & parameters.keys():
        try:
            function = _make(spec, function)
        except SettingsError as error:
            raise SettingsError(f"{error} ({MAKER})") from error
        except LookupError as error:  # a function that looks for `completions` in its keywords
            raise SettingsError(f"reward {spec.name}: {type(error).__name__}: {error} ({MAKER})") from error
        _require_keywords(spec, function)
        return function
    _require_keywords(spec, function)
    _check_options(spec, function)
    return configured(function, **spec.options) if spec.options else function


def _make(spec: RewardSpec, maker: Any) -> RewardFunction:
    """Call a maker of reward functions, its options checked and converted by its annotations."""
    _check_options(spec, maker)
    try:
        is_function = inspect.isroutine(getattr(maker, "func", maker))  # also behind a partial
        function: RewardFunction = (validate_call(maker) if is_function else maker)(**spec.options)
    except ValidationError as error:
        lines = [readable(item, ".".join(map(str, item["loc"]))) for item in error.errors()]
        raise SettingsError(f"reward {spec.name}: {'; '.join(lines)}") from None
    except (ValueError, TypeError) as error:
        raise SettingsError(f"reward {spec.name}: {error}") from error
    if not callable(function):
        raise SettingsError(f"reward {spec.name} returned {type(function).__name__}: expected a reward function")
    return function


def _require_keywords(spec: RewardSpec, function: RewardFunction) -> None:
    """Raise `SettingsError` for a function that does not take any keyword: columns and hooks come as keywords."""
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
