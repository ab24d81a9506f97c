"""The verifiers `ifeval` and `ifeval-loose`, and what an evaluation makes of their scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit.chat import ChatFormat
from r1kit.conformance import cases
from r1kit.evaluate.measurement import judge, prompt_of
from r1kit.evaluate.metrics import Scored
from r1kit.evaluate.statistics import paired, summarise
from r1kit.tasks import TaskSpec, iterate, load_task
from r1kit.types import Completion, Problem
from r1kit.verifiers.ifeval import INSTRUCTIONS, parse_instructions, verify_ifeval, verify_ifeval_loose


def reference(**instructions: dict[str, Any]) -> str:
    """`reference(punctuation__no_comma={})`: a reference with one instruction per argument."""
    names = [name.replace("__", ":") for name in instructions]
    return json.dumps({"instruction_id_list": names, "kwargs": list(instructions.values())})


NO_COMMA = reference(punctuation__no_comma={})
TWO = reference(punctuation__no_comma={}, detectable_format__title={})


def test_every_instruction_has_a_text_that_follows_it_and_one_that_does_not() -> None:
    labels: dict[str, set[bool | None]] = {}
    for case in cases("ifeval"):
        row = json.loads(case.answer)
        if len(row["instruction_id_list"]) == 1:
            labels.setdefault(row["instruction_id_list"][0], set()).add(case.correct)
    assert {name for name, seen in labels.items() if {True, False} <= seen} == set(INSTRUCTIONS)


@pytest.mark.parametrize(
    ("answer", "strict", "loose"),
    [
        ("No commas.", True, True),
        ("Sure, here it is:\nNo commas.", False, True),
        ("No commas.\nBye, then.", False, True),
        ("Sure, here it is:\nNo commas.\nBye, then.", False, True),
        ("No commas.\nOne, two.\nNo commas.", False, False),
        ("One, two.", False, False),
        ("", False, False),
        (" \n ", False, False),
    ],
)
def test_a_loose_verdict_forgives_an_introduction_and_a_farewell(answer: str, strict: bool, loose: bool) -> None:
    assert verify_ifeval(answer, NO_COMMA).correct is strict
    assert verify_ifeval_loose(answer, NO_COMMA).correct is loose


def test_a_loose_verdict_forgives_asterisks() -> None:
    ending = reference(startend__end_checker={"end_phrase": "The end."})
    assert verify_ifeval("All is said. **The end.**", ending).correct is False
    assert verify_ifeval_loose("All is said. **The end.**", ending).correct is True


def test_a_verdict_counts_the_instructions_and_names_the_broken_ones() -> None:
    verdict = verify_ifeval("Sure, here it is:\nNo title.", TWO)
    assert verdict.detail == "follows 0 of 2; not punctuation:no_comma, detectable_format:title"
    assert verdict.scores == {
        "prompt_strict": (0, 1),
        "instruction_strict": (0, 2),
        "prompt_loose": (0, 1),
        "instruction_loose": (1, 2),
    }


@given(st.text())
def test_no_reply_breaks_an_instruction(text: str) -> None:
    for case in cases("ifeval"):
        assert (verify_ifeval(text, case.answer).correct is None) == (case.correct is None)


def test_a_long_reply_takes_little_time_whatever_it_repeats() -> None:
    for piece in ("* ", "<", "[", "\n", "P.", '"', "a.", "```", "- \n", "***", "** "):
        verify_ifeval((piece * 20_000)[:20_000], TWO)
        for case in cases("ifeval")[::3]:
            verify_ifeval((piece * 4_000)[:4_000], case.answer)


def test_the_known_set_is_judged_with_all_of_its_instructions(shared_data: Path) -> None:
    problems = list(iterate(load_task(TaskSpec.parse({"name": "ifeval", "data": str(shared_data)}), "test")))
    assert len(problems) == 541
    names = [name for problem in problems for name, _ in parse_instructions(problem.answer)]
    assert len(names) == 834 and set(names) == set(INSTRUCTIONS)
    assert {verify_ifeval("", problem.answer).correct for problem in problems} == {False}


def test_an_evaluation_has_both_levels_and_both_readings() -> None:
    problems = [
        Problem(id=f"p/{number}", prompt="Write.", answer=answer, verifier="ifeval", language="en", source="p")
        for number, answer in enumerate((NO_COMMA, TWO))
    ]

    prompts = [prompt_of(problem, ChatFormat(), None) for problem in problems]

    def rows(*texts: str) -> list[Scored]:
        answers = [[Completion(token_ids=(), logprobs=(), text=text, finish_reason="stop")] for text in texts]
        judged = json.loads(json.dumps(judge(problems, prompts, answers)))  # as `completions.jsonl` keeps them
        return [Scored.from_row(row) for row in judged]

    before, after = rows("One, two.", "Sure, so:\nNo title."), rows("No commas.", "<<Title>>\nOne, two.")
    overall = summarise(before).overall
    assert overall["pass@1"].mean == overall["prompt_strict"].mean == 0.0
    assert overall["prompt_loose"].mean == 0.0
    assert overall["instruction_loose"].mean == pytest.approx(1 / 3)
    better = summarise(after).overall
    assert better["prompt_strict"].mean == 0.5
    assert better["instruction_strict"].mean == pytest.approx(2 / 3)
    change = paired(before, after)["instruction_strict"]
    assert change.mean == pytest.approx(2 / 3)
    # rows of other tasks have no instructions, and neither has a row whose verifier failed
    other = [replace(row, problem_id=f"a/{row.problem_id}", scores={}) for row in before]
    assert paired([*other, *before], [*other, *after])["instruction_strict"] == change
    failed = [replace(before[0], scores={}), before[1]]
    assert paired(failed, after)["instruction_strict"].problems == 1
    assert "instruction_strict" not in paired(other, [replace(row, scores=before[0].scores) for row in other])


@pytest.mark.parametrize(
    ("name", "arguments", "usable"),
    [
        ("punctuation:no_comma", "text", False),
        ("punctuation:no_comma", [1], False),
        (["punctuation:no_comma"], {}, False),
        (None, {}, False),
        ("keywords:existence", {"keywords": []}, False),
        ("keywords:existence", {"keywords": "cat"}, False),
        ("keywords:existence", {"keywords": ["cat"]}, True),
        ("startend:end_checker", {"end_phrase": ["cat"]}, False),
        ("length_constraints:number_words", {"num_words": 3.0, "relation": "at least", "letter": float("nan")}, True),
        ("length_constraints:number_words", {"num_words": 3.5, "relation": "at least"}, False),
    ],
)
def test_a_reference_of_another_form_cannot_be_used(name: Any, arguments: Any, usable: bool) -> None:
    verdict = verify_ifeval("one cat is here", json.dumps({"instruction_id_list": [name], "kwargs": [arguments]}))
    assert verdict.correct is (True if usable else None)
