"""The base class of all settings, and errors that name the field and the closest valid spelling."""

from __future__ import annotations

import difflib
import importlib
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from r1kit.numeric import LARGEST, shown
from r1kit.redaction import redacted_text
from r1kit.types import HOTTEST

T = TypeVar("T")
Weight = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Temperature = Annotated[float, Field(ge=0, le=HOTTEST)]
NOT_HASHED: dict[str, Any] = {"fingerprint": False}  # marks the fields that `unhashed` declares
HASHED_IF_SET: dict[str, Any] = {"fingerprint": "if set"}  # and those of `added`
MAX_LISTED = 40  # names in one error message
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
# pydantic's errors for a missing value, and for rules that quote text; how its rules begin, and details after them
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument", "missing_positional_only_argument")
_QUOTING = ("literal_error", "enum", "string_pattern_mismatch")
_SHOULD = re.compile(r"[A-Z]\w+ should ")
_DETAIL = re.compile(", | or instance of| after validation")
# our words for its rules
_RULES = {"greater than or equal to": "at least", "less than or equal to": "at most", "less than": "below"}
_RULES |= {"greater than": "above", "a valid string": "text", "a valid integer": "a whole number"}
_RULES |= {"a valid number": "a number", "a valid boolean": "true or false", "a valid dictionary": "an object"}
_RULES |= {"a valid tuple": "a list", "a valid list": "a list", "a valid date or datetime": "a date like 2024-07-26"}


class SettingsError(ValueError):
    """An unknown setting or an invalid value; the message says how to fix it."""


def unhashed(default: T, **options: Any) -> T:
    """A `Field` that does not count in the fingerprint, so changing it redoes no stage.

    The rule goes by purpose: for settings that exist to change speed, memory, logging, or when a stage waits or stops.
    Some of these change the last bits of a result (another device, another batch of tokens).
    """
    field: T = Field(default, json_schema_extra=NOT_HASHED, **options)
    return field


def added(default: T, **options: Any) -> T:
    """A `Field` that counts in the fingerprint only if it is not the default: what is finished without it stays so."""
    field: T = Field(default, json_schema_extra=HASHED_IF_SET, **options)
    return field


class Settings(BaseModel):
    """Frozen settings. Unknown fields are errors, and defaults are validated like any other value."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], prefix: str = "") -> Self:
        """Build from plain data. Raises `SettingsError` with one line per wrong field, named `prefix.field`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(explain(cls, error, prefix)) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields replaced, validated like new settings."""
        return self.parse({name: getattr(self, name) for name in type(self).model_fields} | changes)

    def override(self, changes: Mapping[str, Any], prefix: str = "") -> Self:
        """A copy with dotted fields set: `settings.override({"optimizer.learning_rate": "1e-4"})`."""
        settings = self
        # Shallow fields first: a preset that is named becomes a group of fields before one of them is changed.
        for depth in sorted({path.count(".") for path in changes}):
            values = settings.model_dump()
            for path, value in changes.items():
                if path.count(".") == depth:
                    _set_field(values, path.split("."), value, type(self), prefix)
            settings = self.parse(values, prefix)
        return settings


class ForSources(Settings):
    """Settings that apply to problems of some sources: those of `only` (empty: all), without those of `skip`."""

    only: tuple[str, ...] = Field(default=(), description="patterns of the sources it applies to; empty: all")
    skip: tuple[str, ...] = Field(default=(), description="patterns of the sources it does not apply to")

    @field_validator("only", "skip", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return listed(value)

    def is_for(self, source: str) -> bool:
        """Whether it applies to problems of that source."""
        if any(fnmatchcase(source, pattern) for pattern in self.skip):
            return False
        return not self.only or any(fnmatchcase(source, pattern) for pattern in self.only)


def listed(value: Any) -> Any:
    """Accept a single item or comma-separated text for a list: `"accuracy,format"` is two items."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, Mapping) else value


def nearest(name: str, names: Collection[str], prefix: str = "", cutoff: float = 0.5) -> str:
    """A hint for an unknown name: "did you mean `prefix`NAME?", or the known names if none is as similar as `cutoff`
    (1: the same)."""
    if close := difflib.get_close_matches(name, names, n=1, cutoff=cutoff):
        return f"did you mean {prefix}{close[0]}?"
    shown = ", ".join(list(names)[:MAX_LISTED]) or "none"
    return f"known are {shown}" + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")


def is_dotted_path(name: str) -> bool:
    """Whether a name has the form `package.module:function`, `package.module:object.method` or
    `package.module.function`."""
    return _DOTTED_PATH.fullmatch(name) is not None


