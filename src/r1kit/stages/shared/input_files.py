"""The files that a stage reads."""

from __future__ import annotations

from pathlib import Path

from r1kit.pipeline import Context


def input_files(context: Context, name: str) -> dict[str, Path]:
    """The inputs `name` and `name/...`, by what follows the name; raises ValueError for none and for a folder."""
    files = {rest.lstrip("/"): path for rest, path in context.inputs(name).items()}
    if not files:
        raise ValueError(
            f"stage {context.stage} has no {name}: give an input named {name!r}, or several as {name}/NAME"
        )
    for path in files.values():
        if path.is_dir():
            raise ValueError(f"input {name!r} of stage {context.stage} is the folder {path}: name one file in it")
    return files
