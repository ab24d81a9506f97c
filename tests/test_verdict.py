"""The verdict on a training stage: each fault by its own figures, and healthy stages are not accused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from r1kit.evaluate.statistics import Difference
from r1kit.pipeline import Output
from r1kit.recipes import build_recipe
from r1kit.report import write_report
from r1kit.report.folders import StageFolder
from r1kit.report.health import Verdict, checks, run_verdict, verdict
from r1kit.report.health.course import course
from r1kit.report.health.policy_faults import PROMPT
from r1kit.report.run import Run

Course = Callable[[float], float]  # of the share of the run that is over, from 0 to 1

LEARNS: dict[str, Course] = {  # as R1-Zero on the tiny world
    "reward/mean": lambda t: 0.1 + 0.9 * min(1.0, 2 * t),
    "reward/accuracy": lambda t: 0.1 + 0.7 * min(1.0, 2 * t),
    "reward/format": lambda t: 0.1 + 0.85 * min(1.0, 2 * t),
    "groups/zero_variance": lambda t: 0.2 + 0.2 * t,
    "completion/truncated": lambda t: 0.01,
    "policy/entropy": lambda t: 0.3 - 0.17 * t,
    "sampler/logprob_gap_mean": lambda t: 4e-7,
    "optim/grad_norm": lambda t: 0.3,
    "tokens/train": lambda t: 9000.0,
    "probe/accuracy": lambda t: 0.9 + 0.08 * t,
}


def stage(folder: Path, courses: Mapping[str, Course | None], *, steps: int = 40, **manifest: Any) -> StageFolder:
    """A stage of `steps` steps; a course of None takes the metric away."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {**LEARNS, **courses}
    rows = [
        {"step": step} | {name: value((step - 1) / max(1, steps - 1)) for name, value in metrics.items() if value}
        for step in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "manifest.json").write_text(json.dumps({"kind": "rl", **manifest}))
    return StageFolder(folder.name, folder)


def judged(folder: Path, steps: int = 40, **courses: Course | None) -> Verdict:
    return verdict(stage(folder, {name.replace("__", "/"): value for name, value in courses.items()}, steps=steps))


FAULTS: dict[str, tuple[str, dict[str, Course | None]]] = {
    "updates that do not reach the sampler": (
        "mismatched",
        {"sampler/logprob_gap_mean": lambda t: 0.07 * min(1.0, 4 * t), "reward/mean": lambda t: 0.1},
    ),
    "a sampler of another temperature, whose gap shrinks with the entropy": (
        "mismatched",
        {"sampler/logprob_gap_mean": lambda t: 0.06 - 0.046 * t, "policy/entropy": lambda t: 0.25 - 0.18 * t},
    ),
    "noise after an update that was too large": (
        "collapsed",
        {
            "reward/mean": lambda t: 0.1 if t == 0 else 0.0,
            "reward/accuracy": lambda t: 0.1 if t == 0 else 0.0,
            "groups/zero_variance": lambda t: 0.2 if t == 0 else 1.0,
            "completion/truncated": lambda t: 0.0 if t == 0 else 1.0,
            "policy/entropy": lambda t: 0.3 if t == 0 else 0.8,
            "probe/accuracy": None,
        },
    ),
    "accuracy gained and lost again": (
        "collapsed",
        {
            "reward/mean": lambda t: 0.9 * (2 * t if t < 0.5 else max(0.1, 2 - 2 * t)),
            "reward/accuracy": lambda t: 0.8 * (2 * t if t < 0.5 else max(0.1, 2 - 2 * t)),
            "probe/accuracy": None,
        },
    ),
    "held-out accuracy that falls while training accuracy rises": (
        "collapsed",
        {"probe/accuracy": lambda t: 0.9 - 0.3 * t},
    ),
    "entropy that is gone": (
        "collapsed",
        {
            "reward/mean": lambda t: 0.1,
            "reward/accuracy": lambda t: 0.1,
            "groups/zero_variance": lambda t: min(1.0, 0.2 + t),
            "policy/entropy": lambda t: max(0.001, 0.3 - 0.5 * t),
        },
    ),
    "a hole in the reward": (
        "hacking",
        {"reward/accuracy": None, "reward/format": None, "probe/accuracy": lambda t: 0.9 - 0.3 * t},
    ),
    "a part of the reward that grows at the cost of accuracy": (
        "hacking",
        {"reward/accuracy": lambda t: 0.5 - 0.3 * t, "probe/accuracy": None},
    ),
    "format without answers": (
        "hacking",
        {"reward/accuracy": lambda t: 0.2, "reward/format": lambda t: 0.1 + 0.9 * min(1.0, 2 * t)},
    ),
    "one answer for all": (
        "hacking",
        {"reward/accuracy": lambda t: 0.2, "reward/format": None, "hack/one_answer": lambda t: 0.5 * t},
    ),
    "problems that are far too hard": (
        "starved",
        {"reward/accuracy": lambda t: 0.0, "groups/zero_variance": lambda t: 0.3 + 0.6 * t},
    ),
    "problems that are solved from the start": (
        "starved",
        {
            "reward/mean": lambda t: 1.2,
            "reward/accuracy": lambda t: 0.99,
            "reward/format": lambda t: 1.0,
            "groups/zero_variance": lambda t: 0.95,
        },
    ),
    "truncated completions that are all left out": (
        "starved",
        {"reward/mean": lambda t: 0.3, "reward/accuracy": lambda t: 0.3, "tokens/train": lambda t: 0.0},
    ),
}


