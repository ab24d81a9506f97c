r"""The verifier `math`: numbers and words at once, everything else in a worker process.

Both sides are parsed into one shape (`shapes`): a value, a tuple, a set, a region of numbers, an equation, a ratio, a
matrix, a family of solutions. Only equal shapes are compared (`comparison`), and values are computed (`evaluation`):
expressions at points, to 60 digits.

Equality is mathematical: for the reference `4`, `2+2` is right too. If a task's prompt already shows the expression to
compute, use `number` instead, which accepts only numbers, alone or as in `x = 4` and `2 + 2 = 4`. An answer must
commit: "5 or 6", "not 5", "x > 5" and an equation that does not hold are wrong for 5, and `[0,1]` is wrong for `(0,1)`.
Values must be exact: 3.14 is not pi, 0.333 is not 1/3. A unit may be left out; a different unit is wrong, but 50 mm is
5 cm.

Wrong, unknown or failed:

- An answer is wrong if it cannot be parsed or computed, and if it is too long or too deeply nested.
- An answer that uses up its processor time is wrong: processor time does not depend on the load of the machine. If the
  wall-clock time runs out first, the answer is wrong if it had used far more processor time than an honest one needs.
  Otherwise the machine was too busy, and the verdict is "failed". Batches have a longer wall-clock limit.
- If the reference cannot be parsed or computed, or uses up its processor time, the verdict is "unknown". The reference
  alone decides this, so it is the same for every answer but the reference's own text.
- If a worker dies or raises an error, a new one is asked once more. If that fails too, the verdict is "failed".

"unknown" and "failed" are never scored as wrong; a failure is never cached.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache, partial

from r1kit.types import Verdict
from r1kit.verifiers import extract, number, spelling, units
from r1kit.verifiers.choice import choice
from r1kit.verifiers.math.parser import Unreadable, parse
from r1kit.verifiers.math.readings import LETTER_IN_TEXT, WRAPPED, letter, tidy, wording
from r1kit.verifiers.math.shapes import REALS
from r1kit.verifiers.workers import PATIENT_SECONDS, WALL_SECONDS, OutOfTime, WorkerError, pool

SECONDS = 1.0  # processor time for the reference, and again for the prediction; typical ones take 0.01
_MAX_REFERENCE_CHARS = 2048
_MAX_SPELLED_CHARS = 2 * extract.MAX_ANSWER_CHARS  # a character like ½ becomes many in LaTeX
_MAX_DEPTH = 30
_WORKER = "r1kit.verifiers.math.worker"
_CLOCK_OR_DATE = re.compile(
    r"(?<![\d:])(?:\d{1,2}\s*:\s*0\d|0\d:[0-5]\d)(?![\d:])|\d:[0-5]\d\s*[AaPp]"  # 2:30 may be a ratio
    r"|\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b"
)
_SHORT_WORD = re.compile(r"[A-Z][a-z]{2}|(?i:yes|no|odd)")  # words, not products of variables
_PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_WORDING = re.compile(r"[A-Za-z][A-Za-z0-9 ,.'()/-]*")
_FOREIGN_WORDS = re.compile(r"(?=.*[^\W\d_a-zA-Z])[^\d\\=<>^_{}$+*/|]+", re.DOTALL)
_wall_seconds: ContextVar[float] = ContextVar("wall_seconds", default=WALL_SECONDS)


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
    verdict = quick(prediction, reference)
    try:
        return _ask_worker(prediction, reference) if verdict is None else verdict
    except WorkerError as error:
        return Verdict.failed(str(error), extracted=_shortened(prediction))


def quick(prediction: str | None, reference: str) -> Verdict | None:
    """The verdict, or None if it needs a worker."""
    try:
        decided = _decided(prediction, reference)
    except _Unusable as reason:
        return Verdict(outcome="unknown", extracted=_shortened(prediction), detail=str(reason))
    return None if decided is None else Verdict.of(decided[0], extracted=_shortened(prediction), detail=decided[1])


class _Unusable(Exception):
    """The reference cannot be used, for the reason in the message."""


def _decided(prediction: str | None, reference: str) -> tuple[bool, str] | None:
    """The verdict if numbers or words decide it; None if algebra must. A reference is checked before the answer."""
    if not reference.strip():
        raise _Unusable("the reference is empty")
    if prediction == reference:
        return True, "same text"
    if len(reference) > _MAX_REFERENCE_CHARS:
        raise _Unusable(f"the reference is longer than {_MAX_REFERENCE_CHARS} characters")
    expected = number.parse_number(reference)
    words = _words(reference) if expected is None else None
    right_letter = letter(spelling.plain(reference)) if expected is None else None
    if expected is None and words is None and right_letter is None:
        if _depth(reference) > _MAX_DEPTH:
            raise _Unusable(f"the reference has brackets nested deeper than {_MAX_DEPTH}")
        if _unfit(prediction) or prediction is None:
            return None  # whether the reference is usable comes first
        return (True, "same text") if tidy(prediction) == tidy(reference) else None
    if (fault := _unfit(prediction)) or prediction is None:
        return False, fault
    if expected is not None:
        value = number.parse_in_prose(prediction)
        return None if value is None else (number.equal(value, expected), "as numbers")
    if right_letter is not None:
        answer = LETTER_IN_TEXT.sub(r"\1", spelling.plain(prediction))
        chosen = None if answer in ("e", "i") else choice(answer)  # these two are numbers
        return chosen == right_letter, f"chose {chosen}"
    same = wording(prediction) == words
    return same, "same words" if same else "different words"


def _words(reference: str) -> str | None:
    """A reference that is text, as normalised words; None for mathematics."""
    text = spelling.plain(reference)
    bare = WRAPPED.sub(r" \1 ", text).strip()
    if REALS.fullmatch(bare):
        return None
    if _SHORT_WORD.fullmatch(bare) or _FOREIGN_WORDS.fullmatch(bare):
        return wording(text)
    if "=" not in text and _CLOCK_OR_DATE.search(spelling.undressed(text)) and number.parse_number(text) is None:
        return wording(text)
    if number.of_reference(text) is not None and text[:1].isdigit():
        return None
    is_phrase = _PLAIN_WORD.search(bare) and _WORDING.fullmatch(bare) and units.split_unit(text)[1] is units.NO_UNIT
    return wording(text) if is_phrase and not _is_formula(text) else None


def are_words(reference: str) -> bool:
    """Whether a reference is several words, which are compared as text."""
    return number.parse_number(reference) is None and " " in (_words(reference) or "")


def _is_formula(text: str) -> bool:
    try:
        return bool(parse(text))
    except Unreadable:
        return False


def _shortened(prediction: str | None) -> str | None:
    return prediction if prediction is None else prediction[: extract.MAX_ANSWER_CHARS]


def _unfit(prediction: str | None) -> str:
    """Why an answer is wrong whatever the reference is; "" if it is not."""
    if prediction is None:
        return "no answer found"
    if len(prediction) > extract.MAX_ANSWER_CHARS or len(spelling.characters(prediction)) > _MAX_SPELLED_CHARS:
        return f"the answer is longer than {extract.MAX_ANSWER_CHARS} characters"
    return f"brackets nested deeper than {_MAX_DEPTH}" if _depth(prediction) > _MAX_DEPTH else ""


@lru_cache(maxsize=32768)
def _ask_worker(prediction: str | None, reference: str) -> Verdict:
    """The worker's verdict."""
    fault = _unfit(prediction)
    answer = None if fault else prediction
    verdict = partial(Verdict, extracted=_shortened(prediction))
    question = {"reference": reference, "prediction": answer}
    try:
        replies = pool(_WORKER, seconds=SECONDS).ask(question, 1 if answer is None else 2, _wall_seconds.get())
    except OutOfTime as out:  # or it used most of it, on a machine too busy to give it the rest
        whose = "answer" if out.replies else "reference"
        detail = f"the {whose} takes more than {SECONDS:g} s of processor time"
        return verdict(outcome="wrong" if out.replies else "unknown", detail=detail)
    if replies[0]["reference"] != "ok":
        return verdict(outcome="unknown", detail=replies[0]["reference"])
    if fault:
        return verdict(outcome="wrong", detail=fault)
    return verdict(outcome="right" if replies[1]["correct"] else "wrong", detail=replies[1]["detail"])


def _depth(text: str) -> int:
    """The deepest nesting of brackets; parsers take exponential time on nested brackets."""
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest
