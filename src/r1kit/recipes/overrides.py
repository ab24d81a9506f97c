"""`--set stage.field=value`: changes to a recipe's settings, each of which must name a stage and a field that exist."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from r1kit.settings import Settings, SettingsError

S = TypeVar("S", bound=Settings)


class Overrides:
    """Changes by stage: `Overrides({"rl.steps": "10"}, stages=("rl",)).apply("rl", settings)`."""

    def __init__(self, changes: Mapping[str, Any], stages: Sequence[str]) -> None:
        self.by_stage: dict[str, dict[str, Any]] = {}
        for path, value in changes.items():
            stage, _, field = path.partition(".")
            if stage not in stages or not field:
                near = difflib.get_close_matches(stage, stages, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]}.{field}?" if near and field else f"stages here: {', '.join(stages)}"
                raise SettingsError(f"--set {path}: give stage.field=value; {hint}")
            self.by_stage.setdefault(stage, {})[field] = value

    def apply(self, stage: str, settings: S) -> S:
        """The stage's settings with its changes; raises `SettingsError` that names the stage."""
        try:
            return settings.override(self.by_stage.get(stage, {}))
        except SettingsError as error:
            raise SettingsError(f"stage {stage}: {error}") from None