STARVED = [fault for fault, (name, _) in FAULTS.items() if name == "starved" and "from the start" not in fault]


@pytest.mark.parametrize("fault", STARVED)
def test_the_remedy_begins_with_max_tokens_if_most_completions_are_cut_off(fault: str, tmp_path: Path) -> None:
    courses = FAULTS[fault][1]
    ended = verdict(stage(tmp_path / "ended", courses))
    settings = {"max_tokens": 64}
    cut = verdict(stage(tmp_path / "cut", courses | {"completion/truncated": lambda t: 1.0}, settings=settings))
    assert ended.name == cut.name == "starved" and "max_tokens" not in ended.remedy
    assert "raise max_tokens (64 now; 100.0 % of completions are cut off); if that is not it" in cut.remedy


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_figures_and_a_remedy(fault: str, tmp_path: Path) -> None:
    name, courses = FAULTS[fault]
    result = verdict(stage(tmp_path / "rl", courses))
    assert result.name == name and result.is_fault, result
    assert 1 <= len(result.evidence) <= 4 and any(char.isdigit() for char in "".join(result.evidence))
    assert result.remedy


def test_whose_fault_a_fall_is_depends_on_what_the_reward_pays_for(tmp_path: Path) -> None:
    falls = {"probe/accuracy": lambda t: 0.9 - 0.3 * t}
    for label, weight, name in (("", 1.0, "collapsed"), ("reasoning", 1.0, "collapsed"), ("", 0.0, "hacking")):
        rewards = [
            {"name": "mine:judge", "weight": 1.0, "label": ""},
            {"name": "accuracy", "weight": weight, "label": label},
        ]
        run = stage(tmp_path / f"{name}-{label}", falls, settings={"rewards": rewards})
        assert verdict(run).name == name


def test_completions_that_do_not_fit_starve_a_run_whatever_falls_afterwards(tmp_path: Path) -> None:
    cut = {"completion/truncated": lambda t: 0.9 - 0.7 * t, "probe/accuracy": lambda t: 0.9 * max(0.1, 1 - 2 * t)}
    accuracy = {"reward/accuracy": lambda t: 0.02 + 0.1 * t, "reward/format": None}
    result = judged(tmp_path / "short", **{k.replace("/", "__"): v for k, v in (cut | accuracy).items()})
    assert result.name == "starved" and "90.0 % of completions were cut off" in result.evidence[0]
    assert "max_tokens" in result.remedy
    grows = judged(tmp_path / "learns", **{"completion__truncated": cut["completion/truncated"]})
    assert grows.name == "healthy"  # a base that rambles at first and learns to end


