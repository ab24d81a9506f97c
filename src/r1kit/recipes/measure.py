"""The speeds of a model on this machine, measured by real steps, for the hours of a plan.

Training: forward, backward and optimizer over packed rows of random tokens. Sampling: completions of the recipe's own
prompts, if a stage samples the model, because their mean length decides the hours as much as the speed does.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.data.jsonl import lines, parsed
from r1kit.pipeline import External, Recipe, Stage
from r1kit.recipes.estimate import PROMPT_TOKENS, files_given, model_of, size_of_source
from r1kit.recipes.hardware import HARDWARE, ROW_BYTES, Rates
from r1kit.settings import SettingsError
from r1kit.types import Prompt, Sample, SamplingParams

if TYPE_CHECKING:
    from r1kit.models.load import Policy

SECONDS = 60.0  # for all models of a recipe together, beside loading them
FIRST_TOKENS, MOST_TOKENS = 256, 2048  # of a training step: enough for a rate
FIRST_STEPS, ROWS = 8, 32  # of sampling; the rows of a full batch


def measure(recipe: Recipe) -> dict[Path, Rates]:
    """The rates of each model on this machine that stages start from, by its folder."""
    stages: dict[Path, list[Stage]] = {}
    for stage in recipe.stages:
        source = model_of(stage)
        if source is not None and source.fetch is None and stage.kind.cost is not None:
            stages.setdefault(source.path, []).append(stage)
    return {path: _rates(path, users, SECONDS / len(stages)) for path, users in stages.items()}


def _rates(path: Path, stages: Sequence[Stage], seconds: float) -> Rates:
    """The rates of one model, in about `seconds`: a half for training, a half for sampling."""
    from r1kit.models.compute import DTYPES, compute_dtype_of
    from r1kit.models.load import load

    settings: Any = next((stage.settings for stage in stages if hasattr(stage.settings, "compute_dtype")), None)
    chosen = {} if settings is None else {"device": settings.device, "compute_dtype": settings.compute_dtype}
    policy, size = load(str(path), **chosen), size_of_source(External(path))
    step, token, length = _sampling(policy, stages, seconds / 2)
    per_token = _training(policy, stages, seconds / 2)
    low = compute_dtype_of(policy.model) == DTYPES["bf16"]
    return Rates(6 * size.active / per_token, step, token, length, _row_bytes(policy, stages), low)


def _training(policy: Policy, stages: Sequence[Stage], seconds: float) -> float:
    """Seconds per trained token, of the largest batch that the time allows."""
    from r1kit.models.batch import Totals
    from r1kit.train.learner import Learner, OptimizerSettings
    from r1kit.train.losses.next_token import next_token
    from r1kit.train.memory_settings import MemorySettings, apply_memory_settings
    from r1kit.train.packing import pack

    memory = next((s.settings for s in stages if isinstance(s.settings, MemorySettings)), MemorySettings())
    apply_memory_settings(policy.model, memory)
    learner, rng = Learner(policy.model, OptimizerSettings(), steps=100), random.Random(0)
    tokens, started, best = FIRST_TOKENS, time.perf_counter(), float("inf")
    while True:
        ids = [rng.randrange(len(policy.tokenizer)) for _ in range(FIRST_TOKENS)]
        samples = [Sample(token_ids=ids, loss_mask=[True] * FIRST_TOKENS)] * (tokens // FIRST_TOKENS)
        begun = time.perf_counter()
        learner.forward_backward(pack(samples, tokens, learner.model), next_token, Totals.of(samples))
        learner.step()
        took = time.perf_counter() - begun
        best = min(best, took / tokens)  # the first step also warms up
        left = seconds - (time.perf_counter() - started)
        if left < took or (tokens == MOST_TOKENS and left < seconds / 2):
            return best
        # the next batch takes at most the time that is left
        tokens = max(tokens, min(MOST_TOKENS, FIRST_TOKENS * int(left / (took / tokens) / FIRST_TOKENS)))


def _sampling(policy: Policy, stages: Sequence[Stage], seconds: float) -> tuple[float, float, float | None]:
    """Seconds per step, seconds that a token of a full batch adds, and the mean completion if the time allows it."""
    from r1kit.engines.local import LocalEngine

    prompts, most = _prompts(policy, stages)
    endless = replace(policy, end_ids=(), end_texts=())  # all rows run to the end

    def took(rows: int, steps: int) -> float:
        begun = time.perf_counter()
        LocalEngine(endless, max_rows=rows).generate(prompts[:rows], SamplingParams(max_tokens=steps))
        return time.perf_counter() - begun

    few, rows = 2, len(prompts)
    took(few, 2)  # warms up
    base = {count: took(count, 1) for count in (few, rows)}  # prefill, and what a call costs
    step = max(1e-6, (took(few, 1 + FIRST_STEPS) - base[few]) / FIRST_STEPS)
    full = max(step, (took(rows, 1 + FIRST_STEPS) - base[rows]) / FIRST_STEPS)
    affordable = int(seconds / 2 / full)
    if affordable < most:  # completions would be cut off
        return step, (full - step) / rows, None
    begun = time.perf_counter()
    params = SamplingParams(max_tokens=most, temperature=1.0)
    groups = LocalEngine(policy, max_rows=rows).generate(prompts, params)
    lengths = [len(completion.token_ids) for (completion,) in groups]
    # the whole of it: caches grow, and rows end one after another
    whole = time.perf_counter() - begun - max(lengths) * step
    return step, max(whole / sum(lengths), (full - step) / rows), sum(lengths) / len(lengths)


def _prompts(policy: Policy, stages: Sequence[Stage]) -> tuple[list[Prompt], int]:
    """Prompts of the first stage that samples the model, and its longest completion; random ones if none does."""
    from r1kit.tasks import load_tasks

    for stage in stages:
        settings: Any = stage.settings
        if not getattr(settings, "tasks", ()) or not hasattr(settings, "chat"):
            continue
        task = load_tasks(settings.tasks, training=False)
        problems = [task[index] for index in range(min(ROWS, len(task)))]
        return [settings.chat.render(problem, policy.tokenizer) for problem in problems], int(settings.max_tokens)
    rng = random.Random(0)
    ids = [tuple(rng.randrange(len(policy.tokenizer)) for _ in range(PROMPT_TOKENS)) for _ in range(ROWS)]
    return [Prompt(problem_id=str(number), messages=(), token_ids=row) for number, row in enumerate(ids)], sys.maxsize


def _row_bytes(policy: Policy, stages: Sequence[Stage]) -> float:
    """Bytes of a row per token, over the first rows of the stages' data files."""
    size = tokens = 0
    for path in dict.fromkeys(path for stage in stages for path in files_given(stage)):
        for line in islice(lines(path), ROWS):
            if line.text is None:  # too long for a row
                continue
            size += line.length
            texts = list(_texts(parsed(line, path)))
            tokens += sum(map(len, policy.tokenizer(texts)["input_ids"])) if texts else 0
    return size / tokens if tokens else ROW_BYTES


def _texts(value: Any) -> Iterator[str]:
    """All texts in a row, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def this_hardware() -> str:
    """The name in `HARDWARE` of the device of this machine; raises `SettingsError` for an unknown GPU."""
    from r1kit.models.devices import device_name

    name = device_name()
    known = next((key for key in HARDWARE if key in name), None)
    if known is None:
        raise SettingsError(
            f"the device {name} is not one of {', '.join(HARDWARE)}: give the nearest one with --hardware"
        )
    return known
