"""Estimates of a plan: at the paper's scale they meet the published hours, and they grow with what they stand for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1kit.cli import main
from r1kit.recipes import RECIPES
from r1kit.recipes.estimate import Estimate, estimates
from r1kit.recipes.scales import SCALES
from r1kit.settings import SettingsError

R1_STAGES = ("dev1", "dev2", "dev3", "rules", "helpfulness", "safety", "r1")


def paper(devices: int = 512) -> dict[str, Estimate]:
    return estimates(RECIPES["r1"](scale="paper"), "h800", devices)


def test_at_paper_scale_the_hours_are_near_the_published_ones() -> None:
    """V2, table 7: 101K H800-hours for R1-Zero, 5K for the SFT data, 41K for R1, on 512 devices.

    The data's hours are known least: samples per problem, judging and general data are not published.
    """
    hours = {name: 512 * one.hours for name, one in paper().items()}
    assert hours["zero"] == pytest.approx(101_000, rel=0.25)
    assert sum(hours[name] for name in R1_STAGES) == pytest.approx(41_000, rel=0.25)
    sampled = sum(hours[name] for name in ("few-shot", "reflect", "cold-start", "rejection"))
    assert 5_000 / 3 < sampled < 5_000 * 3


def test_a_model_behind_a_server_costs_tokens_and_no_hours_of_these_devices() -> None:
    engine = {"kind": "openai", "model": "big", "base_url": "http://localhost:9/v1"}
    one = estimates(RECIPES["r1"](overrides={"reflect.engine": engine}), "cpu")["reflect"]
    assert (one.samples, one.hours) == (240, 0.0) and one.tokens > 0


def test_at_paper_scale_the_samples_are_the_published_ones() -> None:
    found = paper()
    assert found["zero"].samples == pytest.approx(5.3e6, rel=0.01)  # 10,400 updates of 512
    assert found["dev3"].samples == 2 * 804_745
    assert found["zero"].tokens == found["zero"].samples * 5_800


def test_training_costs_what_its_arithmetic_says() -> None:
    """6 operations per parameter and token, at a third of the peak: 37B active, 8.9G tokens, 512 devices."""
    one = paper()["dev3"]
    assert one.hours == pytest.approx(6 * 37e9 * one.tokens / (0.33 * 9.89e14 * 512) / 3600)


def test_more_devices_halve_training_and_leave_the_longest_completion() -> None:
    few, many = paper(512), paper(1024)
    assert many["dev3"].hours == pytest.approx(few["dev3"].hours / 2)
    assert 0.9 * few["zero"].hours < many["zero"].hours < few["zero"].hours


def test_the_plan_shows_estimates_for_the_hardware_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["plan", "r1", "--runs", str(tmp_path), "--hardware", "cpu", "--devices", "2"]
    assert main(wanted) == 0
    header, first, *_, last, _ = capsys.readouterr().out.splitlines()
    assert header.split()[-4:] == ["samples", "tokens", "GiB", "hours"]
    assert first.split()[0] == "zero" and last.split()[0] == "all" and 0 < float(last.split()[-1]) < 2
    assert main([*wanted, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["estimate"]["samples"] == 70 * 32 * 8


def test_hardware_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="there is no hardware 'abacus': known are cpu"):
        estimates(RECIPES["r1"](), "abacus")
    with pytest.raises(SettingsError, match="devices is 0"):
        estimates(RECIPES["r1"](), "cpu", 0)
    assert main(["plan", "tiny-base", "--hardware", "abacus"]) == 1
    assert "abacus" in capsys.readouterr().err


@pytest.mark.parametrize("scale", SCALES)
def test_r1_zero_is_estimated_at_each_of_its_scales(scale: str, tiny_policy_folder: Path) -> None:
    model = {} if scale == "paper" else {"model": str(tiny_policy_folder)}
    recipe = RECIPES["r1-zero"](scale=scale, **model)
    assert bool(recipe.lengths) == (scale in ("tiny", "paper"))
    assert estimates(recipe, "a100", 1)["rl"].hours > 0
