"""What a stage wrote is recorded by its content: a damaged file is refused or named, and nothing is silent."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from r1kit.commands.bisect_command import bisect
from r1kit.commands.verify_run_command import verify_run
from r1kit.content import seal
from r1kit.pipeline import Context, External, Kind, Recipe, Stage, execute
from r1kit.report.live.places import find_runs
from r1kit.review.queue import ReviewQueue
from r1kit.settings import Settings
from r1kit.store import StoreError


class Toy(Settings):
    factor: int = 2


def write(context: Context) -> Mapping[str, Any]:
    """Two files, one of which later stages read, and some that change after the stage is done."""
    total = sum(int((path / "numbers").read_text()) for path in context.inputs().values())
    model = context.folder / "model"
    (model / ".cache").mkdir(parents=True, exist_ok=True)
    (model / "numbers").write_text(str(total * context.settings.factor + 1))
    (model / ".cache" / "hidden").write_text("1")
    (context.folder / "notes").write_text("for people")
    ReviewQueue.create(context.folder / "review.db").close()
    return {"total": total}


TOY = Kind(name="toy", run=write, settings=Toy)
SETTINGS = {"first": Toy(), "second": Toy(), "third": Toy()}


def recipe(**changed: Toy) -> Recipe:
    settings = SETTINGS | changed
    first = Stage("first", TOY, settings["first"])
    second = Stage("second", TOY, settings["second"], {"x": first / "model"})
    return Recipe("toys", (first, second, Stage("third", TOY, settings["third"], {"x": second / "model"})))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    execute(recipe(), tmp_path / "runs")
    return tmp_path / "runs"


def folder_of(runs: Path, stage: str) -> Path:
    (folder,) = (runs / "toys").glob(f"{stage}-*")
    return folder


def flip(path: Path, *, keep_time: bool = False) -> None:
    """Change one bit of a file's content."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_the_manifest_records_what_the_stage_wrote_and_nothing_that_changes_later(runs: Path) -> None:
    manifest = json.loads((folder_of(runs, "first") / "manifest.json").read_text())
    assert sorted(manifest["files"]) == ["model/numbers", "notes", "stage.json"]
    assert {len(each["sha256"]) for each in manifest["files"].values()} == {64}


def test_a_flipped_bit_in_what_a_stage_reads_stops_the_run_with_file_and_remedy(runs: Path) -> None:
    flip(folder_of(runs, "second") / "model" / "numbers")
    with pytest.raises(StoreError, match=r"model/numbers is damaged: SHA-256 \w+, expected \w+\n.*mv .*second-"):
        execute(recipe(third=Toy(factor=5)), runs)
    assert len(list((runs / "toys").glob("third-*"))) == 1


def test_a_file_that_was_added_to_what_a_stage_reads_stops_the_run_and_one_beside_it_does_not(runs: Path) -> None:
    """A tokenizer's special_tokens_map.json, copied into a finished model, would change where completions end."""
    first = folder_of(runs, "first")
    (first / "README").write_text("of a person")
    (first / "model" / "__pycache__").mkdir()
    (first / "model" / "__pycache__" / "code.pyc").touch()
    execute(recipe(second=Toy(factor=4)), runs)
    assert verify_run(runs)["ok"]
    (first / "model" / "more").write_text("5")
    with pytest.raises(StoreError, match=r"model/more is damaged: the stage did not write it; remove it"):
        execute(recipe(second=Toy(factor=3)), runs)
    assert not verify_run(runs)["ok"]
    (first / "model" / "more").unlink()
    execute(recipe(second=Toy(factor=3)), runs)


def test_what_a_finished_stage_wrote_is_believed_in_other_runs_too_only_as_it_was_written(
    runs: Path, tmp_path: Path
) -> None:
    model = folder_of(runs, "first") / "model"
    other = Recipe("other", (Stage("alone", TOY, Toy(), {"x": External(model)}),))
    flip(model / "numbers")
    with pytest.raises(
        StoreError, match=r"numbers is damaged: SHA-256(.|\n)*restore it(.|\n)*copy it out of the stage"
    ):
        execute(other, tmp_path / "others")
    shutil.copytree(model, tmp_path / "edited")
    execute(Recipe("other", (Stage("alone", TOY, Toy(), {"x": External(tmp_path / "edited")}),)), tmp_path / "others")


