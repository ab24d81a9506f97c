"""Recipe files: a recipe with its model, data and sizes as TOML. Paths in a file are relative to the file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from r1kit.data.errors import DataError
from r1kit.data.rows import SUFFIXES
from r1kit.models.known import KNOWN, ModelError
from r1kit.recipes.file_text import NULL, key_lines, located
from r1kit.settings import Settings, SettingsError, explain, nearest
from r1kit.store import read_bounded

TABLES = ("data", "rewards", "stages")
MODELS = ("model", "student", "teacher")
REWARDS = "rl.rewards"  # the setting that the table [rewards] is
_PATH = re.compile(rf"((?:shuffled:|requests:|harmful:)*)(\.{{1,2}}/.*|\S.*(?:{'|'.join(map(re.escape, SUFFIXES))}))")


class FileContent(Settings):
    """The keys and tables of a recipe file."""

    recipe: str
    model: str | None = None
    student: str | None = None
    teacher: str | None = None
    scale: str | None = None
    seed: int | None = None
    hardware: str | None = None
    devices: int | None = Field(None, ge=1)
    rehearse: bool = False
    track: list[str] = Field(default=[])
    controls: list[str] = Field(default=[])
    allow_code: list[str] = Field(default=[])
    data: dict[str, Any] = Field(default={})
    rewards: dict[str, Any] = Field(default={})
    stages: dict[str, dict[str, Any]] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "recipe" not in values:
            raise ValueError('recipe is missing: name one, as in recipe = "r1-zero"')
        for name, value in values.items():
            if name not in cls.model_fields:
                hint = nearest(name, cls.model_fields, cutoff=0.8)
                raise ValueError(f"there is no key {name}: {hint}; settings of a stage stand below [stages.STAGE]")
            if name in TABLES and not isinstance(value, dict):
                raise ValueError(f"{name} is {value!r:.80}: write a table, [{name}] on a line, and its keys below it")
        return values

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        for role, value in self.data.items():
            if not isinstance(value, str | dict | list):
                raise ValueError(
                    f"data.{role} is {value!r}: give the name of a set, a file, a table or a list of these"
                )
        for name, value in self.rewards.items():
            if not isinstance(value, int | float | dict) or isinstance(value, bool):
                raise ValueError(f"rewards.{name} is {value!r}: give a weight, or a table with weight and options")
        return self


@dataclass(frozen=True)
class RecipeFile:
    """A recipe's name and the other arguments of `build_recipe`, with the lines of the file that name them."""

    path: Path
    recipe: str
    options: Mapping[str, Any]
    lines: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises `SettingsError` with file and line for text that is not TOML, unknown keys and wrong types."""
        try:
            text = read_bounded(path).removeprefix("\ufeff")
            values = tomllib.loads(text)
        except UnicodeDecodeError as error:
            raise SettingsError(
                f"{path}: byte {error.start} is not UTF-8 text ({error.reason}): save it as UTF-8"
            ) from None
        except ValueError as error:
            remedy = 'a recipe file is TOML, in which text has quotes, as in recipe = "r1-zero"'
            if path.suffix in SUFFIXES:
                remedy = "data are no recipe: name one, as in r1kit run r1-zero --data problems=FILE"
            raise SettingsError(f"{path}: {error}: {remedy}") from None
        lines = key_lines(text)
        try:
            content = FileContent.model_validate(values, strict=True)
        except ValidationError as error:
            raise SettingsError(located(explain(FileContent, error), path, lines)) from None
        options = content.model_dump(exclude={"recipe", "stages", "rewards"}, exclude_none=True)
        options["data"] = {
            role: value if isinstance(value, str) else with_none(value) for role, value in options["data"].items()
        }
        options = absolute(options, path.parent)
        overrides = within(dotted(content.stages), path.parent)
        if content.rewards:
            overrides[REWARDS] = [
                {"name": name, **(value if isinstance(value, dict) else {"weight": value})}
                for name, value in content.rewards.items()
            ]
        return cls(path, content.recipe, {**options, "overrides": overrides}, lines)

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Add file and line to errors of settings, data and models."""
        try:
            yield
        except (SettingsError, DataError, ModelError) as error:
            text = str(error)
            if "there is no stage rl:" in text and REWARDS in self.options["overrides"]:
                text = (
                    f"rewards: recipe {self.recipe} has no stage rl: set them by stage, as in [stages.dev2] rewards = "
                )
                text += '["accuracy"]'
            raise SettingsError(located(text, self.path, self.lines)) from None


def is_recipe_file(name: str) -> bool:
    """Whether the name of a recipe is the path of a file."""
    return name.endswith(".toml") or Path(name).is_file()


def combined(file: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file with others on top: roles and settings are combined one by one."""
    merged = {**file, **{name: value for name, value in options.items() if value is not None and value is not False}}
    for name in ("data", "overrides"):
        merged[name] = {**(file.get(name) or {}), **(options.get(name) or {})}
    return merged


def absolute(options: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The options of `build_recipe` with absolute paths, so that a run can be repeated from any folder.

    A model is a path if it begins with a dot or is a folder under `base`. Other text is a path if it begins with ./ or
    ../, or ends as data files do.
    """
    options = dict(options)
    for name in MODELS:
        if (model := options.get(name)) and model not in KNOWN:
            folder = base / Path(model).expanduser()
            if model.startswith(".") or folder.is_dir():
                options[name] = str(folder.resolve())
    for name in ("data", "overrides"):
        options[name] = within(options.get(name) or {}, base)
    for role, value in options["data"].items():
        if isinstance(value, str) and "/" in value and (base / value).is_dir():  # stored logits
            options["data"][role] = str((base / value).resolve())
    return options


def within(value: Any, base: Path) -> Any:
    """A value with the paths in it made absolute; see `absolute`. Text with spaces is a path only if a file is there:
    a system prompt may end with `.json`."""
    if isinstance(value, Mapping):
        return {key: within(item, base) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [within(item, base) for item in value]
    if isinstance(value, str) and (match := _PATH.fullmatch(value)) and "hub:" not in value:
        path = (base / Path(match[2]).expanduser()).resolve()
        if " " not in value or os.path.exists(path):  # False, and no error, for a long text
            return f"{match[1] or ''}{path}"
    return value


def dotted(value: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Nested tables as dotted settings: `{"rl": {"optimizer": {"learning_rate": 1e-6}}}` -> `{"rl.optimizer...": }`."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        path = f"{name}.{key}" if name else key
        flat |= dotted(item, path) if isinstance(item, Mapping) else {path: with_none(item)}
    return flat


def with_none(value: Any) -> Any:
    """A value of the file with None in place of "null"."""
    if isinstance(value, list):
        return [with_none(item) for item in value]
    if isinstance(value, Mapping):
        return {key: with_none(item) for key, item in value.items()}
    return None if value == NULL else value
