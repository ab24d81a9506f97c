"""Control arms: rewards that cannot teach, shuffled answers, the arms of a recipe, and the split of a gain."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import r1kit
from r1kit.cli import main
from r1kit.data.errors import DataError
from r1kit.evaluate.gain import GainSplit, split_gain, unpaired
from r1kit.pipeline import Recipe
from r1kit.recipes import build_recipe
from r1kit.recipes.controls import ARMS
from r1kit.rewards import RewardSpec, build
from r1kit.rollout import TrainerState
from r1kit.settings import SettingsError
from r1kit.store import read_json
from r1kit.tasks import TaskSpec, load_task, load_tasks
from r1kit.tasks.sources.shuffled import shuffled
from r1kit.types import Problem


def totals(name: str, completions: list[str], **columns: Any) -> list[float | None]:
    scorer = build([RewardSpec(name=name)])
    return [reward.total for reward in scorer(completions, **columns)]


def test_random_rewards_depend_on_step_problem_and_place_alone() -> None:
    ids = ["a", "a", "b", "b"] * 200

    def draw(step: int, ids: list[str], texts: str) -> list[float | None]:
        return totals(
            "random", [texts] * len(ids), problem_id=ids, trainer_state=TrainerState(global_step=step, max_steps=9)
        )

    values = draw(1, ids, "right")
    assert draw(1, ids, "wrong") == values != draw(2, ids, "right")
    of_b = [value for value, key in zip(values, ids, strict=True) if key == "b"]
    assert draw(1, ["b"] * len(of_b), "right") == of_b  # whatever other problems are in the step
    assert set(values) == {0.0, 1.0}
    assert 0.44 < sum(value or 0.0 for value in values) / len(values) < 0.56


def test_the_majority_counts_values_and_reads_no_reference() -> None:
    answers = ["12", "12.0", "7", "none", "8", "8", "9", "9.5"]
    completions = [f"<think>x</think> <answer>{answer}</answer>" for answer in answers]
    ids = ["a"] * 4 + ["b"] * 4
    for reference in ("7", "9"):
        columns = {"problem_id": ids, "verifier": ["number"] * 8, "answer": [reference] * 8}
        assert totals("majority", completions, **columns) == [1, 1, 0, 0, 1, 1, 0, 0]
    # the most frequent answer is no number, so it cannot take a reference's place
    vague = [f"<think>x</think> <answer>{answer}</answer>" for answer in ("no idea", "no idea", "7")]
    columns = {"problem_id": ["a"] * 3, "verifier": ["number"] * 3}
    assert totals("majority", vague, **columns) == [0, 0, 1]
    assert totals("majority", ["", "x"], problem_id=["a", "a"], verifier=["number"] * 2) == [0, 0]
    with pytest.raises(ValueError, match="cannot vote on the answers of verifier 'code'"):
        totals("majority", ["x"], problem_id=["a"], verifier=["code"])


def test_shuffled_answers_leave_their_problem_and_stay_in_their_kind() -> None:
    problems = [
        Problem(
            id=str(place),
            prompt=f"question {place}",
            answer=f"answer {place}" if place % 10 else "",
            verifier="math" if place % 2 else "exact",
            source=f"s{place % 3}",
            columns={"gold": place, "prompt": f"question {place}"},
        )
        for place in range(60)
    ]
    result = shuffled(problems, "seed")
    assert shuffled(problems, "seed") == result != shuffled(problems, "other")
    owner = {problem.answer: problem for problem in problems}
    for before, after in zip(problems, result, strict=True):
        assert (after.id, after.prompt, after.verifier, after.source) == (
            before.id,
            before.prompt,
            before.verifier,
            before.source,
        )
        if not before.answer:
            assert after == before
            continue
        giver = owner[after.answer]
        assert after.answer != before.answer
        assert (giver.verifier, giver.source) == (before.verifier, before.source)
        assert after.columns == {"gold": giver.columns["gold"], "prompt": before.prompt}
    assert sorted(problem.answer for problem in result) == sorted(problem.answer for problem in problems)
    with pytest.raises(DataError, match="only problem of verifier"):
        shuffled(problems[1:2], "seed")


def test_a_shuffled_task_is_its_task_with_other_answers() -> None:
    plain = load_task(TaskSpec(name="tiny/reasoning", limit=100))
    mixed = load_task(TaskSpec(name="shuffled:tiny/reasoning", limit=100))
    pairs = [(plain[place], mixed[place]) for place in range(100)]
    assert all(a.prompt == b.prompt and a.id == b.id for a, b in pairs)
    kept = sum(a.answer == b.answer for a, b in pairs)
    assert 0 < kept < 30  # equal by chance: few numbers answer the cups
    with pytest.raises(DataError, match="for evaluation only"):
        load_tasks([TaskSpec(name="shuffled:tiny/sums", split="test")], training=True)
    with pytest.raises(SettingsError, match="order would have no effect"):
        TaskSpec.parse({"name": "shuffled:tiny/sums", "order": "shuffled"})


def stages(recipe: Recipe) -> dict[str, Any]:
    return {stage.name: stage for stage in recipe.stages}


def test_an_arm_is_the_stage_with_other_rewards_or_tasks() -> None:
    recipe = build_recipe("r1-zero", scale="tiny", controls=ARMS, seed=3)
    by_name = stages(recipe)
    trained = by_name["rl"]
    for arm in ARMS:
        stage, evaluation = by_name[f"rl-{arm}"], by_name[f"eval-zero-{arm}"]
        changed = "tasks" if arm == "shuffled" else "rewards"
        before, after = trained.settings.model_dump(), stage.settings.model_dump()
        assert {key for key in before if before[key] != after[key]} == {changed, "is_control"}
        assert stage.inputs["model"] == trained.inputs["model"]
        assert evaluation.settings == by_name["eval-zero"].settings and evaluation.inputs["model"] == stage / "model"
    rewards = {arm: [(spec.name, spec.weight) for spec in by_name[f"rl-{arm}"].settings.rewards] for arm in ARMS}
    assert rewards == {
        "random": [("random", 1.0), ("accuracy", 0.0)],
        "format": [("format", 0.2), ("accuracy", 0.0)],
        "shuffled": [("accuracy", 1.0), ("format", 0.2)],
        "majority": [("majority", 1.0), ("format", 0.2), ("accuracy", 0.0)],
    }
    fresh = by_name["eval-base-fresh"].settings
    assert [(spec.name, spec.split, spec.limit) for spec in fresh.tasks] == [("tiny/reasoning", "train", 500)]
    assert recipe.stages[-1].settings.controls["zero"]["fresh"] == "base-fresh"
    assert build_recipe("r1-zero", scale="tiny").stages == build_recipe("r1-zero", scale="tiny", controls=()).stages


def test_the_stage_of_controls_is_zero_or_the_one_named() -> None:
    by_name = stages(build_recipe("r1", scale="tiny", controls=["random", "r1:format"]))
    assert by_name["everyday-zero-random"].inputs["model"] == by_name["zero-random"] / "model"
    arm = by_name["r1-format"]
    assert not {spec.name for spec in arm.settings.rewards} & {"reward_model"}
    assert "reward/helpfulness" in by_name["r1"].inputs and "reward/helpfulness" not in arm.inputs
    for controls, message in (
        (["rondom"], "no control 'rondom': did you mean random"),
        (["dev9:random"], "no RL stage 'dev9'"),
        (["rules:random"], "does not measure the model of stage rules"),
    ):
        with pytest.raises(SettingsError, match=message):
            build_recipe("r1", scale="tiny", controls=controls)
    with pytest.raises(SettingsError, match="name one, as in STAGE:random"):
        build_recipe("v3", scale="tiny", controls=["random"])


def test_all_arms_sample_the_same_completions_until_they_learn(
    tmp_path: Path, tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f"""recipe = "r1-zero"