@pytest.mark.parametrize("damage", ["cut", "gone", "longer"])
def test_a_file_of_the_result_that_is_cut_longer_or_gone_stops_the_run(runs: Path, damage: str) -> None:
    file = folder_of(runs, "third") / "model" / "numbers"
    content = {"cut": "", "longer": "11"}.get(damage)
    file.write_text(content) if content is not None else file.unlink()
    reason = "missing, expected 1 bytes" if damage == "gone" else r"\d bytes, expected 1"
    with pytest.raises(StoreError, match=rf"model/numbers is damaged: {reason}"):
        execute(recipe(), runs)


def test_damage_that_nothing_reads_is_only_said_unless_all_is_to_be_verified(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(folder_of(runs, "first") / "model" / "numbers")
    flip(folder_of(runs, "second") / "notes", keep_time=True)
    execute(recipe(third=Toy(factor=5)), runs)
    said = capsys.readouterr().err
    assert "first: done already" in said and "(damaged, but nothing reads it now: model/numbers: SHA-256" in said
    assert "notes" not in said  # the same size and time
    with pytest.raises(StoreError, match=r"first(.|\n)*second-\w+/notes is damaged"):
        execute(recipe(), runs, verify=True)


def test_a_copied_folder_is_whole_and_files_that_people_change_are_not_damage(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copied" / "elsewhere"
    shutil.copytree(runs, copy, copy_function=shutil.copyfile)  # without times
    for stage in ("first", "second", "third"):
        (folder_of(copy, stage) / "review.db").write_text("people decided again")
        (folder_of(copy, stage) / "my-notes.txt").write_text("kept")
    assert execute(recipe(), copy, verify=True) == folder_of(copy, "third")


def test_a_stage_of_an_older_version_is_used_and_said_to_be_unverified(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = folder_of(runs, "second") / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({name: content[name] for name in content if name not in ("files", "sha256")}))
    execute(recipe(third=Toy(factor=5)), runs)
    assert "(unverified: an older version recorded no hashes)" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[1]", "{}", '{"fingerprint": 1}', "{", '"x"', "null"])
def test_a_manifest_that_is_no_manifest_is_named_with_its_remedy(runs: Path, content: str) -> None:
    file = folder_of(runs, "second") / "manifest.json"
    file.write_text(content)
    with pytest.raises(StoreError, match=rf"{file}.*(restore|not JSON)"):
        execute(recipe(third=Toy(factor=5)), runs)


def test_two_folders_that_were_swapped_are_named_as_such(runs: Path) -> None:
    first, second = folder_of(runs, "first"), folder_of(runs, "second")
    first.rename(runs / "kept")
    second.rename(first)
    (runs / "kept").rename(second)
    with pytest.raises(
        StoreError, match=rf"{first} holds the stage of another fingerprint, {second.name[-8:]}\w+, exp"
    ):
        execute(recipe(), runs)
    assert not verify_run(runs)["ok"]


@pytest.mark.parametrize("changed", ["total", "fingerprint", "files"])
def test_an_edited_manifest_is_damage(runs: Path, changed: str) -> None:
    file = folder_of(runs, "third") / "manifest.json"
    text = file.read_text()
    edited = text.replace('"total": 3', '"total": 4')
    if changed == "fingerprint":
        digest = json.loads(text)["fingerprint"]
        edited = text.replace(digest, digest[:-1] + ("0" if digest[-1] != "0" else "1"))
    if changed == "files":  # without its records it is no manifest of an older version
        edited = json.dumps({name: value for name, value in json.loads(text).items() if name != "files"})
    assert edited != text
    file.write_text(edited)
    assert not verify_run(runs)["ok"]
    with pytest.raises(StoreError, match=r"manifest.json is damaged: changed since the stage wrote it"):
        execute(recipe(), runs)


@pytest.mark.parametrize("content", ["[1]", "{}", '{"settings": [], "inputs": 3}', '{"attempts": "x"}', "\0"])
def test_a_damaged_stage_file_of_an_unfinished_stage_is_said_and_written_again(
    runs: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(runs, "third")
    (folder / "manifest.json").unlink()
    (folder / "stage.json").write_text(content)
    execute(recipe(), runs)
    assert json.loads((folder / "stage.json").read_text())["fingerprint"].startswith(folder.name[-8:])
    assert ("was damaged, and is written again" in capsys.readouterr().err) == (
        content not in ("{}", '{"settings": [], "inputs": 3}')
    )
    (folder / "stage.json").write_text(content)  # the plan of other settings compares with it
    execute(recipe(third=Toy(factor=9)), runs)


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', '{"a": [1, 2, "x"]}', "{"])
def test_a_damaged_cache_of_hashes_costs_only_time(runs: Path, content: str) -> None:
    (runs / ".hashes.json").write_text(content)
    execute(recipe(third=Toy(factor=5)), runs)


@pytest.mark.parametrize("content", ["{", '{"calls": 1}', '{"calls": [], "sha256": "0"}'])
def test_a_damaged_list_of_calls_is_kept_beside_the_one_that_begins_again(
    runs: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "toys" / "run.json").write_text(content)
    execute(recipe(third=Toy(factor=5)), runs)
    assert len(json.loads((runs / "toys" / "run.json").read_text())["calls"]) == 1
    (kept,) = (runs / "toys").glob("run.damaged-*.json")
    assert kept.read_text() == content and f"is kept as {kept.name}" in capsys.readouterr().err


def test_the_list_of_calls_of_an_older_version_goes_on(runs: Path) -> None:
    file = runs / "toys" / "run.json"
    file.write_text(json.dumps({"calls": json.loads(file.read_text())["calls"]}))
    assert verify_run(runs)["ok"]
    execute(recipe(third=Toy(factor=5)), runs)
    assert len(json.loads(file.read_text())["calls"]) == 2 and verify_run(runs)["ok"]


def test_what_killed_writers_left_anywhere_in_a_stage_is_removed_by_the_next_attempt(runs: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    folder = folder_of(runs, "third")
    (folder / "manifest.json").unlink()
    left = [folder / f".kept.jsonl.tmp-{killed.pid}", folder / f".progress.json.123.tmp-{killed.pid}"]
    folders = [folder / "checkpoints" / f".step-000010.tmp-{killed.pid}", folder / ".model.old"]
    alive = folder / f".other.tmp-{os.getppid()}"
    for each in folders:
        (each / "inner").mkdir(parents=True)
    for file in (*left, alive, runs / "toys" / f".plan.json.tmp-{killed.pid}"):
        file.write_text("half")
    execute(recipe(), runs)
    assert [path.name for path in folder.rglob(".*") if path.name not in (".lock", ".cache")] == [alive.name]
    assert not list((runs / "toys").glob(".*"))


def verified(path: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "r1kit", "verify-run", str(path)], capture_output=True, text=True, timeout=60
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_an_audit_of_a_whole_run_passes_and_of_its_copy_too(runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copied"
    shutil.copytree(runs / "toys", copy, copy_function=shutil.copyfile)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    for place in (runs, runs / "toys", folder_of(runs, "first"), copy):
        status, text = verified(place)
        assert status == 0 and "intact, 3 files" in text, text
        assert ("toys/first-" in text) == (place == runs)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_an_audit_names_every_damaged_file_with_the_same_size_and_time_too(runs: Path) -> None:
    damaged = [folder_of(runs, "first") / "model" / "numbers", folder_of(runs, "third") / "stage.json"]
    for file in damaged:
        flip(file, keep_time=True)
    (runs / "toys" / "plan.json").write_text("{")
    status, text = verified(runs)
    assert status == 1
    assert all(f"{file} is damaged" in text for file in (*damaged, runs / "toys" / "plan.json")), text
    assert "second" in text and "to make it again: mv" in text


def change(file: Path, **values: Any) -> None:
    """Another value in a JSON object that stays valid."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def rename(folder: Path) -> None:
    folder.rename(folder.with_name(folder.name.replace("third", "other")))


DAMAGES_OF_A_RUN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "plan": (lambda runs: change(runs / "toys" / "plan.json", title="x"), r"plan.json is damaged: edited"),
    "no plan": (lambda runs: (runs / "toys" / "plan.json").unlink(), r"plan.json is damaged: missing"),
    "calls": (lambda runs: change(runs / "toys" / "run.json", calls=[]), r"run.json is damaged: edited"),
    "a lost manifest": (
        lambda runs: (folder_of(runs, "third") / "manifest.json").unlink(),
        r"third-\w+/manifest.json is damaged: missing, and run.json says that the stage finished",
    ),
    "renamed": (
        lambda runs: rename(folder_of(runs, "third")),
        r"stage.json is damaged: it is that of third-\w+: .*renamed",
    ),
    "input": (
        lambda runs: shutil.rmtree(folder_of(runs, "first")),
        r"first-\w+ is damaged: missing, and second-\w+ read it as input 'x'; put it back",
    ),
}


@pytest.mark.parametrize("name", DAMAGES_OF_A_RUN)
def test_an_audit_names_what_was_changed_renamed_or_removed_though_every_file_left_is_whole(
    runs: Path, name: str
) -> None:
    damage, message = DAMAGES_OF_A_RUN[name]
    damage(runs)
    result = verify_run(runs)
    assert not result["ok"] and re.search(message, result["text"]), result["text"]
    if name in ("plan", "no plan"):  # as the remedy says
        (runs / "toys" / "plan.json").unlink(missing_ok=True)
        execute(recipe(), runs)
        assert verify_run(runs)["ok"]


def test_an_audit_says_which_stages_of_the_plan_are_absent_and_a_stage_that_was_copied_alone_is_intact(
    runs: Path, tmp_path: Path
) -> None:
    third = folder_of(runs, "third")
    third.rename(tmp_path / third.name)
    assert verify_run(tmp_path / third.name)["ok"]
    result = verify_run(runs)
    assert result["ok"] and result["absent"] == [third.name] and "third" in result["text"]


@pytest.mark.parametrize("content", [None, "{}", "[]"])
def test_a_checkpoint_whose_checksums_are_gone_is_damage_to_an_audit_and_to_a_run_that_verifies(
    runs: Path, content: str | None
) -> None:
    checkpoint = folder_of(runs, "first") / "checkpoints" / "step-000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    seal(checkpoint)
    execute(recipe(), runs, verify=True)
    assert verify_run(runs)["ok"]
    (checkpoint / "checksums.json").unlink() if content is None else (checkpoint / "checksums.json").write_text(content)
    message = r"step-000002 is damaged: .*checksums.json(.|\n)*restore the checkpoint from a copy, or delete it"
    assert re.search(message, verify_run(runs)["text"]) and not verify_run(runs)["ok"]
    with pytest.raises(StoreError, match=message):
        execute(recipe(), runs, verify=True)


def test_the_remedy_moves_the_stage_out_of_sight_and_runs_and_stages_can_be_named_by_a_dot(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(folder_of(runs, "third") / "model" / "numbers")
    monkeypatch.chdir(runs / "toys")
    (move,) = re.findall(r"to make it again: (mv .*), then", verify_run(Path("."))["text"])
    subprocess.run(move, shell=True, check=True)
    assert verify_run(Path("."))["ok"] and list(find_runs(runs)) == ["toys"]
    assert execute(recipe(), runs) == folder_of(runs, "third")
    monkeypatch.chdir(folder_of(runs, "second"))
    assert verify_run(Path("."))["ok"] and bisect(Path("."), folder_of(runs, "second"))["not_compared"] == ["second"]


def test_an_audit_says_what_is_unverified_and_refuses_a_folder_without_a_run(runs: Path, tmp_path: Path) -> None:
    manifest = folder_of(runs, "second") / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({name: content[name] for name in content if name not in ("files", "sha256")}))
    (folder_of(runs, "third") / "manifest.json").unlink()
    (runs / "toys" / "run.json").unlink()  # it says that the stage finished
    status, text = verified(runs)
    assert status == 0 and ": unverified" in text and ": unfinished" in text
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "r1kit", "verify-run", str(tmp_path / "empty")], capture_output=True, text=True
    )
    assert done.returncode == 1 and "holds no run" in done.stderr
