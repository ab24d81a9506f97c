"""Checks of the links between rows and stages: by hashes of their content, fingerprints, and decoded tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from r1kit.curate import quality
from r1kit.data.tokens import TokenFile
from r1kit.pipeline.fingerprint import fingerprint
from r1kit.pipeline.manifest import STARTED
from r1kit.report.folders import Row, read_object
from r1kit.review.items import ReviewError, parse_item
from r1kit.store import StoreError

ADDED = ("dropped", "review", "mixture", "metadata")  # columns that later stages add, or nest
REWRITTEN = ("messages", "id", "parent", "verdicts", "scores", "tokens", "finish_reason", "made_by")


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a link is what the one before came from. `how` says what was compared, `why` what differs."""

    result: Literal["same", "differs", "not recorded"]
    how: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An input of a stage: `path` in the folder `stage` of the same run, or a file elsewhere if `stage` is None."""

    name: str
    stage: str | None
    path: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.path}" if self.stage else self.path

    @property
    def file(self) -> str:
        return Path(self.path).name


def inputs_in(folder: Path) -> list[Input]:
    """The inputs in `stage.json`; none if it is missing or damaged."""
    try:
        entries = read_object(folder / STARTED).get("inputs")
    except (StoreError, ValueError):
        return []
    inputs = []
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values()):
            stage = f"{entry['stage']}-{entry.get('fingerprint', '')[:8]}" if "stage" in entry else None
            path, digest = entry.get("path", ""), entry.get("fingerprint", "")
            inputs.append(Input(name=name, stage=stage, path=path, fingerprint=digest))
    return inputs


def same_model(source: Input, parent: Path) -> Check:
    """Whether the stage's folder is the one that was read: its fingerprint, computed again from its settings."""
    try:
        content = read_object(parent / STARTED)
    except (StoreError, ValueError) as error:
        return Check("differs", "the fingerprint", str(error))
    names = ("kind", "version", "code", "settings", "inputs")
    identity: Row = {name: content[name] for name in names if name in content}
    try:
        digest = fingerprint(identity)
    except (KeyError, TypeError, ValueError, AttributeError):
        digest = ""
    how = f"the fingerprint {source.fingerprint[:12]} of kind, version, settings and inputs"
    if digest == source.fingerprint:
        return Check("same", how)
    return Check("differs", how, f"{parent.name}/{STARTED} was changed: its fingerprint is now {digest[:12] or 'none'}")


def same_rows(row: Row, origin: Row, *, is_rewriting: bool) -> Check:
    """Whether two rows hold the same sample, by SHA-256 of all columns that both stages write.

    A rewriting has its own text and verdicts. A reviewer's edit is compared as it was before.
    """
    left_out = REWRITTEN if is_rewriting else ()
    mine, other = (
        {name: value for name, value in flat(each).items() if name not in left_out} for each in (row, origin)
    )
    review = row.get("review")
    edited = isinstance(review, dict) and review.get("edited")
    if isinstance(review, dict) and edited:
        mine |= {"messages": review.get("original")}
        other |= {"messages": text_before_review(origin)}
    what = "the row without its rewritten text" if is_rewriting else "the row"
    how = f"SHA-256 {digest_of(other)[:12]} of {f'{what} before the edit' if edited else what}"
    differing = [name for name in sorted(mine.keys() | other.keys()) if mine.get(name) != other.get(name)]
    if not differing:
        return Check("same", how)
    return Check("differs", how, f"these columns differ: {', '.join(differing)}")


def flat(row: Row) -> dict[str, Any]:
    """The columns of a sample, also from a row of `mix`, which nests them; without empty ones and later ones."""
    inner = row.get("metadata")
    if isinstance(inner, dict) and "mixture" in inner:
        row = {**inner, "messages": row.get("messages")}
    if isinstance(scores := row.get("scores"), dict):  # selection adds its own
        row = {**row, "scores": {name: score for name, score in scores.items() if name != quality.PART}}
    return {name: value for name, value in row.items() if name not in (*ADDED, "source") and value is not None}


def text_before_review(row: Row) -> Mapping[str, str] | None:
    try:
        text = parse_item(row).text
    except ReviewError:
        return None
    return {"reasoning": text.reasoning, "summary": text.summary}


def digest_of(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def same_tokens(folder: Path, index: int, text: str) -> Check:
    """Whether the tokens that a stage was trained on hold the text of the row, decoded, without white space."""
    try:
        tokenizer = tokenizer_of(folder)
    except StoreError as error:
        return Check("differs", "file and row number", str(error))
    if tokenizer is None:
        return Check("not recorded", "file and row number", "the stage has no tokenizer yet: its model is not saved")
    ids = list(TokenFile(folder / "tokens" / "train")[index].token_ids)
    trained = squeezed(tokenizer.decode(ids, skip_special_tokens=False))
    expected = squeezed(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids))
    how = f"the row's {len(ids)} tokens, decoded (SHA-256 {digest_of(ids)[:12]})"
    if expected and expected in trained:
        return Check("same", how)
    return Check("differs", how, "the text of the row is not in the tokens that were trained on")


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer saved with a stage's model, or with the model that it began with; None if there is none here.

    Raises `StoreError` for a damaged one.
    """
    starts = [source for source in inputs_in(folder) if source.name == "model"]
    places = [folder / "model", *(folder.parent / str(start) if start.stage else Path(start.path) for start in starts)]
    file = next((place / "tokenizer.json" for place in places if (place / "tokenizer.json").is_file()), None)
    return None if file is None else load_tokenizer(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def load_tokenizer(file: Path, changed: int) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers has no type of its own for it
        raise StoreError(f"{file} is not a tokenizer ({error}): it was damaged or edited; restore it") from None


def squeezed(text: str) -> str:
    return "".join(text.split())
