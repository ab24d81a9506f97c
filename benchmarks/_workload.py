"""The job and the result of one side of the comparison: plain data, passed as JSON."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.stages.shared.fitting import Fitting
from r1kit.tasks import Listed, Task, TaskSpec, load_task
from r1kit.types import Problem

HERE = Path(__file__).parent
LEARNING_RATE = 1e-6
MAX_PROMPT = 400  # tokens, for real word problems


def reward(completions: Sequence[str], **_: Any) -> list[float | None]:
    """A checksum of the text: cheap, the same on both sides, and almost never equal within a group.

    So no group has zero variance, and both sides train on every completion. Skipping such groups is measured by the
    ladder, not by the comparison.
    """
    return [zlib.crc32(text.encode()) % 1000 / 1000 for text in completions]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process's work: `warmup` + `steps` GRPO steps, of which the last `steps` are returned.

    `fixed` gives every completion exactly `max_tokens` tokens. `variant` and `batch` are TRL's configuration,
    `tokens_per_batch` and `max_rows` r1kit's.
    """

    model: str
    chat: dict[str, Any]
    problems: list[dict[str, Any]]
    prompts: int
    group: int
    max_tokens: int
    fixed: bool
    warmup: int
    steps: int
    seed: int
    threads: int
    tokens_per_batch: int
    max_rows: int
    variant: str = "t1"
    batch: int = 8

    @property
    def format(self) -> ChatFormat:
        return ChatFormat(**self.chat)

    @property
    def task(self) -> Listed:
        return Listed(name="benchmark", problems=tuple(Problem(**row) for row in self.problems))


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """One prompt's lengths in tokens; `trained` is False if all advantages are zero."""

    prompt: int
    lengths: list[int]
    trained: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """Wall-clock seconds of one GRPO step. `rollout_s` runs from prompts to advantages, `train_s` is the rest."""

    rollout_s: float
    train_s: float
    step_s: float
    groups: list[Rollouts] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Completion tokens."""
        return sum(sum(group.lengths) for group in self.groups)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One process's measurements. `peak_mb` is its largest resident set, libraries included."""

    steps: list[Step]
    peak_mb: float
    extra: dict[str, float] = field(default_factory=dict)


def peak_mb() -> float:
    """The largest resident set of this process in MB. On Linux, `ru_maxrss` would include the parent's before exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_side(script: str, job: Job) -> Result:
    """Run a side in a fresh process; raises RuntimeError with the last lines of its output if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        job_file, result = Path(folder) / "job.json", Path(folder) / "result.json"
        job_file.write_text(json.dumps(asdict(job)))
        done = subprocess.run(
            [sys.executable, str(HERE / script), str(job_file), str(result)],
            capture_output=True,
            text=True,
            env=os.environ | _environment(job.threads),
        )
        if done.returncode:
            raise RuntimeError(f"{script} failed:\n" + "\n".join(done.stderr.strip().splitlines()[-12:]))
        raw = json.loads(result.read_text())
    steps = [Step(**(row | {"groups": [Rollouts(**g) for g in row["groups"]]})) for row in raw["steps"]]
    if job.fixed and any(n != job.max_tokens for step in steps for g in step.groups for n in g.lengths):
        raise RuntimeError(
            f"{script} ({job.variant}) sampled completions that do not have exactly {job.max_tokens} tokens"
        )
    return Result(steps=steps, peak_mb=raw["peak_mb"], extra=raw["extra"])


def read_job(path: str) -> Job:
    return Job(**json.loads(Path(path).read_text()))


def write_result(path: str, result: Result) -> None:
    Path(path).write_text(json.dumps(asdict(result)))


def _environment(threads: int) -> dict[str, str]:
    """The same environment for both sides: threads, no tokenizer threads, no network."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
    }


def problems_for(model: str, tokenizer: Any, chat: ChatFormat, count: int) -> list[Problem]:
    """Problems with prompts of realistic length: the tiny world's, GSM8K's (with R1KIT_DATA), or generated ones."""
    if len(tokenizer) < 1000:
        task: Task = load_task(TaskSpec(name="tiny/reasoning", limit=count))
    elif os.environ.get("R1KIT_DATA"):
        task = load_task(TaskSpec(name="gsm8k", order="shuffled"))
    else:
        task = word_problems(count)
    reader = SimpleNamespace(tokenizer=tokenizer, context=10**6)
    fitting = Fitting(task, chat, reader, max_tokens=1, limit=MAX_PROMPT if len(tokenizer) >= 1000 else None)
    if len(fitting) < count:
        raise ValueError(
            f"only {len(fitting)} problems have prompts of at most {MAX_PROMPT} tokens, and {count} are needed: "
            "use a larger data set"
        )
    return fitting.problems[:count]


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


def word_problems(count: int) -> Listed:
    """Problems similar to GSM8K's in kind and length. The answers are placeholders: the reward ignores them."""
    problems = []
    for index in range(count):
        rng = random.Random(f"benchmark/{index}")
        a, b = rng.sample(NAMES, 2)
        x, y, z = rng.randint(12, 60) * 2, rng.randint(3, 12) * 2, rng.randint(2, 9)
        text = rng.choice(STORIES).format(a=a, b=b, t=rng.choice(THINGS), x=x, y=y, z=z)
        problems.append(Problem(id=f"made/{index}", prompt=text, answer="0"))
    return Listed(name="made", problems=tuple(problems))
