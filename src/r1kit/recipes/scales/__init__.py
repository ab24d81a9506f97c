"""The scales by name. Each is one file, and none imports another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from r1kit.models.known import parameters_of
from r1kit.recipes.scale import Fit, Scale
from r1kit.recipes.scales.gpu import GPU
from r1kit.recipes.scales.paper import PAPER
from r1kit.recipes.scales.smollm2 import SMOLLM2
from r1kit.recipes.scales.tiny import TINY
from r1kit.settings import SettingsError, article, import_object, nearest

SCALES = {scale.name: scale for scale in (TINY, SMOLLM2, GPU, PAPER)}


def scale_for(
    recipe: str,
    scale: str | None,
    model: str | None,
    *,
    student: str | None = None,
    teacher: str | None = None,
    data: Mapping[str, Any] | None = None,
    hardware: str | None = None,
    devices: int = 1,
    rehearse: bool = False,
) -> Scale:
    """The scale of a run, with sizes for its model, device and data if the scale chooses them, and its student.

    Raises `SettingsError` for data by role at a scale that has its own.
    """
    chosen = choose_scale(recipe, scale, model)
    if chosen.fit is not None:
        fit = Fit(
            model=model or chosen.model,
            student=student,
            teacher=teacher,
            hardware=hardware,
            devices=devices,
            data=data or {},
            rehearse=rehearse,
        )
        return chosen.fit(fit)
    if data:
        raise SettingsError(f"scale {chosen.name} has data of its own: leave data out, or add --scale gpu")
    if student is None:
        return chosen
    return replace(chosen, r1=replace(chosen.for_r1, student=student))


def choose_scale(recipe: str, scale: str | None, model: str | None) -> Scale:
    """The named scale, or without one the scale made for the model: `gpu` for a model that has none.

    Raises `SettingsError` if the named scale is for much smaller models. One that is as small is accepted, such as a
    model that another run trained from the scale's own.
    """
    if scale is None:
        return next((scale for scale in SCALES.values() if model in (None, scale.model)), GPU)
    chosen = scale_of(scale)
    if model in (None, chosen.model) or chosen.largest is None:
        return chosen
    parameters = parameters_of(model)
    if parameters is None or parameters > chosen.largest:
        size = "of unknown size, because it is not on this machine" if parameters is None else f"of {parameters:,}"
        raise SettingsError(
            f"scale {scale} has learning rates and problems for models of up to {chosen.largest:,.0f} parameters, such "
            f"as {chosen.model}, and {model} is {size}: leave the scale out, as in `r1kit run {recipe} --model {model}`"
        )
    return chosen


def scale_of(name: str) -> Scale:
    """A scale by name or dotted path, such as `my_package.scales:MINE`. Raises `SettingsError` for any other."""
    if ":" in name:
        scale = import_object(name, "scale")
        if not isinstance(scale, Scale):
            raise SettingsError(f"scale {name!r} is {article(scale)}: expected a Scale")
        return scale
    if name not in SCALES:
        raise SettingsError(f"there is no scale {name!r}: {nearest(name, SCALES)} (or give package.module:SCALE)")
    return SCALES[name]