HEALTHY: dict[str, dict[str, Course | None]] = {
    "as in R1-Zero": {},
    "without a probe": {"probe/accuracy": None},
    "solved at the end": {
        "reward/accuracy": lambda t: 0.1 + 0.9 * min(1.0, 2 * t),
        "groups/zero_variance": lambda t: 0.2 + 0.8 * t,
    },
    "each update one step late": {"sampler/logprob_gap_mean": lambda t: 0.028 * (1 - t) ** 4},
    "bf16 on both sides": {"sampler/logprob_gap_mean": lambda t: 0.016, "policy/entropy": lambda t: 1.2 - 0.4 * t},
    "format first, then accuracy": {"hack/format_only": lambda t: 0.4, "reward/accuracy": lambda t: 0.1 + 0.4 * t},
    "languages mix, as in the paper": {"language/mixed": lambda t: t, "language/other": lambda t: 0.5 * t},
}


@pytest.mark.parametrize("case", HEALTHY)
def test_a_healthy_stage_is_not_accused(case: str, tmp_path: Path) -> None:
    result = verdict(stage(tmp_path / "rl", HEALTHY[case]))
    assert result.name == "healthy", result
    assert result.evidence[0] == "training reward 0.169 to 1"


@pytest.mark.parametrize("case", [*FAULTS, *HEALTHY])
def test_a_check_with_bounds_is_in_attention_if_the_last_quarter_has_passed_one(case: str, tmp_path: Path) -> None:
    run = stage(tmp_path / "rl", HEALTHY[case] if case in HEALTHY else FAULTS[case][1])
    bounded = [check for check in checks(run, {}) if check.bounds]
    assert len(bounded) >= 4
    for check in bounded:
        courses = [(bound, course(run.metrics, bound.metric)) for bound in check.bounds]
        is_passed = any(metric is not None and bound.is_passed(metric.last) for bound, metric in courses)
        assert (check.status == "attention") is is_passed, check


def test_a_gap_that_makes_a_run_mismatched_is_not_within_the_limits_of_its_check(tmp_path: Path) -> None:
    run = stage(tmp_path / "rl", FAULTS["a sampler of another temperature, whose gap shrinks with the entropy"][1])
    check = next(check for check in checks(run, {}) if check.name == "Sampler-trainer gap")
    assert verdict(run).name == "mismatched" and check.status == "attention"
    assert f"the limit is {check.limit.split()[0]}, with an entropy" in verdict(run).evidence[1]


def test_noise_is_no_fall(tmp_path: Path) -> None:
    """A probe of 60 problems around 0.5 has a standard error of 0.065; the best of ten is always above the last."""
    import random

    for seed in range(30):
        rng = random.Random(seed)
        result = judged(tmp_path / str(seed), probe__accuracy=lambda t, rng=rng: rng.gauss(0.5, 0.065))  # type: ignore[misc]
        assert result.name == "healthy", (seed, result)


def test_few_steps_prove_nothing_but_a_value_that_is_not_finite(tmp_path: Path) -> None:
    assert judged(tmp_path / "few", steps=5, reward__mean=lambda t: 1 - t).name == "too early to tell"
    assert verdict(StageFolder("none", tmp_path)).evidence == ("steps: 0, and 8 are needed",)
    broken = stage(tmp_path / "nan", {}, steps=3)
    (broken.folder / "metrics.jsonl").write_text('{"step": 1, "optim/grad_norm": null}\n')
    assert verdict(broken).name == "collapsed" and "step 1" in verdict(broken).evidence[0]


