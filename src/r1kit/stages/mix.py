"""The stage `mix`: one training set from several kinds of rows, such as three parts of reasoning to one of general.

Inputs: `rows/NAME`, or `rows/NAME/...` if a kind has several files (V1, section 2.3.3: 600k of reasoning, 200k
general). Leaves `mixed.jsonl` (the input of the stage `sft`) and `mixed.mix.json` (the actual and intended shares).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit.curate.mixing import MixSettings, mix
from r1kit.pipeline import Context, Kind
from r1kit.stages.shared.costs import rows_unchanged
from r1kit.stages.shared.input_files import input_files


def check(context: Context) -> None:
    """Raise ValueError unless inputs and ratios have the same names."""
    input_files(context, "rows")
    settings: MixSettings = context.settings
    if _kinds(context).keys() != settings.ratios.keys():
        raise ValueError(
            f"stage {context.stage} has rows of {', '.join(_kinds(context))} and ratios for "
            f"{', '.join(settings.ratios)}: use the same names in both (the input of NAME is rows/NAME)"
        )


def run(context: Context) -> Mapping[str, Any]:
    """Draw rows of each kind by the ratios, and shuffle them."""
    settings: MixSettings = context.settings
    shares = mix(_kinds(context), context.folder / "mixed.jsonl", settings)
    for share in shares:
        context.progress.say(f"{share.source}: {share.taken:,} of {share.available:,} rows, {100 * share.share:.0f} %")
    if unused := [share for share in shares if share.taken < share.available and settings.size is None]:
        rows = ", ".join(f"{share.available - share.taken:,} of {share.source}" for share in unused)
        context.progress.say(
            f"left out: {rows}, to keep the ratio; to use more, set {context.stage}.ratios, {context.stage}.size or "
            f"{context.stage}.max_repeats, or give more rows of the other kinds"
        )
    return {"rows": sum(share.taken for share in shares), **{share.source: share.taken for share in shares}}


def _kinds(context: Context) -> dict[str, list[Path]]:
    """The files of each kind, by the first part of their inputs' names."""
    files: dict[str, list[Path]] = {}
    for name, path in input_files(context, "rows").items():
        files.setdefault(name.partition("/")[0], []).append(path)
    return files


MIX = Kind(
    name="mix",
    run=run,
    settings=MixSettings,
    version=1,
    check=check,
    cost=lambda stage, rows: rows_unchanged(stage, stage.settings.size or rows),
)
