"""Error rates of the verifier `math` on answers whose right verdict follows from how they were made.

    python benchmarks/metamorphic.py [--data DATA] [--pairs 20000] [--show 20]
    writes benchmarks/results/metamorphic.json

Each reference is spelled again in ways that keep its value, and mutated in ways that change it. References come from
the training sets of GSM8K and MATH in the folder DATA (default: $R1KIT_DATA), and from `shapes.txt`, the shapes that
olympiad problems ask for. References of a data set are also laid beside others of their type.

A re-spelling judged wrong is a false negative; a mutation or a neighbour judged right is a false positive. All
references of the sets are also tried alone; those that cannot be used are counted apart. Rates have 95 % Wilson
intervals. `--show` lists failures, for a human to judge.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from r1kit.conformance import Rate
from r1kit.types import Verdict
from r1kit.verifiers import verify_all

SHAPES = Path(__file__).parent / "shapes.txt"
SETS = {"GSM8K": ("gsm8k/train.jsonl.gz", "answer"), "MATH": ("math_train_answers/train.jsonl.gz", "answer")}
_HOLE = re.compile(r"«([^»:]+)(:,)?»")
_NUMBER = re.compile(r"(?<![\d.])\d+(?![\d.])")
_INTEGER = re.compile(r"-?\d+(?:,(?:\\!)?\d{3})*")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_MARKS = (("matrix", "matrix"), ("text", "text"), ("text", "mbox"), ("union", "\\cup"), ("interval", "\\infty"))
_MARKS += (("equation", "="), ("inequality", "\\le"), ("ratio", ":"))
_ROOT = r"\\sqrt\{?(\d+)\}?"
_SURD = re.compile(rf"(-?)(?:\\[dt]?frac\{{)?(\d+)?\s*(?:{_ROOT})?(?:\}}\{{(?:{_ROOT}|(\d+))\}})?")
_DRESS = re.compile(r"\\(?:left|right|!|,|;|\$|%)|[\s${}%^()]|[dt](?=frac)")
_NO_FORMULA = re.compile(r"\\math|%|\\\$|circ|\d_|[A-Z]|\|")
_PAIR = re.compile(r"(?:\\left)?\s*\(\s*([^(),]+),\s*([^(),]+?)\s*(?:\\right)?\s*\)")


@dataclass(frozen=True)
class Pair:
    """An answer to a reference; `right` says whether it has the same value."""

    source: str
    kind: str
    answer: str
    reference: str
    right: bool


# Shapes


def blocks(text: str) -> list[list[str]]:
    """The blocks of `shapes.txt`, each a reference with its kind and then answers with their signs."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [block.splitlines() for block in "\n".join(lines).strip("\n").split("\n\n")]


def from_shapes(rng: random.Random, count: int) -> list[Pair]:
    """At least `count` pairs; each round draws new values for every shape."""
    shapes, pairs = blocks(SHAPES.read_text(encoding="utf-8")), list[Pair]()
    while len(pairs) < count:
        for block in shapes:
            values = draw(rng)
            kind, _, reference = filled(block[0], values).partition(": ")
            pairs += [
                Pair("shapes", kind, answer[2:], reference, answer[0] == "=")
                for answer in (filled(line, values) for line in block[1:])
            ]
    return pairs


def draw(rng: random.Random) -> dict[str, int]:
    """Values for the names in `shapes.txt`."""
    a, b, c, d = sorted(rng.sample(range(2, 61), 4))
    p, q = rng.choice([(p, q) for q in range(3, 20) for p in range(2, q) if math.gcd(p, q) == 1])
    k, m = rng.sample(range(2, 10), 2)
    s, t = sorted(rng.sample((2, 3, 5, 6, 7, 10, 11, 13, 14, 15), 2))
    return {"a": a, "b": b, "c": c, "d": d, "p": p, "q": q, "k": k, "m": m, "s": s, "t": t}


def filled(template: str, values: dict[str, int]) -> str:
    """The template with the values of its expressions."""

    def value(hole: re.Match[str]) -> str:
        result = eval(hole[1], {"round": round}, dict(values))
        return f"{result:,}" if hole[2] else str(result)

    return _HOLE.sub(value, template).replace("+-", "-")


# Data sets


def from_set(name: str, answers: Sequence[str], rng: random.Random, count: int) -> list[Pair]:
    """At least `count` re-spellings, mutations and neighbours of the references of a data set."""
    groups = defaultdict(list)
    for answer in answers:
        groups[type_of(answer)].append(answer)
    pairs: list[Pair] = []
    while len(pairs) < count:
        answer = rng.choice(answers)
        group = groups[type_of(answer)]
        pairs += [Pair(name, f"re-spelled: {how}", text, answer, True) for how, text in respelled(answer, rng)]
        pairs += [Pair(name, f"mutated: {how}", text, answer, False) for how, text in mutated(answer, rng)]
        neighbours = [other for other in rng.sample(group, min(2, len(group))) if coarse(other) != coarse(answer)]
        pairs += [Pair(name, "neighbour", other, answer, False) for other in neighbours]
    return pairs


