"""`--set stage.field=value`: changes to a recipe's settings, each of which must name a stage and a field that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from r1kit.settings import Settings, SettingsError, nearest

S = TypeVar("S", bound=Settings)


class Overrides:
    """Changes by stage: `Overrides({"rl.steps": "10"}, stages=("rl",)).apply("rl", settings)`."""

    def __init__(self, changes: Mapping[str, Any], stages: Sequence[str]) -> None:
        self.by_stage: dict[str, dict[str, Any]] = {}
        for path, value in changes.items():
            stage, _, field = path.partition(".")
            if not field:
                raise SettingsError(f"--set {path}: give STAGE.FIELD=VALUE")
            if stage not in stages:
                raise SettingsError(f"--set {path}: there is no stage {stage}: {nearest(stage, stages)}")
            self.by_stage.setdefault(stage, {})[field] = value

    def apply(self, stage: str, settings: S) -> S:
        """The stage's settings with its changes; an error names stage and field, as in `rl.steps`."""
        return settings.override(self.by_stage.get(stage, {}), prefix=stage)
