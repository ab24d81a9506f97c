"""What a stage is given when it runs: its settings, its folder, its finished inputs, and a way to say how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1kit.pipeline.progress import Progress
from r1kit.settings import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The world as a stage sees it.

    `settings` are of the class that the stage's kind names (typed Any, so that a stage can annotate it). `folder`
    is the stage's own; whatever lies in it at the start was left by an earlier attempt with the same fingerprint.
    """

    stage: str
    settings: Any
    folder: Path
    paths: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    @property
    def seed(self) -> int:
        """The settings' `seed`, or 0 for kinds of work without chance."""
        seed: int = getattr(self.settings, "seed", 0)
        return seed

    def input(self, name: str) -> Path:
        """The file or folder of one input; raises ValueError for a name that the stage was not given."""
        if name in self.paths:
            return self.paths[name]
        raise ValueError(f"stage {self.stage} has no input {name!r}: {nearest(name, self.paths)}")

    def inputs(self, prefix: str = "") -> dict[str, Path]:
        """All inputs whose name starts with `prefix`, in the stage's order, keyed by the rest of the name."""
        return {name.removeprefix(prefix): path for name, path in self.paths.items() if name.startswith(prefix)}
