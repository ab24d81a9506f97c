"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit import store
from r1kit.data import jsonl
from r1kit.types import Message

# A limit on file size makes the kernel refuse a write midway, as a full disk does.
LIMITED = """
import resource, sys
from pathlib import Path
from r1kit import store
from r1kit.data import jsonl
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
"""


def run_limited(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LIMITED + code, str(folder)], capture_output=True, text=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    store.write_text(tmp_path / "deep" / "a.txt", "old")
    store.write_text(tmp_path / "deep" / "a.txt", "new")
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"
    assert names(tmp_path / "deep") == ["a.txt"]


def test_a_full_disk_gives_one_clear_error_and_keeps_the_earlier_file(tmp_path: Path) -> None:
    store.write_text(tmp_path / "a.txt", "old")
    done = run_limited(tmp_path, "store.write_text(folder / 'a.txt', 'x' * 5000)")
    assert "StoreError: cannot write" in done.stderr
    assert str(tmp_path / "a.txt") in done.stderr
    assert "MB free" in done.stderr
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_takes_back_the_part_of_a_row_that_was_written(tmp_path: Path) -> None:
    code = """
rows = jsonl.RowWriter(folder / "rows.jsonl")
rows.append({"step": 1})
try:
    rows.append({"text": "x" * 5000})
except store.StoreError as error:
    print(error)
rows.append({"step": 2})
rows.close()
"""
    done = run_limited(tmp_path, code)
    assert done.stdout.startswith("cannot write"), done.stderr
    assert list(jsonl.read_rows(tmp_path / "rows.jsonl")) == [{"step": 1}, {"step": 2}]


def test_no_space_while_a_folder_is_filled_leaves_the_earlier_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("old")

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    full = pytest.raises(store.StoreError, match=r"model: No space left on device .*make room")
    with full, store.atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("new")
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize(
    "write",
    [
        "import torch; torch.save(torch.zeros(5000), model / 'a')",
        "import torch, safetensors.torch as st; st.save_file({'t': torch.zeros(5000)}, model / 'a')",
        "from tokenizers import Tokenizer as T, models as m; T(m.WordLevel({'0' * 999: 0}, '0')).save(f'{model}/a')",
        "import numpy; numpy.save(model / 'a.npy', numpy.zeros(5000))",
    ],
)
def test_a_full_disk_is_recognised_when_another_library_writes(tmp_path: Path, write: str) -> None:
    done = run_limited(tmp_path, f"with store.atomic_folder(folder / 'model') as model:\n    {write}")
    assert "StoreError: cannot write" in done.stderr and "make room" in done.stderr, done.stderr
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the completion 'No space left on device (os error 28)' has no answer"),
        RuntimeError("the model wrote: No space left on device (os error 28)"),
        OSError("the model wrote: 3 requested and 2 written, so the file write failed"),
    ],
)
def test_model_text_about_a_full_disk_is_not_taken_for_one(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)[:14]) as caught, store.atomic_folder(tmp_path / "model"):
        raise error
    assert caught.value is error