def type_of(text: str) -> str:
    """A rough type, independent of the verifier."""
    if number_of(text) is not None:
        return "number"
    for name, mark in _MARKS:
        if mark in text:
            return name
    if "," in text:
        return "tuple" if "(" in text else "list"
    return "expression" if re.search(r"(?<!\\)\b[a-z]\b", text) else "constant"


def number_of(text: str) -> Fraction | None:
    """The value of an integer, a fraction or a decimal."""
    text = text.strip().replace("\\!", "")
    if _INTEGER.fullmatch(text):
        return Fraction(text.replace(",", ""))
    if (fraction := _FRACTION.fullmatch(text)) and int(fraction[3]):
        return Fraction(int(fraction[1] + fraction[2]), int(fraction[3]))
    return Fraction(text) if re.fullmatch(r"-?\d*\.\d+", text) else None


def coarse(text: str) -> str:
    """A normal form that neighbours share if they may be equal."""
    value = number_of(text)
    if value is None and (surd := _SURD.fullmatch(text.strip())):  # -\frac{1}{\sqrt{2}} is -\frac{\sqrt{2}}{2}
        sign, factor, over, under, below = surd.groups()
        square = Fraction(int(factor or 1)) ** 2 * int(over or 1) / (int(under or 1) * int(below or 1) ** 2)
        return f"{sign}sqrt {square}"
    if "\\circ" in text or "\\pi" in text:
        return "an angle"
    return _DRESS.sub("", text) if value is None else str(value)


def respelled(text: str, rng: random.Random) -> list[tuple[str, str]]:
    """The same value in other spellings."""
    bare, kind = text.strip().rstrip("."), type_of(text)
    ways = [
        ("typesetting", f"${bare}$"),
        ("typesetting", f"\\ {bare}\\ "),
        ("typesetting", re.sub(r"\\frac(?=\{)", r"\\dfrac", bare)),
        ("typesetting", re.sub(r"\s*,\s*(?!\\!|\d{3}(?!\d))", ", ", bare)),
        ("sentence", f"The final answer is ${bare}$."),
    ]
    if "\\left" not in bare and kind != "text" and "\\!" not in bare and bare.count("(") == bare.count(")"):
        ways.append(("typesetting", bare.replace("(", "\\left( ").replace(")", " \\right)")))
    if (value := number_of(bare)) is not None:
        ways += [("number", way) for way in numbers(value, rng)]
    elif kind in ("constant", "expression") and not _NO_FORMULA.search(bare):
        ways.append(("expression", f"\\left({bare}\\right)"))
        ways.append(("expression", f"\\frac{{2\\left({bare}\\right)}}{{2}}"))
        ways.append(("expression", f"{bare} + 1 - 1"))
        ways.append(("expression", f"1 \\cdot \\left({bare}\\right)"))
        ways.append(("name", f"S_n = {bare}"))
    elif kind == "tuple" and (pair := _PAIR.fullmatch(bare)):
        ways += [("tuple", f"({pair[1]}, {pair[2]})"), ("tuple", f"x = {pair[1]}, y = {pair[2]}")]
    return rng.sample(ways, min(3, len(ways)))


def numbers(value: Fraction, rng: random.Random) -> list[str]:
    """A number in other forms."""
    top, bottom, k = value.numerator, value.denominator, rng.randint(2, 9)
    ways = [f"\\frac{{{k * top}}}{{{k * bottom}}}", f"{top}/{bottom}", f"x = {value}"]
    if bottom == 1:
        ways += [f"{top:,}", f"{top}.0", f"{top:,}".replace(",", "{,}"), f"{top:,}".replace(",", ",\\!")]
        ways += [f"{top - k} + {k} = {top}", f"m+n={top}", f"S_{{\\max}} = {top}"]
    elif top > bottom:
        ways.append(f"{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}")
    if 10**6 % bottom == 0 and abs(value) < 10**9:
        ways.append(str(float(value)))
    return ways


def mutated(text: str, rng: random.Random) -> list[tuple[str, str]]:
    """Other values that look alike; each way changes the value of every reference for which it is offered."""
    bare, kind, ways = text.strip(), type_of(text), list[tuple[str, str]]()
    literals = [match for match in _NUMBER.finditer(bare) if not _is_idle(bare, match)]
    if literals and "," not in bare:
        literal = rng.choice(literals)
        changed = int(literal[0]) + rng.choice((1, 2, 10))
        ways.append(("digit", f"{bare[: literal.start()]}{changed}{bare[literal.end() :]}"))
    if (value := number_of(bare)) is not None:
        ways.append(("near", str(value + rng.choice((-1, 1, Fraction(1, 7))))))
        ways.append(("hedge", f"{bare} \\text{{ or }} {value + 1}"))
        if value:
            ways += [("sign", bare[1:] if bare.startswith("-") else f"-{bare}"), ("scale", str(value * 10))]
            ways.append(("variable", f"{bare}x"))
        if abs(value) not in (0, 1):
            ways += [("power", f"\\left({bare}\\right)^2"), ("reciprocal", str(1 / value))]
    elif kind == "constant" and not _NO_FORMULA.search(bare):
        ways += [("near", f"{bare} + 1"), ("scale", f"2\\left({bare}\\right)")]
        ways.append(("variable", f"\\left({bare}\\right)x"))
    elif kind == "expression":
        ways += [("near", f"{bare} + 1"), ("equation", f"{bare} = 0"), ("derivative", f"\\left({bare}\\right)'")]
        letter = re.search(r"(?<!\\)\b[a-z]\b", bare)
        if letter and letter[0] not in "ei":
            ways.append(("letter", re.sub(rf"(?<!\\)\b{letter[0]}\b", "w", bare)))
    elif kind == "tuple" and (pair := _PAIR.fullmatch(bare)) and coarse(pair[1]) != coarse(pair[2]):
        ways += [("order", f"({pair[2]}, {pair[1]})"), ("brackets", f"[{pair[1]}, {pair[2]}]")]
        ways += [("fewer", pair[1]), ("more", f"({pair[1]}, {pair[2]}, 0)")]
    return rng.sample(ways, min(4, len(ways)))


