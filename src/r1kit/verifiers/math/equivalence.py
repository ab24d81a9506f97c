r"""The verifier `math`: compares text, then exact numbers, then shapes, then algebra in a worker process.

Equality is mathematical: for the reference `4`, `2+2` is right too. If a task's prompt already shows the expression to
compute, use `number` instead, which accepts only numbers, alone or as in `x = 4` and `2 + 2 = 4`. An answer must
commit: "5 or 6", "not 5", "x > 5" and an equation that does not hold are wrong for 5, and `[0,1]` is wrong for `(0,1)`.
Values must be exact: 3.14 is not pi, 0.333 is not 1/3. A unit may be left out; a different unit is wrong, but 50 mm is
5 cm.

Wrong, unknown or failed:

- An answer is wrong if the parser cannot read it, if it is too long or too deeply nested, or if algebra raises an error
  on it. In the last case, the same process must then still find the reference equal to itself; otherwise the library is
  broken, and the verdict is "failed".
- An answer that uses up its processor time is wrong: processor time does not depend on the load of the machine. If the
  wall-clock time runs out first, the answer is wrong if it had used far more processor time than an honest one needs.
  Otherwise the machine was too busy, and the verdict is "failed". Batches have a longer wall-clock limit.
- If the reference does not parse or uses up its processor time, the verdict is "unknown", whatever the answer.
- If a worker dies, a new one is asked once more. If that dies too, the verdict is "failed".

"unknown" and "failed" are never scored as wrong; a failure is never cached.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache
from itertools import chain

from r1kit.types import Verdict
from r1kit.verifiers import extract, number, spelling, units
from r1kit.verifiers.choice import choice
from r1kit.verifiers.math import shapes
from r1kit.verifiers.math.comparison import Ask, Comparison, Unknown, need
from r1kit.verifiers.math.expressions import explosive, expression, formulas
from r1kit.verifiers.math.readings import LETTER_IN_TEXT, WRAPPED, base, known_symbol, letter, tidy, wording
from r1kit.verifiers.math.shapes import Equation, Group, Matrix, Scalar, Shape
from r1kit.verifiers.workers import PATIENT_SECONDS, WALL_SECONDS, OutOfTime, WorkerError, pool

SECONDS = 1.0  # processor time for the reference, and again for the prediction; typical ones take 0.01
_MAX_REFERENCE_CHARS = 2048
_MAX_SPELLED_CHARS = 2 * extract.MAX_ANSWER_CHARS  # a character like ½ becomes many in LaTeX
_MAX_DEPTH = 30
_WORKER = "r1kit.verifiers.math.worker"
_CLOCK_OR_DATE = re.compile(r"\d\s*:\s*\d|\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b")
_SHORT_WORD = re.compile(r"[A-Z][a-z]{2}|(?i:yes|no|odd)")  # words, not products of variables
_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_BRACES = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}")
_wall_seconds: ContextVar[float] = ContextVar("wall_seconds", default=WALL_SECONDS)


class _NeedsWorker(Exception):
    """The verdict needs a worker."""


def verify_math(response: str, reference: str) -> Verdict:
    """Judge one response. The empty response checks a reference: an unusable one gives "unknown" for any response."""
    return judge_answer(extract.extract(response), extract.reference(reference))


def verify_math_batch(responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """As `verify_math` for each pair; pairs that need a worker run in parallel, equal pairs only once."""
    pairs = [
        (extract.extract(response), extract.reference(reference))
        for response, reference in zip(responses, references, strict=True)
    ]
    settled = {pair: quick(*pair) for pair in dict.fromkeys(pairs)}
    slow = [pair for pair, verdict in settled.items() if verdict is None]
    judged: dict[tuple[str | None, str], Verdict] = {}
    if slow:
        size = min(len(slow), pool(_WORKER, seconds=SECONDS).size)
        with ThreadPoolExecutor(size, initializer=_wall_seconds.set, initargs=(PATIENT_SECONDS,)) as threads:
            judged.update(zip(slow, threads.map(lambda pair: judge_answer(*pair), slow), strict=True))
    return [settled[pair] or judged[pair] for pair in pairs]


def judge_answer(prediction: str | None, reference: str) -> Verdict:
    """Judge an extracted answer; None if there is none."""
    return _judge(prediction, reference, _ask)


def quick(prediction: str | None, reference: str) -> Verdict | None:
    """The verdict, or None if it needs a worker."""

    def refuse(*_: str | None) -> Verdict:
        raise _NeedsWorker

    try:
        return _judge(prediction, reference, refuse)
    except _NeedsWorker:
        return None


def _judge(prediction: str | None, reference: str, ask: Ask) -> Verdict:
    extracted = prediction if prediction is None else prediction[: extract.MAX_ANSWER_CHARS]
    try:
        correct, detail = _compare(prediction, reference, ask)
        return Verdict.of(correct, extracted=extracted, detail=detail)
    except Unknown as reason:
        return Verdict(outcome="unknown", extracted=extracted, detail=str(reason))
    except WorkerError as error:
        return Verdict.failed(str(error), extracted=extracted)


def _compare(prediction: str | None, reference: str, ask: Ask) -> tuple[bool, str]:
    if not reference.strip():
        raise Unknown("the reference is empty")
    if prediction == reference:
        return True, "same text"
    if len(reference) > _MAX_REFERENCE_CHARS:
        raise Unknown(f"the reference is longer than {_MAX_REFERENCE_CHARS} characters")
    if prediction is not None and len(prediction) <= len(reference) + 8 and tidy(prediction) == tidy(reference):
        return True, "same text"
    expected = number.parse_number(reference)
    if expected is None and _depth(reference) > _MAX_DEPTH:
        raise Unknown(f"the reference has brackets nested deeper than {_MAX_DEPTH}")
    target = None if expected is not None else _target(reference)
    if target is not None:
        _usable(target, ask)
    if prediction is None:
        return False, "no answer found"
    if len(prediction) > extract.MAX_ANSWER_CHARS or len(spelling.characters(prediction)) > _MAX_SPELLED_CHARS:
        return False, f"the answer is longer than {extract.MAX_ANSWER_CHARS} characters"
    if _depth(prediction) > _MAX_DEPTH:
        return False, f"brackets nested deeper than {_MAX_DEPTH}"
    if expected is not None:
        if (value := number.parse_in_prose(prediction)) is not None:
            same = number.equal(value, expected)
            return same, "equal as numbers" if same else "different numbers"
        target = Scalar(reference)
    if isinstance(target, str):
        same = wording(prediction) == target
        return same, "same words" if same else "different words"
    assert target is not None
    if isinstance(target, Scalar) and (right_letter := letter(target.text)):
        chosen = choice(LETTER_IN_TEXT.sub(r"\1", spelling.characters(prediction)))
        return chosen == right_letter, f"chose {chosen}"
    return Comparison(ask).answer(prediction, target)


def _target(reference: str) -> Shape | str:
    """A reference in the form in which it is compared: normalised words if it is text, otherwise its shape."""
    text = spelling.plain(reference)
    if _SHORT_WORD.fullmatch(WRAPPED.sub(r"\1", text).strip()):
        return wording(text)
    if _CLOCK_OR_DATE.search(spelling.undressed(text)) and number.parse_number(text) is None:
        return wording(text)
    words = WRAPPED.sub(r" \1 ", text)
    if number.of_reference(text) is None or not text[:1].isdigit():
        bare = text if WRAPPED.search(text) is None else words
        if (
            _PLAIN_WORD.search(re.sub(r"\\[A-Za-z]+", " ", bare))
            and re.fullmatch(r"[A-Za-z][A-Za-z0-9 ,.'()/-]*", words.strip())
            and units.split_unit(text)[1] is units.NO_UNIT
            and expression(text) is None
        ):
            return wording(text)
    return shapes.parse_shape(formulas(text) or text)


def _usable(target: Shape | str, ask: Ask) -> None:
    """Raise `Unknown` if a part of the reference cannot be used."""
    match target:
        case Scalar(text):
            if not (number.of_reference(text) or known_symbol(text) or base(text)):
                core = units.split_unit(text)[0]
                if _PLAIN_WORD.search(_BRACES.sub(" ", core)) and expression(core) is None:
                    raise Unknown("the reference is prose, neither a number nor an expression")
                need(ask(None, core, "value"))
        case Group(items=items):
            for item in items:
                _usable(item, ask)
        case Matrix(rows):
            for item in chain.from_iterable(rows):
                _usable(item, ask)
        case Equation(name, sides):
            if name is None:
                need(ask(None, "=".join(sides), "equation"))
            else:
                _usable(shapes.parse_shape(sides[-1]), ask)


def _ask(prediction: str | None, reference: str, kind: str) -> Verdict:
    """The worker's verdict, cached; both texts are short at this point."""
    if prediction is None and explosive(reference):
        return Verdict(outcome="unknown", detail="the reference has a number that is too large to compute")
    return _ask_worker(prediction, expression(reference) or reference if prediction is None else reference, kind)


@lru_cache(maxsize=32768)
def _ask_worker(prediction: str | None, reference: str, kind: str) -> Verdict:
    question = {"reference": reference, "prediction": prediction, "kind": kind}
    try:
        replies = pool(_WORKER, seconds=SECONDS).ask(question, 1 if prediction is None else 2, _wall_seconds.get())
    except OutOfTime as out:  # or it used most of it, on a machine too busy to give it the rest
        if out.replies:
            return Verdict(outcome="wrong", detail=f"the answer takes too much processor time (limit: {SECONDS:g} s)")
        return Verdict(outcome="unknown", detail=f"the reference takes more than {SECONDS:g} s of processor time")
    if replies[0]["reference"] != "ok":
        return Verdict(outcome="unknown", detail=replies[0]["reference"])
    if prediction is None:
        return Verdict(outcome="wrong", detail="the reference is usable")
    return Verdict.of(replies[1]["correct"], detail=replies[1]["detail"])


def _depth(text: str) -> int:
    """The deepest nesting of brackets; parsers take exponential time on nested brackets."""
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest
