"""Held-out tasks and judges in the middle of RL: when they are measured, what stops a run, and what it ends with."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit.models.known import resolve  # noqa: E402
from r1kit.pipeline import Display, Progress  # noqa: E402
from r1kit.pipeline.context import Context  # noqa: E402
from r1kit.report.curves import panels  # noqa: E402
from r1kit.report.folders import StageFolder  # noqa: E402
from r1kit.report.health import checks  # noqa: E402
from r1kit.rewards import RewardSpec  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.stages.rl import RL, RLSettings  # noqa: E402
from r1kit.stages.sft import SFT, SFTSettings  # noqa: E402
from r1kit.stages.shared.probe import ProbeSettings, check_probe, reward_metrics  # noqa: E402
from r1kit.train import checkpoints  # noqa: E402
from r1kit.train.validation import Validation  # noqa: E402
from r1kit.types import Completion, Group, Problem, Prompt, Reward, Rollout  # noqa: E402
from test_rl import assert_identical, loop, share_of_low_ids, weights  # noqa: E402
from test_rl import rows as metrics  # noqa: E402

torch.set_num_threads(1)

CHAT = {"system": ""}
SMALL: dict[str, Any] = {
    "tasks": [{"name": "tiny/sums"}],
    "rewards": [{"name": "test_rl.share_of_low_ids"}],
    "chat": CHAT,
    "steps": 5,
    "prompts_per_step": 2,
    "group_size": 4,
    "max_tokens": 8,
    "optimizer": {"learning_rate": 1e-2},
}
PROBE: dict[str, Any] = {"tasks": [{"name": "tiny/sums", "limit": 4}], "max_tokens": 8}
# What training raises is bad in the held-out judge's eyes.
JUDGED: dict[str, Any] = {
    **PROBE,
    "rewards": [{"name": "test_probe.share_of_high_ids", "label": "other"}],
    "watch": "reward/other",
}


def share_of_high_ids(completions: Sequence[str], completion_ids: Sequence[list[int]], **columns: Any) -> list[float]:
    return [1 - share for share in share_of_low_ids(completions, completion_ids)]


def context(folder: Path, model: Path, settings: dict[str, Any], **paths: Path) -> Context:
    folder.mkdir(exist_ok=True)
    named = {name.replace("__", "/"): path for name, path in paths.items()}
    return Context(
        stage="rl",
        settings=RLSettings.parse({**SMALL, **settings}),
        folder=folder,
        paths={"model": model, **named},
        progress=Progress(display=Display(io.StringIO())),
    )


def train(folder: Path, model: Path, **settings: Any) -> dict[str, Any]:
    made = context(folder, model, settings)
    RL.check(made)  # type: ignore[misc]
    return dict(RL.run(made))


def scripted(folder: Path, scores: Sequence[float], patience: int = 0, steps: int = 6) -> Any:
    """A loop whose held-out score is 9 before the first step and then one of `scores` after each step."""
    run = loop(folder, {"steps": steps, "checkpoint_every": 2})
    run.validation = Validation(
        lambda: {"probe/accuracy": [9.0, *scores][run.learner.updates]},
        every=1,
        watch="probe/accuracy",
        higher_is_better=True,
        patience=patience,
    )
    return run


@pytest.mark.parametrize(("every", "steps"), [(2, [0, 2, 4, 5]), (0, [0, 1, 2, 3, 4, 5]), (9, [0, 5])])
def test_the_probe_is_measured_before_the_first_step_at_its_steps_and_at_the_end(
    every: int, steps: list[int], tiny_policy_folder: Path, tmp_path: Path
) -> None:
    found = train(tmp_path / "rl", tiny_policy_folder, probe=PROBE, probe_every=every)
    written = metrics(tmp_path / "rl")
    assert [row["step"] for row in written] == list(range(6))
    assert [row["step"] for row in written if "probe/accuracy" in row] == steps
    assert {"probe/format", "probe/mixed", "probe/truncated"} <= written[0].keys() and "reward/mean" not in written[0]
    assert found["best_step"] in steps[1:] and "best_validation" in found and not (tmp_path / "rl" / "best").exists()


def test_measuring_changes_nothing_and_without_a_probe_nothing_is_measured(
    tiny_policy_folder: Path, tmp_path: Path
) -> None:
    plain = train(tmp_path / "plain", tiny_policy_folder, steps=3, checkpoint_every=1)
    train(tmp_path / "probed", tiny_policy_folder, steps=3, probe=JUDGED, probe_every=1)
    assert plain.keys() == {"updates", "problems", "prompts_left_out"}
    alone = metrics(tmp_path / "plain")
    assert [row["step"] for row in alone] == [1, 2, 3]
    probed = [{k: v for k, v in row.items() if not k.startswith("probe/")} for row in metrics(tmp_path / "probed")]
    assert probed[1:] == alone
    state = json.loads((checkpoints.folder_of(tmp_path / "plain", 2) / "state.json").read_text())
    assert state.keys() == {"updates", "step", "position", "objective", "logs"}
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("plain", "probed"))
    assert one.read_bytes() == other.read_bytes()


def test_a_held_out_score_that_falls_stops_the_run_and_the_best_weights_are_kept(tmp_path: Path) -> None:
    run = scripted(tmp_path / "early", [0.5, 0.9, 0.7, 0.9, 1.0, 1.0], patience=2)
    said: list[str] = []
    run.note = said.append
    best = run.train()
    assert (best.step, best.value) == (2, 0.9)
    assert [row["step"] for row in metrics(tmp_path / "early")] == [0, 1, 2, 3, 4]
    assert said == ["stops after step 4: no probe/accuracy above 0.9 (step 2) in 2 validations"]
    two = loop(tmp_path / "two", {"steps": 2})
    two.train()
    assert_identical(weights(run), weights(two))

    watched = scripted(tmp_path / "watched", [0.5, 0.9, 0.7, 0.6, 0.5, 0.4])
    watched.train()
    assert len(metrics(tmp_path / "watched")) == 7  # without patience it goes to the end, with the last weights
    straight = loop(tmp_path / "straight", {"steps": 6})
    straight.train()
    assert_identical(weights(watched), weights(straight))


def test_a_run_that_is_over_stays_over_when_it_is_run_again(tmp_path: Path) -> None:
    scores = [0.5, 0.9, 0.7, 0.6, 1.0, 1.0]
    first = scripted(tmp_path, scores, patience=2)
    first.train()
    again = scripted(tmp_path, scores, patience=2)
    assert again.train() == first.stopping.best
    assert_identical(weights(again), weights(first))


def test_nothing_to_follow_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    run = loop(tmp_path, {})
    run.validation = Validation(lambda: {"probe/format": 1.0}, every=1, watch="probe/accuracy", patience=1)
    with pytest.raises(ValueError, match=r"patience follows probe/accuracy, but the validation measured probe/format"):
        run.train()
    assert run.learner.updates == 0


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_probe
from r1kit.pipeline import Progress

def step(self, done, total, fields=None):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Progress.step = step
test_probe.train(Path({folder!r}), Path({model!r}), **{settings!r})
"""


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_bits(
    tiny_policy_folder: Path, tmp_path: Path
) -> None:
    settings = {"steps": 8, "checkpoint_every": 2, "probe": JUDGED, "probe_every": 1, "patience": 4}
    straight = train(tmp_path / "straight", tiny_policy_folder, **settings)
    assert straight["updates"] < 8  # the held-out judge stopped it
    code = SCRIPT.format(
        tests=str(Path(__file__).parent),
        folder=str(tmp_path / "torn"),
        model=str(tiny_policy_folder),
        settings=settings,
    )
    died = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [row["step"] for row in metrics(tmp_path / "torn")] == [0, 1, 2, 3]
    assert train(tmp_path / "torn", tiny_policy_folder, **settings) == straight
    assert metrics(tmp_path / "torn") == metrics(tmp_path / "straight")
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("torn", "straight"))
    assert one.read_bytes() == other.read_bytes()


