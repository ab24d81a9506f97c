"""Public sets known by name: their files in a data folder, their ids on the hub, and which are for evaluation only.

The data folder holds `<set>/<split>.jsonl.gz` (or .jsonl, .json, .parquet). The option `data` or the environment
variable R1KIT_DATA names it. Sets that it does not hold come from the hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1kit.data.errors import DataError
from r1kit.data.rows import SUFFIXES, stem
from r1kit.tasks.known_shapes import (
    CODEFORCES,
    DEEPMATH,
    GSM8K,
    HUMANEVAL,
    IFEVAL,
    MATH,
    MBPP,
    MGSM,
    MGSM_HUB,
    OPENR1,
    STRATOS,
    SVAMP,
)
from r1kit.tasks.schemas import Schema

DATA_VARIABLE = "R1KIT_DATA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One split: `local` is its file in a data folder, without the suffix; `hub` its name (and `config`) on the hub.

    Splits are for evaluation only by default: training on a benchmark makes its score meaningless. If the local file
    holds several splits, `rows` is the range of this one's rows: first and end (exclusive), from 0.
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
    """A public set; a schema of None is guessed. The local file and the hub may have different columns.

    `licence` is that of the data, as its authors state it. `traces`: the solutions are long chains of thought.
    """

    hub: str
    licence: str
    about: str
    splits: Mapping[str, Split]
    traces: bool = False
    schema: Schema | None = None
    hub_schema: Schema | None = None
    revision: str | None = None


# MGSM is GSM8K's test split in other languages. The hub has it as a script; the converted branch needs no script.
MGSM_LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
KNOWN: dict[str, Known] = {
    "gsm8k": Known(
        hub="openai/gsm8k",
        licence="MIT",
        about="school word problems with worked solutions",
        schema=GSM8K,
        hub_schema=GSM8K,
        splits={
            "train": Split(local="gsm8k/train", hub="train", config="main", evaluate_only=False),
            "test": Split(local="gsm8k/test", hub="test", config="main"),
        },
    ),
    "math": Known(
        hub="DigitalLearningGmbH/MATH-lighteval",
        licence="MIT",
        about="competition problems of MATH",
        splits={
            # A few rows of the local file have an empty answer.
            "train": Split(local="math_train_answers/train", hub="train", evaluate_only=False, skip_invalid=True),
            "test": Split(local="math_test/test", hub="test"),
        },
    ),
    "math500": Known(
        hub="HuggingFaceH4/MATH-500",
        licence="MIT",
        about="500 problems of MATH test",
        splits={"test": Split(local="math500/test", hub="test")},
    ),
    "svamp": Known(
        hub="ChilleD/SVAMP",
        licence="MIT",
        about="school word problems of one step",
        schema=SVAMP,
        hub_schema=SVAMP,
        splits={"test": Split(local="svamp/SVAMP", hub="train+test")},
    ),
    "aime24": Known(
        hub="HuggingFaceH4/aime_2024",
        licence="not stated; problems: MAA",
        about="30 problems of AIME 2024",
        splits={"test": Split(local="aime24/test", hub="train")},
    ),
    "amc23": Known(
        hub="math-ai/amc23",
        licence="not stated; problems: MAA",
        about="40 problems of AMC 2023",
        splits={"test": Split(local="amc23/test", hub="test")},
    ),
    "mgsm": Known(
        hub="juletxara/mgsm",
        licence="CC-BY-4.0",
        about="GSM8K test in eleven languages",
        schema=MGSM,
        hub_schema=MGSM_HUB,
        revision="refs/convert/parquet",
        splits={code: Split(local=f"mgsm/{code}", hub="test", config=code, language=code) for code in MGSM_LANGUAGES},
    ),
    "humaneval": Known(
        hub="openai/openai_humaneval",
        licence="MIT",
        about="164 Python functions with tests",
        schema=HUMANEVAL,
        hub_schema=HUMANEVAL,
        splits={"test": Split(local="humaneval/HumanEval", hub="test")},
    ),
    "mbpp": Known(
        hub="google-research-datasets/mbpp",
        licence="CC-BY-4.0",
        about="short Python functions with tests",
        schema=MBPP,
        hub_schema=MBPP,
        splits={
            "test": Split(local="mbpp/mbpp", hub="test", config="full", rows=(10, 510)),
            "validation": Split(local="mbpp/mbpp", hub="validation", config="full", rows=(510, 600)),
            "train": Split(local="mbpp/mbpp", hub="train", config="full", rows=(600, 974), evaluate_only=False),
        },
    ),
    "numina-tir": Known(
        hub="AI-MO/NuminaMath-TIR",
        licence="Apache-2.0",
        about="competition problems that a program helped to solve",
        schema=MATH,
        hub_schema=MATH,
        splits={
            "train": Split(local="numina_tir/train", hub="train", evaluate_only=False, skip_invalid=True),
            "test": Split(local="numina_tir/test", hub="test", skip_invalid=True),
        },
    ),
    "deepmath": Known(
        hub="zwhe99/DeepMath-103K",
        licence="MIT",
        about="103,000 hard problems with verified answers, decontaminated by its authors",
        schema=DEEPMATH,
        hub_schema=DEEPMATH,
        splits={"train": Split(local="deepmath/train", hub="train", evaluate_only=False, skip_invalid=True)},
    ),
    "codeforces": Known(
        hub="open-r1/codeforces",
        licence="CC-BY-4.0",
        about="programming contests with official tests",
        schema=CODEFORCES,
        hub_schema=CODEFORCES,
        splits={
            "train": Split(
                local="codeforces/train", hub="train", config="verifiable", evaluate_only=False, skip_invalid=True
            ),
            "test": Split(local="codeforces/test", hub="test", config="verifiable", skip_invalid=True),
        },
    ),
    "openr1-math": Known(
        hub="open-r1/OpenR1-Math-220k",
        licence="Apache-2.0",
        about="94,000 problems with verified traces of DeepSeek-R1",
        schema=OPENR1,
        hub_schema=OPENR1,
        splits={
            "train": Split(
                local="openr1_math/train", hub="train", config="default", evaluate_only=False, skip_invalid=True
            )
        },
        traces=True,
    ),
    # Both have problems without a box too (code, science), which are skipped.
    "bespoke-stratos": Known(
        hub="bespokelabs/Bespoke-Stratos-17k",
        licence="Apache-2.0",
        about="17,000 traces of DeepSeek-R1, mathematics for the most part",
        schema=STRATOS,
        hub_schema=STRATOS,
        splits={"train": Split(local="bespoke_stratos/train", hub="train", evaluate_only=False, skip_invalid=True)},
        traces=True,
    ),
    "openthoughts": Known(
        hub="open-thoughts/OpenThoughts-114k",
        licence="Apache-2.0",
        about="114,000 traces of DeepSeek-R1; those with a boxed answer are used",
        schema=STRATOS,
        hub_schema=STRATOS,
        splits={"train": Split(local="openthoughts/train", hub="train", evaluate_only=False, skip_invalid=True)},
        traces=True,
    ),
    "ifeval": Known(
        hub="google/IFEval",
        licence="Apache-2.0",
        about="instructions that a program can check",
        schema=IFEVAL,
        hub_schema=IFEVAL,
        splits={"test": Split(local="ifeval/input_data", hub="train")},
    ),
}


def find_local(local: str, data: str | Path | None = None) -> Path | None:
    """The file of a split in the data folder, or None; raises `DataError` if the data folder does not exist."""
    folder = data or os.environ.get(DATA_VARIABLE)
    if not folder:
        return None
    root = Path(folder).expanduser()
    if not root.is_dir():
        setting = "the option data" if data else DATA_VARIABLE
        raise DataError("missing file", f"{setting} names {root}, which is not a folder")
    return next((path for suffix in SUFFIXES if (path := root / (local + suffix)).is_file()), None)


def benchmark_in_hub(identifier: str, split: str) -> str | None:
    """The evaluation-only set that a hub id and split contain, or None; splits as in `train+test[:100]`."""
    requested = {part.partition("[")[0].strip() for part in split.split("+")}
    for name, known in KNOWN.items():
        if known.hub.casefold() == identifier.casefold():
            trainable = {part.hub for part in known.splits.values() if not part.evaluate_only}
            return None if requested <= trainable else name
    return None


def benchmark_in_path(path: Path) -> str | None:
    """The evaluation-only set that a file holds, judged by its folder and name (`gsm8k/test.jsonl.gz`), or None."""
    local = f"{path.resolve().parent.name}/{stem(path.resolve())}"
    for name, known in KNOWN.items():
        if any(part.evaluate_only and part.local == local for part in known.splits.values()):
            return name
    return None
