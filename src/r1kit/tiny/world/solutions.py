"""How people of the tiny world write solutions: step by step, in one language or two, right or wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from r1kit.tiny.problems import Item
from r1kit.tiny.world.steps import chain, slip

FIRST = {"en": ("first ", "", "ok, "), "zh": ("先算", "", "好，")}
NEXT = {"en": (", then ", ", next ", ", so "), "zh": ("，再算", "，然后", "，所以")}
CLOSING = {
    "en": ("so the answer is {}.", "so it is {}.", "the answer: {}.", "so {}."),
    "zh": ("所以是{}。", "答案是{}。", "所以答案是{}。", "是{}。"),
}
CHECK = {"en": (", check: {}, yes", ", wait, {}, yes"), "zh": ("，查：{}，对", "，等等，{}，对")}
CORRECTION = {"en": ", wait, no: {}", "zh": "，不对：{}"}
WRONG = {"bare": 0.25, "one language": 0.2, "mixed": 0.04}  # share of careful solutions that go wrong, by style


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Reasoning as written, the answer after it, and facts about both."""

    reasoning: str
    answer: int
    correct: bool
    sound: bool  # every step is present and right, and the answer follows from them
    checked: bool
    style: str


def solve(
    rng: random.Random, item: Item, *, wrong: bool, hasty: float = 0.0, style: str | None = None, check: float = 0.1
) -> Solution:
    """A solution of `item`, always correct unless `wrong` allows faults.

    A share `hasty` of the writers skips steps and mostly guesses. The others slip in a step, or write an answer that
    does not follow, at the rates in `WRONG`. Hasty writers use one language. Careful writers often use two, and those
    err least: a policy that learns to be careful thus learns to mix languages, as R1-Zero did (paper section 2.2.4).
    """
    hurried = rng.random() < hasty
    style = style or pick_style(rng, item.language, hurried=hurried)
    slips = wrong and rng.random() < WRONG.get(style, WRONG["one language"])
    fault = "hasty" if hurried else rng.choice(("slip", "unrelated")) if slips else ""
    truth = chain(item.start, item.steps)
    written, answer = truth, item.answer
    if fault == "slip":
        written = slip(rng, item.start, item.steps)
        answer = written[-1][1]
    elif fault == "unrelated":
        answer = nearby(rng, answer)
    elif fault == "hasty":
        written = truth[: rng.randint(1, max(1, len(truth) - 2))]
        answer = guess(rng, item)
    checked = not fault and rng.random() < check
    lines = [f"{text}{state}" for text, state in written]
    return Solution(
        reasoning=_with_check(rng, item, lines, style) if checked else join(rng, lines, style),
        answer=answer,
        correct=answer == item.answer,
        sound=not fault,
        checked=checked,
        style=style,
    )


def pick_style(rng: random.Random, language: str, *, hurried: bool = False) -> str:
    """Bare steps, the question's language, both languages, or the other language."""
    other = "zh" if language == "en" else "en"
    return rng.choices(("bare", language, "mixed", other), (50, 50, 0, 0) if hurried else (15, 31, 48, 6))[0]


def join(rng: random.Random, lines: Sequence[str], style: str) -> str:
    """The steps with connecting words; the mixed style changes its language from step to step."""
    if style == "bare":
        return ", ".join(lines)
    languages = [style] * len(lines)
    if style == "mixed":
        languages = [rng.choice(("en", "zh")) for _ in lines]
        if len(set(languages[1:])) < 2 and len(lines) > 2:
            languages[-1] = "en" if languages[1] == "zh" else "zh"
    text = rng.choice(FIRST[languages[0]]) + lines[0]
    link = {language: rng.choice(NEXT[language]) for language in NEXT}
    for line, language in zip(lines[1:], languages[1:], strict=True):
        text += link[language] + line
    return text


def _with_check(rng: random.Random, item: Item, lines: list[str], style: str) -> str:
    """The steps with a check of the last one, or with a slip that is corrected at once: seeds of reflection."""
    language = rng.choice(("en", "zh")) if style in ("mixed", "bare") else style
    if rng.random() < 0.6:
        return join(rng, lines, style) + rng.choice(CHECK[language]).format(lines[-1])
    place = rng.randrange(len(lines))
    before = item.start if place == 0 else chain(item.start, item.steps)[place - 1][1]
    slips = item.steps[place].slips(before)
    if slips:
        bad = f"{item.steps[place].write(before)}{rng.choice(slips)}"
        lines = [*lines[:place], bad + CORRECTION[language].format(lines[place]), *lines[place + 1 :]]
    return join(rng, lines, style)


def close(rng: random.Random, solution: Solution) -> str:
    """A sentence that states the answer, for reasoning of any style."""
    language = solution.style if solution.style in CLOSING else rng.choice(("en", "zh"))
    return rng.choice(CLOSING[language]).format(solution.answer)


def nearby(rng: random.Random, answer: int) -> int:
    """A wrong answer that looks like the right one."""
    return rng.choice([wrong for wrong in (answer - 2, answer - 1, answer + 1, answer + 2, answer + 10) if wrong >= 0])


def guess(rng: random.Random, item: Item) -> int:
    """The answer of somebody who did not work it out: wrong most of the time."""
    if rng.random() < 0.15:
        return item.answer
    states = [state for _, state in chain(item.start, item.steps)]
    return rng.choice([*[state for state in states if state != item.answer], nearby(rng, item.answer)])
