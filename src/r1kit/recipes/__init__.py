"""Recipes: functions that return the stages of a run with their settings. Nothing runs here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1kit.models.folder_code import allow
from r1kit.pipeline import Recipe
from r1kit.recipes.controls import with_controls
from r1kit.recipes.distill import distill
from r1kit.recipes.file import RecipeFile, absolute, combined, is_recipe_file
from r1kit.recipes.file_text import to_toml
from r1kit.recipes.parts import PARTS
from r1kit.recipes.r1 import r1
from r1kit.recipes.r1_zero import r1_zero
from r1kit.recipes.tiny_base import tiny_base
from r1kit.recipes.v3 import v3
from r1kit.recipes.v4 import v4
from r1kit.settings import SettingsError, article, import_function, nearest
from r1kit.tracking import check_names

RECIPES: dict[str, Callable[..., Recipe]] = {
    "r1-zero": r1_zero,
    "r1": r1,
    "distill": distill,
    "v3": v3,
    "v4": v4,
    "tiny-base": tiny_base,
    **{name: part for name, part in PARTS.items() if name != "distill"},
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
    devices: int | None = None,
    rehearse: bool = False,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    track: Sequence[str] = (),
    controls: Sequence[str] = (),
    allow_code: Sequence[str] = (),
) -> Recipe:
    """The recipe of a name, of the function behind `package.module:function`, or of a recipe file.

    Options come on top of those of a file; paths become absolute, relative ones from the file or the current folder.
    None stands for the recipe's own choice. `data` gives each role ("problems", "eval") a known set's name, a file, the
    fields of `TaskSpec`, or a list of these. `hardware` is the device that sizes are chosen for, and `devices` of them
    share each training stage; recipes of fixed sizes ignore both. `rehearse` asks for the smallest sizes and a random
    model of the same architecture. `track` names trackers that show the run. `controls` are arms such as "random", or
    STAGE:ARM (docs/guides/controls.md). `allow_code` names models whose folder has Python code that may run.

    Raises `SettingsError` for an unknown recipe, and for an option that it does not take.
    """
    options = {
        "scale": scale,
        "model": model,
        "student": student,
        "teacher": teacher,
        "data": data,
        "hardware": hardware,
        "devices": devices,
        "rehearse": rehearse,
        "overrides": overrides,
        "seed": seed,
        "track": list(track) or None,
        "controls": list(controls) or None,
        "allow_code": list(allow_code) or None,
    }
    options = absolute(options, Path.cwd())
    if name in RECIPES or not is_recipe_file(name):
        return _build(name, options)
    file = RecipeFile.read(Path(name))
    with file.locating():
        return _build(file.recipe, combined(file.options, options))


def _build(name: str, options: Mapping[str, Any]) -> Recipe:
    """The recipe of a name or a dotted path, with the file that repeats it."""
    for option, least in (("devices", 1), ("seed", 0)):
        if (number := options.get(option)) is not None and number < least:
            raise SettingsError(f"{option} is {number}: give at least {least}")
    options = {option: value for option, value in options.items() if value}
    track = check_names(options.get("track", ()))
    controls, allow_code = options.pop("controls", ()), options.pop("allow_code", ())
    devices = options.pop("devices", 1)
    allow(allow_code)
    if ":" not in name and name not in RECIPES:
        raise SettingsError(
            f"there is no recipe {name!r}: {nearest(name, RECIPES)} (or a file, package.module:function)"
        )
    make = import_function(name, "recipe") if ":" in name else RECIPES[name]
    parameters = inspect.signature(make).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    options |= {"devices": devices} if devices > 1 else {}
    takes = {*parameters, "track", *(options if takes_all else ["hardware", "devices"])}
    if unknown := [option for option in options if option not in takes]:
        names = ["settings (--set)" if option == "overrides" else option for option in unknown]
        raise SettingsError(f"recipe {name} does not take {' or '.join(names)}: leave it out")
    always: dict[str, Any] = {"overrides": {}, "seed": 0}
    recipe = make(
        **{
            option: value
            for option, value in (always | options).items()
            if option in parameters or (takes_all and option != "track")
        }
    )
    if not isinstance(recipe, Recipe):
        raise SettingsError(f"{name} returned {article(recipe)}, expected a Recipe")
    if controls:
        recipe, options = with_controls(recipe, controls), options | {"controls": controls}
    options |= {"allow_code": allow_code} if allow_code else {}
    return replace(
        recipe, file=to_toml(name, options), hardware=options.get("hardware", ""), devices=devices, track=track
    )