def test_other_errors_inside_a_folder_pass_through_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.atomic_folder(tmp_path / "model"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_folder_appears_only_when_it_is_finished_and_replaces_the_earlier_one(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with store.atomic_folder(tmp_path / "model") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "weights").write_text(content)
            assert not (tmp_path / "model").exists() or content == "second"
        assert (tmp_path / "model" / "sub" / "weights").read_text() == content
    assert names(tmp_path) == ["model"]


def test_what_a_killed_process_left_is_cleared_by_the_next_attempt(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    for process in (killed.pid, os.getpid(), os.getppid()):
        (tmp_path / f".model.tmp-{process}@{socket.gethostname()}").mkdir()
    with store.atomic_folder(tmp_path / "model"):
        pass
    # the parent runs: it may still be at work
    assert names(tmp_path) == [f".model.tmp-{os.getppid()}@{socket.gethostname()}", "model"]


def test_a_scratch_folder_of_a_killed_process_is_removed_by_the_next_one_and_no_other(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from r1kit import store
with store.scratch_folder(Path(sys.argv[1]), "trial") as folder:
    (folder / "weights").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    (tmp_path / "other").mkdir()
    assert len(names(tmp_path)) == 2
    with store.scratch_folder(tmp_path, "trial") as folder:
        assert names(tmp_path) == sorted([folder.name, "other"]) and not names(folder)
    assert names(tmp_path) == ["other"]


def test_what_another_machine_left_is_cleared_when_it_has_not_changed_for_long(tmp_path: Path) -> None:
    for name, age_s in (("fresh", 60), ("old", 7200)):
        (folder := tmp_path / f".model.tmp-{os.getpid()}@{name}-machine").mkdir()
        (folder / "weights").touch()
        for path in (folder / "weights", folder):
            os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    with store.atomic_folder(tmp_path / "model"):
        pass
    assert names(tmp_path) == [f".model.tmp-{os.getpid()}@fresh-machine", "model"]


def test_a_half_written_last_row_is_skipped_by_readers_and_mended_by_writers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n\n{"step": 2, "te')
    assert list(jsonl.read_rows(path)) == [{"step": 1}]
    with jsonl.RowWriter(path) as rows:
        rows.append({"step": 2})
    assert list(jsonl.read_rows(path)) == [{"step": 1}, {"step": 2}]


def test_repairing_a_large_file_reads_its_end_only(tmp_path: Path) -> None:
    path, row = tmp_path / "rows.jsonl", b'{"text": "' + b"x" * 500 + b'"}\n'
    with open(path, "wb") as file:
        file.seek(2**30)  # a hole: the file takes no room on the disk
        file.write(b"\n" + row * 3000 + b'{"text": "cut')
    tracemalloc.start()
    with jsonl.RowWriter(path) as rows:
        size = rows.size
        rows.append({"n": 1})
    assert tracemalloc.get_traced_memory()[1] < 4 * jsonl.BLOCK_BYTES
    tracemalloc.stop()
    assert size == 2**30 + 1 + 3000 * len(row)
    with open(path, "rb") as file:
        file.seek(size - len(row))
        assert file.read() == row + b'{"n": 1}\n'


def test_a_cut_row_larger_than_any_row_is_dropped_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1}\n{"text": "')
    os.truncate(path, 2**28)
    tracemalloc.start()
    jsonl.RowWriter(path).close()
    assert tracemalloc.get_traced_memory()[1] < 4 * jsonl.BLOCK_BYTES
    tracemalloc.stop()
    assert path.read_bytes() == b'{"n": 1}\n'


def test_a_last_row_without_a_line_end_is_kept_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}')
    with jsonl.RowWriter(path) as rows:
        rows.append({"step": 2})
    assert [row["step"] for row in jsonl.read_rows(path)] == [1, 2]


@pytest.mark.parametrize("bad", ['{"step": 2, "te\n{"step": 3}\n', "[1, 2]\n"])
def test_any_other_bad_row_is_an_error_that_names_file_and_line(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n' + bad)
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 2"):
        list(jsonl.read_rows(path))


def test_two_processes_cannot_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    code = f"import pathlib, r1kit.data.jsonl as j; j.RowWriter(pathlib.Path({str(path)!r})).append({{'n': 2}})"
    with jsonl.RowWriter(path) as rows:
        rows.append({"n": 1})
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "rows.jsonl is being written by another process" in second.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert list(jsonl.read_rows(path)) == [{"n": 1}, {"n": 2}]


def test_rows_after_a_step_can_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert jsonl.keep_steps(path, 3) == 3 and jsonl.keep_steps(path, -1) == 0
    assert not path.exists()
    with jsonl.RowWriter(path) as rows:
        for step in range(6):
            rows.append({"step": step})
    assert jsonl.keep_steps(path, 3) == 0
    assert [row["step"] for row in jsonl.read_rows(path)] == [0, 1, 2, 3]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[::2]))  # steps 0 and 2
    assert jsonl.keep_steps(path, 3) == 2


@given(st.lists(st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False, allow_infinity=False))))
def test_rows_come_back_as_they_were_whatever_text_they_hold(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    with jsonl.RowWriter(path) as writer:
        for row in rows:
            writer.append(row)
    assert list(jsonl.read_rows(path)) == rows


def test_plain_data_of_records_numbers_and_paths() -> None:
    value = {"m": Message(role="user", content="hi"), "n": np.float32(0.5), "p": Path("a"), "t": (1, float("nan"))}
    plain = {"m": {"role": "user", "content": "hi"}, "n": 0.5, "p": "a", "t": [1, None]}
    assert store.to_plain(value) == plain
    with pytest.raises(ValueError, match="JSON cannot hold a value of type object"):
        store.to_plain({"x": object()})


def test_model_text_with_a_lone_surrogate_can_be_stored(tmp_path: Path) -> None:
    with jsonl.RowWriter(tmp_path / "rows.jsonl") as rows:
        rows.append({"text": "a\ud800b"})
    assert list(jsonl.read_rows(tmp_path / "rows.jsonl")) == [{"text": "a?b"}]


def test_damaged_json_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(store.StoreError, match=r"manifest\.json is not JSON"):
        store.read_json(tmp_path / "manifest.json")


def test_hashes_depend_on_content_and_names_inside_a_folder_but_not_on_its_own_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store.write_json(tmp_path / name / "x.json", {"v": 1})
        store.write_text(tmp_path / name / "deep" / "y.txt", "y")
    assert store.sha256(tmp_path / "a") == store.sha256(tmp_path / "b")
    os.rename(tmp_path / "b" / "x.json", tmp_path / "b" / "z.json")
    assert store.sha256(tmp_path / "a") != store.sha256(tmp_path / "b")
    assert json.loads((tmp_path / "a" / "x.json").read_text()) == {"v": 1}


def test_a_last_line_that_is_no_object_is_refused_and_not_taken_for_a_cut_row(tmp_path: Path) -> None:
    path = tmp_path / "array.jsonl"
    path.write_text("[7]")
    with pytest.raises(ValueError, match="row 1: the row is"):
        list(jsonl.read_rows(path))
