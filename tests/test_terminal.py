"""What people see while a run trains: text of models is safe and readable, on a terminal and without one."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_stages import HOSTILE, showing
from r1kit.pipeline import Display, Progress, execute
from r1kit.terminal import printable, shortened
from r1kit.train.rl.collect import ScoredGroup
from r1kit.train.rl.samples import sample_table
from r1kit.types import Completion, Group, Problem, Prompt, Reward, Rollout, Verdict

STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")  # rich's own sequences


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text())
def test_no_control_character_is_left_and_all_visible_text_stays(text: str) -> None:
    safe = printable(text)
    assert all(mark.isprintable() or mark in "\n\t" for mark in safe)
    assert len(safe) == len(text)
    assert all(old == new for old, new in zip(text, safe, strict=True) if old.isprintable())


@given(st.text(), st.integers(min_value=20, max_value=80))
def test_a_shortened_text_is_one_line_and_keeps_its_ends(text: str, length: int) -> None:
    line, whole = shortened(text, length), " ".join(text.split())
    assert len(line) <= length
    assert "\n" not in line
    assert line == whole or (line[:5] == whole[:5] and line[-5:] == whole[-5:])


@pytest.mark.parametrize("columns", [40, 100])
def test_on_a_terminal_samples_are_a_table_that_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.cells import cell_len

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Terminal()
    with Display(out) as display:
        progress = Progress("[1/2] rl", display)
        progress.table("step [bold]7", [HOSTILE])
        progress.say(HOSTILE["completion"])
        progress.step(1, 2, {"note": HOSTILE["completion"]})
    text = STYLE.sub("", out.getvalue())
    assert "\x1b" not in text.replace("\x1b]8;;", "")
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[1/2] rl: step [bold]7" in text.replace("\n", " ").replace("  ", " ")
    table = [line for line in text.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(table) > 5
    assert max(map(cell_len, table)) <= columns
    assert "[/red]" in "".join(text.split())  # markup is text


def test_without_a_terminal_a_sample_is_one_plain_line() -> None:
    out = io.StringIO()
    with Display(out) as display:
        Progress("[1/2] rl", display).table("step 7", [HOSTILE, HOSTILE])
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[1/2] rl: step 7: 一加一 [/red]? | <think>")
    assert lines[0].endswith("2</answer> | wrong | total 0.2, accuracy 0")
    assert out.getvalue().replace("\n", "").isprintable()


def test_side_by_side_the_samples_of_each_stage_carry_its_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    execute(showing(), tmp_path, jobs=2)
    printed = capfd.readouterr().err
    for title in ("[1/2] first", "[2/2] last"):
        assert f"{title}: step 5: 一加一 [/red]? | <think>" in printed
    assert "\x1b" not in printed
    logs = "".join(log.read_text() for log in tmp_path.glob("*/*/log.txt"))
    assert logs.count("step 5: 一加一") == 2
    assert "\x1b" not in logs


def group(*totals: float | None) -> ScoredGroup:
    def rollout(total: float | None) -> Rollout:
        outcome: Any = "right" if total else "wrong"
        return Rollout(
            prompt=Prompt(problem_id="p", messages=(), token_ids=(1,)),
            completion=Completion(token_ids=(2,), logprobs=(0.0,), text=f"worth {total}", finish_reason="stop"),
            reward=Reward(total=total, parts={"accuracy": total}, verdict=Verdict(outcome=outcome)),
        )

    rollouts = tuple(map(rollout, totals))
    problem = Problem(id="p", prompt=f"of {len(totals)}", answer="")
    return ScoredGroup(Group(problem=problem, rollouts=rollouts), [0.0] * len(rollouts))


def test_samples_are_the_best_and_the_worst_of_groups_that_teach_something() -> None:
    table = sample_table([group(0.0, 0.0), group(1.0, None, 1.0), group(0.5, 0.0, 0.25, 1.0)])
    assert [(row["question"], row["completion"]) for row in table] == [
        ("of 4", "worth 1.0"),
        ("of 4", "worth 0.0"),
        ("of 2", "worth 0.0"),
    ]
    assert table[0]["verdict"] == "right"
    assert table[0]["reward"] == "total 1, accuracy 1"
    assert sample_table([group(None)])[0]["reward"] == "total -, accuracy -"
    assert sample_table([]) == []
