"""Recipes: functions that return the stages of a run with their settings. Nothing runs here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
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


def build_recipe(name: str, **options: Any) -> Recipe:
    """The recipe of a name, or of the function behind `package.module:function`.

    Options are `scale`, `model`, `teacher`, `overrides` and `seed`; None stands for the recipe's own choice. Raises
    `SettingsError` for an unknown recipe, and for an option that it does not take.
    """
    if ":" not in name and name not in RECIPES:
        raise SettingsError(f"there is no recipe {name!r}: {nearest(name, RECIPES)} (or give package.module:function)")
    make = import_function(name, "recipe") if ":" in name else RECIPES[name]
    parameters = inspect.signature(make).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    takes = options if takes_all else parameters
    if unknown := [option for option, value in options.items() if value and option not in takes]:
        flags = [f"--{'set' if option == 'overrides' else option}" for option in unknown]
        raise SettingsError(f"recipe {name} does not take {' or '.join(flags)}: leave it out")
    recipe = make(**{option: value for option, value in options.items() if option in takes and value is not None})
    if not isinstance(recipe, Recipe):
        raise SettingsError(f"{name} returned {article(recipe)}, expected a Recipe")
    return recipe
