"""Tasks from the Hugging Face hub, through `datasets` and its cache; HF_HUB_OFFLINE is respected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from r1kit.data.errors import DataError
from r1kit.tasks.base import Listed
from r1kit.tasks.from_rows import ReadOptions, from_rows
from r1kit.tasks.public_sets import benchmark_in_hub
from r1kit.tasks.sources.source import Source, arranged, read_options

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec


class HubSource(Source):
    """`hub:<id>` or `hub:<id>:<config>`, such as `hub:openai/gsm8k:main`."""

    kind = "hub"
    ignores = ("data", "options")

    def claims(self, name: str) -> bool:
        return name.startswith("hub:")

    def load(self, spec: TaskSpec, split: str) -> Listed:
        identifier, _, config = spec.name.removeprefix("hub:").partition(":")
        return arranged(load_hub(identifier, split, config=config or None, **read_options(spec)), spec)

    def benchmark(self, spec: TaskSpec, split: str) -> str | None:
        return benchmark_in_hub(spec.name.removeprefix("hub:").partition(":")[0], split)


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

    Raises `DataError` if `datasets` is not installed, or the set is neither on the hub nor in the local cache.
    """
    place = f"hub:{identifier}" + (f":{config}" if config else "") + f"/{split}"
    rows = ((number, dict(row)) for number, row in enumerate(download(identifier, split, config, revision, place), 1))
    return from_rows(rows, name=name or f"{identifier}/{split}", file=place, **options)


def download(identifier: str, split: str, config: str | None, revision: str | None, place: str, **options: Any) -> Any:
    """The split as `datasets.Dataset`; `options` are further arguments of `load_dataset`."""
    try:
        import datasets
    except ImportError:
        raise DataError("missing file", "hub data sets need datasets: pip install datasets", place) from None
    try:
        return datasets.load_dataset(identifier, config, split=split, revision=revision, **options)
    except (OSError, ValueError, RuntimeError) as error:  # not found, offline, unknown config or split, or a script
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = (
            "HF_HUB_OFFLINE is set and the set is not in the cache"
            if datasets.config.HF_HUB_OFFLINE
            else "check id, config, split and network"
        )
        reason = f"it could not be loaded from the hub ({first_line}): {remedy}, or use a file"
        raise DataError("missing file", reason, place) from error
