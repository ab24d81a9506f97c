"""Recipes and scales of one's own, named by a dotted path."""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

from r1kit.settings import SettingsError, nearest

T = TypeVar("T")


def imported(path: str, expected: type[T]) -> T:
    """The object of type `expected` behind `package.module:NAME`; raises `SettingsError` if there is none."""
    module_name, _, name = path.partition(":")
    try:
        module: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{path}: {error}; add the folder that holds it to PYTHONPATH") from None
    public = [other for other in vars(module) if not other.startswith("_")]
    if name not in public:
        raise SettingsError(f"{path}: {module.__file__} has no {name!r}: {nearest(name, public)}")
    value = getattr(module, name)
    if not isinstance(value, expected):
        raise SettingsError(f"{path} is {article(value)}, expected a {expected.__name__}")
    return value


def article(value: object) -> str:
    """The type of a value in a sentence: "an int", "a Scale"."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
