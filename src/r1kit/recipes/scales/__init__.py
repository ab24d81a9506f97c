"""The scales by name. Each is one file, and none imports another."""

from __future__ import annotations

from r1kit.recipes.scale import Scale
from r1kit.recipes.scales.gpu import GPU
from r1kit.recipes.scales.paper import PAPER
from r1kit.recipes.scales.smollm2 import SMOLLM2
from r1kit.recipes.scales.tiny import TINY
from r1kit.settings import SettingsError, article, import_object, nearest

SCALES = {scale.name: scale for scale in (TINY, SMOLLM2, GPU, PAPER)}


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


def default_scale(model: str | None) -> Scale:
    """The scale made for a base model, `gpu` for models that have none; `tiny` without a model."""
    return next((scale for scale in SCALES.values() if model in (None, scale.model)), GPU)
