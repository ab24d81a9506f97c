"""The loss mask as a picture: samples of a training stage, with the tokens that are trained on marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.report.folders import StageFolder
from r1kit.store import read_json

FILE = "mask.json"


def mask_pictures(stage: StageFolder) -> list[dict[str, Any]]:
    """One picture per sample of `mask.json`; empty if the stage has no mask."""
    path = stage.folder / FILE
    return [picture(sample) for sample in read_json(path)] if path.exists() else []


def picture(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample of `data.mask_excerpt.excerpt` for people: `facts` (text) and `pieces` (tokens).

    Each piece has `text`, `trained` and `skipped`, the number of tokens left out before it.
    """
    gap_at, gap = sample["skipped"] or (-1, 0)
    pieces = []
    for index, (text, trained) in enumerate(sample["pieces"]):
        if trained and not text.strip():
            text = text.replace("\n", "↵\n")  # a marked line break would be invisible
        pieces.append({"text": text, "trained": trained, "skipped": gap if index == gap_at else 0})
    share = f"{100 * sample['trained'] / sample['tokens']:.0f} %"
    facts = f"{sample['tokens']:,} tokens, {sample['trained']:,} of them trained on ({share})"
    return {"facts": facts, "pieces": pieces}
