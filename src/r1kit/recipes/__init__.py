"""Recipes: functions that return the stages of a run with their settings. Nothing runs here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from r1kit.pipeline import Recipe
from r1kit.recipes.distill import distill
from r1kit.recipes.r1 import r1
from r1kit.recipes.r1_zero import r1_zero
from r1kit.recipes.tiny_base import tiny_base
from r1kit.recipes.v3 import v3
from r1kit.settings import SettingsError, article, import_function, nearest

RECIPES: dict[str, Callable[..., Recipe]] = {
    "r1-zero": r1_zero,
    "r1": r1,
    "distill": distill,
    "v3": v3,
    "tiny-base": tiny_base,
}


def build_recipe(
    name: str,
    *,
    scale: str | None = None,
    model: str | None = None,
    student: str | None = None,
    teacher: str | None = None,
    data: Mapping[str, Any] | None = None,
    hardware: str | None = None,
    rehearse: bool = False,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Recipe:
    """The recipe of a name, or of the function behind `package.module:function`.

    None stands for the recipe's own choice. `data` gives each role ("problems", "eval") a known set's name, a file, the
    fields of `TaskSpec`, or a list of these. `hardware` is the device that sizes are chosen for; recipes of fixed sizes
    ignore it. `rehearse` asks for the smallest sizes and a random model of the same architecture.

    Raises `SettingsError` for an unknown recipe, and for an option that it does not take.
    """
    options = {
        "scale": scale,
        "model": model,
        "student": student,
        "teacher": teacher,
        "data": data or None,
        "hardware": hardware,
        "rehearse": rehearse or None,
        "overrides": overrides,
        "seed": seed,
    }
    if ":" not in name and name not in RECIPES:
        raise SettingsError(f"there is no recipe {name!r}: {nearest(name, RECIPES)} (or give package.module:function)")
    make = import_function(name, "recipe") if ":" in name else RECIPES[name]
    parameters = inspect.signature(make).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    takes = options if takes_all else parameters
    if unknown := [option for option, value in options.items() if value and option not in {*takes, "hardware"}]:
        flags = [f"--{'set' if option == 'overrides' else option}" for option in unknown]
        raise SettingsError(f"recipe {name} does not take {' or '.join(flags)}: leave it out")
    recipe = make(**{option: value for option, value in options.items() if option in takes and value is not None})
    if not isinstance(recipe, Recipe):
        raise SettingsError(f"{name} returned {article(recipe)}, expected a Recipe")
    return recipe