def test_killed_before_the_first_checkpoint_the_measure_before_the_first_step_is_written_once(tmp_path: Path) -> None:
    def stop(step: int, row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    run = scripted(tmp_path, [0.5] * 6)
    run.log = stop
    with pytest.raises(KeyboardInterrupt):
        run.train()
    scripted(tmp_path, [0.5] * 6).train()
    assert [row["step"] for row in metrics(tmp_path)] == list(range(7))


def group(source: str, value: float | None, other: float | None) -> Group:
    total = None if value is None else value
    rollout = Rollout(
        prompt=Prompt(problem_id="p", messages=(), token_ids=(1,)),
        completion=Completion(token_ids=(2,), logprobs=(0.0,), text="x", finish_reason="stop"),
        reward=Reward(total=total, parts={"one": value, "two": other}),
    )
    return Group(problem=Problem(id="p", prompt="q", answer="", source=source), rollouts=(rollout,))


def test_what_a_judge_cannot_say_is_left_out_of_its_mean_and_counted() -> None:
    specs = [RewardSpec(name="format", label="one"), RewardSpec(name="format", label="two", only=("b",))]
    groups = [group("a", 1.0, None), group("a", None, None), group("b", 0.5, None), group("b", 0.0, 0.25)]
    assert reward_metrics(groups, specs) == {
        "probe/reward": 0.5,
        "probe/reward/one": 0.5,
        "probe/unknown/one": 0.25,
        "probe/reward/two": 0.25,
        "probe/unknown/two": 0.5,
    }
    assert reward_metrics([group("a", None, None)], specs) == {"probe/unknown/one": 1.0}
    assert reward_metrics(groups, []) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe": {"watch": "accuracy"}}, "set probe.tasks"),
        ({"probe": {"rewards": ["format"]}}, "set probe.tasks"),
        ({"probe": {**PROBE, "watch": "acuracy"}}, "did you mean accuracy"),
        ({"probe": {**PROBE, "watch": "reward"}}, "no 'reward' to watch: known are accuracy"),
        ({"probe": {**JUDGED, "watch": "reward/othr"}}, "did you mean reward/other"),
        ({"probe": {**PROBE, "watch": True}}, "watch is True: it must be text"),
        ({"probe": {**PROBE, "rewards": ["formatt"]}}, "did you mean format"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RLSettings.parse({**SMALL, **settings})


def test_settings_of_the_probe_can_be_given_in_any_order() -> None:
    changes = {"patience": "2", "probe_every": "5", "probe.watch": "accuracy", "probe.tasks": "tiny/sums,tiny/count"}
    for given in (changes, dict(reversed(changes.items()))):
        settings = RLSettings.parse(SMALL).override(given)
        assert (settings.patience, settings.probe_every, len(settings.probe.tasks)) == (2, 5, 2)


def test_a_probe_that_cannot_work_is_refused_before_anything_starts(tiny_policy_folder: Path, tmp_path: Path) -> None:
    def refused(message: str, **settings: Any) -> None:
        with pytest.raises(ValueError, match=message):
            RL.check(context(tmp_path, tiny_policy_folder, settings))  # type: ignore[misc]

    no_references = {"name": "tiny/general", "split": "train", "limit": 4}
    refused(r"patience needs held-out problems: name at least one task in probe\.tasks", patience=2)
    refused("probe_every needs held-out problems", probe_every=2)
    refused("no split 'validation'", probe={"tasks": [{"name": "tiny/sums", "split": "validation"}]})
    refused("lower max_tokens", probe={**PROBE, "max_tokens": 5000})
    refused("no problem of the probe's task .* has a reference", probe={"tasks": [no_references]})
    refused("has a reference", probe={"tasks": [no_references], "rewards": ["format"]}, patience=1)
    refused("2 rewards are called 'format'", probe={**PROBE, "rewards": ["format", "format"]})
    refused(
        "there is no model in nowhere",
        probe={**PROBE, "rewards": [{"name": "reward_model", "options": {"model": "nowhere"}}]},
    )
    with pytest.raises(ValueError, match=r"reward/judge, but no reward reads it"):
        RL.check(context(tmp_path, tiny_policy_folder, {"probe": PROBE}, reward__judge=tmp_path))  # type: ignore[misc]


def test_requests_without_references_are_for_the_held_out_judges(tiny_policy_folder: Path, tmp_path: Path) -> None:
    requests = {"name": "tiny/general", "split": "train", "limit": 3}
    probe = {**JUDGED, "tasks": [requests], "rewards": [*JUDGED["rewards"], "format"]}
    train(tmp_path / "rl", tiny_policy_folder, steps=1, probe=probe, patience=1)
    assert metrics(tmp_path / "rl")[0].keys() == {
        "step",
        "probe/reward",
        "probe/reward/other",
        "probe/reward/format",
        "probe/unknown/other",
        "probe/unknown/format",
    }


def test_a_reward_model_that_is_an_input_judges_the_probe_in_every_stage(
    tiny_policy_folder: Path, tmp_path: Path
) -> None:
    from r1kit.chat import ChatFormat, saved
    from r1kit.models.classify import fresh_reward_model

    judge, chat = tmp_path / "judge", ChatFormat(system="")
    fresh_reward_model(str(tiny_policy_folder), chat, "response", seed=0).save(judge)
    saved.save(chat, judge)
    probe = {**PROBE, "rewards": [{"name": "reward_model", "label": "judge"}], "watch": "reward/judge"}
    made = context(tmp_path / "rl", resolve("tiny"), {"steps": 1, "probe": probe}, reward__judge=judge)
    RL.check(made)  # type: ignore[misc]
    RL.run(made)
    assert all(0 < row["probe/reward/judge"] < 1 for row in metrics(tmp_path / "rl"))

    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{n}+1?", "completion": str(n + 1)}) + "\n" for n in range(4)))
    (tmp_path / "sft").mkdir()
    settings = SFTSettings.parse(
        {"chat": CHAT, "epochs": 2, "batch_size": 4, "max_tokens": None, "probe": probe, "patience": 1}
    )
    paths = {"model": resolve("tiny"), "data": data, "reward/judge": judge}
    given = Context(
        stage="sft",
        settings=settings,
        folder=tmp_path / "sft",
        paths=paths,
        progress=Progress(display=Display(io.StringIO())),
    )
    SFT.check(given)  # type: ignore[misc]
    found = SFT.run(given)
    probed = [row["probe/reward/judge"] for row in metrics(tmp_path / "sft")]
    assert len(probed) == 3 and all(0 < value < 1 for value in probed) and found["best_validation"] == max(probed[1:])
    with pytest.raises(ValueError, match="reward/other, but no reward reads it"):
        SFT.check(Context(stage="sft", settings=settings, folder=tmp_path, paths={**paths, "reward/other": judge}))  # type: ignore[misc]


def test_no_tasks_need_no_model() -> None:
    context = Context(stage="rl", settings=RLSettings.parse(SMALL), folder=Path("nowhere"))
    assert not RLSettings.parse(SMALL).probe.tasks and ProbeSettings().tasks == ()
    check_probe(context)


def written(folder: Path, scores: Sequence[float], watch: str = "reward/other") -> StageFolder:
    """An RL stage whose reward rises, and whose held-out judge gave these scores."""
    lines: list[dict[str, Any]] = [{"step": 0, "probe/reward/other": scores[0], "probe/accuracy": 0.5}]
    for step, score in enumerate(scores[1:], 1):
        lines.append({"step": step, "reward/mean": step / 10, "probe/reward/other": score, "probe/accuracy": 0.5})
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "stage.json").write_text(json.dumps({"kind": "rl", "settings": {"probe": {"watch": watch}}}))
    return StageFolder("rl", folder)


def test_the_report_draws_the_probe_and_names_over_optimisation(tmp_path: Path) -> None:
    fallen = written(tmp_path / "fallen", [0.4, 0.6, 0.8, 0.7, 0.6, 0.5])
    (found,) = [check for check in checks(fallen, {}) if check.name == "Over-optimisation"]
    assert found.status == "attention" and "patience" in found.advice
    assert found.evidence == (
        "training reward 0.1 to 0.5; held-out reward/other 0.4 at first, 0.8 at best, 0.5 in the last quarter"
    )
    begun = json.loads((fallen.folder / "stage.json").read_text())
    begun["settings"]["patience"] = 2
    (fallen.folder / "stage.json").write_text(json.dumps(begun))
    (kept,) = [one for one in checks(StageFolder("rl", fallen.folder), {}) if one.name == "Over-optimisation"]
    assert kept.status == "attention" and kept.advice.startswith("the weights of the best held-out score were kept")
    drawn, flat = panels(fallen)
    assert {"Held-out judges", "Held-out accuracy"} <= {panel.title for panel in drawn} and flat == []
    for name, scores in (("rising", [0.4, 0.6, 0.7, 0.7, 0.8]), ("noisy", [0.4, 0.8, 0.76, 0.78, 0.77])):
        (found,) = [one for one in checks(written(tmp_path / name, scores), {}) if one.name == "Over-optimisation"]
        assert found.status == "healthy" and not found.advice
    level = written(tmp_path / "level", [0.4, 0.6, 0.8, 0.7, 0.6, 0.5], watch="")
    (found,) = [check for check in checks(level, {}) if check.name == "Over-optimisation"]
    assert found.status == "healthy" and "held-out accuracy 50.0 % at first" in found.evidence
