"""Public sets known by name: where they lie in a data folder, their id on the hub, and which are for evaluation only.

A data folder holds `<set>/<split>.jsonl.gz` (or .jsonl, .json, .parquet); it is named by the `data` option or by the
environment variable R1KIT_DATA. What it lacks comes from the hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from r1kit.data.errors import DataError
from r1kit.data.rows import SUFFIXES, stem
from r1kit.tasks.base import Listed
from r1kit.tasks.files import ReadOptions, load_file
from r1kit.tasks.hub import load_hub
from r1kit.tasks.schemas import GSM8K, HUMANEVAL, MBPP, MGSM, MGSM_HUB, SVAMP, Schema

DATA_VARIABLE = "R1KIT_DATA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split: `local` is its file in a data folder without the ending, `hub` its name (and `config`) on the hub.

    Splits are for evaluation unless they say otherwise: a benchmark in the training data measures memory. `rows` are
    the first row and the one after the last, from 0, where the local file holds several splits.
    """

    local: str
    hub: str
    config: str | None = None
    evaluate_only: bool = True
    skip_invalid: bool = False
    language: str | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A public set. Where `schema` is None, it is guessed, as the local file and the hub differ in their columns."""

    hub: str
    splits: Mapping[str, Split]
    schema: Schema | None = None
    hub_schema: Schema | None = None
    revision: str | None = None


# MGSM is GSM8K's test split in other languages. On the hub it is a script; the converted branch loads without one.
MGSM_LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
KNOWN: dict[str, Known] = {
    "gsm8k": Known(
        hub="openai/gsm8k",
        schema=GSM8K,
        hub_schema=GSM8K,
        splits={
            "train": Split(local="gsm8k/train", hub="train", config="main", evaluate_only=False),
            "test": Split(local="gsm8k/test", hub="test", config="main"),
        },
    ),
    "math": Known(
        hub="DigitalLearningGmbH/MATH-lighteval",
        splits={
            # A few rows of the local file have an empty answer.
            "train": Split(local="math_train_answers/train", hub="train", evaluate_only=False, skip_invalid=True),
            "test": Split(local="math_test/test", hub="test"),
        },
    ),
    "math500": Known(hub="HuggingFaceH4/MATH-500", splits={"test": Split(local="math500/test", hub="test")}),
    "svamp": Known(
        hub="ChilleD/SVAMP",
        schema=SVAMP,
        hub_schema=SVAMP,
        splits={"test": Split(local="svamp/SVAMP", hub="train+test")},
    ),
    "aime24": Known(hub="HuggingFaceH4/aime_2024", splits={"test": Split(local="aime24/test", hub="train")}),
    "amc23": Known(hub="math-ai/amc23", splits={"test": Split(local="amc23/test", hub="test")}),
    "mgsm": Known(
        hub="juletxara/mgsm",
        schema=MGSM,
        hub_schema=MGSM_HUB,
        revision="refs/convert/parquet",
        splits={code: Split(local=f"mgsm/{code}", hub="test", config=code, language=code) for code in MGSM_LANGUAGES},
    ),
    "humaneval": Known(
        hub="openai/openai_humaneval",
        schema=HUMANEVAL,
        hub_schema=HUMANEVAL,
        splits={"test": Split(local="humaneval/HumanEval", hub="test")},
    ),
    "mbpp": Known(
        hub="google-research-datasets/mbpp",
        schema=MBPP,
        hub_schema=MBPP,
        splits={
            "test": Split(local="mbpp/mbpp", hub="test", config="full", rows=(10, 510)),
            "validation": Split(local="mbpp/mbpp", hub="validation", config="full", rows=(510, 600)),
            "train": Split(local="mbpp/mbpp", hub="train", config="full", rows=(600, 974), evaluate_only=False),
        },
    ),
}


def load_known(
    name: str,
    split: str,
    *,
    data: str | Path | None = None,
    verifier: str | None = None,
    language: str | None = None,
    skip_invalid: bool = False,
) -> Listed:
    """A known set's split, from the data folder if it is there, else from the hub; MGSM's `test` is all languages."""
    known = KNOWN[name]
    if name == "mgsm" and split == "test":
        return all_languages(data, verifier)
    if split not in known.splits:
        splits = [*known.splits, *(["test"] if name == "mgsm" else [])]
        hint = "; it is for evaluation only" if "train" not in known.splits else ""
        raise DataError("missing file", f"{name} has no split {split!r}: it has {', '.join(splits)}{hint}")
    part = known.splits[split]
    options = ReadOptions(
        verifier=verifier, language=language or part.language, skip_invalid=skip_invalid or part.skip_invalid
    )
    path = find_local(part.local, data)
    if path is not None:
        options["schema"] = known.schema
        return within(load_file(path, name=f"{name}/{split}", **options), part.rows)
    return from_hub(known, part, f"{name}/{split}", **options)


def within(listed: Listed, rows: tuple[int, int] | None) -> Listed:
    """The problems of some rows of a file, which keep the numbers that they have there."""
    if rows is None:
        return listed
    chosen = [one for one in listed.problems if rows[0] <= int(one.id.rpartition("/")[2]) < rows[1]]
    return replace(listed, problems=tuple(chosen))


def from_hub(known: Known, part: Split, name: str, **options: Unpack[ReadOptions]) -> Listed:
    """A split from the hub; the error where that fails says how to do without it."""
    options["schema"] = known.hub_schema
    try:
        return load_hub(known.hub, part.hub, config=part.config, revision=known.revision, name=name, **options)
    except DataError as error:
        if error.kind != "missing file":
            raise
        remedy = f"put {part.local}.jsonl.gz into a folder and set {DATA_VARIABLE} (or the option data) to it"
        raise DataError("missing file", f"{error.reason}; or {remedy}", error.file) from error


def all_languages(data: str | Path | None, verifier: str | None) -> Listed:
    """MGSM as a whole: each problem in every language before the next, so that a limit keeps the languages level."""
    parts = [load_known("mgsm", code, data=data, verifier=verifier) for code in MGSM_LANGUAGES]
    rows = zip(*(part.problems for part in parts), strict=True)
    return Listed(name="mgsm/test", problems=tuple(problem for row in rows for problem in row))


def find_local(local: str, data: str | Path | None = None) -> Path | None:
    """The file of a split in the data folder, or None; raises `DataError` where the folder named does not exist."""
    folder = data or os.environ.get(DATA_VARIABLE)
    if not folder:
        return None
    root = Path(folder).expanduser()
    if not root.is_dir():
        where = "the option data" if data else DATA_VARIABLE
        raise DataError("missing file", f"{where} names {root}, which is no folder")
    return next((path for suffix in SUFFIXES if (path := root / (local + suffix)).is_file()), None)


def benchmark_in_hub(identifier: str, split: str) -> str | None:
    """The evaluation-only set that a hub id and split contain, or None; splits as in `train+test[:100]`."""
    asked = {part.partition("[")[0].strip() for part in split.split("+")}
    for name, known in KNOWN.items():
        if known.hub.casefold() == identifier.casefold():
            trainable = {part.hub for part in known.splits.values() if not part.evaluate_only}
            return None if asked <= trainable else name
    return None


def benchmark_in_path(path: Path) -> str | None:
    """The evaluation-only set that a file is by its place in a data folder (`gsm8k/test.jsonl.gz`), or None."""
    local = f"{path.resolve().parent.name}/{stem(path.resolve())}"
    return next(
        (
            name
            for name, known in KNOWN.items()
            for part in known.splits.values()
            if part.evaluate_only and part.local == local
        ),
        None,
    )
