"""A step can be made again bit for bit, and two runs are known to part at the step and the tensor where they do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from planted_steps import FAULTS, planted, train  # noqa: E402
from r1kit import cli  # noqa: E402
from r1kit.commands.bisect_command import bisect  # noqa: E402
from r1kit.commands.replay_command import replay  # noqa: E402
from r1kit.models.fingerprint import fingerprint  # noqa: E402
from r1kit.pipeline import Stopped  # noqa: E402
from r1kit.store import StoreError  # noqa: E402
from r1kit.train.learner import Learner  # noqa: E402

torch.set_num_threads(1)
LAST, FIRST = 4, 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose checkpoints hold a moving reference."""
    paper = {"kl_coef": 0.05, "reference_refresh": 4, "dynamic_sampling": 1}
    return train(tmp_path_factory.mktemp("sound"), {"steps": LAST, "algorithm": paper})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("plain"), {"steps": LAST})


def stage_of(run: Path) -> Path:
    (stage,) = run.glob("rl-*")
    return stage


def quiet(path: Path, step: int) -> dict[str, Any]:
    return replay(path, step, say=lambda line: None)


@pytest.mark.parametrize(("step", "start"), [(2, 0), (4, 2)])
def test_a_step_is_the_same_again_from_the_nearest_checkpoint_before_it(
    run: Path, step: int, start: int, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = stage_of(run)
    before = {path: path.stat().st_mtime_ns for path in stage.rglob("*")}
    said = list[str]()
    result = replay(run, step, say=said.append)
    assert result["ok"] and result["from"] == start and not said, result["text"]
    assert "has lost" not in capsys.readouterr().err
    assert "weights (2): the same" in result["text"] and "prompts (" in result["text"]
    assert {path: path.stat().st_mtime_ns for path in stage.rglob("*")} == before


def test_a_replay_starts_before_a_checkpoint_without_checksums_and_says_so(run: Path, tmp_path: Path) -> None:
    checksums = stage_of(run) / "checkpoints" / "step-000002" / "checksums.json"
    shutil.move(checksums, tmp_path)
    said = list[str]()
    try:
        result = replay(run, 3, say=said.append)
    finally:
        shutil.move(tmp_path / checksums.name, checksums)
    assert result["ok"] and result["from"] == 0
    assert any("step-000002 is damaged: it has no checksums.json" in line for line in said), said


def test_a_moved_run_reads_its_model_where_it_was_and_names_one_that_is_gone(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "deeper" / "runs" / "copied"
    shutil.copytree(run, copy)
    assert quiet(copy, LAST)["ok"]
    (stage_of(copy) / "stage.json").unlink()  # it says where the model was
    with pytest.raises(StoreError, match=r"input 'model' of rl-.* is missing: put"):
        quiet(copy, LAST)


ODD_ROWS = [
    "{}",
    '{"step": true}',
    '{"step": 2, "ranks": null}',
    '{"step": 2, "rewards": 5}',
    '{"step": 2, "rows": [1]}',
]


@pytest.mark.parametrize("row", ODD_ROWS)
def test_a_row_that_no_step_left_is_named(row: str, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(stage_of(plain), tmp_path / "rl")
    with (tmp_path / "rl" / "step_hashes.jsonl").open("a") as file:
        file.write(f"{row}\n")
    for compare in (lambda: quiet(tmp_path / "rl", 1), lambda: bisect(stage_of(plain), tmp_path / "rl")):
        with pytest.raises(ValueError, match=r"step_hashes.jsonl, row 6: not what a step leaves: .*restore it"):
            compare()


def test_an_edited_manifest_is_neither_repeated_nor_compared(plain: Path, tmp_path: Path) -> None:
    stage = tmp_path / "run" / stage_of(plain).name
    shutil.copytree(stage_of(plain), stage)
    manifest = json.loads((stage / "manifest.json").read_text())
    (stage / "manifest.json").write_text(json.dumps(manifest | {"inputs": {"model": 3}}))
    with pytest.raises(StoreError, match=r"manifest.json is damaged: changed since"):
        quiet(stage, 1)
    result = bisect(stage_of(plain), stage)
    assert not result["ok"] and "manifest.json is damaged: changed since" in result["text"]


def test_a_stage_without_steps_metrics_and_rows_is_not_called_the_same(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "run")
    steps = stage_of(tmp_path / "run") / "step_hashes.jsonl"
    rows = steps.read_text().splitlines(keepends=True)
    steps.write_text("".join(rows[:2] + rows[3:]))
    result = bisect(plain, tmp_path / "run")
    assert not result["ok"] and "1 steps up to 4 are in only one of the two, first 2" in result["text"]
    assert "step_hashes.jsonl is damaged: " in result["text"]
    steps.unlink()
    (steps.parent / "metrics.jsonl").unlink()
    result = bisect(plain, tmp_path / "run")
    assert not result["ok"] and (result["same"], result["not_compared"]) == ([], ["rl"]), result["text"]


def test_a_replay_under_changed_code_names_what_differs(plain: Path) -> None:
    fault = next(fault for fault in FAULTS if fault.title == "the reward's sign")
    with planted(fault, FIRST):
        result = quiet(plain, LAST)
    assert not result["ok"] and result["difference"]["tensor"] == "rewards" and result["difference"]["step"] == FIRST
    assert "logprobs (16): the same" in result["text"] and "reward: " in result["text"]


def test_the_step_must_be_logged_and_the_stage_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no step 9; it has steps 1 to 4"):
        quiet(run, 9)
    with pytest.raises(ValueError, match=r"has no step 0; it has steps 1 to 4"):
        quiet(run, 0)
    (tmp_path / "eval-1").mkdir()
    (tmp_path / "eval-1" / "stage.json").write_text(json.dumps({"kind": "evaluate", "run": {"settings": {}}}))
    with pytest.raises(ValueError, match=r"eval-1 is of the kind 'evaluate': only rl and on-policy"):
        quiet(tmp_path / "eval-1", 1)
    with pytest.raises(ValueError, match=r"name one RL stage of .* with --stage; these have logged steps: rl-"):
        replay(run, 1, "other", say=lambda line: None)
    with pytest.raises(ValueError, match=r"eval-1 is the stage eval-1, and --stage names rl"):
        replay(tmp_path / "eval-1", 1, "rl", say=lambda line: None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no RL stage with step_hashes.jsonl: none of its steps"):
        quiet(tmp_path / "empty", 1)


def test_an_unfinished_stage_is_replayed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, count = Learner.step, 0

    def stop(learner: Learner, *arguments: Any) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == 5:
            raise Stopped(15)
        return step(learner, *arguments)

    monkeypatch.setattr(Learner, "step", stop)
    with pytest.raises(Stopped):
        train(tmp_path)
    monkeypatch.undo()
    assert quiet(tmp_path / "planted", 2)["ok"]


@pytest.mark.parametrize("fault", FAULTS[2::4], ids=lambda fault: fault.title)
def test_two_runs_part_at_the_step_and_the_tensor_of_the_fault(fault: Any, plain: Path, tmp_path: Path) -> None:
    with planted(fault, FIRST):
        other = train(tmp_path, {"steps": FIRST})
    result = bisect(plain, other)
    assert not result["ok"]
    assert (result["parting"]["step"], result["parting"]["tensor"]) == (FIRST, fault.tensor), result["text"]
    assert "setting steps 4 -> 3" in result["text"]


def test_runs_that_do_not_part_and_runs_that_cannot_be_compared(plain: Path, run: Path, tmp_path: Path) -> None:
    assert bisect(plain, plain)["ok"] and "compared up to" not in bisect(plain, plain)["text"]
    shutil.copytree(plain, tmp_path / "shorter" / "run")
    hashes = stage_of(tmp_path / "shorter" / "run") / "step_hashes.jsonl"
    hashes.write_text("".join(line for line in hashes.read_text().splitlines(keepends=True) if '"step": 4' not in line))
    text = bisect(plain, tmp_path / "shorter" / "run")["text"]
    assert f"rl was compared up to step 3: only {stage_of(plain)} continues, to step 4" in text
    (tmp_path / "none").mkdir()
    result = bisect(stage_of(plain), stage_of(run))
    assert (result["parting"]["step"], result["parting"]["stage"]) == (1, "rl")
    assert "setting algorithm.kl_coef 0.0 -> 0.05" in result["text"]
    with pytest.raises(ValueError, match="contains 0 runs"):
        bisect(plain, tmp_path / "none")


def test_runs_of_older_versions_are_compared_by_their_metrics(plain: Path, run: Path, tmp_path: Path) -> None:
    for number, source in enumerate((plain, run)):
        shutil.copytree(source, tmp_path / str(number))
        (stage_of(tmp_path / str(number)) / "step_hashes.jsonl").unlink()
    result = bisect(tmp_path / "0", tmp_path / "1")
    assert result["parting"]["step"] == 1 and "->" in result["parting"]["detail"]


def test_the_commands_print_and_exit_with_1_if_something_differs(
    plain: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["replay", str(plain), "--step", "1"]) == 0
    assert "step 1, from the beginning: the same bits" in capsys.readouterr().out
    assert cli.main(["bisect", str(plain), str(run), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["parting"]["stage"] == "rl"
    assert cli.main(["replay", str(plain), "--step", "99"]) == 1
    assert "r1kit: error: " in capsys.readouterr().err


def test_a_fingerprint_sees_every_bit_and_the_place_of_a_value() -> None:
    weights = {"a": torch.arange(5000, dtype=torch.float32), "b": torch.ones(3, dtype=torch.bfloat16)}
    before = fingerprint(weights)
    assert fingerprint({name: tensor.clone() for name, tensor in weights.items()}) == before
    for name, place in (("a", 0), ("a", 4999), ("b", 2)):
        changed = {key: tensor.clone() for key, tensor in weights.items()}
        changed[name].view(torch.int32 if name == "a" else torch.int16)[place] ^= 1
        assert fingerprint(changed) != before
    assert fingerprint({"a": weights["a"].flip(0), "b": weights["b"]}) != before


def test_steps_of_several_numbers_of_devices_are_not_replayed_and_compared_only_where_they_can_agree(
    plain: Path, tmp_path: Path
) -> None:
    shared = tmp_path / plain.name
    shutil.copytree(plain, shared)
    hashes = stage_of(shared) / "step_hashes.jsonl"
    rows = [json.loads(line) for line in hashes.read_text().splitlines()]
    several = {"ranks": 2, "sequence_devices": 2, "weights": ["of a part"]}
    rows = [row | (several if row["step"] > 1 else {}) for row in rows]
    hashes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"up to step 2, rl-.* ran on 1 and 2 \(2 for each row\) devices since"):
        quiet(shared, 2)
    whole = [row | ({"sharded": 0} if row["step"] > 1 else {}) for row in rows]
    hashes.write_text("".join(json.dumps(row) + "\n" for row in whole))
    with pytest.raises(ValueError, match=r"ran on 1 and 2 \(2 for each row, with whole weights\) devices since"):
        quiet(shared, 2)
    assert bisect(stage_of(plain), stage_of(shared))["same"] == ["rl"]
    rows[-1]["sampled"][0] = "another"
    hashes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parting = bisect(stage_of(plain), stage_of(shared))["parting"]
    assert (parting["step"], parting["tensor"]) == (LAST, "sampled")
