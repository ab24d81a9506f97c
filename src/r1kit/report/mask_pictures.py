"""The loss mask as a picture: samples of a training stage, coloured where the model is trained."""

from __future__ import annotations

from typing import Any

from r1kit.report.folders import Stage
from r1kit.store import read_json

FILE = "mask.json"


def mask_pictures(stage: Stage) -> list[dict[str, Any]]:
    """For the page, one entry per sample: `facts` (words) and `pieces`, each with `text`, `trained` and `skipped`.

    Pieces are tokens; before the piece whose `skipped` is not 0, that many are left out. Empty without a mask.
    """
    path = stage.folder / FILE
    return [_picture(one) for one in read_json(path)] if path.exists() else []


def _picture(one: dict[str, Any]) -> dict[str, Any]:
    at, count = one["skipped"] or (-1, 0)
    pieces = [
        {"text": _visible(text) if trained else text, "trained": trained, "skipped": count if index == at else 0}
        for index, (text, trained) in enumerate(one["pieces"])
    ]
    share = f"{100 * one['trained'] / one['tokens']:.0f} %"
    return {"facts": f"{one['tokens']:,} tokens, {one['trained']:,} of them trained on ({share})", "pieces": pieces}


def _visible(text: str) -> str:
    """A trained token of line ends alone would not be seen: it gets a sign."""
    return text if text.strip() else text.replace("\n", "↵\n")
