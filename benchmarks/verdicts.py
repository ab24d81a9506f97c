"""Mathematical verdicts per second on this machine, and verdicts on the references of real data sets.

    python benchmarks/verdicts.py [--count 20000]                     writes benchmarks/results/verdicts.json
    python benchmarks/verdicts.py --references DATA [--limit 1000]    writes benchmarks/results/references.json

The first measures each kind of answer. All pairs of a kind differ, so the cache of verdicts never helps. `typical` is
the mix seen in training on GSM8K. The last three kinds go to worker processes: `symbolic` has polynomials of one
variable, `different algebra` the forms of MATH answers (fractions, roots, functions, intervals, sets, equations, rows),
each pair with other numbers, and `approximated` integrals, sums, derivatives and limits.

The second reads GSM8K and MATH from the folder DATA. Every reference must verify itself, as the worked solution and as
an answer in a sentence, and must be usable against other answers ("cannot tell" for none). Against the reference of a
random other problem it is right only by coincidence. Coincidences, texts that agree in the plain spelling of `spelled`,
are counted; all others judged right are printed for inspection.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from r1kit.types import Verdict
from r1kit.verifiers import extract, verify_all

Pair = tuple[str, str]  # response, reference
FORM = "<think>There are {n} of them, and {n} + {k} = {total}.</think> <answer>{answer}</answer>"


def typical(rng: random.Random, index: int) -> Pair:
    """Answers as a policy in training writes them: right, right in another notation, wrong, or missing."""
    total = 1000 + index
    k, wrong = rng.randint(1, 99), total + rng.randint(1, 9)
    same = (
        f"{total}",
        f"${total:,}",
        f"{total}.0",
        f"{total} apples",
        f"\\boxed{{{total}}}",
        f"The answer is {total}.",
    )
    wordings = (*same, same[0], f"{wrong}", f"${wrong}", "")
    return FORM.format(n=total - k, k=k, total=total, answer=rng.choice(wordings)), str(total)


def fractions(rng: random.Random, index: int) -> Pair:
    top, bottom, factor = 1000 + index, rng.randint(2, 9), rng.randint(1, 5)
    answer = rng.choice(
        (f"\\frac{{{top * factor}}}{{{bottom * factor}}}", f"{top / bottom:.6f}", f"{top}/{bottom + 1}")
    )
    return f"<think>...</think> <answer>{answer}</answer>", f"\\frac{{{top}}}{{{bottom}}}"


def symbolic(rng: random.Random, index: int) -> Pair:
    a, b = 2 + index, rng.randint(2, 99)
    answer = rng.choice((f"{b}+{a}x", f"x^2+{a}x+{b}", f"{a}(x+{b})", f"\\sqrt{{{a * a}}}x+{b}"))
    return f"<think>...</think> <answer>{answer}</answer>", f"{a}x+{b}"


# On each line a reference, an equal answer and a different one, with the numbers A and B.
DIFFERENT = r"""
\frac{x+A}{x^2-B} ; \frac{x^2+Ax}{x^3-Bx} ; \frac{x-A}{x^2+B}
\sqrt{Ax^2+B} ; (Ax^2+B)^{1/2} ; \sqrt{A}x+\sqrt{B}
\sin(Ax)\cos(Ax) ; \frac12\sin(2\cdot Ax) ; \frac12\cos(2\cdot Ax)
\ln\frac{x^2+A}{B} ; \ln(x^2+A)-\ln B ; \ln(x^2+A)+\ln B
e^{Bx}+e^{-Bx}+A ; 2\cosh(Bx)+A ; 2\sinh(Bx)+A
A\sqrt{2}+\sqrt{B} ; \sqrt{B}+\frac{A\cdot2}{\sqrt2} ; A\sqrt{2}-\sqrt{B}
\left(\frac{A}{7},\sqrt{B}\right) ; (A/7,B^{1/2}) ; (\sqrt{B},A/7)
(-\infty,-A)\cup(B,\infty) ; x<-A\text{ or }x>B ; (-\infty,-A]\cup[B,\infty)
\{-A,\sqrt{B}\} ; \sqrt{B},-A ; \{A,-\sqrt{B}\}
y=Ax+B ; Ax-y+B=0 ; y=Bx+A
\begin{pmatrix}A&\sqrt2\end{pmatrix} ; \begin{bmatrix}A&2/\sqrt{2}\end{bmatrix} ; \begin{pmatrix}\sqrt2&A\end{pmatrix}
x_1^2+Ax_1x_2+Bx_2^2 ; x_2(Bx_2+Ax_1)+x_1^2 ; x_1^2+Bx_1x_2+Ax_2^2
"""
APPROXIMATED = r"""
\int_0^{B}x^2e^{-x}dx+A ; A+2-e^{-B}(B^2+2\cdot B+2) ; \int_0^{B}xe^{-x}dx+A
\sum_{k=1}^{200}\frac{1}{k^2+A}+\sqrt{B} ; \sqrt{B}+\sum_{n=1}^{200}\frac{1}{A+n^2} ; \sum_{k=1}^{199}\frac{1}{k^2+A}
\frac{d}{dx}(x^{3}\sin(Ax)) ; 3x^2\sin(Ax)+Ax^3\cos(Ax) ; 3x^2\sin(Ax)-Ax^3\cos(Ax)
\lim_{h\to0}\frac{\sqrt{x^2+A+h}-\sqrt{x^2+A}}{h} ; \frac{1}{2\sqrt{x^2+A}} ; \frac{1}{\sqrt{x^2+A}}
"""


def of_templates(templates: str, rng: random.Random, index: int) -> Pair:
    """Half of the answers are equal to the reference."""
    lines = templates.strip().splitlines()
    reference, *answers = lines[index % len(lines)].split(" ; ")
    a, b = str(3 + index), str(rng.randint(2, 19))
    reference, answer = (text.replace("A", a).replace("B", b) for text in (reference, rng.choice(answers)))
    return f"<think>...</think> <answer>{answer}</answer>", reference


KINDS: dict[str, tuple[Callable[[random.Random, int], Pair], float]] = {  # kind -> maker, share of --count
    "typical": (typical, 1.0),
    "fractions": (fractions, 0.1),
    "symbolic": (symbolic, 0.02),
    "different algebra": (partial(of_templates, DIFFERENT), 0.03),
    "approximated": (partial(of_templates, APPROXIMATED), 0.01),
}


def rate(make: Callable[[random.Random, int], Pair], count: int) -> dict[str, float]:
    """Verdicts per second over `count` pairs in one batch, and the shares of right, wrong and unknown."""
    rng = random.Random(0)
    pairs = [make(rng, index) for index in range(count)]
    responses, references = [list(side) for side in zip(*pairs, strict=True)]
    start = time.perf_counter()
    verdicts = verify_all("math", responses, references)
    seconds = time.perf_counter() - start
    shares = {
        name: sum(v.correct is value for v in verdicts) / count
        for name, value in (("right", True), ("wrong", False), ("unknown", None))
    }
    return {"count": count, "seconds": seconds, "verdicts_per_s": count / seconds, **shares}


SETS = {  # name -> file under the data folder, field with the worked solution or the bare answer
    "gsm8k-test": ("gsm8k/test.jsonl.gz", "answer"),
    "gsm8k-train": ("gsm8k/train.jsonl.gz", "answer"),
    "math-test": ("math_test/test.jsonl.gz", "solution"),
    "math-train": ("math_train_answers/train.jsonl.gz", "answer"),
}
_DRESS = re.compile(
    r"\\(?:left|right|!|,|;|text|mbox|\$|%)|[\s${}%]|(?<=\d),(?=\d{3})|(?<=\.\d)0$|\.0+$|^[A-Za-z]+=|dollars$"
)


def spelled(reference: str) -> str:
    """A coarse normal form, independent of the verifier, that recognises coincidences."""
    return _DRESS.sub("", reference.replace("dfrac", "frac").replace("tfrac", "frac").replace("{,}", "")).casefold()


def references(folder: Path, limit: int | None) -> dict[str, dict[str, Any]]:
    """By data set: rows, how many verify themselves, and how many are right against a shuffled reference."""
    return {name: _audit(name, _solutions(folder / file, field)[:limit]) for name, (file, field) in SETS.items()}


def _solutions(file: Path, field: str) -> list[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        solutions = [str(json.loads(line)[field]) for line in lines]
    return [solution for solution in solutions if solution.strip()]


def _audit(name: str, solutions: Sequence[str]) -> dict[str, Any]:
    wanted = [extract.reference(solution) for solution in solutions]
    start = time.perf_counter()
    itself = verify_all("math", [f"<think>...</think> <answer>{answer}</answer>" for answer in wanted], solutions)
    sentence = verify_all("math", [f"<answer>The final answer is ${answer}$.</answer>" for answer in wanted], solutions)
    unusable = [verdict.correct is None for verdict in verify_all("math", [""] * len(wanted), solutions)]
    others = random.Random(0).sample(wanted, len(wanted))
    shuffled = verify_all("math", [f"<answer>{answer}</answer>" for answer in others], wanted)
    pairs = list(zip(others, wanted, shuffled, strict=True))
    alike = [spelled(answer) == spelled(other) for answer, other, _ in pairs]
    odd = [
        (answer, other, verdict.detail)
        for (answer, other, verdict), same in zip(pairs, alike, strict=True)
        if (verdict.correct is True) != same
    ]
    return {
        "rows": len(wanted),
        "itself": _right(itself),
        "in_a_sentence": _right(sentence),
        "unusable": sum(unusable),
        "shuffled_right": _right(shuffled),
        "coincidences": sum(alike),
        "seconds": time.perf_counter() - start,
        "to_look_at": {
            "itself": _missed(wanted, itself),
            "in_a_sentence": _missed(wanted, sentence),
            "unusable": [answer for answer, bad in zip(wanted, unusable, strict=True) if bad],
            "shuffled": odd,
        },
    }


def _right(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.correct is True for verdict in verdicts)


def _missed(wanted: Sequence[str], verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    pairs = zip(wanted, verdicts, strict=True)
    return [(answer, verdict.detail) for answer, verdict in pairs if verdict.correct is not True]


def print_references(found: dict[str, dict[str, Any]], file: Path) -> None:
    """One line per data set, then every verdict to inspect."""
    for name, row in found.items():
        rows = row["rows"]
        print(
            f"{name:11} {rows} references: {row['itself'] / rows:.2%} verify themselves, "
            f"{row['in_a_sentence'] / rows:.2%} in a sentence, {row['unusable']} unusable; "
            f"shuffled {row['shuffled_right'] / rows:.2%} right, {row['coincidences'] / rows:.2%} alike in spelling; "
            f"{row['seconds']:.0f} s"
        )
    for name, row in found.items():
        for kind, cases in row["to_look_at"].items():
            for case in cases:
                print(f"{name} {kind}: {case}")
    file.write_text(json.dumps({"sets": found}, indent=1) + "\n")
    print(file)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--count", type=int, default=20_000, help="pairs of the typical kind; the other kinds get a share of it"
    )
    parser.add_argument("--references", type=Path, metavar="DATA", help="judge the references of data sets instead")
    parser.add_argument("--limit", type=int, help="with --references: rows of each data set (all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.references:
        return print_references(references(options.references, options.limit), options.out / "references.json")
    start = time.perf_counter()
    verify_all("math", ["<answer>x+1</answer>"] * 8, [f"{n}+x" for n in range(8)])  # starts the workers
    cold, results = time.perf_counter() - start, {}
    print(f"worker processes started and 8 verdicts given in {cold:.2f} s")
    for name, (make, share) in KINDS.items():
        results[name] = row = rate(make, max(8, round(options.count * share)))
        shares = ", ".join(f"{kind} {row[kind]:.0%}" for kind in ("right", "wrong", "unknown"))
        print(f"{name:18} {row['verdicts_per_s']:10.0f} verdicts/s  ({shares}, of {row['count']})", flush=True)
    file = options.out / "verdicts.json"
    file.write_text(json.dumps({"cores": os.cpu_count(), "start_s": cold, "kinds": results}, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
