r"""Mathematical answers: exact text, then exact numbers, then the answer's form, then algebra in a killable process.

Equality is mathematical: for the reference `4`, `2+2` is right too. Where a task's prompt already shows the expression
to be computed, `number` is the verifier: numbers, alone or as `x = 4` and `2 + 2 = 4`. An answer must commit: "5 or 6",
"not 5", "x > 5" and an equation that does not hold are wrong for 5, and `[0,1]` is wrong for `(0,1)`.
Values must be exact: 3.14 is not pi, 0.333 is not 1/3. A unit may be left out, a wrong one is wrong, and 50 mm is 5 cm.

What counts as wrong and what as "cannot tell" (None):

- An answer that no parser reads, that is too long or too deep, or on which algebra raises an error *is wrong*: but only
  after the same process found the reference equal to itself once more. If that fails too, the library is broken: None.
- An answer that uses up its processor time is wrong, since processor time does not depend on what else the machine
  does. Where wall-clock time runs out first, the processor time until then decides: an answer that used far more than
  any honest one needs is wrong, else the verdict is None, since the machine was too busy to tell. In a batch, where
  nobody waits for one verdict, that limit is wider.
- Whatever goes wrong with the reference is None: it does not parse, or uses up its time, whatever was answered.
- A worker that dies (killed, crashed) is replaced and the question asked again; the second death is None.

A verifier that breaks gives the outcome "failed", which is never cached and never scored as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache

from r1kit.types import Verdict
from r1kit.verifiers import extract, number, spelling, units
from r1kit.verifiers.choice import choice
from r1kit.verifiers.math import shapes
from r1kit.verifiers.math.comparison import Ask, Comparison, Unknown, need
from r1kit.verifiers.math.expressions import explosive, expression, formulas
from r1kit.verifiers.math.readings import LETTER_IN_TEXT, WRAPPED, base, known_symbol, letter, tidy, wording
from r1kit.verifiers.math.shapes import Equation, Group, Matrix, Scalar, Shape
from r1kit.verifiers.workers import PATIENT_SECONDS, WALL_SECONDS, OutOfTime, WorkerError, pool

SECONDS = 1.0  # processor time for the reference, and again for the prediction: a typical one takes 0.01
_MAX_REFERENCE_CHARS = 2048
_MAX_SPELLED_CHARS = 2 * extract.MAX_ANSWER_CHARS  # a character like ½ is many in LaTeX
_MAX_DEPTH = 30
_WORKER = "r1kit.verifiers.math.worker"
_CLOCK_OR_DATE = re.compile(r"\d\s*:\s*\d|\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b")
_SHORT_WORD = re.compile(r"[A-Z][a-z]{2}|(?i:yes|no|odd)")  # words, not products of variables
_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_BRACES = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}")
_wall_seconds: ContextVar[float] = ContextVar("wall_seconds", default=WALL_SECONDS)


class _NotYet(Exception):
    """The verdict needs a worker."""


def verify_math(response: str, reference: str) -> Verdict:
    """Judge one response. An unusable reference gives None whatever was answered, so `""` checks a reference."""
    return judge(extract.extract(response), extract.reference(reference))


def verify_math_batch(responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """As `verify_math` for each pair; what needs a worker is spread over all of them, equal pairs once."""
    pairs = [
        (extract.extract(response), extract.reference(reference))
        for response, reference in zip(responses, references, strict=True)
    ]
    settled = {pair: quick(*pair) for pair in dict.fromkeys(pairs)}
    slow = [pair for pair, verdict in settled.items() if verdict is None]
    judged: dict[tuple[str | None, str], Verdict] = {}
    if slow:
        with ThreadPoolExecutor(min(len(slow), pool(_WORKER, seconds=SECONDS).size)) as threads:
            judged.update(
                zip(slow, threads.map(lambda pair: _judge(pair[0], pair[1], _ask_patiently), slow), strict=True)
            )
    return [settled[pair] or judged[pair] for pair in pairs]


def judge(prediction: str | None, reference: str) -> Verdict:
    """Judge an answer that was already extracted (None: there is none)."""
    return _judge(prediction, reference, _ask)


def quick(prediction: str | None, reference: str) -> Verdict | None:
    """The verdict where no worker is needed for it, else None."""
    try:
        return _judge(prediction, reference, _not_yet)
    except _NotYet:
        return None


def _judge(prediction: str | None, reference: str, ask: Ask) -> Verdict:
    shown = prediction if prediction is None else prediction[: extract.MAX_ANSWER_CHARS]
    try:
        correct, detail = _compare(prediction, reference, ask)
        return Verdict.of(correct, extracted=shown, detail=detail)
    except Unknown as reason:
        return Verdict(outcome="unknown", extracted=shown, detail=str(reason))
    except WorkerError as error:
        return Verdict.failed(str(error), extracted=shown)


def _compare(prediction: str | None, reference: str, ask: Ask) -> tuple[bool, str]:
    if not reference.strip():
        raise Unknown("the reference is empty")
    if prediction == reference:
        return True, "same text"
    if len(reference) > _MAX_REFERENCE_CHARS:
        raise Unknown(f"the reference is longer than {_MAX_REFERENCE_CHARS} characters")
    if prediction is not None and len(prediction) <= len(reference) + 8 and tidy(prediction) == tidy(reference):
        return True, "same text"
    expected = number.parse(reference)
    if expected is None and _depth(reference) > _MAX_DEPTH:
        raise Unknown(f"the reference has brackets nested deeper than {_MAX_DEPTH}")
    target = None if expected is not None else _target(reference)
    if target is not None:
        _usable(target, ask)
    refused = _refused(prediction)
    if refused is not None or prediction is None:
        return False, refused or ""
    if expected is not None:
        given = number.parse_in_prose(prediction)
        if given is not None:
            same = number.equal(given, expected)
            return same, "equal as numbers" if same else "different numbers"
        target = Scalar(reference)
    if isinstance(target, str):
        same = wording(prediction) == target
        return same, "same words" if same else "different words"
    assert target is not None
    if isinstance(target, Scalar) and (wanted := letter(target.text)):
        chosen = choice(LETTER_IN_TEXT.sub(r"\1", spelling.characters(prediction)))
        return chosen == wanted, f"chose {chosen}"
    return Comparison(ask).answer(prediction, target)


def _target(reference: str) -> Shape | str:
    """A reference as what it is compared as: its words, where it is text, else its shape."""
    text = spelling.plain(reference)
    if _SHORT_WORD.fullmatch(WRAPPED.sub(r"\1", text).strip()):
        return wording(text)
    if _CLOCK_OR_DATE.search(spelling.undressed(text)) and number.parse(text) is None:
        return wording(text)
    words = WRAPPED.sub(r" \1 ", text)
    if number.of_reference(text) is None or not text[:1].isdigit():
        bare = text if WRAPPED.search(text) is None else words
        if (
            _PLAIN_WORD.search(re.sub(r"\\[A-Za-z]+", " ", bare))
            and re.fullmatch(r"[A-Za-z][A-Za-z0-9 ,.'()/-]*", words.strip())
            and units.split(text)[1] is units.NO_UNIT
            and expression(text) is None
        ):
            return wording(text)
    return shapes.parse(formulas(text) or text)


def _usable(target: Shape | str, ask: Ask) -> None:
    """Raise `Unknown` where a part of the reference cannot serve."""
    match target:
        case Scalar(text):
            if not (number.of_reference(text) or known_symbol(text) or base(text)):
                core = units.split(text)[0]
                if _PLAIN_WORD.search(_BRACES.sub(" ", core)) and expression(core) is None:
                    raise Unknown("the reference is prose, neither a number nor an expression")
                need(ask(None, core, "value"))
        case Group(items=items):
            for item in items:
                _usable(item, ask)
        case Matrix(rows):
            for row in rows:
                for item in row:
                    _usable(item, ask)
        case Equation(name, sides):
            if name is None:
                need(ask(None, "=".join(sides), "equation"))
            else:
                _usable(shapes.parse(sides[-1]), ask)


def _not_yet(prediction: str | None, reference: str, kind: str) -> Verdict:
    raise _NotYet


def _ask(prediction: str | None, reference: str, kind: str) -> Verdict:
    """The worker's verdict, cached: both texts are short here, whatever was answered."""
    if prediction is None and explosive(reference):
        return Verdict(outcome="unknown", detail="the reference holds a number that is too large to compute")
    return _asked(prediction, expression(reference) or reference if prediction is None else reference, kind)


