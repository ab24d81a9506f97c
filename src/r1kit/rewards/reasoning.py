"""Reasoning quality by rule: does the text work something out, or does it only sound as if it did?

Four parts in [0, 1], and their weighted mean:

- flow: statements that use a number or term of the three before them and add a new one, or check the earlier ones;
- completeness: at least three statements of substance, the last of which reach the answer; equations must hold;
- assumptions: stated assumptions are used later; with a column `prompts`, the question's numbers are used;
- correction: a check or second thought about something computed before.

A statement has substance if it calculates, or if it has three terms and two of them are content words. Connectives,
announcements ("let me check"), bare numbers and repetitions have no substance and lower the flow. Checks and
assumptions are recognised in English and Chinese; flow and completeness work in any language. A rule cannot see sense:
nouns strung together so that each statement shares one with the last will pass, and only a judge notices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from r1kit import chat
from r1kit.rewards.inputs import question_of, texts
from r1kit.verifiers.countdown import evaluate_expression

WEIGHTS = {"flow": 0.3, "completeness": 0.4, "assumptions": 0.15, "correction": 0.15}
_NEAR = 3  # how many statements back a link may reach
_STEPS = 3  # statements of substance that make reasoning complete
_MAX_STATEMENTS = 2000  # later ones are not read
_SHORT_OF_THE_GOAL = 0.3  # the most that completeness gives if the last statements do not reach the answer

_END = re.compile(r"[\n。！？；;]+|(?<=[.!?])\s+")
_COMMA = re.compile(r"[,，]\s*")
_NUMBER = re.compile(r"(?<![\w.])\d{1,15}(?:\.\d{1,9})?(?![\w.]*\d)")
_TERM = re.compile(r"[^\W\d_]{4,40}|(?<![A-Za-z\u00c0-\u024f'’])[b-zB-HJ-Z](?![A-Za-z\u00c0-\u024f'’])")
_HAN = re.compile(r"(?=([\u3400-\u9fff]{2}))")
_EQUATION = re.compile(r"(?<![\w.=])([\d(][\d\s()+*/×÷·−-]{1,60})=\s{0,3}(-?\d{1,15})(?![\d.]*\d)")
_CALCULATES = re.compile(r"\d\s{0,3}[-+*/×÷·−=<>≤≥≈^]\s{0,3}[-(\d]")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-"})
_ASSUMED = re.compile(
    r"\b(?:given|assum\w{1,5}|suppose|let|we know|known|denote|there (?:is|are)|has|have|had|starts? with)\b"
    r"|已知|设|假设|给定",
    re.IGNORECASE,
)
_CHECKED = re.compile(
    r"\b(?:check\w{0,3}|verif\w{1,5}|confirm\w{0,3}|wait|actually|mistake|wrong|instead|recomput\w{1,3}|re-?check\w{0,3}|"
    r"double-check\w{0,3}|plug\w{0,4}|other way)\b|检查|验证|验算|等等|不对|查[:：]",
    re.IGNORECASE,
)
# Words that link or announce; they are not content.
_LINKS = """
    then thus therefore hence because since first firstly second secondly third next finally after afterwards also
    moreover furthermore however although though while when where which that this these those with from into have
    will would could should must need needs lets step steps answer result solution problem question reasoning think
    check checking verify verifying wait actually assume assuming suppose given know known consider considering now
    again correct indeed clearly obviously follows conclude conclusion logically consequently recall note make sure
    carefully everything about more very much some there here what been being were does done just only such than
    因此 所以 然后 首先 其次 最后 接着 于是 由于 因为 检查 验证 假设 已知 等等 不对 答案
"""
_EMPTY = frozenset(_LINKS.split())


@dataclass(frozen=True, slots=True)
class Quality:
    """The parts of the score, each in [0, 1]; the module's docstring defines them."""

    flow: float
    completeness: float
    assumptions: float
    correction: float

    @property
    def score(self) -> float:
        """The weighted mean of the parts."""
        return float(sum(WEIGHTS[name] * value for name, value in asdict(self).items()))


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, or a clause of a sentence that strings equations together."""

    text: str
    terms: frozenset[str]  # numbers, content words, variables
    fresh: bool  # it has substance and is no repetition


def reasoning_quality_reward(
    completions: Sequence[Any],
    prompts: Sequence[Any] | None = None,
    *,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float]:
    """The score of `quality` for each completion's reasoning; 0.0 without reasoning. Parts are logged by name."""
    responses = [chat.parse(text) for text in texts(completions)]
    questions = [""] * len(responses) if prompts is None else [question_of(prompt) for prompt in prompts]
    qualities = [
        quality(response.reasoning or "", response.answer or "", question)
        for response, question in zip(responses, questions, strict=True)
    ]
    if log_metric is not None and qualities:
        for name in WEIGHTS:
            log_metric(f"reasoning/{name}", fmean(getattr(each, name) for each in qualities))
    return [each.score for each in qualities]


