"""The work of one side of a comparison, its measurements, and the prompts and documents that all sides get."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.stages.shared.fitting import Fitting
from r1kit.tasks import Listed, Task, TaskSpec, load_task
from r1kit.types import Problem

LEARNING_RATE = 1e-6
TRAINER: dict[str, Any] = {  # settings of all of TRL's trainers
    "use_cpu": True,
    "gradient_checkpointing": False,
    "optim": "adamw_torch_fused",
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
MAX_PROMPT = 400  # tokens, for real word problems
TINY = 1000  # tokens: a smaller vocabulary is the tiny world's
WARM = 8  # tokens per completion of a repetition that warms up
TAIL = 8  # last tokens of a prompt whose log-probs the gate of generation compares


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """One prompt's lengths in tokens; `trained` is False if all advantages are zero."""

    prompt: int
    lengths: list[int]
    trained: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """One repetition of the work: wall-clock seconds of its phases, and the tokens that a rate counts."""

    seconds: dict[str, float]
    tokens: int
    groups: list[Rollouts] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One process's measurements. `peak_mb` is its largest resident set, libraries included."""

    steps: list[Step]
    peak_mb: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Work:
    """One process's work: `warmup` + `steps` repetitions, of which the last `steps` are returned.

    `variant` and `batch` configure a peer; `compute_dtype`, `tokens_per_batch` and `max_rows` are r1kit's.
    """

    model: str
    warmup: int
    steps: int
    seed: int
    threads: int
    compute_dtype: str = "auto"
    tokens_per_batch: int = 8192
    max_rows: int = 128
    variant: str = ""
    batch: int = 8

    def objection(self, result: Result) -> str:
        """Why the steps of a result are not those of this work; "" if they are."""
        return "" if len(result.steps) == self.steps else f"returned {len(result.steps)} steps, not {self.steps}"


@dataclass(frozen=True, kw_only=True)
class Generation(Work):
    """`group` completions of each prompt; with `fixed`, each has exactly `max_tokens` tokens."""

    group: int
    max_tokens: int
    fixed: bool = True
    prompt_ids: list[list[int]] = field(default_factory=list)
    end_ids: tuple[int, ...] = ()
    target: str = ""  # the folder of GGUF files

    def repetitions(self) -> Iterator[Generation]:
        """The work of each repetition: short ones to warm up, then whole ones, each with its own seed."""
        for index in range(self.warmup + self.steps):
            tokens = self.max_tokens if index >= self.warmup else min(WARM, self.max_tokens)
            yield replace(self, seed=self.seed + index, max_tokens=tokens)

    def step(self, seconds: float, lengths: list[list[int]]) -> Step:
        """The measurement of completions of these lengths, by prompt."""
        groups = [
            Rollouts(prompt=len(ids), lengths=row, trained=False)
            for ids, row in zip(self.prompt_ids, lengths, strict=True)
        ]
        return Step(seconds={"rollout": seconds}, tokens=sum(map(sum, lengths)), groups=groups)

    def objection(self, result: Result) -> str:
        lengths = {n for step in result.steps for group in step.groups for n in group.lengths}
        if self.fixed and lengths != {self.max_tokens}:
            return f"sampled completions of {sorted(lengths)} tokens, not of exactly {self.max_tokens}"
        return super().objection(result)


@dataclass(frozen=True, kw_only=True)
class Job(Generation):
    """GRPO steps of `prompts` x `group` completions."""

    chat: dict[str, Any]
    problems: list[Problem]
    prompts: int

    @property
    def format(self) -> ChatFormat:
        return ChatFormat(**self.chat)

    @property
    def task(self) -> Listed:
        return Listed(name="benchmark", problems=tuple(self.problems))


@dataclass(frozen=True, kw_only=True)
class Document:
    """Token ids, of which those after the first `prompt` are trained on."""

    token_ids: list[int]
    prompt: int

    @property
    def labels(self) -> list[int]:
        return [-100] * self.prompt + self.token_ids[self.prompt :]


@dataclass(frozen=True, kw_only=True)
class Training(Work):
    """Updates, each on all documents: so updates do the same work however a side packs them."""

    documents: list[Document]

    @property
    def tokens(self) -> int:
        return sum(len(document.token_ids) for document in self.documents)

    def objection(self, result: Result) -> str:
        seen = {step.tokens for step in result.steps}
        return super().objection(result) or ("" if seen == {self.tokens} else f"saw {seen} tokens, not {self.tokens}")


