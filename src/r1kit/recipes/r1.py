"""DeepSeek-R1, section 2.3: cold start, reasoning RL, rejection sampling with SFT 2, RL for all scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.models.known import resolve
from r1kit.pipeline import External, Kind, Output, Recipe, Stage
from r1kit.recipes.overrides import Overrides
from r1kit.recipes.r1_scales import R1Scale, r1_scale_of
from r1kit.recipes.sources import externals, request_sources
from r1kit.settings import Settings
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.generate import GENERATE
from r1kit.stages.mix import MIX
from r1kit.stages.report import REPORT, ReportSettings
from r1kit.stages.reward_model import REWARD_MODEL
from r1kit.stages.rl import RL_STAGE
from r1kit.stages.sft import SFT
from r1kit.stages.tiny_requests import TINY_REQUESTS, TinyRequestsSettings

MEASURED = ("eval", "everyday")  # settings that all models share; their seeds stay, so that all see the same


def r1(
    *, overrides: Mapping[str, Any] | None = None, seed: int = 0, scale: str = "tiny", model: str | None = None
) -> Recipe:
    """R1-Zero, Dev1 to Dev3 and R1, each measured. `eval` and `everyday` in overrides mean every measurement.

    RL for all scenarios is two stages: `rules` with rule rewards alone, then `r1` with the preference rewards too. The
    paper has these in the last 400 of 1,700 steps, lest the policy find the reward models' weak spots.
    """
    size = r1_scale_of(scale)
    box = _Boxes(size, Overrides(overrides or {}, stages=tuple(size.settings)), seed)
    name = size.model if model is None else model
    base, requests = (
        External(resolve(name)),
        Stage("requests", TINY_REQUESTS, TinyRequestsSettings(), request_sources()),
    )

    zero = box("zero", RL_STAGE, model=base)
    cold_start = box("cold-start", GENERATE, model=zero / "model")
    dev1 = box("dev1", SFT, model=base, data=cold_start / "kept.jsonl")
    dev2 = box("dev2", RL_STAGE, model=dev1 / "model")
    rejection = box("rejection", GENERATE, model=dev2 / "model")
    general = box("general", GENERATE, requests=requests / "general.jsonl")
    mix = box("mix", MIX, **{"rows/reasoning": rejection / "kept.jsonl", "rows/general": general / "kept.jsonl"})
    dev3 = box("dev3", SFT, model=base, data=mix / "mixed.jsonl")
    helpfulness = box("helpfulness", REWARD_MODEL, model=base, data=requests / "preferences.jsonl")
    safety = box("safety", REWARD_MODEL, model=base, data=requests / "safety.jsonl")
    rules = box("rules", RL_STAGE, model=dev3 / "model")
    judges = {"reward/helpfulness": helpfulness / "model", "reward/harmlessness": safety / "model"}
    last = box("r1", RL_STAGE, model=rules / "model", **judges)

    models = {"zero": zero, "dev1": dev1, "dev2": dev2, "dev3": dev3, "r1": last}
    measured = {"base": base} | {key: stage / "model" for key, stage in models.items()}
    tables = {key: box.measured("eval", key, of) for key, of in measured.items()}
    replies = {f"everyday/{key}": box.measured("everyday", key, of) for key, of in measured.items()}
    trained = models | {"helpfulness": helpfulness, "safety": safety, "rules": rules}
    shown = tables | replies | {f"training/{key}": stage for key, stage in trained.items()}
    title = f"DeepSeek-R1, scale {scale}, {name}, seed {seed}"
    report = Stage("report", REPORT, ReportSettings(title=title), {key: stage / "." for key, stage in shown.items()})
    return Recipe(f"r1-{scale}", (*trained.values(), *tables.values(), *replies.values(), report), title)


class _Boxes:
    """Makes stages from a scale's settings with the changes, and with the files that their tasks come from."""

    def __init__(self, size: R1Scale, changes: Overrides, seed: int) -> None:
        self.size, self.changes, self.seed = size, changes, seed

    def __call__(self, name: str, kind: Kind, **inputs: Output | External) -> Stage:
        return Stage(name, kind, settings := self._settings(name), {**inputs, **_sources(settings)})

    def measured(self, settings: str, key: str, model: Output | External) -> Stage:
        how = self._settings(settings)
        return Stage(f"{settings}-{key}", EVALUATE, how, {"model": model, **_sources(how)})

    def _settings(self, name: str) -> Settings:
        given = self.size.settings[name]
        if name not in MEASURED and "seed" in type(given).model_fields:
            given = given.model_copy(update={"seed": self.seed})
        return self.changes.apply(name, given)


def _sources(settings: Settings) -> dict[str, External]:
    return externals(getattr(settings, "tasks", ()), getattr(settings, "rewards", ()))