def test_completions_that_go_on_after_their_answer_are_a_mismatch(tmp_path: Path) -> None:
    always_cut = stage(tmp_path / "rl", {"completion/truncated": lambda t: 0.97})
    assert verdict(always_cut).name == "healthy"  # long reasoning is no fault of the end token
    (always_cut.folder / "rollouts").mkdir()
    rows = [{"completion": "<think>2</think> <answer>2</answer> and 3", "finish_reason": "length"}] * 4
    (always_cut.folder / "rollouts" / "step-000040.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = verdict(StageFolder("rl", always_cut.folder))
    assert result.name == "mismatched" and "100.0 % of the completions that were cut off" in result.evidence[0]


def supervised(folder: Path, loss: Course, **manifest: Any) -> StageFolder:
    courses = dict.fromkeys(LEARNS) | {"optim/loss": loss, "optim/grad_norm": lambda t: 0.5}
    return stage(folder, courses, **{"kind": "sft", **manifest})


def test_supervised_stages_are_judged_by_loss_mask_and_rows(tmp_path: Path) -> None:
    assert verdict(supervised(tmp_path / "falls", lambda t: 2 - t)).name == "healthy"
    assert verdict(supervised(tmp_path / "rises", lambda t: 2 + t)).name == "collapsed"
    few = verdict(supervised(tmp_path / "few", lambda t: 2 - t, metrics={"samples": 10, "dropped": 90}))
    assert few.name == "starved" and few.evidence == ("90 of 100 rows are left out because they are too long",)
    masked = supervised(tmp_path / "masked", lambda t: 2 - t)
    pieces = [["<answer>4</answer>", True], ["<|end|>", False]]
    (masked.folder / "mask.json").write_text(
        json.dumps([{"pieces": pieces, "tokens": 9, "trained": 8, "skipped": None}])
    )
    assert verdict(masked).name == "mismatched"


def test_an_evaluation_with_another_prompt_or_a_clear_loss_decides_too(tmp_path: Path) -> None:
    trained = stage(tmp_path / "rl-0a1b2c3d", {}, settings={"chat": {"template": "plain", "system": "think"}})
    asked = tmp_path / "eval-zero-0a1b2c3d"
    asked.mkdir()
    manifest: dict[str, Any] = {"kind": "evaluate", "inputs": {"model": {"path": "../rl-0a1b2c3d/model"}}}
    for system, name in (("think", "healthy"), ("answer at once", "mismatched")):
        text = json.dumps(manifest | {"settings": {"chat": {"template": "plain", "system": system}}})
        (asked / "manifest.json").write_text(text)
        (asked / "results.json").write_text("{}")
        assert verdict(trained, evaluations=[StageFolder("eval-zero", asked)]).name == name
    run = Run([trained, StageFolder("eval-zero", asked)], "run")
    assert run.verdicts["rl-0a1b2c3d"].name == "mismatched"
    lost = Difference(mean=-0.2, low=-0.25, high=-0.15, p_value=0.001, problems=100)
    blind = stage(tmp_path / "blind", {"reward/accuracy": None, "reward/format": None, "probe/accuracy": None})
    assert "set probe.tasks" in verdict(blind).remedy
    assert verdict(blind, {"pass@1": lost}).name == "hacking"


def test_the_first_fault_is_the_verdict_of_the_run(tmp_path: Path) -> None:
    good = Verdict(name="healthy", evidence=())
    starved, collapsed = (Verdict(name=name, evidence=(), remedy="...") for name in ("starved", "collapsed"))
    assert run_verdict({"a": good, "b": starved, "c": collapsed}) == ("b", starved)
    assert run_verdict({"a": starved, "b": good}) == ("a", starved)
    assert run_verdict({"a": good, "b": good}) == ("b", good) and run_verdict({}) is None


def test_the_report_shows_the_verdicts(tmp_path: Path) -> None:
    stages = {
        name: stage(tmp_path / name, FAULTS[fault][1]).folder for name, fault in (("zero", "a hole in the reward"),)
    }
    summary = write_report(stages, tmp_path / "report")
    assert summary["verdicts"]["zero"]["name"] == "hacking"
    assert "held-out accuracy" in (tmp_path / "report" / "report.html").read_text()


def test_recipes_measure_with_the_prompts_of_training(tmp_path: Path) -> None:
    """Otherwise a verdict would accuse the recipe's own evaluations."""
    rows = [{"question": f"what is {a}+{a}?", "answer": str(2 * a)} for a in range(1, 9)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"problems": str(tmp_path / "mine.jsonl")}
    recipes = [build_recipe("r1", scale="tiny"), build_recipe("r1", scale="gpu", model="tiny", data=data)]
    compared = 0
    for evaluation in (stage for recipe in recipes for stage in recipe.stages if stage.kind.name == "evaluate"):
        source = evaluation.inputs["model"]
        if isinstance(source, Output) and hasattr(source.stage.settings, "chat"):
            ours, theirs = (dict(made.settings.chat) for made in (source.stage, evaluation))  # type: ignore[attr-defined]
            assert [name for name in PROMPT if ours[name] != theirs[name]] == [], evaluation.name
            compared += 1
    assert compared > 20
