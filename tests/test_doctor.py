"""The doctor and the alarms: faults are named with evidence and remedy, while a stage trains and afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit.cli import main  # noqa: E402
from r1kit.pipeline.manifest import write_manifest  # noqa: E402
from r1kit.report.folders import StageFolder, find_stages  # noqa: E402
from r1kit.report.health import checks, verdict  # noqa: E402
from r1kit.report.live.health_reader import HealthReader  # noqa: E402
from r1kit.stages.rl import RL  # noqa: E402
from r1kit.stages.shared.alarm import AlarmError, HealthAlarm  # noqa: E402
from r1kit.tasks.leaks import share_at_one_place  # noqa: E402
from r1kit.train import checkpoints  # noqa: E402
from r1kit.train.learner import Learner  # noqa: E402
from r1kit.train.preflight.references import NOT_CONSTANT  # noqa: E402
from test_learner import SETTINGS, llama, saved  # noqa: E402
from test_preflight import run  # noqa: E402

torch.set_num_threads(1)

HEALTHY = {"sampler/logprob_gap_mean": 1e-7, "policy/entropy": 0.5, "reward/mean": 0.5, "reward/accuracy": 0.5}


def stage(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text(json.dumps({"kind": "rl", "stage": "rl", "settings": {"group_size": 4}}))
    steps = [{"step": step, **HEALTHY, **row} for step, row in enumerate(rows, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    return folder


def test_a_check_that_failed_before_the_first_step_is_the_verdict(tmp_path: Path) -> None:
    folder = stage(tmp_path / "rl", [{}] * 2)
    line = {"check": "KL at step 0", "value": "0.1", "limit": "", "verdict": "fails", "remedy": "repair it"}
    (folder / "preflight.json").write_text(json.dumps([line, {**line, "verdict": "ok"}]))
    result = verdict(StageFolder("rl", folder))
    assert (result.name, result.remedy) == ("mismatched", "repair it")
    assert any(
        check.name == "Preflight" and check.status == "attention" for check in checks(StageFolder("rl", folder), {})
    )
    constant = {"check": "rewards on your references", "limit": NOT_CONSTANT}
    for starving in ({"check": "form of the references"}, constant):
        (folder / "preflight.json").write_text(json.dumps([{**line, **starving}]))
        assert verdict(StageFolder("rl", folder)).name == "starved"


def test_answers_at_the_end_of_their_prompts_leak_and_one_of_their_numbers_does_not(tmp_path: Path) -> None:
    folder = stage(tmp_path / "rl", [{}] * 10)
    (folder / "rollouts").mkdir()
    rows = [{"problem_id": n, "question": f"{n}+{n + 1}? ({2 * n + 1})", "answer": str(2 * n + 1)} for n in range(30)]
    file = folder / "rollouts" / "step-000001.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = verdict(StageFolder("rl", folder))
    assert result.name == "leaking" and "100.0 % of 30" in result.evidence[0]
    largest = [(f"largest of {n}, {30 - n}, {n // 2}?", str(max(n, 30 - n))) for n in range(30)]
    assert share_at_one_place(largest) < 0.8


def test_measured_questions_that_were_trained_on_leak(tmp_path: Path) -> None:
    folder = stage(tmp_path / "rl", [{}] * 10)
    (folder / "rollouts").mkdir()
    rows = [{"problem_id": n, "question": f"how many is {n} twice", "answer": "-1"} for n in range(30)]
    (folder / "rollouts" / "step-000001.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = tmp_path / "eval"
    evaluation.mkdir()
    (evaluation / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:25]))
    evaluated = StageFolder("eval", evaluation)
    result = verdict(StageFolder("rl", folder), evaluations=[evaluated])
    assert result.name == "leaking" and "25 of 25 questions of eval" in result.evidence[0]


def test_the_command_names_the_fault_and_its_status_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage(tmp_path / "good" / "rl", [{}] * 10)
    assert main(["doctor", str(tmp_path / "good")]) == 0
    stage(tmp_path / "bad" / "rl", [{"sampler/logprob_gap_mean": 0.2}] * 10)
    assert main(["doctor", str(tmp_path / "bad"), "--json"]) == 1
    out = capsys.readouterr().out
    (bad,) = json.loads(out[out.index("[") :])
    assert bad["stages"][0]["name"] == "mismatched" and bad["stages"][0]["remedy"]
    assert main(["doctor", str(tmp_path / "bad" / "rl")]) == 1
    assert "remedy: check that every update reaches the sampler" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "none")]) == 1


def test_a_stage_that_the_report_does_not_list_is_judged_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = stage(tmp_path / "run" / "first-00000001", [{}] * 10)
    stage(tmp_path / "run" / "later-00000002", [{"sampler/logprob_gap_mean": 0.2}] * 10)
    report = tmp_path / "run" / "report-00000003"
    report.mkdir()
    inputs = {"training/first": {"path": f"../{first.name}"}}
    (report / "manifest.json").write_text(json.dumps({"kind": "report", "stage": "report", "inputs": inputs}))
    assert main(["doctor", str(tmp_path / "run"), "--json"]) == 1
    out = capsys.readouterr().out
    (found,) = json.loads(out[out.index("[") :])
    names = {row["stage"]: row["name"] for row in found["stages"]}
    assert names == {"training/first": "healthy", "later": "mismatched"}
    assert HealthReader().read(tmp_path / "run")["verdict"]["name"] == "later"


DAMAGED = {
    "preflight.json": ["5", "{}", '[{"check": "masks"}]', "["],
    "metrics.jsonl": ["5\n5\n", "".join(f'{{"step": {n}, "policy/entropy": {n % 2}e200}}\n' for n in range(9))],
    "stage.json": ["[1]", '{"inputs": {"model": {"path": 5}}, "started": "x"}'],
    "completions.jsonl": ["{}\n", '{"problem_id": 5}\n'],
}


@pytest.mark.parametrize(("file", "content"), [(file, text) for file, texts in DAMAGED.items() for text in texts])
def test_a_stage_with_a_damaged_file_is_named_and_the_others_are_judged(
    file: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage(tmp_path / "run" / "good", [{}] * 10)
    damaged = stage(tmp_path / "run" / "bad", [{"policy/entropy": 0.5 + step % 2} for step in range(10)])
    (damaged / file).write_text(content)
    assert main(["doctor", str(tmp_path / "run"), "--json"]) == 1
    out = capsys.readouterr().out
    (found,) = json.loads(out[out.index("[") :])
    names = {row["stage"]: row["name"] for row in found["stages"]}
    assert names == {"good": "healthy", "bad": "damaged"}
    assert "verify-run" in found["stages"][-1]["remedy"]
    if file in ("preflight.json", "metrics.jsonl"):  # the others are read to order and compare the stages of a run
        assert main(["doctor", str(damaged)]) == 1


@pytest.mark.parametrize("rows", ["", None, 5, "better"])
def test_a_finished_stage_without_the_rows_that_it_wrote_is_not_healthy(
    rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stage(tmp_path / "run" / "rl", [{"reward/accuracy": 0.0, "groups/zero_variance": 1.0}] * 10)
    write_manifest(folder, {"kind": "rl", "stage": "rl", "fingerprint": "0", "settings": {}, "inputs": {}})
    assert main(["doctor", str(tmp_path / "run")]) == 1 and "starved" in capsys.readouterr().out
    file = folder / "metrics.jsonl"
    if rows is None:
        file.unlink()
    elif rows == 5:
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    else:
        file.write_text(rows and file.read_text().replace('"reward/accuracy": 0.0', '"reward/accuracy": 0.5'))
    for place in (folder, folder.parent):
        assert main(["doctor", str(place)]) == 1
        assert "metrics.jsonl is damaged: " in capsys.readouterr().out
    assert main(["status", str(tmp_path / "run")]) == 0
    assert "rl damaged: " in capsys.readouterr().out


def test_a_folder_that_was_moved_out_of_sight_is_judged_no_more(tmp_path: Path) -> None:
    stage(tmp_path / "run" / "rl-00000001", [{}] * 10)
    stage(tmp_path / "run" / ".rl-00000002.damaged", [{"sampler/logprob_gap_mean": 0.2}] * 10)
    assert main(["doctor", str(tmp_path / "run")]) == 0
    assert [each.name for each in find_stages(tmp_path / "run")] == ["rl"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "plan.json").write_text("{}")
    assert main(["doctor", str(tmp_path / "empty")]) == 0


def test_a_stage_that_failed_before_its_first_step_is_no_healthy_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stage(tmp_path / "run" / "rl", [])
    assert main(["doctor", str(tmp_path / "run")]) == 0
    assert "no stage has trained yet" in capsys.readouterr().out
    (folder / "progress.json").write_text(json.dumps({"state": "failed", "error": "RewardError: no answer"}))
    for place in (folder, folder.parent):
        assert main(["doctor", str(place)]) == 1
        assert "rl: failed\n    RewardError: no answer" in capsys.readouterr().out


def test_a_control_arm_is_no_fault_of_its_run_and_no_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from r1kit.pipeline.context import Context

    stage(tmp_path / "run" / "rl", [{}] * 10)
    arm = stage(tmp_path / "run" / "rl-random", [{"sampler/logprob_gap_mean": 0.2}] * 10)
    (arm / "stage.json").write_text(json.dumps({"kind": "rl", "settings": {"is_control": True}}))
    for command in ("doctor", "status"):
        assert main([command, str(tmp_path / "run")]) == 0
        assert "mismatched" not in capsys.readouterr().out
    assert main(["doctor", str(arm)]) == 1
    values = {"tasks": ["tiny/sums"], "rewards": ["accuracy"], "alarm": "stop"}
    alarms = [
        HealthAlarm(Context(stage="rl", settings=RL.settings.parse(values | more), folder=arm))
        for more in ({"is_control": True}, {})
    ]
    for step in (10, 11):
        alarms[0].look(step)
    alarms[1].look(10)
    with pytest.raises(AlarmError, match="mismatched"):
        alarms[1].look(11)


def named_from(step: int) -> Any:
    """In place of the verdict: a fault from that step on."""
    from r1kit.report.health import Verdict

    def judged(folder: StageFolder) -> Verdict:
        is_fault = folder.metrics.steps[-1] >= step
        return Verdict(name="collapsed" if is_fault else "healthy", evidence=("planted",), remedy="lower it")

    return judged


def test_an_alarm_warns_or_stops_or_rolls_back(
    tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr("r1kit.stages.shared.alarm.verdict", named_from(3))
    changes = {"steps": 5, "checkpoint_every": 2, "preflight": "off"}
    warned = run(tiny_policy_folder, tmp_path / "warned", **changes)
    assert "collapsed since step 3: planted; lower it" in capsys.readouterr().err
    assert StageFolder("rl", warned).metrics.steps[-1] == 5
    with pytest.raises(AlarmError, match="step 4: collapsed since step 3"):
        run(tiny_policy_folder, tmp_path / "stopped", alarm="stop", **changes)
    back = run(tiny_policy_folder, tmp_path / "back", alarm="roll-back", **changes)
    assert "rolled back to the weights after step 2" in capsys.readouterr().err
    saved = load_file(back / "model" / "model.safetensors")
    assert list(map(checkpoints.step_of, checkpoints.by_step(back))) == [2]
    policy = load_file(checkpoints.folder_of(back, 2) / "policy.safetensors")
    assert all(torch.equal(policy[name], saved[name]) for name in policy if name in saved)
    with pytest.raises(AlarmError) as caught:
        monkeypatch.setattr("r1kit.stages.shared.alarm.verdict", named_from(1))
        run(tiny_policy_folder, tmp_path / "lost", alarm="roll-back", **changes)
    assert "cannot roll back" in caught.value.__notes__[0]


def test_a_roll_back_passes_over_damaged_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from r1kit.pipeline.context import Context

    settings = RL.settings.parse({"tasks": ["tiny/sums"], "rewards": ["accuracy"], "alarm": "roll-back"})
    alarm, learner = (
        HealthAlarm(Context(stage="rl", settings=settings, folder=tmp_path)),
        Learner(llama(), SETTINGS, steps=9),
    )
    first, second = saved(tmp_path, 2, 4)
    (second / "checksums.json").unlink()

    def train() -> Any:
        raise AlarmError("planted", since=5)

    assert alarm.guard(train, learner)[1]["rolled_back_to"] == 2
    assert f"{second} is damaged: it has no checksums.json" in capsys.readouterr().err
    (first / "checksums.json").write_text("{}")
    with pytest.raises(AlarmError, match="planted") as caught:
        alarm.guard(train, learner)
    assert f"{first}/optimizer.pt is damaged" in caught.value.__notes__[0]


def test_one_look_is_no_alarm_and_a_folder_that_cannot_be_read_ends_no_training(tmp_path: Path) -> None:
    from r1kit.pipeline.context import Context

    settings = RL.settings.parse({"tasks": ["tiny/sums"], "rewards": ["accuracy"], "alarm": "stop"})
    folder = stage(tmp_path / "rl", [{"sampler/logprob_gap_mean": 0.2}] * 10)
    alarm = HealthAlarm(Context(stage="rl", settings=settings, folder=folder))
    alarm.look(10)
    (folder / "metrics.jsonl").write_text("no row\nno row\n")
    alarm.look(11)
    assert not alarm.is_readable
    stage(tmp_path / "again", [{"sampler/logprob_gap_mean": 0.2}] * 12)
    (tmp_path / "again" / "metrics.jsonl").rename(folder / "metrics.jsonl")
    alarm.look(12)
    with pytest.raises(AlarmError, match="mismatched since step 12"):
        alarm.look(13)
