"""The base of every settings class, and errors that name the field and the nearest right spelling."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

NOT_HASHED: dict[str, Any] = {"fingerprint": False}  # for settings that change speed or comfort, never the result


class SettingsError(ValueError):
    """A setting that does not exist or has a value that cannot be meant; the message says how to mend it."""


class Settings(BaseModel):
    """Frozen settings: unknown fields are errors, defaults are the vetted values and are checked too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain data; raises `SettingsError` with one line per wrong field."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(explain(cls, error)) from None

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy in which dotted fields have new values: `settings.override({"optimizer.learning_rate": "1e-4"})`."""
        settings = self
        # shallow fields first: a preset given by name is a group of fields by the time one of them is changed
        for depth in sorted({path.count(".") for path in changes}):
            values = settings.model_dump()
            for path, value in changes.items():
                if path.count(".") == depth:
                    _put(values, path.split("."), value, type(self))
            settings = type(self).parse(values)
        return settings


def listed(value: Any) -> Any:
    """One item, or a comma-separated text, where a list is wanted: `"accuracy,format"` is two items."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, Mapping) else value


def _put(values: dict[str, Any], path: list[str], value: Any, cls: type[BaseModel]) -> None:
    *parents, last = path
    for depth, key in enumerate(parents):
        if not isinstance(values.get(key), dict):
            whole = ".".join(path[: depth + 1])
            if key in values:
                is_list = isinstance(values[key], list | tuple)
                why = f"is a list, which is set whole, as JSON: {whole}=[...]" if is_list else "has no settings in it"
                raise SettingsError(f"there is no setting {'.'.join(path)}: {whole} {why}")
            raise SettingsError(unknown_field(cls, path[: depth + 1]))
        values = values[key]
    values[last] = value


def explain(cls: type[BaseModel], error: ValidationError) -> str:
    """One readable line per error of pydantic's."""
    lines = []
    errors = error.errors()
    for item in errors:
        path = [str(part) for part in item["loc"]]
        if item["type"] == "too_short" and any(other["loc"][:-1][: len(path)] == item["loc"] for other in errors):
            continue  # pydantic counts the good items only, and what is wrong with the others has a line of its own
        if item["type"] == "extra_forbidden":
            lines.append(unknown_field(cls, path))
        else:
            given = repr(item["input"])
            given = given if len(given) <= 80 else given[:77] + "..."
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{'.'.join(path) or cls.__name__}: {message} (given {given})")
    return "\n".join(lines)


def unknown_field(cls: type[BaseModel], path: list[str]) -> str:
    """The message for a field that is not there, with the nearest that is."""
    names = _fields_at(cls, path[:-1])
    near = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.5)
    hint = f"did you mean {'.'.join([*path[:-1], near[0]])}?" if near else f"known here: {', '.join(sorted(names))}"
    return f"there is no setting {'.'.join(path)}: {hint}"


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    for name in path:
        field = getattr(cls, "model_fields", {}).get(name)
        cls = field.annotation if field is not None else None
    return list(getattr(cls, "model_fields", {}))