scale = "tiny"
model = "{tiny_policy_folder}"
controls = ["random", "shuffled"]
[stages]
rl = {{ steps = 1, prompts_per_step = 2, group_size = 4, max_tokens = 8, rollouts_every = 1 }}
eval = {{ samples = 1, max_tokens = 8, tasks = [{{ name = "tiny/sums", limit = 3 }}] }}
"""
    )
    runs = tmp_path / "runs"
    folder = r1kit.run(str(file), runs=runs)
    seen = {}
    for name in ("rl", "rl-random", "rl-shuffled"):
        (path,) = (
            path for path in folder.parent.glob(f"{name}-*/rollouts/step-000001.jsonl") if path.parts[-3][:-9] == name
        )
        seen[name] = [(row["question"], row["completion"]) for row in map(json.loads, path.read_text().splitlines())]
    assert seen["rl"] and seen["rl"] == seen["rl-random"] == seen["rl-shuffled"]
    summary = read_json(folder / "summary.json")
    assert list(summary["tables"][0]["columns"]) == ["base", "zero"]  # arms are in no other table
    assert list(summary["gains"]["zero"]["accuracy"]) == ["base", "random", "shuffled", "trained"]
    assert list(summary["verdicts"]) == list(summary["health"]) == ["training/rl"]
    page = (folder / "report.html").read_text()
    assert "Where the gain of zero comes from" in page and '<svg class="gain"' in page
    assert main(["plan", str(folder / "recipe.toml"), "--runs", str(runs)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["plan", "r1-zero", "--scale", "tiny", "--controls", "random,format"]) == 0
    assert "rl-format" in capsys.readouterr().out


def rows(problems: int, right: float, read: float = 1.0, seed: int = 0, samples: int = 4) -> list[dict[str, Any]]:
    """Completions that are right with a chance of their own problem, of which a share `read` has its tags."""
    result = []
    for place in range(problems):
        rng = random.Random(f"{seed}/{place}")
        skill = min(1.0, max(0.0, right + random.Random(place).uniform(-0.15, 0.15)))
        for sample in range(samples):
            knows, tagged = rng.random() < skill, rng.random() < read
            answer = "72" if knows else "71"
            text = f"<think> so </think> <answer> {answer} </answer>" if tagged else f"so the answer is {answer}."
            row = {"problem_id": f"{seed < 0}/{place}", "sample": sample, "answer": "72"}
            result.append({**row, "correct": knows and tagged, "completion": text})
    return result


def gain(base: float, trained: float, *, read: float = 1.0, fresh: float | None = None, **arms: float) -> GainSplit:
    measured = {name: rows(300, right, seed=2 + place) for place, (name, right) in enumerate(arms.items())}
    others = rows(300, base if fresh is None else fresh, read, seed=-1)
    return split_gain(rows(300, base, read, seed=1), rows(300, trained, seed=0), measured, others)


@pytest.mark.parametrize(
    ("name", "split", "named"),
    [
        ("clean", gain(0.4, 0.7, random=0.4, format=0.4, shuffled=0.35), ["learned"]),
        ("nothing", gain(0.4, 0.4, random=0.4, format=0.4, shuffled=0.4), []),
        ("form alone", gain(0.6, 0.6, read=0.4, random=0.25, format=0.6, shuffled=0.5), ["format"]),
        ("leaked", gain(0.6, 0.6, fresh=0.3, random=0.6, format=0.6, shuffled=0.6), ["leaked"]),
        ("chance", gain(0.4, 0.55, random=0.55, format=0.4, shuffled=0.4), ["chance"]),
    ],
)
def test_each_cause_of_a_gain_is_named_and_no_other(name: str, split: GainSplit, named: list[str]) -> None:
    assert split.named == named, (name, split.text(name))
    parts, control = split.parts, split.accuracy[split.control] - split.accuracy["base"]
    assert split.gain.mean == pytest.approx(parts["learned"].difference.mean + control)
    assert control >= 0 and split.accuracy["trained"] - split.accuracy["base"] == pytest.approx(split.gain.mean)
    if name == "form alone":
        assert split.unread == pytest.approx(0.36, abs=0.05) and split.control == "format"


def test_without_fresh_problems_a_leak_shows_as_a_gain_from_unrelated_answers() -> None:
    base, trained = rows(300, 0.4, seed=1), rows(300, 0.6, seed=0)
    arms = {"format": rows(300, 0.45, seed=2), "shuffled": rows(300, 0.6, seed=3)}
    split = split_gain(base, trained, arms)
    assert split.parts["leaked"].minus == "shuffled arm - format"
    assert split.named == ["format", "leaked"]
    unjudged = [row | {"correct": None} for row in rows(3, 0.4, seed=-1)]
    assert split_gain(base, trained, arms, unjudged) == split


def test_two_problems_a_side_are_no_proof_however_clear_they_look() -> None:
    few = unpaired({"a": 0.0, "b": 0.0}, {"c": 1.0, "d": 1.0})
    assert few.mean == 1.0 and few.p_value == pytest.approx(1 / 3) and few.low is not None and few.low < 0
    many = unpaired({str(i): 0.0 for i in range(50)}, {str(i): 1.0 for i in range(50)})
    assert many.p_value < 1e-20 and many.low is not None and 0.85 < many.low < 1 and many.high == 1.0
    none = unpaired({"a": 1.0, "b": 1.0}, {"c": 1.0, "d": 1.0})
    assert (none.mean, none.p_value) == (0.0, 1.0)


def test_a_comparison_needs_the_same_problems() -> None:
    with pytest.raises(ValueError, match="random has no judged problem in common"):
        split_gain(rows(5, 0.5), rows(5, 0.5), {"random": rows(5, 0.5, seed=-1)})
