"""What the commands `eval`, `generate`, `chat`, `models` and `data check` do, free of argument parsing."""

from __future__ import annotations

import json
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from r1kit.chat import ChatFormat, parse
from r1kit.evaluate.metrics import Scored
from r1kit.evaluate.statistics import Summary, paired
from r1kit.evaluate.table import json_table, text_table
from r1kit.models.known import KNOWN, ModelError, resolve
from r1kit.pipeline import Progress
from r1kit.stages import chat_format
from r1kit.stages.evaluate import measure
from r1kit.stages.shared import ChatSettings
from r1kit.store import RowWriter, StoreError, read_json, read_rows, to_plain, write_json
from r1kit.store import sha256 as content_hash
from r1kit.tasks import TaskError, TaskSpec, check_file, iterate, load_file, load_task
from r1kit.tasks.rows import read_rows as read_data
from r1kit.tasks.schemas import PROMPTS, Schema
from r1kit.types import Message, Problem, Prompt, SamplingParams
from r1kit.verifiers import find

MAX_ROWS = 128  # completions that grow at once
GREEDY = SamplingParams(temperature=0.0)
SETUP = "setup.json"  # what made an evaluation's rows: others must not be mixed with them


@dataclass(frozen=True)
class Opened:
    """A model that is ready to answer, and the format in which it is asked."""

    folder: Path
    engine: Any
    settings: ChatSettings
    chat: ChatFormat

    @property
    def policy(self) -> Any:
        return self.engine.policy

    def refuse_long(self, problems: Sequence[Problem], max_tokens: int) -> None:
        """Raise ValueError, before any work, for a prompt that leaves no room for an answer."""
        for problem in problems:
            size, context = len(self.chat.render(problem, self.policy.tokenizer).token_ids), self.policy.context
            if size + max_tokens > context:
                raise ValueError(
                    f"the prompt of {problem.id} has {size} tokens; with max_tokens {max_tokens} that is "
                    f"{size + max_tokens}, and the model's context is {context}: lower max_tokens or drop long prompts"
                )

    def setup(self, sampling: SamplingParams) -> dict[str, Any]:
        """What decides a completion beside the problem: two equal setups give equal rows."""
        drawn = {name: value for name, value in asdict(sampling).items() if name != "n"}  # more samples may be added
        made: dict[str, Any] = to_plain(
            {"weights": content_hash(self.folder), "chat": self.settings, "sampling": drawn}
        )
        return made


def open_model(name: str, template: str | None, progress: Progress) -> Opened:
    """Load a model by name or folder; `template` is what `chat_format.choose` takes."""
    from r1kit.engines.local import LocalEngine
    from r1kit.models.load import load

    folder = resolve(name)
    policy = load(name)
    settings, source = chat_format.choose(template, folder, policy.tokenizer)
    progress.say(f"prompt format: {source}")
    return Opened(folder, LocalEngine(policy, max_rows=MAX_ROWS), settings, settings.format())


