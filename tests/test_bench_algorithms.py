"""A bench of algorithms: moderated t tests, the arms of a recipe, and the table of a small real bench."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from statistics import fmean, variance

import pytest

from r1kit.cli import main
from r1kit.evaluate.moderated import common_variance, compare_arms, digamma, inverse_trigamma, trigamma
from r1kit.recipes import build_recipe
from r1kit.recipes.algorithms import DEFAULT, algorithm_bench
from r1kit.recipes.controls import rl_settings
from r1kit.report.algorithms import largest_fall, table
from r1kit.settings import SettingsError
from r1kit.store import read_json
from r1kit.train.losses.policy_settings import PRESETS

SMALL = [
    *("--set", "rl.steps=2", "--set", "rl.prompts_per_step=2", "--set", "rl.group_size=4", "--set", "rl.max_tokens=32"),
    *("--set", 'rl.tasks=[{"name": "tiny/reasoning", "limit": 40}]'),
    *("--set", 'eval.tasks=[{"name": "tiny/sums", "limit": 4}]', "--set", "eval.samples=1"),
    *("--set", "eval.max_tokens=32"),
]


def test_polygamma_functions() -> None:
    euler = 0.5772156649015329
    assert digamma(1) == pytest.approx(-euler, abs=1e-9)
    assert digamma(0.5) == pytest.approx(-euler - 2 * math.log(2), abs=1e-9)
    assert trigamma(1) == pytest.approx(math.pi**2 / 6, abs=1e-8)
    assert trigamma(0.5) == pytest.approx(math.pi**2 / 2, abs=1e-8)
    for x in (0.01, 0.7, 3.0, 400.0):
        assert inverse_trigamma(trigamma(x)) == pytest.approx(x, rel=1e-6)


def test_the_common_variance_is_worth_much_for_equal_arms_and_little_for_unequal_ones() -> None:
    draw = random.Random(0)

    def variances(deviations: list[float]) -> list[float]:
        return [variance([draw.gauss(0, sigma) for _ in range(5)]) for sigma in deviations]

    common, worth = common_variance(variances([2.0] * 400), 4)
    assert common == pytest.approx(4.0, rel=0.1) and worth == 4
    _, worth = common_variance(variances([10 ** draw.gauss(0, 1) for _ in range(400)]), 4)
    assert worth < 1
    assert common_variance([0.0, 0.0, 0.0], 4)[0] < 1e-12
    assert common_variance([3.0], 4) == (3.0, 0.0)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_a_null_bench_finds_a_difference_in_one_of_twenty(spread: float) -> None:
    """The family-wise error of 12 arms that do not differ, of equal and of different variances, in 600 benches."""
    draw, found = random.Random(1), 0
    for _ in range(600):
        values = {"reference": [draw.gauss(0, 1) for _ in range(5)]}
        for arm in range(12):
            sigma = math.exp(draw.gauss(0, spread))
            values[str(arm)] = [draw.gauss(0, sigma) for _ in range(5)]
        found += any(each.p_holm < 0.05 for each in compare_arms(values, "reference").values())
    assert found / 600 < 0.08


def test_moderation_finds_what_five_seeds_alone_do_not() -> None:
    draw, moderated, alone = random.Random(2), 0, 0
    for _ in range(100):
        shared = [draw.gauss(0, 3) for _ in range(5)]  # what a seed gives to all arms
        values = {str(arm): [each + draw.gauss(0, 1) for each in shared] for arm in range(12)}
        values["better"] = [each + draw.gauss(3.5, 1) for each in shared]
        moderated += compare_arms(values, "0")["better"].p_holm < 0.05
        only = {name: values[name] for name in ("0", "better")}
        alone += compare_arms(only, "0")["better"].p_value * 12 < 0.05
    assert moderated > 80 and alone < 60


def test_two_arms_are_an_ordinary_paired_t_test() -> None:
    change = compare_arms({"a": [1.0, 2.0, 3.0], "b": [2.0, 2.5, 4.5]}, "a")["b"]
    error = math.sqrt(variance([1.0, 0.5, 1.5]) / 3)
    assert change.mean == pytest.approx(1.0) and change.high - change.mean == pytest.approx(4.30265 * error, rel=1e-4)
    assert change.p_value == change.p_holm == pytest.approx(0.0742, abs=1e-4)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        compare_arms({"a": [1.0], "b": [2.0]}, "a")


def test_the_largest_fall_is_from_the_best_so_far() -> None:
    assert largest_fall([0.1 * step for step in range(20)]) == 0.0
    assert largest_fall([0.0] * 5 + [1.0] * 5 + [0.2] * 5 + [1.0] * 5) == pytest.approx(0.8)
    assert largest_fall([1.0, 0.0]) == 0.0  # fewer steps than one mean


def test_arms_have_equal_rollouts_and_paired_seeds() -> None:
    bench = algorithm_bench(build_recipe("r1-zero", scale="tiny", seed=3), ["grpo", "dapo", "mis", "grpo+kl_coef=0.1"])
    trained = {stage.name: rl_settings(stage) for stage in bench.stages if stage.kind.name == "rl"}
    assert [*trained][:2] == ["grpo-0", "grpo-1"] and len(trained) == 25  # four arms and the null arm
    assert {trained[f"{arm}-2"].seed for arm in ("grpo", "dapo", "mis", "grpo-kl_coef-0.1")} == {5}
    assert trained["grpo-again-2"].seed == 1005 and trained["grpo-again-2"].algorithm == PRESETS["grpo"]
    assert trained["dapo-0"].algorithm == PRESETS["dapo"].replace(dynamic_sampling=0)
    assert trained["mis-0"].recompute_old_logprobs and not trained["dapo-0"].recompute_old_logprobs
    assert trained["grpo-kl_coef-0.1-4"].algorithm.kl_coef == 0.1
    same = {"algorithm": PRESETS["grpo"], "seed": 0, "recompute_old_logprobs": False}
    assert len({settings.replace(**same).model_dump_json() for settings in trained.values()}) == 1
    measured = [stage for stage in bench.stages if stage.kind.name == "evaluate"]
    assert len(measured) == 25 and len({stage.settings.model_dump_json() for stage in measured}) == 1


def test_the_default_is_at_least_twelve_presets_that_exist() -> None:
    assert len(DEFAULT) >= 12 and set(DEFAULT) <= set(PRESETS)


@pytest.mark.parametrize(
    ("presets", "seeds", "expected"),
    [
        (["grpo", "gpro"], 2, "there is no algorithm 'gpro'"),
        (["grpo"], 2, "give at least two"),
        (["grpo", "grpo"], 2, "two different"),
        (["grpo", "dapo"], 1, "seeds is 1"),
        (["grpo", "dapo+kl"], 2, "is not FIELD=VALUE"),
        (["grpo", "dapo+kl_coeff=1"], 2, "kl_coeff"),
        (["grpo", "dapo+kl_coef=-1"], 2, "kl_coef"),
    ],
)
def test_bad_arms_are_refused(presets: list[str], seeds: int, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        algorithm_bench(build_recipe("r1-zero", scale="tiny"), presets, seeds)


def test_a_bench_without_a_measured_stage_is_refused() -> None:
    with pytest.raises(SettingsError, match="RL"):
        algorithm_bench(build_recipe("tiny-base"), ["grpo", "dapo"])


def test_a_small_bench_runs_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "algorithms", "--presets", "grpo,dr_grpo", "--seeds", "2", "--jobs", "1", *SMALL]
    command += ["--runs", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for sign in ("grpo-again", "dr_grpo", "tokens if wrong", "2 seeds"):
        assert sign in printed
    folder = Path(printed.splitlines()[-1])
    summary = read_json(folder / "summary.json")
    assert summary["table"] + "\n" == (folder / "table.txt").read_text() and summary["reference"] == "grpo"
    seeds = summary["arms"]["dr_grpo"]
    assert len(seeds) == 2 and {"accuracy", "tokens", "entropy"} <= set(seeds[0])
    assert "reward fell by: left out" in printed  # two steps show no fall
    metrics = next(tmp_path.glob("*/dr_grpo-0-*/metrics.jsonl")).read_text().splitlines()
    assert seeds[0]["entropy"] == json.loads(metrics[-1])["policy/entropy"]
    change = summary["differences"]["accuracy"]["dr_grpo"]
    before = fmean(seed["accuracy"] for seed in summary["arms"]["grpo"])
    assert change["mean"] == pytest.approx(fmean(seed["accuracy"] for seed in seeds) - before)
    assert main([*command, "--until", "eval-dr_grpo-1"]) == 0
    assert "done already" in capsys.readouterr().err


def test_a_measure_that_a_model_lacks_is_left_out_of_the_table() -> None:
    arms = {"a": [{"accuracy": 1.0, "wrong_tokens": 3.0}] * 2, "b": [{"accuracy": 0.5}, {"accuracy": 0.7}]}
    text = table(arms, "a")
    assert "accuracy" in text and "tokens if wrong: left out, since not every model of b has it" in text
    assert text.splitlines()[0].split() == ["accuracy"]
    with pytest.raises(ValueError, match="not every model has an accuracy"):
        table({"a": [{"tokens": 1.0}] * 2, "b": [{"tokens": 1.0}] * 2}, "a")
