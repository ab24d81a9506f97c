"""Filters on content: readability, faithful summaries, verdicts and scores."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from r1kit import chat
from r1kit.curate import ngrams
from r1kit.curate.filters.protocol import Filter, Rejection, excerpt
from r1kit.curate.record import View
from r1kit.verifiers import extract, number
from r1kit.verifiers.exact import normalise

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff\ud800-\udfff]")
_SENTENCE_END = re.compile(r"[.!?。！？](?:\s|$)|[。！？]|\n")
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([A-Za-z*]{1,30})\}")
_SHORT_ANSWER_CHARS = 80
_PRICE = re.compile(r"\$\s?\d")


def get_unreadable(*, max_control_share: float = 0.001, long_chars: int = 1500, min_steps: int = 3) -> Filter:
    """Drop responses that people cannot read.

    These have too large a share of control, private and replacement characters, unbalanced LaTeX, or reasoning of at
    least `long_chars` characters with fewer than `min_steps` lines, sentences or marked steps.
    """

    def unreadable(view: View) -> Rejection | None:
        text = view.response
        strange = _CONTROL.findall(text)
        if len(strange) > max_control_share * len(text):
            detail = f"{len(strange)} characters such as {strange[0]!a}"
            piece = excerpt(text, text.index(strange[0]))
            example = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in piece)
            return Rejection(reason="control characters", detail=detail, example=example)
        fault = latex_fault(text)
        if fault:
            return Rejection(reason="LaTeX not balanced", detail=fault, example=excerpt(text, len(text), before=120))
        prose = view.prose
        if len(prose) >= long_chars and max(len(_SENTENCE_END.findall(prose)), chat.count_steps(prose)) < min_steps:
            detail = f"{len(prose)} characters in fewer than {min_steps} lines, sentences or steps"
            return Rejection(reason="no visible steps", detail=detail, example=excerpt(prose))
        return None

    return unreadable


def latex_fault(text: str) -> str:
    r"""The first imbalance, or "": `latex_fault(r"so \(x") == r"1 \( but 0 \)"`.

    An odd number of $ is a fault only if none of them can be a price.
    """
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        opened, closed = _count(text, opening), _count(text, closing)
        if opened != closed:
            return f"{opened} {opening} but {closed} {closing}"
    if "\\begin{" in text or "\\end{" in text:
        balance = Counter[str]()
        for match in _ENVIRONMENT.finditer(text):
            balance[match[2]] += 1 if match[1] == "begin" else -1
        open_ones = [name for name, left in balance.items() if left]
        if open_ones:
            return f"environment {open_ones[0]} is not closed as often as opened"
    if _count(text, "$") % 2 and not _PRICE.search(text):
        return "an odd number of $"
    return ""


def _count(text: str, mark: str) -> int:
    r"""Occurrences that are not escaped: `\\(` is a line break and a bracket, `\$` a dollar."""
    count = text.count(mark)
    if count and "\\" + mark in text:
        doubled = text.replace("\\\\", "")
        return doubled.count(mark) - (doubled.count("\\" + mark) if mark == "$" else 0)
    return count


def get_unfaithful_summary() -> Filter:
    """Drop summaries whose answer differs from the result of the reasoning.

    Applies to samples with a reference answer, both parts, and an answer in the summary. If the reasoning has a box,
    its content must equal that answer; otherwise the answer must occur somewhere in the reasoning.
    """

    def unfaithful_summary(view: View) -> Rejection | None:
        if view.sample.answer is None or not view.reasoning or not view.summary:
            return None
        # the last box, the only number, or all of a short summary; no answer if it is unclear
        answer, result = extract.boxed(view.summary), extract.boxed(view.reasoning)
        if answer is None and len(view.summary) <= _SHORT_ANSWER_CHARS:
            numbers = ngrams.numbers(view.summary)
            answer = numbers[0] if len(numbers) == 1 else view.summary
        if answer is None:
            return None
        wanted, written = set(ngrams.numbers(answer)), set(ngrams.numbers(view.reasoning))
        if result:
            first, second = number.parse_in_prose(answer), number.parse_in_prose(result)
            agrees = _plain(answer) == _plain(result)
            if first is not None and second is not None:
                agrees = number.equal(first, second)
        elif wanted:
            agrees = not written or wanted <= written
        else:
            agrees = _plain(answer) in _plain(view.reasoning)
        if agrees:
            return None
        difference = f"comes to {result[:80]!r}" if result else "does not come to it"
        detail = f"the summary says {answer[:80]!r}, the reasoning {difference}"
        return Rejection(reason="summary not faithful", detail=detail, example=excerpt(view.summary))

    return unfaithful_summary


def _plain(text: str) -> str:
    return "".join(normalise(text).split())


def get_not_correct(*, verdicts: Sequence[str] = (), keep_unknown: bool = False) -> Filter:
    """Drop samples that any verdict calls wrong or that no verdict calls right.

    Reads the named verdicts, or all of them. `keep_unknown` keeps samples without a known verdict.
    """

    def not_correct(view: View) -> Rejection | None:
        every = view.sample.verdicts
        judged = {name: every[name] for name in (verdicts or every) if name in every}
        wrong = next((name for name, verdict in judged.items() if verdict.correct is False), None)
        if wrong is not None:
            return Rejection(reason="wrong", detail=f"{wrong}: {judged[wrong].detail}", example=excerpt(view.response))
        if keep_unknown or any(verdict.correct for verdict in judged.values()):
            return None
        reason = "cannot tell" if judged else "no verdict"
        return Rejection(reason=reason, detail=", ".join(judged), example=excerpt(view.response))

    return not_correct


def get_low_score(*, part: str, min_score: float, keep_unknown: bool = False) -> Filter:
    """Drop samples whose score (a name in the row's `scores`) is below `min_score`, or missing."""

    def low_score(view: View) -> Rejection | None:
        score = view.sample.scores.get(part)
        if score is None:
            return None if keep_unknown else Rejection(reason=f"no score for {part}", example=excerpt(view.response))
        if score >= min_score:
            return None
        detail = f"{score:.3g}, at least {min_score:g}"
        return Rejection(reason=f"low {part}", detail=detail, example=excerpt(view.response))

    return low_score