def import_object(path: str, role: str) -> Any:
    """The object behind a dotted path; raises `SettingsError`, which begins with `role`, if there is none."""
    module_name, _, name = path.rpartition(":" if ":" in path else ".")
    if not (module_name and name):
        raise SettingsError(f"{role} {path!r} is not a dotted path: expected package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        reason = str(error)
        if isinstance(error, ModuleNotFoundError) and error.name:
            reason = f"no module named {error.name!r} in the current folder or on PYTHONPATH"
        raise SettingsError(f"{role} {path!r} cannot be imported: {reason}") from error
    except (Exception, SystemExit) as error:  # a module that calls `sys.exit(0)` must not end a run with status 0
        raise SettingsError(f"{role} {path!r} cannot be imported: {type(error).__name__}: {error}") from error
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            hint = nearest(part, [other for other in dir(value) if not other.startswith("_")])
            raise SettingsError(f"{role} {path!r} cannot be imported: {module_name} has no {name!r}: {hint}")
        value = getattr(value, part)
    return value


def import_function(path: str, role: str) -> Any:
    """`import_object`, which also raises `SettingsError` for anything that cannot be called."""
    function = import_object(path, role)
    if not callable(function):
        raise SettingsError(f"{role} {path!r} is {article(function)}: expected a function")
    return function


def article(value: object) -> str:
    """The type of a value in a sentence: "an int", "a Scale"."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def explain(cls: type[BaseModel], error: ValidationError, prefix: str = "") -> str:
    """Pydantic's errors as text, one readable line each."""
    lines = []
    errors = error.errors()
    for item in errors:
        path = [str(part) for part in item["loc"]]
        if item["type"] == "too_short" and any(other["loc"][:-1][: len(path)] == item["loc"] for other in errors):
            continue  # pydantic counts valid items only, and each invalid one has a line of its own
        if item["type"] == "default_factory_not_called":
            continue  # it only repeats that another field is wrong, and that field has a line of its own
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, SettingsError):  # a group of settings that explained itself
            name = _dotted(prefix, *path)
            lines += [f"{name}: {line}" if name else line for line in str(cause).splitlines()]
        elif item["type"] == "extra_forbidden":
            lines.append(unknown_field(cls, path, prefix))
        else:
            lines.append(readable(item, _dotted(prefix, *path)))
    return "\n".join(lines)


def readable(item: Mapping[str, Any], name: str) -> str:
    """One of pydantic's errors in our words: which setting or option, what was given, and what is expected."""
    message = item["msg"].removeprefix("Value error, ")
    at = f"{name}: " if name else ""
    if item["type"] in _MISSING:
        return f"{name} is missing: set it"
    if item["type"] == "unexpected_keyword_argument":
        return f"there is no option {name}: leave it out"
    given = item["input"]
    value = shown_without_secrets(given)
    if item["type"] == "value_error":  # a validator of ours; one that checks several fields names them itself
        is_shown = isinstance(given, Mapping | list | tuple | BaseModel) or value in message
        return f"{at}{message}" if is_shown else f"{at}{message} (given {value})"
    if expected := _SHOULD.match(message):
        rule = message[expected.end() :]
        rule = rule if item["type"] in _QUOTING else _DETAIL.split(rule)[0]
        for theirs, ours in _RULES.items():
            rule = rule.replace(theirs, ours)
        return f"{name or 'the value'} is {value}: it must {rule}"
    return f"{at}{message} (given {value})"


def shown_without_secrets(value: Any) -> str:
    """The beginning of a value's `repr`."""
    text = redacted_text(shown(value, most=1000))
    return text if len(text) <= 80 else text[:77] + "..."


def unknown_field(cls: type[BaseModel], path: list[str], prefix: str = "") -> str:
    """The message for an unknown field, with the closest valid one at its level or below."""
    *parents, last = path
    for name in parents:
        if not name.isdigit():  # the place of an item in a list
            cls = _nested(cls, name, in_lists=True) or Settings
    parent = _dotted(prefix, *parents)
    same = [name for name in _dotted_fields(cls) if name.rpartition(".")[2] == last]
    dot = f"{parent}." if parent else ""
    hint = f"did you mean {dot}{same[0]}?" if same else nearest(last, cls.model_fields, dot)
    return f"there is no setting {dot}{last}: {hint}"


def _set_field(values: dict[str, Any], path: list[str], value: Any, cls: type[BaseModel], prefix: str) -> None:
    *parents, last = path
    for depth, key in enumerate(parents, 1):
        if key in values and values[key] is None:  # an optional group, such as `engine`
            values[key] = {}
        if not isinstance(values.get(key), dict):
            if key not in values:
                raise SettingsError(unknown_field(cls, path[:depth], prefix))
            parent = _dotted(prefix, *path[:depth])
            is_list = isinstance(values[key], list | tuple)
            why = f"is a list: set all of it, as JSON: {parent}=[...]" if is_list else "has no settings in it"
            raise SettingsError(f"there is no setting {_dotted(prefix, *path)}: {parent} {why}")
        values = values[key]
    values[last] = value


def _dotted_fields(cls: type[BaseModel]) -> Iterator[str]:
    """Names of all fields of a settings class, those of nested settings as "optimizer.learning_rate"."""
    for name in cls.model_fields:
        yield name
        if nested := _nested(cls, name):
            yield from (f"{name}.{inner}" for inner in _dotted_fields(nested))


def _nested(cls: type[BaseModel], name: str, *, in_lists: bool = False) -> type[BaseModel] | None:
    """The settings class of a field, also if it is optional and, with `in_lists`, if the field lists several."""
    field = cls.model_fields.get(name)
    kind = None if field is None else field.annotation
    if typing.get_origin(kind) in (types.UnionType, typing.Union) or in_lists:
        kind = next((part for part in typing.get_args(kind) if isinstance(part, type)), kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _dotted(*parts: str) -> str:
    return ".".join(part for part in parts if part)
