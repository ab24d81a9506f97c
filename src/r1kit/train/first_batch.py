"""The largest batch that can occur, tried before the first step: memory fails there or never.

On a GPU the batch is computed, with the room that the optimizer will take. A CPU's kernel ends a process that takes too
much without a word, so there the formulas of `train.memory` are compared with the memory that is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from r1kit import ranks
from r1kit.models.batch import Totals
from r1kit.models.compute import compute_dtype_of
from r1kit.models.policy_net import AnyLoss
from r1kit.models.size import size_of_shapes
from r1kit.pipeline import ModelSize, Work
from r1kit.train.learner import Learner
from r1kit.train.memory import Parts, sampling_parts, training_parts
from r1kit.train.packing import pack
from r1kit.train.supervised import Update
from r1kit.types import Sample

PRESENT = ("process", "weights", "reference")  # parts of the memory that a stage holds before its first step
SAVERS = "activation_checkpointing=true, weights_dtype=bf16, optimizer.kind=adamw-8bit and lora_rank also need less"


class OutOfMemoryError(ValueError):
    """A stage whose largest batch does not fit; the message names the setting to change, and a value that fits."""


def require_training(
    learner: Learner, update_of: Callable[[int], Update], work: Work, *, tokens: int, longest: int
) -> None:
    """Raise `OutOfMemoryError` unless a batch of `tokens` fits.

    `update_of(n)` is the largest update of one batch with `tokens_per_batch` n; no batch is smaller than its `longest`
    row.
    """
    if _training_fits(learner, update_of, work, tokens):
        return
    smaller = tokens // 2  # halves: each try costs a pass, and the message need not be exact
    while smaller > longest and not _training_fits(learner, update_of, work, smaller):
        smaller //= 2
    problem = f"a batch of {tokens} tokens does not fit into memory ({learner.device})"
    if smaller > longest:
        raise OutOfMemoryError(f"{problem}: set tokens_per_batch to {smaller}; {SAVERS}")
    fitting = f"set max_tokens and tokens_per_batch to {max(1, smaller)}"
    raise OutOfMemoryError(f"{problem}, and its longest row has {longest}: {fitting}; {SAVERS}")


def require_sampling(learner: Learner, work: Work, *, rows: int, length: int) -> None:
    """Raise `OutOfMemoryError` unless `rows` completions of `length` tokens with their prompts fit side by side."""
    smaller = rows
    while smaller and not _sampling_fits(learner, work, smaller, length):
        smaller //= 2
    if smaller < rows:
        remedy = f"set max_rows to {smaller}" if smaller else "lower max_tokens"
        raise OutOfMemoryError(
            f"{rows} completions of {length} tokens side by side do not fit into memory ({learner.device}): {remedy}"
        )


def longest_rows(lengths: Sequence[int], tokens: int, most: int) -> list[int]:
    """Places of the longest rows that fill a batch of `tokens`, at most `most`; the longest one in any case."""
    places: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place])[:most]:
        if places and sum(lengths[p] for p in places) + lengths[place] > tokens:
            break
        places.append(place)
    return places


def longest_group(prompt: int, completion: int, most: int, loss: AnyLoss, model: Any) -> Callable[[int], Update]:
    """Updates of one group whose completions all have the greatest length, as many as fit, at most `most`."""

    def update_of(tokens: int) -> Update:
        count = min(most, max(1, (tokens - prompt) // completion))
        samples = [
            Sample(
                token_ids=(0,) * (prompt + completion),
                loss_mask=(False,) * prompt + (True,) * completion,
                logprobs=(-1.0,) * (prompt + completion),
                # not 0: such a sample would get no backward pass
                advantages=(1.0 if number % 2 else -1.0,) * (prompt + completion),
            )
            for number in range(count)
        ]
        return Update(pack(samples, tokens, model)[:1], Totals.of(samples, completion), loss)

    return update_of


def _training_fits(learner: Learner, update_of: Callable[[int], Update], work: Work, tokens: int) -> bool:
    """Whether forward and backward of the largest batch fit, beside gradients and moments."""
    if _is_untried(learner):
        return True
    size = _size(learner.model)
    if learner.device.type == "cpu":  # by the formulas alone
        low = compute_dtype_of(learner.model) == torch.bfloat16
        work = replace(work, head=learner.model.get_output_embeddings() is not None)
        return _is_free(learner, training_parts(size, work, tokens, device="cpu", low=low))
    try:
        moments = _moments(learner, size, work)
        for weight in learner.parameters.values():  # as after the first of several batches
            weight.grad = torch.zeros_like(weight)
        update = update_of(tokens)
        learner.forward_backward(update.batches, update.loss, update.totals)
        del moments  # held until here, as the optimizer's own are
    except torch.OutOfMemoryError:
        return False
    finally:
        learner.optimizer.zero_grad(set_to_none=True)
        learner.router.forget()  # the trial's tokens must not move the routers' biases
    return True


def _is_untried(learner: Learner) -> bool:
    """Whether nothing is tried, as on several GPUs: a rank that runs out of memory would leave the others waiting."""
    return ranks.count() > 1 and learner.device.type != "cpu"


def _sampling_fits(learner: Learner, work: Work, rows: int, length: int) -> bool:
    """Whether the cache of so many rows fits."""
    if _is_untried(learner):
        return True
    size, low = _size(learner.model), compute_dtype_of(learner.model) == torch.bfloat16
    parts = sampling_parts(size, work, rows, length, device=learner.device.type, low=low)
    if learner.device.type == "cpu":
        return _is_free(learner, parts)
    try:
        moments = _moments(learner, size, work)
        torch.empty(int(parts["cache"]), dtype=torch.uint8, device=learner.device)
        del moments
    except torch.OutOfMemoryError:
        return False
    return True


def _moments(learner: Learner, size: ModelSize, work: Work) -> torch.Tensor:
    """The room that the optimizer takes at its first step; empty if it has taken it."""
    parts = training_parts(size, work, 0, device=learner.device.type, low=False)
    room = 0 if learner.optimizer.state else int(parts["optimizer"])
    return torch.empty(room, dtype=torch.uint8, device=learner.device)


def _size(model: Any) -> ModelSize:
    config = model.config.get_text_config().to_dict()
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters() if "lora_" not in name}
    return size_of_shapes(shapes, config)


def _is_free(learner: Learner, parts: Parts) -> bool:
    """Whether the free memory holds all parts that are not there yet.

    Ranks share the memory, also those on other machines as far as is known here. With shards they need about as much
    together as one process; without, each needs all of it.
    """
    present = (*PRESENT, "optimizer") if learner.optimizer.state else PRESENT
    each = sum(count for name, count in parts.items() if name not in present)
    return each * (1 if learner.is_sharded else ranks.count()) <= free_memory()


def free_memory(device: str = "cpu") -> float:
    """Bytes that this process can still take; on the CPU by the kernel and the control group, infinite if unknown."""
    if device != "cpu":
        return float(torch.cuda.mem_get_info()[0])
    free = math.inf
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = float(facts["MemAvailable"].split()[0]) * 1024
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        # the kernel gives pages of files that nobody reads away before it ends a process
        files = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, int((group / "memory.max").read_text()) - used + int(files["inactive_file"]))
    except (OSError, ValueError, KeyError):  # another system, or a group without a limit ("max")
        pass
    return free
