"""Problems from a data set on the Hugging Face hub, through `datasets` and its cache; HF_HUB_OFFLINE is respected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

from r1kit.data.errors import DataError
from r1kit.data.rows import NumberedRow
from r1kit.tasks.base import Listed
from r1kit.tasks.files import ReadOptions, from_rows


def load_hub(
    identifier: str,
    split: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    name: str = "",
    **options: Unpack[ReadOptions],
) -> Listed:
    """One split of a hub data set (`openai/gsm8k`, config `main`) as a task; `options` as for files.

    Raises `DataError` where `datasets` is not installed, or the set is neither on the hub nor in the local cache.
    """
    place = f"hub:{identifier}" + (f":{config}" if config else "") + f"/{split}"
    rows = numbered(download(identifier, split, config, revision, place))
    return from_rows(rows, name=name or f"{identifier}/{split}", file=place, **options)


def download(identifier: str, split: str, config: str | None, revision: str | None, place: str) -> Any:
    """The split as `datasets.Dataset`."""
    try:
        import datasets
    except ImportError:
        raise DataError("missing file", "hub data sets need datasets: pip install datasets", place) from None
    try:
        return datasets.load_dataset(identifier, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, no such config or split, a script
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = (
            "HF_HUB_OFFLINE is set and the set is not in the cache"
            if datasets.config.HF_HUB_OFFLINE
            else "check id, config, split and network"
        )
        reason = f"the hub did not give it ({first_line}); {remedy}, or use a file"
        raise DataError("missing file", reason, place) from error


def numbered(rows: Any) -> Iterator[NumberedRow]:
    """Rows with numbers from 1."""
    return ((number, dict(row)) for number, row in enumerate(rows, start=1))