def reward(completions: Sequence[str], **_: Any) -> list[float | None]:
    """A checksum of the text: cheap, the same on both sides, and almost never equal within a group.

    So no group has zero variance, and both sides train on every completion. Skipping such groups is measured by the
    ladder, not by the comparison.
    """
    return [zlib.crc32(text.encode()) % 1000 / 1000 for text in completions]


def problems_for(tokenizer: Any, chat: ChatFormat, count: int) -> list[Problem]:
    """Problems with prompts of realistic length: the tiny world's, GSM8K's (with R1KIT_DATA), or generated ones."""
    if len(tokenizer) < TINY:
        task: Task = load_task(TaskSpec(name="tiny/reasoning", limit=count))
    elif os.environ.get("R1KIT_DATA"):
        task = load_task(TaskSpec(name="gsm8k", order="shuffled"))
    else:
        task = word_problems(count)
    reader = SimpleNamespace(tokenizer=tokenizer, context=10**6)
    fitting = Fitting(task, chat, reader, max_tokens=1, limit=MAX_PROMPT if len(tokenizer) >= TINY else None)
    if len(fitting) < count:
        raise ValueError(
            f"only {len(fitting)} problems have prompts of at most {MAX_PROMPT} tokens, and {count} are needed: "
            "use a larger data set"
        )
    return fitting.problems[:count]


def documents_for(tokenizer: Any, chat: ChatFormat, count: int) -> list[Document]:
    """Documents of real lengths: the tiny world's corpus, or problems with their worked solutions."""
    if len(tokenizer) < TINY:
        from r1kit.tiny.corpus import document

        texts = [document(index).text for index in range(count)]
        return [Document(token_ids=tokenizer.encode(text), prompt=0) for text in texts]
    documents = []
    for problem in problems_for(tokenizer, chat, count):
        prompt = chat.render(problem, tokenizer).token_ids
        solution = tokenizer.encode(problem.solution, add_special_tokens=False)
        documents.append(Document(token_ids=[*prompt, *solution, tokenizer.eos_token_id], prompt=len(prompt)))
    return documents


NAMES = ("Maya", "Tom", "Lin", "Omar", "Sofia", "Jack", "Nina", "Victor")
THINGS = ("apples", "stickers", "marbles", "pencils", "books", "shells", "coins", "cards")
STORIES = (
    "{a} has {x} {t}. {b} gives {a} {y} more {t}, and then {a} gives away half of what is there to a sister, who "
    "already has {z} {t}. How many {t} does the sister have now?",
    "A shop sells {t} in boxes of {y}. On Monday {a} buys {x} boxes, and on Tuesday {b} buys {z} boxes fewer than "
    "that. How many {t} do {a} and {b} have together if {a} loses {y} of them on the way home?",
    "{a} collects {t} every day for {y} days. On the first day {a} finds {x} of them, and on each later day {z} more "
    "than on the day before. {b} collects {x} {t} every day. How many more {t} than {b} does {a} have in the end?",
)
STEP = "Step {n}: {x} {t} and {y} more make {x} + {y} = {sum}, so {a} has {sum} {t} after that."


def word_problems(count: int) -> Listed:
    """Problems similar to GSM8K's in kind and length, with solutions of two to eight steps, as GSM8K's have.

    Questions, answers and solutions do not belong together: nothing reads them but the tokenizer.
    """
    problems = []
    for index in range(count):
        rng = random.Random(f"benchmark/{index}")
        a, b = rng.sample(NAMES, 2)
        x, y, z = rng.randint(12, 60) * 2, rng.randint(3, 12) * 2, rng.randint(2, 9)
        t = rng.choice(THINGS)
        text = rng.choice(STORIES).format(a=a, b=b, t=t, x=x, y=y, z=z)
        solution = " ".join(
            STEP.format(n=n, a=a, t=t, x=x + n, y=y, sum=x + y + n)
            for n in range(1, rng.choice((2, 3, 3, 4, 5, 8)) + 1)
        )
        problems.append(Problem(id=f"made/{index}", prompt=text, answer="0", solution=solution))
    return Listed(name="made", problems=tuple(problems))
