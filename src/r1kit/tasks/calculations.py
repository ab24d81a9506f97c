"""Problems of one calculation, made from the solutions of longer ones, for a model that solves too few of those."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from r1kit.data.errors import DataError
from r1kit.tasks.base import Listed, solution_of
from r1kit.types import Problem

CALCULATION = re.compile(r"(?<![\d.,])(\d+)\s*([-+*x×/÷])\s*\$?(\d+)\s*=\s*\$?(?P<result>\d+)(?![\d,]|\.\d)")
LEFT_SIDE = re.compile(r"\$?(?<![\d.,])[\d.,]+(?:\s*[-+*x×/÷]\s*\$?[\d.,]+)+\s*=\s*(?=\$?\d)")
SIGNS = str.maketrans("x×÷", "**/")
SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


def calculations(task: Listed, form: Literal["alone", "in_context"]) -> Listed:
    """The calculations of the reference solutions as problems of their own, each a line of a solution with one true
    equation of two whole numbers.

    `alone`: the line without the result, `She sold 48 / 2 = ? clips in May.`; its solution is the line.
    `in_context`: a problem of one step, which has what the question tells, the results so far, and what is asked. The
    last calculation is asked by the question itself, an earlier one by its line, `She sold ? clips in May.` The
    solution is the equation, `48 / 2 = 24.` Left out are problems that do not end with a question, and calculations
    with a number that is not given; a number below ten may be given as a word, such as "half" for 2.

    Raises `DataError` if a problem has no solution, or if no calculation is found.
    """
    find = _alone if form == "alone" else _in_context
    found = tuple(part for problem in task.problems for part in find(problem))
    if task.problems and not found:
        raise DataError("empty", f"no solution of {task.name} has a line with one calculation, such as 48 / 2 = 24")
    return replace(task, problems=found)


def _alone(problem: Problem) -> Iterator[Problem]:
    for number, line, found in _calculations(problem):
        start, end = found.span("result")
        yield _part(problem, number, f"{line[:start]}?{line[end:]}", found["result"], line)


def _in_context(problem: Problem) -> Iterator[Problem]:
    *told, question = SENTENCE_END.split(problem.prompt.strip())
    lines = _lines(problem)
    results = [_ended(LEFT_SIDE.sub("", line)) for line in lines]
    for number, line, found in _calculations(problem):
        given = [*told, *results[:number]]
        numbers = set(re.findall(r"\d+", " ".join([*given, question])))
        unknown = {number for number in (found[1], found[3]) if len(number) > 1} - numbers
        if question.endswith("?") and not unknown:
            is_last = number == len(lines) - 1 and found["result"] == problem.answer
            asked = question if is_last else f"{line[: found.start()]}?{line[found.end() :]}"
            equation = f"{found[1]} {found[2].translate(SIGNS)} {found[3]} = {found['result']}."
            yield _part(problem, number, " ".join([*given, asked]), found["result"], equation)


def _lines(problem: Problem) -> list[str]:
    return solution_of(problem, "calculations").splitlines()


def _calculations(problem: Problem) -> Iterator[tuple[int, str, re.Match[str]]]:
    """Each with the number of its line, and the line."""
    for number, line in enumerate(_lines(problem)):
        found = list(CALCULATION.finditer(line))
        if line.count("=") == len(found) == 1 and _is_true(found[0]):
            yield number, line, found[0]


def _part(problem: Problem, number: int, prompt: str, answer: str, solution: str) -> Problem:
    return replace(problem, id=f"{problem.id}/{number}", prompt=prompt.strip(), answer=answer, solution=solution)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _is_true(calculation: re.Match[str]) -> bool:
    """Also false for the end of a longer calculation, which reads as a wrong one: `1/3 * 6 = 2`."""
    left, right, result = int(calculation[1]), int(calculation[3]), int(calculation["result"])
    if calculation[2] in "/÷":
        return right > 0 and left == right * result
    return result == {"+": left + right, "-": left - right}.get(calculation[2], left * right)
