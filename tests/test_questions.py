"""Every answer of docs/questions.md has a command, and each command runs."""

from __future__ import annotations

import glob
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1kit.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "questions.md").read_text(encoding="utf-8")
OPENING, *QUESTIONS = re.split(r"^### ", PAGE, flags=re.MULTILINE)


def commands(text: str) -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.strip().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's files and its run, in the current folder."""
    folder = tmp_path_factory.mktemp("questions")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        exec(compile(re.findall(r"```python\n(.*?)```", OPENING, re.DOTALL)[0], "questions.md", "exec"), {})
        [run] = commands(OPENING)
        assert main(shlex.split(run)[1:]) == 0
        yield folder


def test_each_question_has_a_short_answer_and_a_command() -> None:
    assert len(QUESTIONS) >= 25
    for question in QUESTIONS:
        title, _, rest = question.partition("\n")
        answer = rest.partition("```")[0].strip()
        assert title.endswith("?") and commands(question), title
        assert 1 <= len(re.findall(r"[.!?:](?=\s|$)", answer)) <= 6, title


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda text: text.partition("\n")[0])
def test_the_commands_of_a_question_run(question: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(question):
        program, *arguments = shlex.split(command)
        if program != "r1kit":
            output = subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, text=True).stdout
        else:
            has_glob = [argument.startswith("runs/") and "*" in argument for argument in arguments]
            found = [sorted(glob.glob(a))[:1] if g else [a] for a, g in zip(arguments, has_glob, strict=True)]
            assert main([argument for paths in found for argument in paths]) == 0, command
            output = capsys.readouterr().out
        assert output.strip(), command


def test_the_answers_about_figures_hold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan names the start of every stage, the loss is close to 0, and no KL is logged."""
    assert main(["plan", "r1"]) == 0
    starts = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:] if len(line.split()) > 3)
    assert (starts["dev1"], starts["dev2"], starts["dev3"], starts["r1"]) == ("base", "dev1", "base", "rules")
    row = next(folder.glob("runs/r1-zero-tiny/rl-*/metrics.jsonl")).read_text().splitlines()[-1]
    loss, norm = (float(re.findall(rf'"optim/{name}": ([-0-9.e]+)', row)[0]) for name in ("loss", "grad_norm"))
    assert abs(loss) < 1e-2 * norm and norm > 0.01 and "policy/kl" not in row