def quality(reasoning: str, answer: str, question: str = "") -> Quality:
    """Judge a chain of thought that leads to `answer`; any text is accepted, in linear time."""
    statements = _statements(reasoning)
    fresh = [statement for statement in statements if statement.fresh]
    question_terms = _terms(question)
    if not any(statement.terms - question_terms for statement in fresh):  # no substance, or only the question repeated
        return Quality(flow=0.0, completeness=0.0, assumptions=0.0, correction=0.0)
    return Quality(
        flow=_flow(statements),
        completeness=_completeness(fresh, reasoning, answer),
        assumptions=_assumptions(fresh, _numbers(question)),
        correction=_correction(fresh),
    )


def _flow(statements: Sequence[Statement]) -> float:
    fresh = [statement for statement in statements if statement.fresh]
    if len(fresh) < 2:
        return 0.0
    linked = 0
    for place, statement in enumerate(fresh[1:], start=1):
        before = frozenset().union(*(earlier.terms for earlier in fresh[max(0, place - _NEAR) : place]))
        adds = bool(statement.terms - before) or _CHECKED.search(statement.text) is not None
        linked += adds and bool(statement.terms & before)
    return linked / (len(fresh) - 1) * len(fresh) / len(statements)


def _completeness(fresh: Sequence[Statement], reasoning: str, answer: str) -> float:
    goal = _numbers(answer) or _terms(answer)
    arrives = bool(goal) and any(goal <= statement.terms for statement in fresh[-_NEAR:])
    holds = []
    for left, right in _EQUATION.findall(reasoning):
        with suppress(ValueError):  # not an expression
            value, numbers = evaluate_expression(left.translate(_SIGNS).strip())
            holds += [value == int(right)] if len(numbers) > 1 else []  # a single number is no calculation
    sound = sum(holds) / len(holds) if holds else 1.0
    reach = 1.0 if arrives else _SHORT_OF_THE_GOAL
    return min(1.0, len(fresh) / _STEPS) * reach * sound if len(fresh) > 1 else 0.0


def _assumptions(fresh: Sequence[Statement], question_numbers: frozenset[str]) -> float:
    stated = any(
        _ASSUMED.search(statement.text) and any(statement.terms & later.terms for later in fresh[place + 1 :])
        for place, statement in enumerate(fresh[: _STEPS + 1])
    )
    if not question_numbers:
        return float(stated)
    used = frozenset().union(*(statement.terms for statement in fresh)) if fresh else frozenset()
    return (stated + len(question_numbers & used) / len(question_numbers)) / 2 if len(fresh) > 1 else 0.0


def _correction(fresh: Sequence[Statement]) -> float:
    """1.0 if there are checks of earlier numbers or terms, in at most half of the statements."""
    checks = 0
    before: set[str] = set()
    for statement in fresh:
        is_check = _CHECKED.search(statement.text) is not None and bool(_numbers(statement.text))
        checks += is_check and bool(statement.terms & before)
        before |= statement.terms
    return float(0 < checks <= len(fresh) / 2)


def _statements(text: str) -> list[Statement]:
    """The statements of a text. A sentence with several equations is split at the commas between them."""
    clauses: list[str] = []
    for sentence in _END.split(text):
        first = len(clauses)
        for piece in [sentence] if sentence.count("=") < 2 else _COMMA.split(sentence):
            if "=" in piece or len(clauses) == first:
                clauses.append(piece)
            else:
                clauses[-1] += f", {piece}"
    statements, seen = [], set[frozenset[str]]()
    for piece in [clause for clause in clauses if clause.strip()][:_MAX_STATEMENTS]:
        terms = _terms(piece)
        has_content = len(terms) >= 3 and len(terms - _numbers(piece)) >= 2
        has_substance = has_content or _CALCULATES.search(piece) is not None
        statements.append(Statement(piece, terms, has_substance and terms not in seen))
        seen.add(terms)
    return statements


def _terms(text: str) -> frozenset[str]:
    words = {word.casefold() for word in _TERM.findall(text)} | set(_HAN.findall(text))
    return _numbers(text) | (words - _EMPTY)


def _numbers(text: str) -> frozenset[str]:
    return frozenset(_NUMBER.findall(text.replace(",", "")))