def _is_idle(text: str, literal: re.Match[str]) -> bool:
    """Whether another number in this place may keep the value: a root or power of 0 or 1, a factor of 0."""
    context = text[max(0, literal.start() - 2) : literal.end() + 1]
    return literal[0] in ("0", "1") or bool(re.search(r"[\^_\[]", context) or re.search(r"(?<!\d)0(?!\d)", text))


# Measuring


def measure(pairs: Sequence[Pair], sets: dict[str, list[str]]) -> tuple[dict[str, dict[str, object]], list[Pair]]:
    """Rates by source and kind, and the pairs judged wrongly; `sets` are references that are tried alone."""
    responses, references = [f"\\boxed{{{pair.answer}}}" for pair in pairs], [pair.reference for pair in pairs]
    verdicts = judge(responses, references)
    judged, failed, failures = Counter[str](), Counter[str](), []
    usable = defaultdict(set)
    for pair, verdict in zip(pairs, verdicts, strict=True):
        usable[pair.reference].add(verdict.correct is not None)
        if verdict.correct is None:
            continue
        for name in (f"{pair.source} {pair.kind}", "right judged wrong" if pair.right else "wrong judged right"):
            judged[name] += 1
            failed[name] += verdict.correct is not pair.right
        if verdict.correct is not pair.right:
            failures.append(pair)
    judged["references usable for some answers only"] = len(usable)
    failed["references usable for some answers only"] = sum(len(outcomes) > 1 for outcomes in usable.values())
    for source, answers in sets.items():
        judged[f"unusable references of {source}"] = len(answers)
        alone = judge([""] * len(answers), answers)
        failed[f"unusable references of {source}"] = sum(verdict.correct is None for verdict in alone)
    return {name: asdict(Rate.among(failed[name], judged[name])) for name in sorted(judged)}, failures


def judge(responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """The verdicts of `math`; raises RuntimeError if the verifier failed, because rates without those pairs mislead."""
    verdicts = verify_all("math", responses, references)
    failed = [verdict.detail for verdict in verdicts if verdict.outcome == "failed"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(verdicts)} pairs were not judged: {failed[0]}")
    return verdicts


def load(data: Path) -> dict[str, list[str]]:
    """The references of the training sets by name."""
    sets = {}
    for name, (file, column) in SETS.items():
        with gzip.open(data / file, "rt", encoding="utf-8") as lines:
            answers = [str(json.loads(line)[column]).rpartition("####")[2].strip() for line in lines]
        sets[name] = [answer for answer in answers if answer]
    return sets


def make(seed: int, count: int, sets: dict[str, list[str]]) -> list[Pair]:
    """About `count` pairs, all different: half of them from shapes, the rest from the data sets if there are any."""
    rng = random.Random(seed)
    pairs = from_shapes(rng, count // 2 if sets else count)
    for name, answers in sets.items():
        pairs += from_set(name, answers, rng, count // 2 // len(sets))
    return list(dict.fromkeys(pairs))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("R1KIT_DATA"), help="folder of the data sets")
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, metavar="N", help="list up to N failures of each kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    sets = load(Path(options.data)) if options.data else {}
    pairs = make(options.seed, options.pairs, sets)
    start = time.perf_counter()
    rates, failures = measure(pairs, sets)
    seconds = time.perf_counter() - start
    for name, rate in rates.items():
        print(f"{name:44} {rate['count']:5} of {rate['of']:6}  {rate['low'] or 0.0:.3%} to {rate['high'] or 0.0:.3%}")
    print(f"{len(pairs)} pairs in {seconds:.0f} s")
    shown = Counter[tuple[str, str, bool]]()
    for pair in failures:
        shown[key := (pair.source, pair.kind, pair.right)] += 1
        if shown[key] <= options.show:
            verdict = "right judged wrong" if pair.right else "WRONG JUDGED RIGHT"
            print(f"{verdict} | {pair.source} {pair.kind} | {pair.answer} | {pair.reference}")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "metamorphic.json"
    file.write_text(json.dumps({"pairs": len(pairs), "seconds": seconds, "rates": rates}, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
