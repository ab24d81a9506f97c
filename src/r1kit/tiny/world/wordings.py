"""Wordings of the problems, several each, in English and Chinese, with a small vocabulary."""

from __future__ import annotations

import random
from collections.abc import Sequence

SUMS = {
    "en": ("what is {}?", "find {}.", "{}=?", "add up {}.", "how much is {}?"),
    "zh": ("{}等于多少？", "算一算：{}", "求{}。", "{}=？", "{}是多少？"),
}
COMPARE = {
    "en": ("which is the {} of {}?", "find the {}: {}", "{} of {}?", "what is the {} number: {}?"),
    "zh": ("{1}中最{0}的是多少？", "找最{0}的数：{1}", "求最{0}：{1}", "最{0}的是？{1}"),
}
EXTREMES: dict[str, dict[bool, tuple[str, ...]]] = {
    "en": {True: ("largest", "biggest"), False: ("smallest", "least")},
    "zh": {True: ("大",), False: ("小",)},
}
COUNT = {
    "en": ("how many of {} are {} {}?", "count the numbers {1} {2}: {0}", "{}: how many are {} {}?"),
    "zh": ("{}中{}{}的有几个？", "数一数{1}{2}的数：{0}", "{}，几个{}{}？"),
}
BOUNDS: dict[str, dict[bool, tuple[str, ...]]] = {
    "en": {True: ("above", "over"), False: ("below", "under")},
    "zh": {True: ("大于",), False: ("小于",)},
}
NAMES = {"en": ("tom", "ann", "ben", "mia", "sam", "leo", "amy", "lily"), "zh": ("小明", "小红", "小华", "小花")}
THINGS = {"en": ("pens", "eggs", "cups", "books", "balls", "coins", "apples"), "zh": ("球", "书", "笔", "杯", "花")}
GAINS = {"en": ("gets", "buys", "finds", "wins"), "zh": ("得", "买", "找")}
LOSSES = {"en": ("loses", "gives", "sells", "drops"), "zh": ("丢", "给", "卖")}


def _listed(rng: random.Random, numbers: Sequence[int]) -> str:
    return rng.choice((" ", ", ")).join(map(str, numbers))


def sums_question(rng: random.Random, language: str, expression: str) -> str:
    return rng.choice(SUMS[language]).format(expression)


def compare_question(rng: random.Random, language: str, numbers: Sequence[int], largest: bool) -> str:
    return rng.choice(COMPARE[language]).format(rng.choice(EXTREMES[language][largest]), _listed(rng, numbers))


def count_question(rng: random.Random, language: str, digits: Sequence[int], bound: int, above: bool) -> str:
    return rng.choice(COUNT[language]).format(_listed(rng, digits), rng.choice(BOUNDS[language][above]), bound)


def story_question(rng: random.Random, language: str, start: int, changes: Sequence[int]) -> str:
    """One person who has some things, then gains and loses some."""
    name, thing = rng.choice(NAMES[language]), rng.choice(THINGS[language])
    verbs = [rng.choice((GAINS if change > 0 else LOSSES)[language]) for change in changes]
    if language == "zh":
        acts = "，".join(f"{verb}{abs(change)}个" for verb, change in zip(verbs, changes, strict=True))
        return f"{name}有{start}个{thing}，{acts}。现在有几个？"
    acts = ", ".join(f"{verb} {abs(change)}" for verb, change in zip(verbs, changes, strict=True))
    ask = rng.choice(("how many now?", f"how many {thing} now?", "how many are left?"))
    return f"{name} has {start} {thing}, {acts}. {ask}"


def pair_question(rng: random.Random, language: str, start: int, difference: int, gain: int) -> str:
    """Two people; the second has more or fewer than the first. Then they gain some together."""
    first, second = rng.sample(NAMES[language], 2)
    thing, size = rng.choice(THINGS[language]), abs(difference)
    if language == "zh":
        than = f"{second}{'多' if difference > 0 else '少'}{size}个"
        return f"{first}有{start}个{thing}，{than}，再买{gain}个。一共几个？"
    than = f"{second} has {size} {'more' if difference > 0 else 'fewer'}"
    return f"{first} has {start} {thing}, {than}, they buy {gain}. how many in all?"


def cups_question(rng: random.Random, language: str, start: int, pairs: Sequence[tuple[int, int]]) -> str:
    if language == "zh":
        swaps = "，".join(f"{first}和{second}" for first, second in pairs)
        return rng.choice(("球在{}号杯，换{}。球在几号？", "{}号杯有球，换{}。现在在几号？")).format(start, swaps)
    swaps = ", ".join(f"{first} and {second}" for first, second in pairs)
    form = rng.choice(("ball in cup {}. swap {}. where is it?", "ball in cup {}, swap {}. which cup now?"))
    return form.format(start, swaps)
