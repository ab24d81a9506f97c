"""Problems of one calculation, made from the solutions of longer ones, for a model that solves too few of those."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from r1kit.data.errors import DataError
from r1kit.tasks.base import Listed, solution_of
from r1kit.types import Problem

EQUATION = re.compile(r"(?<![\d.,])(\d+)\s*([-+*x×/÷])\s*\$?(\d+)\s*=\s*\$?(?P<result>\d+)(?![\d,]|\.\d)")
LEFT_SIDE = re.compile(r"\$?(?<![\d.,])[\d.,]+(?:\s*[-+*x×/÷]\s*\$?[\d.,]+)+\s*=\s*(?=\$?\d)")
SIGNS = str.maketrans("x×÷", "**/")
SENTENCE_END = re.compile(r"(?<=[.?!])\s+")
NUMBER = re.compile(r"\d+")


def calculations(task: Listed, form: Literal["alone", "in_context", "last"]) -> Listed:
    """The calculations of the reference solutions as problems of their own, each a line of a solution with one true
    equation of two whole numbers.

    `alone`: the line without the result, `She sold 48 / 2 = ? clips in May.`; its solution is the line.
    `in_context`: a problem of one step, which has what the question tells, the results so far, and what is asked. The
    last calculation is asked by the question itself, an earlier one by its line, `She sold ? clips in May.` The
    solution is the equation, `48 / 2 = 24.` Left out are problems that do not end with a question, and calculations
    with a number that is not given; a number below ten may be given as a word, such as "half" for 2.
    `last`: those of `in_context` that the question itself asks, at most one per problem.

    Raises `DataError` if a problem has no solution, or if no calculation is found.
    """
    find = _alone if form == "alone" else partial(_in_context, asked_only=form == "last")
    parts = tuple(part for problem in task.problems for part in find(problem))
    if task.problems and not parts:
        reason = f"no solution of {task.name} has a line with one calculation, such as 48 / 2 = 24"
        if form != "alone":
            reason += ", after a question that ends with ?"
        raise DataError("empty", reason)
    return replace(task, problems=parts)


def _alone(problem: Problem) -> Iterator[Problem]:
    for number, line, equation in _equations(problem):
        start, end = equation.span("result")
        yield _part(problem, number, f"{line[:start]}?{line[end:]}", equation, solution=line)


def _in_context(problem: Problem, *, asked_only: bool) -> Iterator[Problem]:
    *context, question = SENTENCE_END.split(problem.prompt.strip())
    lines = _lines(problem)
    results = [_ended(LEFT_SIDE.sub("", line)) for line in lines]
    for number, line, equation in _equations(problem):
        left, sign, right, result = equation.groups()
        known = [*context, *results[:number]]
        unknown = {each for each in (left, right) if len(each) > 1} - set(NUMBER.findall(" ".join([*known, question])))
        is_asked = number == len(lines) - 1 and result == problem.answer
        if question.endswith("?") and not unknown and (is_asked or not asked_only):
            query = question if is_asked else f"{line[: equation.start()]}?{line[equation.end() :]}"
            solution = f"{left} {sign.translate(SIGNS)} {right} = {result}."
            yield _part(problem, number, " ".join([*known, query]), equation, solution=solution)


def _lines(problem: Problem) -> list[str]:
    return solution_of(problem, "calculations").splitlines()


def _equations(problem: Problem) -> Iterator[tuple[int, str, re.Match[str]]]:
    """Each with the number of its line, and the line."""
    for number, line in enumerate(_lines(problem)):
        equations = list(EQUATION.finditer(line))
        if line.count("=") == len(equations) == 1 and _is_true(equations[0]):
            yield number, line, equations[0]


def _part(problem: Problem, number: int, prompt: str, equation: re.Match[str], *, solution: str) -> Problem:
    name = f"{problem.id}/{number}"
    return replace(problem, id=name, prompt=prompt.strip(), answer=equation["result"], solution=solution)


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _is_true(equation: re.Match[str]) -> bool:
    """Also false for the end of a longer calculation, which reads as a wrong one: `1/3 * 6 = 2`."""
    sign, (left, right, result) = equation[2], (int(equation[group]) for group in (1, 3, "result"))
    if sign in "/÷":
        return right > 0 and left == right * result
    return result == {"+": left + right, "-": left - right}.get(sign, left * right)
