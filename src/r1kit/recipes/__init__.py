"""The paper's boxes as functions: which stages, with which settings. A recipe is a value; nothing runs here."""

from __future__ import annotations

from collections.abc import Callable

from r1kit.pipeline import Recipe
from r1kit.recipes.distill import distill
from r1kit.recipes.r1 import r1
from r1kit.recipes.r1_zero import r1_zero
from r1kit.recipes.tiny_base import tiny_base
from r1kit.recipes.v3 import v3

RECIPES: dict[str, Callable[..., Recipe]] = {
    "r1-zero": r1_zero,
    "r1": r1,
    "distill": distill,
    "v3": v3,
    "tiny-base": tiny_base,
}