def _ask_patiently(prediction: str | None, reference: str, kind: str) -> Verdict:
    before = _wall_seconds.set(PATIENT_SECONDS)
    try:
        return _ask(prediction, reference, kind)
    finally:
        _wall_seconds.reset(before)


@lru_cache(maxsize=32768)
def _asked(prediction: str | None, reference: str, kind: str) -> Verdict:
    question = {"reference": reference, "prediction": prediction, "kind": kind}
    try:
        replies = pool(_WORKER, seconds=SECONDS).ask(question, 1 if prediction is None else 2, _wall_seconds.get())
    except OutOfTime as out:  # or most of it on a machine that is too busy to give it the rest
        if out.replies:
            return Verdict(outcome="wrong", detail=f"the answer takes too much processor time (limit: {SECONDS:g} s)")
        return Verdict(outcome="unknown", detail=f"the reference takes more than {SECONDS:g} s of processor time")
    if replies[0]["reference"] != "ok":
        return Verdict(outcome="unknown", detail=replies[0]["reference"])
    if prediction is None:
        return Verdict(outcome="wrong", detail="the reference is usable")
    return Verdict.of(replies[1]["correct"], detail=replies[1]["detail"])


def _refused(prediction: str | None) -> str | None:
    """Why an answer is not worth a parser's time."""
    if prediction is None:
        return "no answer found"
    if len(prediction) > extract.MAX_ANSWER_CHARS or len(spelling.characters(prediction)) > _MAX_SPELLED_CHARS:
        return f"the answer is longer than {extract.MAX_ANSWER_CHARS} characters"
    if _depth(prediction) > _MAX_DEPTH:
        return f"brackets nested deeper than {_MAX_DEPTH}"
    return None


def _depth(text: str) -> int:
    """The deepest nesting of brackets: parsers take exponential time on text that is nothing but brackets."""
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest
