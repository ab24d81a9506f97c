"""How large the whole recipe is: the settings of every stage of R1, of distillation and of V3, by scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from r1kit.pipeline import External
from r1kit.recipes.sources import request_sources
from r1kit.settings import Settings, SettingsError
from r1kit.tasks.public_requests import source

RECIPES_OF = {"r1": ("r1",), "distill": ("r1", "distill"), "v3": ("r1", "v3")}  # whose stages a recipe has


@dataclass(frozen=True)
class R1Scale:
    """A base model's name, and the settings of each stage, by recipe and the name that `--set` takes.

    `eval` measures answers to problems and `everyday` replies to requests, of every model. `student` names the base of
    students. `requests` are files of the data folder that the stage `requests`
    reads (empty: the tiny world's). `domains` have an expert each. `planned`: models and data need not be there, since
    nobody runs it. `lengths` are tokens per completion by stage, for estimates.
    """

    model: str
    by_recipe: Mapping[str, Mapping[str, Settings]]
    student: str
    requests: Mapping[str, str] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    planned: bool = False
    lengths: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Settings] = field(default_factory=dict)

    def request_sources(self) -> dict[str, External]:
        """What the stage `requests` reads."""
        if self.planned:
            return {name: External.planned(local) for name, local in self.requests.items()}
        return {name: External(source(local)) for name, local in self.requests.items()} or request_sources()

    def of(self, recipe: str) -> R1Scale:
        """The scale with the settings of one recipe's stages."""
        settings = {name: one for part in RECIPES_OF[recipe] for name, one in self.by_recipe[part].items()}
        return R1Scale(**{**vars(self), "settings": settings})


def r1_scales() -> dict[str, R1Scale]:
    """All scales, by name."""
    from r1kit.recipes.r1_paper import R1_PAPER
    from r1kit.recipes.r1_smollm2 import R1_SMOLLM2
    from r1kit.recipes.r1_tiny import R1_TINY

    return {"tiny": R1_TINY, "smollm2": R1_SMOLLM2, "paper": R1_PAPER}


def r1_scale_of(recipe: str, name: str) -> R1Scale:
    """A recipe's scale by name; raises `SettingsError` that lists them."""
    scales = r1_scales()
    if name not in scales:
        raise SettingsError(f"the recipe {recipe} has no scale {name!r}: give one of {', '.join(scales)}")
    return scales[name].of(recipe)
