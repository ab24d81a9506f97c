"""What a running stage can use: its settings, its folder, its finished inputs, and its progress display."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1kit.pipeline.progress import Progress
from r1kit.settings import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that a stage's `run` and `check` receive.

    `settings` has the class that the stage's kind names; the type is Any so that a stage can annotate its own. `folder`
    is the stage's own. Files that are in it at the start come from an earlier attempt with the same fingerprint.
    `until`: a replay trains to this step and saves no model.
    `devices` ranks share the work, of which this process is one (`r1kit.ranks`); the result does not depend on it.
    """

    stage: str
    settings: Any
    folder: Path
    paths: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    until: int | None = None
    devices: int = 1

    def input(self, name: str) -> Path:
        """The file or folder of one input; raises ValueError for an unknown name."""
        if name in self.paths:
            return self.paths[name]
        raise ValueError(f"stage {self.stage} has no input {name!r}: {nearest(name, self.paths)}")

    def inputs(self, prefix: str = "") -> dict[str, Path]:
        """All inputs whose names start with `prefix`, in the stage's order, keyed by the rest of the name."""
        return {name.removeprefix(prefix): path for name, path in self.paths.items() if name.startswith(prefix)}
