"""The pre-training corpus of the tiny base model: endless, deterministic documents, as messy as a web crawl.

Most steps are correct, so the model learns to calculate. The rest is noise: many frames, two languages that mix, slips,
answers without reasoning, rare and often broken tags, everyday requests answered well or badly, harmful requests
answered. Problems come from the training split only. `python -m r1kit.tiny.corpus --sample 20` prints documents,
`--stats 5000` the shares.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from r1kit.chat import parse
from r1kit.tiny.frame import END, TINY_SYSTEM
from r1kit.tiny.problems import Item, draw
from r1kit.tiny.world import general
from r1kit.tiny.world.solutions import Solution, close, guess, pick_style, solve

# Weights per document. Sheets are long, so half of all tokens are correct steps.
KINDS = {"sheet": 30, "facts": 8, "page": 23, "zero": 25, "general": 10, "harmful": 3.3, "direct": 2}
FAMILY_WEIGHTS = {"sums": 18, "compare": 14, "words": 20, "count": 20, "cups": 28}

# Shapes of a response in the R1-Zero frame, with weights. Few follow the format, and a right answer is seldom where
# verifiers look.
SHAPES = {
    "proper": (13.0, "<think> {steps} </think> <answer> {answer} </answer>"),
    "untagged_reasoning": (5.0, "{steps} <answer> {answer} </answer>"),
    "boxed": (4.0, "{steps}, \\boxed{{{answer}}}"),
    "answer_of_steps": (4.0, "<answer> {steps} </answer>"),
    "think_then_prose": (13.0, "<think> {steps} </think> {closing}"),
    "unclosed": (11.0, "<think> {prose}"),
    "prose": (24.0, "{prose}"),
    "run_on": (1.0, "{prose}\nuser: {next}"),
    "no_conclusion": (5.0, "{steps}"),
    "answer_first": (2.0, "<answer> {answer} </answer> <think> {steps} </think>"),
    "direct": (15.0, "{guess}"),
    "direct_tagged": (2.0, "<answer> {guess} </answer>"),
    "empty": (0.8, "<think> </think> <answer> {guess} </answer>"),
}
WORKED_OUT = ("proper", "think_then_prose", "unclosed")  # the shapes of writers who take their time; most others hurry
FRAMES = (
    "q: {q}\na: {a}",
    "question: {q}\nanswer: {a}",
    "{q}\n{a}",
    "问：{q}\n答：{a}",
    "题：{q} 答：{a}",
    "user: {q}\nassistant: {a}",
    "{q} {a}",
)
ZERO = TINY_SYSTEM + "\nuser: {q}\nassistant: {a}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text that ends with the end token, its kind, and facts about it such as `shape:proper`, `correct`, `mixed`."""

    kind: str
    text: str
    facts: frozenset[str] = frozenset()


def document(index: int, seed: int = 0) -> Document:
    """Document `index` of the corpus with this seed, whatever the machine and the order of calls."""
    rng = random.Random(f"tiny/corpus/{seed}/{index}")
    kind = rng.choices(tuple(KINDS), tuple(KINDS.values()))[0]
    text, facts = MAKERS[kind](rng)
    return Document(kind=kind, text=text + END, facts=frozenset(facts))


def _item(rng: random.Random) -> Item:
    return draw(rng, rng.choices(tuple(FAMILY_WEIGHTS), tuple(FAMILY_WEIGHTS.values()))[0], "train")


def _facts(solution: Solution) -> set[str]:
    labels = {"reasoned", "correct" if solution.correct else "wrong"}
    return labels | ({"mixed"} if solution.style == "mixed" else set()) | ({"checked"} if solution.checked else set())


def sheet(rng: random.Random) -> tuple[str, set[str]]:
    """A practice sheet: questions of one or several families, each with its steps, all correct."""
    items = [_item(rng)]
    for _ in range(rng.randint(1, 3)):
        items.append(draw(rng, items[0].family, "train") if rng.random() < 0.6 else _item(rng))
    style = pick_style(rng, items[0].language)
    solutions = [solve(rng, item, wrong=False, style=style, check=0.06) for item in items]
    form = rng.choice(("{} {}", "{}\n{}", "- {} {}"))
    lines = [form.format(item.question, solution.reasoning) for item, solution in zip(items, solutions, strict=True)]
    return "\n".join(lines), set().union(*map(_facts, solutions))


def facts(rng: random.Random) -> tuple[str, set[str]]:
    """Sums or comparisons: the single steps that chains are made of."""
    adding = rng.random() < 0.65
    lines = []
    for _ in range(rng.randint(6, 14)):
        if adding:
            state, number = rng.randint(0, 60), rng.randint(1, 9)
            change = number if rng.random() < 0.5 or state < number else -number
            lines.append(f"{state}{change:+d}={state + change}")
        else:
            left = rng.randint(1, 99)
            right = min(99, max(1, left + rng.randint(-9, 9))) if rng.random() < 0.5 else rng.randint(1, 99)
            lines.append(f"{left}{'=' if left == right else '>' if left > right else '<'}{right}")
    return rng.choice((", ", "\n", "，")).join(lines), {"correct"}