def evaluate(
    model: str, *, task: str | Path, split: str = "test", limit: int | None = None, sampling: SamplingParams = GREEDY,
    template: str | None = None, compare: str | None = None, out: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure `model`, and `compare` on the same problems; the result's "table" is the text for people.

    `task` is a name or a data file's path, `sampling.n` the samples a problem; `template` is "plain", "chat", the path
    of a saved format, or None for each model's own. With `out`, completions.jsonl and results.json are kept there
    (those of `compare` in compare/), a repeated call goes on, and one with another setup is refused.
    """
    if compare == model:
        raise ValueError(f"the model to compare is {model} itself: name another one")
    problems = problems_of(task, split, limit)
    for name in {problem.verifier for problem in problems}:
        find(name)
    found: dict[str, Summary] = {}
    rows: list[list[Scored]] = []
    formats: dict[str, ChatSettings] = {}
    with TemporaryDirectory() as temporary:
        place = out or Path(temporary)
        for name, folder in [(model, place), *([(compare, place / "compare")] if compare else [])]:
            with Progress(f"eval {name}") as progress:
                opened = open_model(name, template, progress)
                opened.refuse_long(problems, sampling.max_tokens)
                if out is not None:
                    claim(folder, opened.setup(sampling) | {"task": str(task), "split": split, "n": sampling.n})
                file = folder / "completions.jsonl"
                found[name] = measure(opened.engine, problems, opened.chat, sampling, file, progress.step)
            write_json(folder / "results.json", found[name].to_json())
            wanted = {problem.id for problem in problems}
            rows.append([Scored.from_row(row) for row in read_rows(file) if row["problem_id"] in wanted])
            formats[name] = opened.settings
    differences = paired(*rows) if compare else None
    return json_table(found, differences) | {
        "task": str(task), "split": split, "sampling": asdict(sampling), "formats": to_plain(formats),
        "table": text_table(found, differences),
    }  # fmt: skip


def claim(folder: Path, setup: dict[str, Any]) -> None:
    """Say what is going to make the rows in `folder`; raises `StoreError` where something else made those it has."""
    if (folder / SETUP).is_file() or (folder / "completions.jsonl").exists():
        before = read_json(folder / SETUP) if (folder / SETUP).is_file() else {}
        if other := [name for name in setup if before.get(name) != setup[name]]:
            raise StoreError(f"{folder} holds an evaluation with other {', '.join(other)}: name another folder")
    write_json(folder / SETUP, setup)


def problems_of(task: str | Path, split: str, limit: int | None) -> list[Problem]:
    """The problems of a task by name or of a file; raises ValueError that names task, file, row or field."""
    # an empty split is `test` too, and says nothing to a file, which has no splits
    asked = {"name": str(task), "split": "" if split == "test" else split, "limit": limit}
    return list(iterate(load_task(TaskSpec.parse(asked), "test")))


def questions_of(task: str | Path, split: str, limit: int | None) -> list[Problem]:
    """`problems_of`, also for a file without answers: to generate, prompts are enough."""
    try:
        return problems_of(task, split, limit)
    except TaskError as error:
        if (error.kind, error.field) != ("missing column", "answer") or not Path(task).is_file():
            raise
    first = next((row for _, row in read_data(Path(task)) if isinstance(row, dict)), {})
    column = next((name for name in PROMPTS if name in first), PROMPTS[0])
    unanswered = Schema(name="prompts", prompt=(column,), answer=column, parse=lambda _: "")
    return list(load_file(task, schema=unanswered).problems[:limit])


def generate(
    model: str, *, prompt: str | None = None, task: str | Path | None = None, split: str = "test",
    limit: int | None = None, sampling: SamplingParams | None = None, template: str | None = None,
    out: Path | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield one row for each completion: problem_id, prompt, answer (where known), sample, completion, finish_reason,
    tokens (of the completion), model, and setup, a hash of all that decides the completion.

    Exactly one of `prompt` and `task` (a name, or a data file's Path) is given. With `out`, rows are appended there as
    they are made, problems already in it are skipped, and only new rows are yielded; rows of another setup are refused.
    """
    sampling = sampling or SamplingParams()
    if (prompt is None) == (task is None):
        raise ValueError("generate takes a prompt or a task: give exactly one of them")
    if prompt is not None and not prompt.strip():
        raise ValueError("the prompt is empty: say what the model is to answer")
    problems = [Problem(id="prompt", prompt=prompt, answer="")] if prompt else questions_of(task or "", split, limit)
    with Progress(f"generate {model}") as progress:
        opened = open_model(model, template, progress)
        opened.refuse_long(problems, sampling.max_tokens)
        setup = sha256(json.dumps(opened.setup(sampling), sort_keys=True).encode()).hexdigest()[:8]
        done = samples_in(out, setup) if out is not None else Counter()
        left = [problem for problem in problems if done[problem.id] < sampling.n]
        size = max(1, MAX_ROWS // sampling.n)  # as many problems as the engine works on at once
        with RowWriter(out) if out is not None else nullcontext() as rows:
            for start in range(0, len(left), size):
                for row in answered(opened, left[start : start + size], sampling):
                    if row["sample"] >= done[row["problem_id"]]:
                        row |= {"model": model, "setup": setup}
                        if rows is not None:
                            rows.append(row)
                        yield row
                if out is not None:
                    progress.step(min(start + size, len(left)), len(left))


def answered(opened: Opened, problems: Sequence[Problem], sampling: SamplingParams) -> Iterator[dict[str, Any]]:
    """A row for each of `sampling.n` completions of each problem."""
    prompts = [opened.chat.render(problem, opened.policy.tokenizer) for problem in problems]
    for problem, completions in zip(problems, opened.engine.generate(prompts, sampling), strict=True):
        for sample, completion in enumerate(completions):
            known = {"answer": problem.answer} if problem.answer else {}
            yield {"problem_id": problem.id, "prompt": problem.prompt} | known | {
                "sample": sample, "completion": opened.chat.complete(completion.text),
                "finish_reason": completion.finish_reason, "tokens": len(completion.token_ids),
            }  # fmt: skip


def samples_in(out: Path, setup: str) -> Counter[str]:
    """How many samples of each problem a file of rows has; raises `StoreError` where another setup made them."""
    rows = list(read_rows(out)) if out.is_file() else []
    if any(row.get("setup") != setup for row in rows):
        raise StoreError(f"{out} holds rows of another model, prompt format or sampling: name another file")
    return Counter(row["problem_id"] for row in rows)


def chat(model: str, *, sampling: SamplingParams | None = None, template: str | None = None) -> None:
    """Answer each line of stdin until it ends, on stdout; on a terminal the reasoning is shown too, dimmed.

    Earlier turns stay in the prompt, their answers without the reasoning; where they no longer fit, the oldest go.
    """
    opened = open_model(model, template, Progress(model))
    stop = ("\nUser:",) if opened.settings.template == "plain" else ()  # a base model would go on as the user
    sampling = replace(sampling or SamplingParams(temperature=0.6), n=1, stop=stop)
    if sampling.max_tokens >= opened.policy.context:
        raise ValueError(f"max_tokens is {sampling.max_tokens}, the model's context {opened.policy.context}: lower it")
    history: list[Message] = []
    try:
        while True:
            if question := input("> " if sys.stdin.isatty() else "").strip():
                history = reply(opened, [*history, Message(role="user", content=question)], sampling)
    except (EOFError, KeyboardInterrupt):
        if sys.stdin.isatty():
            print(file=sys.stderr)


def reply(opened: Opened, turns: list[Message], sampling: SamplingParams) -> list[Message]:
    """Print the answer to the last turn; returns the turns that it saw and the answer, for the next prompt."""
    opening = opened.chat.messages(Problem(id="", prompt="", answer=""))[:-1]
    while True:
        messages = (*opening, *turns)
        ids = tuple(opened.chat.encode(messages, opened.policy.tokenizer))
        if len(ids) + sampling.max_tokens <= opened.policy.context:
            break
        if len(turns) == 1:
            print(f"too long: {len(ids)} tokens beside max_tokens {sampling.max_tokens}", file=sys.stderr)
            return []
        turns = turns[2:]
    prompt = Prompt(problem_id=f"chat/{len(ids)}", messages=messages, token_ids=ids)
    [[completion]] = opened.engine.generate([prompt], sampling)
    text = opened.chat.complete(completion.text)
    show(text)
    return [*turns, Message(role="assistant", content=parse(text).answer or text.strip())]


def show(text: str) -> None:
    """The answer alone for programs; for people, the reasoning above it. A text without an answer is shown whole."""
    response = parse(text)
    answer = readable(response.answer or text.strip())
    if response.answer and response.reasoning and sys.stdout.isatty():
        from rich.console import Console
        from rich.padding import Padding
        from rich.text import Text

        Console().print(Padding(Text(readable(response.reasoning), style="dim"), (0, 0, 0, 2)))
    print(answer, flush=True)


def readable(text: str) -> str:
    """Model text for a terminal: what could steer it (escape sequences) is replaced."""
    return "".join(mark if mark.isprintable() or mark in "\n\t" else "\N{REPLACEMENT CHARACTER}" for mark in text)


def models() -> list[dict[str, str]]:
    """The models known by name, one row each, with the same columns in each."""
    columns = ("name", "parameters", "licence", "about")
    rows = [{column: str(getattr(model, column)) for column in columns} for model in KNOWN.values()]
    return [row | {"parameters": row["parameters"] or shipped_size(row["name"])} for row in rows]


def shipped_size(name: str) -> str:
    """The parameters of a model that comes with the package, counted in its weights: "0.87M"."""
    try:
        return f"{parameters_in(KNOWN[name].folder() / 'model.safetensors') / 1e6:.2f}M"
    except ModelError:
        return "not made"


def parameters_in(weights: Path) -> int:
    """How many numbers a safetensors file holds, from its header: 8 bytes of length, then JSON."""
    with open(weights, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def check_data(file: Path) -> dict[str, Any]:
    """What a data file holds and everything that is wrong with it, with file, row and field.

    "ok" says whether it loads without a fault, "text" is the report for people; faults raise nothing.
    """
    report = check_file(file)
    head = f"{report.file}: {report.problems} of {report.rows} rows are usable (schema {report.schema or 'unknown'})"
    counts = [f"{count} x {kind}" for kind, count in report.counts.items()]
    return report.as_dict() | {"text": "\n".join([head, *counts, *map(str, report.issues)])}
