"""Inputs without an end (pipes, devices, lines and arrays of gigabytes) are refused at a bound that the error names."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1kit import cli
from r1kit.chat import saved
from r1kit.cli.values import engine
from r1kit.data import jsonl, rows
from r1kit.data.errors import DataError
from r1kit.data.rows import readable_rows
from r1kit.models.known import resolve
from r1kit.recipes.file import RecipeFile
from r1kit.report.live.growing import GrowingMetrics
from r1kit.report.live.stage_state import last_step
from r1kit.review.queue import ReviewQueue
from r1kit.store import StoreError, read_json

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "rows": ("x.jsonl", lambda path: list(readable_rows(path))),
    "compressed rows": ("x.jsonl.gz", lambda path: list(readable_rows(path))),
    "parquet": ("x.parquet", lambda path: list(readable_rows(path))),
    "review": ("x.jsonl", lambda path: ReviewQueue.create(path.with_suffix(".db"), readable_rows(path))),
    "recipe": ("x.toml", RecipeFile.read),
    "engine": ("x.json", lambda path: engine(str(path))),
    "json": ("x.json", read_json),
    "format": ("chat_format.json", saved.read),
    "model": ("config.json", lambda path: resolve(str(path.parent))),
    "rows of a run": ("metrics.jsonl", lambda path: list(jsonl.read_rows(path))),
    "rows of the live page": ("metrics.jsonl", lambda path: GrowingMetrics(path).metrics()),
    "the last step": ("metrics.jsonl", last_step),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused_and_never_opened(kind: str, reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    path = tmp_path / name
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(Exception, match=r"pipe or a device|no prompt format|has no config.json") as caught:
        read(path)
    assert isinstance(caught.value, (*cli.USER_ERRORS, __import__("argparse").ArgumentTypeError))


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_a_line_above_the_bound_is_an_error_with_its_number_and_the_next_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_FILE_ROW_BYTES", 1000)
    data = b'{"a": 1}\n{"a": "' + b"x" * 5000 + b'"}\n{"a": 3}\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    first, second, third = rows.numbered_rows(path)
    assert (first, third) == ((1, {"a": 1}), (3, {"a": 3}))
    assert isinstance(second[1], DataError)
    assert "line 2" in str(second[1]) or "row 2" in str(second[1])
    assert "at most 1,000" in str(second[1])


def test_a_row_of_a_run_above_the_bound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        file.truncate(jsonl.MAX_FILE_ROW_BYTES + 1)  # zeros without a line end, which take no space
    with pytest.raises(DataError, match=r"takes 67,108,865 bytes, and at most 67,108,864 are allowed"):
        list(jsonl.read_rows(path))


def test_a_gzip_bomb_without_a_line_end_needs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_FILE_ROW_BYTES", 2**20)
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match="67,108,864 bytes, and at most 1,048,576"):
        list(readable_rows(path))


def test_an_array_above_the_bound_names_it_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ARRAY_BYTES", 100)
    path = tmp_path / "x.json"
    path.write_text("[" + ", ".join('{"a": 1}' for _ in range(50)) + "]")
    with pytest.raises(DataError, match=r"more than 100 bytes: write one row per line, as .jsonl"):
        list(readable_rows(path))


def test_a_settings_file_above_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from r1kit import store

    path = tmp_path / "x.json"
    path.write_text('{"a": "' + "x" * 100 + '"}')
    with pytest.raises(StoreError, match="more than 50 bytes"):
        store.read_bounded(path, 50)


def test_the_bound_of_files_is_above_the_bound_of_training_rows() -> None:
    assert jsonl.MAX_FILE_ROW_BYTES > jsonl.MAX_ROW_BYTES