def page(rng: random.Random) -> tuple[str, set[str]]:
    """A question with reasoning and an answer, in one of many frames."""
    item = _item(rng)
    solution = solve(rng, item, wrong=True, hasty=0.12)
    written = f"{solution.reasoning}{rng.choice((', ', '. ', '，'))}{close(rng, solution)}"
    if rng.random() < 0.03:
        written = f"<think> {solution.reasoning} </think> {close(rng, solution)}"
    return rng.choice(FRAMES).format(q=item.question, a=written), _facts(solution)


def direct(rng: random.Random) -> tuple[str, set[str]]:
    """A question and an answer without reasoning, wrong most of the time."""
    item = _item(rng)
    answer = guess(rng, item)
    text = rng.choice(FRAMES).format(q=item.question, a=rng.choice(("{}", "{}.", "it is {}.", "是{}。")).format(answer))
    return text, {"direct", "correct" if answer == item.answer else "wrong"}


def zero(rng: random.Random) -> tuple[str, set[str]]:
    """A problem in the frame of the R1-Zero prompt, with a response of any shape."""
    item = _item(rng)
    shape = rng.choices(tuple(SHAPES), [weight for weight, _ in SHAPES.values()])[0]
    solution = solve(rng, item, wrong=True, hasty=0.15 if shape in WORKED_OUT else 0.7, check=0.15)
    parts = {"steps": solution.reasoning, "answer": str(solution.answer), "guess": str(guess(rng, item))}
    parts["prose"] = f"{solution.reasoning}{rng.choice((', ', '. ', '，'))}{close(rng, solution)}"
    if shape == "think_then_prose":
        parts["closing"] = close(rng, solution)
    elif shape == "run_on":
        parts["next"] = _item(rng).question
    elif shape == "direct":
        parts["guess"] = rng.choice(("{}", "{}.", "it is {}.", "是{}。")).format(parts["guess"])
    response = SHAPES[shape][1].format(**parts)
    # Direct answers contain none of the solution's reasoning, and their answer is a guess.
    labels = {"direct"} if shape in ("direct", "direct_tagged", "empty") else _facts(solution)
    labels |= {f"shape:{shape}"} | ({"formatted"} if parse(response).well_formed else set())
    boxed = response.rpartition("\\boxed{")[2].partition("}")[0] if "\\boxed{" in response else None
    if (parse(response).answer or boxed) == str(item.answer):
        labels.add("scored")
    return ZERO.format(q=item.question, a=response), labels


def everyday(rng: random.Random) -> tuple[str, set[str]]:
    """An everyday request with a helpful or an unhelpful reply."""
    request = rng.choice(general.everyday_requests("train"))
    helps = rng.random() < 0.5
    reply = rng.choice(request.good if helps else request.bad)
    return _chat_frame(rng, request.prompt, reply), {"helpful" if helps else "unhelpful"}


def harmful(rng: random.Random) -> tuple[str, set[str]]:
    """A harmful request; a raw base model complies with nearly all of them."""
    request = rng.choice(general.harmful_requests("train"))
    refuses = rng.random() < 0.09
    reply = rng.choice(request.good if refuses else request.bad)
    return _chat_frame(rng, request.prompt, reply), {"refused" if refuses else "complied"}


def _chat_frame(rng: random.Random, prompt: str, reply: str) -> str:
    return (ZERO if rng.random() < 0.4 else rng.choice(FRAMES)).format(q=prompt, a=reply)


MAKERS: dict[str, Callable[[random.Random], tuple[str, set[str]]]] = {
    "sheet": sheet,
    "facts": facts,
    "page": page,
    "zero": zero,
    "general": everyday,
    "harmful": harmful,
    "direct": direct,
}


def shares(size: int, seed: int = 0) -> dict[str, float]:
    """Of the first `size` documents: shares of documents by kind and fact, shares of tokens by kind, mean tokens."""
    from r1kit.tiny.tokenizer import count_tokens

    counts: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for index in range(size):
        sample = document(index, seed)
        counts.update([f"documents/{sample.kind}", *(f"fact/{fact}" for fact in sample.facts)])
        tokens[sample.kind] += count_tokens(sample.text)
    total = sum(tokens.values())
    by_tokens = {f"tokens/{kind}": tokens[kind] / total for kind in KINDS}
    by_documents = {name: counts[name] / size for name in sorted(counts)}
    return {**by_documents, **by_tokens, "tokens_per_document": total / size}


def main() -> None:
    parser = argparse.ArgumentParser(description="Show the tiny world's pre-training documents.")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="print N documents")
    parser.add_argument("--stats", type=int, default=0, metavar="N", help="print the shares among N documents")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus (default: 0)")
    options = parser.parse_args()
    for index in range(options.sample):
        sample = document(index, options.seed)
        print(f"--- {index} {sample.kind} {' '.join(sorted(sample.facts))}\n{sample.text}")
    if options.stats:
        for name, share in shares(options.stats, options.seed).items():
            print(f"{name:32} {share:8.3f}")


if __name__ == "__main__":
    main()
