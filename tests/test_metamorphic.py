"""A share of the metamorphic benchmark: what keeps the value is right, what changes it is wrong, for any draw."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.types import Verdict
from r1kit.verifiers import verify_all

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "metamorphic.py"


def _benchmark() -> ModuleType:
    specification = importlib.util.spec_from_file_location("metamorphic", BENCHMARK)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


metamorphic = _benchmark()
BLOCKS = metamorphic.blocks(metamorphic.SHAPES.read_text(encoding="utf-8"))


@settings(max_examples=60, deadline=None)
@given(block=st.sampled_from(BLOCKS), seed=st.integers(0, 10**9))
def test_every_shape_is_right_in_each_spelling_and_wrong_in_each_mutation(block: list[str], seed: int) -> None:
    values = metamorphic.draw(random.Random(seed))
    reference = metamorphic.filled(block[0], values).partition(": ")[2]
    answers = [metamorphic.filled(line, values) for line in block[1:]]
    verdicts = verify_all("math", [f"\\boxed{{{answer[2:]}}}" for answer in answers], [reference] * len(answers))
    wrong = [
        answer for answer, verdict in zip(answers, verdicts, strict=True) if verdict.correct is not (answer[0] == "=")
    ]
    assert not wrong, (reference, wrong)


@settings(max_examples=40, deadline=None)
@given(st.fractions(min_value=-10_000, max_value=10_000, max_denominator=50), st.randoms(use_true_random=False))
def test_every_number_is_right_in_each_form_and_wrong_in_each_mutation(value: object, rng: random.Random) -> None:
    for how, text in metamorphic.respelled(str(value), rng):
        assert verify_all("math", [f"\\boxed{{{text}}}"], [str(value)])[0].correct is True, (how, text)
    for how, text in metamorphic.mutated(str(value), rng):
        assert verify_all("math", [f"\\boxed{{{text}}}"], [str(value)])[0].correct is False, (how, text)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["\\frac{1}{0}", "\\frac{", "12 \\times 3 = 35", "x^", "18 more apples than Bob"]), st.data())
def test_whether_a_reference_is_usable_does_not_depend_on_the_answer(reference: str, data: st.DataObject) -> None:
    block = data.draw(st.sampled_from(BLOCKS))
    answers = ["", *(metamorphic.filled(line, metamorphic.draw(random.Random(1)))[2:] for line in block[1:])]
    verdicts = verify_all("math", [f"<answer>{answer}</answer>" for answer in answers], [reference] * len(answers))
    assert {verdict.outcome for verdict in verdicts} == {"unknown"}, reference


def test_the_benchmark_prints_rates_and_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R1KIT_DATA", raising=False)
    metamorphic.main(["--pairs", "300", "--out", str(tmp_path), "--show", "1"])
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "metamorphic.json").read_text())
    for name in ("wrong judged right", "right judged wrong", "references usable for some answers only"):
        assert results["rates"][name]["count"] == 0 and name in printed
    assert results["rates"]["wrong judged right"]["of"] > 100


def test_the_benchmark_stops_if_the_verifier_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R1KIT_DATA", raising=False)
    monkeypatch.setattr(metamorphic, "verify_all", lambda name, *pairs: [Verdict.failed("broken")] * len(pairs[0]))
    with pytest.raises(RuntimeError, match="pairs were not judged: verifier failed: broken"):
        metamorphic.main(["--pairs", "300", "--out", str(tmp_path)])
