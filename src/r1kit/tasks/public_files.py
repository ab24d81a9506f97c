"""Public files of conversations and pairs, known by name: requests with replies, preferences, and safety labels.

The data folder (R1KIT_DATA) may hold them, as it does problem sets. Otherwise they are downloaded once, into the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from r1kit.data.errors import DataError
from r1kit.data.jsonl import encoded
from r1kit.data.rows import SUFFIXES, stem
from r1kit.models.known import cache
from r1kit.settings import nearest
from r1kit.store import atomic_file
from r1kit.tasks.public_sets import DATA_VARIABLE, KNOWN, benchmark_in_path, find_local
from r1kit.tiny import everyday

Holds = Literal["requests", "preferences", "safety", "harmful prompts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """A public file: what it holds, its place in a data folder (`local`), and its id and split on the hub, if any.

    `options` are further arguments of `datasets.load_dataset`. `make` returns the rows of a set that is generated.
    """

    name: str
    holds: Holds
    licence: str
    about: str
    local: str
    hub: str = ""
    split: str = "train"
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluate_only: bool = False
    make: Callable[[], Iterable[Mapping[str, Any]]] | None = None


TINY: dict[Holds, Callable[[], Iterable[Mapping[str, Any]]]] = {
    "requests": everyday.replies,
    "preferences": everyday.preferences,
    "safety": everyday.safety_labels,
}
FILES = {
    file.name: file
    for file in (
        KnownFile(
            name="dolly",
            holds="requests",
            licence="CC-BY-SA-3.0",
            about="15,000 instructions and replies, written by people",
            local="dolly/train",
            hub="databricks/databricks-dolly-15k",
        ),
        KnownFile(
            name="alpaca",
            holds="requests",
            licence="CC-BY-NC-4.0",
            about="52,000 instructions and replies of text-davinci-003",
            local="alpaca/train",
            hub="tatsu-lab/alpaca",
        ),
        KnownFile(
            name="alpaca-demo",
            holds="requests",
            licence="Apache-2.0; replies: GPT-4",
            about="999 instructions and replies",
            local="llamafactory_demo/alpaca_en_demo",
        ),
        KnownFile(
            name="ultrafeedback",
            holds="preferences",
            licence="MIT",
            about="61,000 pairs of replies, ranked by GPT-4",
            local="ultrafeedback/train_prefs",
            hub="HuggingFaceH4/ultrafeedback_binarized",
            split="train_prefs",
        ),
        KnownFile(
            name="hh-helpful",
            holds="preferences",
            licence="MIT",
            about="44,000 pairs of replies, ranked by people for helpfulness",
            local="hh_rlhf/helpful_base_train",
            hub="Anthropic/hh-rlhf",
            options={"data_dir": "helpful-base"},
        ),
        KnownFile(
            name="dpo-demo",
            holds="preferences",
            licence="Apache-2.0; replies: GPT-4",
            about="300 pairs of replies",
            local="llamafactory_demo/dpo_en_demo",
        ),
        KnownFile(
            name="hh-harmless",
            holds="safety",
            licence="MIT",
            about="43,000 pairs of replies, ranked by people for harmlessness",
            local="hh_rlhf/harmless_base_train",
            hub="Anthropic/hh-rlhf",
            options={"data_dir": "harmless-base"},
        ),
        KnownFile(
            name="hh-harmless-test",
            holds="safety",
            licence="MIT",
            about="2,300 pairs of the same kind",
            local="hh_rlhf/harmless_base_test",
            hub="Anthropic/hh-rlhf",
            split="test",
            options={"data_dir": "harmless-base"},
        ),
        KnownFile(
            name="pku-saferlhf",
            holds="safety",
            licence="CC-BY-NC-4.0",
            about="74,000 pairs of replies, each labelled safe or unsafe",
            local="pku_saferlhf/train",
            hub="PKU-Alignment/PKU-SafeRLHF",
        ),
        KnownFile(
            name="star-1",
            holds="harmful prompts",
            licence="Apache-2.0",
            about="1,000 harmful requests with safe replies of DeepSeek-R1",
            local="star1_r1_traces/STAR-1",
            hub="UCSC-VLAA/STAR-1",
        ),
        KnownFile(
            name="xstest",
            holds="harmful prompts",
            licence="CC-BY-4.0",
            about="450 requests, harmful or only seeming so; for evaluation only",
            local="xstest/prompts",
            hub="Paul/XSTest",
            evaluate_only=True,
        ),
        *(
            KnownFile(
                name=f"tiny-{holds}",
                holds=holds,
                licence="Apache-2.0",
                about=f"{holds} of the tiny world",
                local=f"tiny/{holds}",
                make=make,
            )
            for holds, make in TINY.items()
        ),
    )
}
BY_LOCAL = {file.local: file for file in FILES.values()}


def local_file(name: str) -> Path | None:
    """The file of a known name or a path, if it is on this machine.

    Raises `DataError` for what is neither, and for sets that are for evaluation only: such files are trained on.
    """
    path = Path(name).expanduser()
    known = FILES.get(name) or BY_LOCAL.get(f"{path.absolute().parent.name}/{stem(path)}")
    if (known is not None and known.evaluate_only) or benchmark_in_path(path):
        raise DataError("evaluation only", f"{name} is for evaluation only: train on another set")
    if name in FILES:
        return fetched(FILES[name]) if FILES[name].make else on_this_machine(FILES[name])
    if path.is_file():
        return path.absolute()
    remedy = f"{nearest(name, FILES)} (or give a file ending in {', '.join(SUFFIXES)})"
    if name in KNOWN:
        raise DataError("wrong type", f"{name} is a set of problems, not of conversations or pairs: {remedy}")
    raise DataError("missing file", f"there is no file or known set {name!r}: {remedy}")


def on_this_machine(file: KnownFile) -> Path | None:
    """Its path in the data folder or in the cache, or None."""
    downloaded = _cached(file)
    return find_local(file.local) or (downloaded if downloaded.is_file() else None)


def fetched(file: KnownFile) -> Path:
    """Its path, downloaded from the hub if need be. Raises `DataError` if that does not work."""
    from r1kit.tasks.sources.hub import download

    if file.make is not None:
        return find_local(file.local) or _made(file, list(file.make()))
    if (path := on_this_machine(file)) is not None:
        return path
    remedy = f"put {file.local}.jsonl.gz into a folder and set {DATA_VARIABLE} to that folder"
    if not file.hub:
        raise DataError("missing file", f"{file.name} is not on this machine: {remedy}")
    try:
        rows = download(file.hub, file.split, None, None, f"hub:{file.hub}/{file.split}", **file.options)
    except DataError as error:
        raise DataError(error.kind, f"{error.reason}; or {remedy}", error.file) from error
    return _written(file, rows)


def _made(file: KnownFile, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The file in the cache; one that an older version of r1kit made with other rows is written again."""
    path = _cached(file)
    is_current = path.is_file() and path.read_bytes() == b"".join(encoded(dict(row)) for row in rows)
    return path if is_current else _written(file, rows)


def _written(file: KnownFile, rows: Iterable[Mapping[str, Any]]) -> Path:
    """The file in the cache with these rows."""
    path = _cached(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as written:
        for row in rows:
            written.write(encoded(dict(row)))
    return path


def _cached(file: KnownFile) -> Path:
    return cache() / "data" / f"{file.local}.jsonl"
