"""transformers' sides of generation: `generate` on a padded batch, and its continuous batching."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from _workload import Generation, Result
from torch import Tensor
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from r1kit.models.compute import DTYPES

PAGE = 32  # tokens per page of the continuous batcher's cache


def cache(rows: int, longest: int) -> dict[str, int]:
    """A paged cache of the required size: by default it takes 90 % of the machine's memory and seconds to allocate."""
    pages = -(-longest // PAGE) + 1
    return {"page_size": PAGE, "num_blocks": rows * pages, "max_batch_tokens": max(rows, 512)}


def static(work: Generation) -> Result:
    """Left-padded prompts, `num_return_sequences` each; the batch runs until the longest completion ends."""
    model, config = _load(work)
    config.num_return_sequences = work.group
    longest = max(map(len, work.prompt_ids))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in work.prompt_ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in work.prompt_ids])

    def answer(tokens: int) -> list[list[int]]:
        config.max_new_tokens, config.min_new_tokens = tokens, tokens if work.fixed else None
        with torch.inference_mode():
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        return output[:, longest:].tolist()  # type: ignore[no-any-return]

    return _timed(work, answer)


def continuous(work: Generation) -> Result:
    """`generate_batch`: rows leave when they end; paged attention, which on a CPU reads all contexts at each step."""
    model, config = _load(work)
    rows = [ids for ids in work.prompt_ids for _ in range(work.group)]
    config.eos_token_id = -1 if work.fixed else config.eos_token_id  # it ignores min_new_tokens
    sizes = cache(len(rows), max(map(len, rows)) + work.max_tokens)

    def answer(tokens: int) -> list[list[int]]:
        config.max_new_tokens = tokens
        outputs = model.generate_batch(
            rows, generation_config=config, continuous_batching_config=ContinuousBatchingConfig(**sizes)
        )
        return [output.generated_tokens for output in outputs.values()]

    return _timed(work, answer)


def _load(work: Generation) -> tuple[Any, GenerationConfig]:
    model = AutoModelForCausalLM.from_pretrained(
        work.model, dtype=DTYPES[work.variant], attn_implementation="sdpa", trust_remote_code=False
    )
    ends = list(work.end_ids)
    return model.eval(), GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=ends, pad_token_id=ends[0]
    )


def _timed(work: Generation, answer: Callable[[int], list[list[int]]]) -> Result:
    """Measure completions of at most so many tokens."""
    steps = []
    for turn in work.repetitions():
        torch.manual_seed(turn.seed)
        start = time.perf_counter()
        rows = answer(turn.max_tokens)
        seconds = time.perf_counter() - start
        lengths = [_length(row, work) for row in rows]
        steps.append(work.step(seconds, [lengths[i : i + work.group] for i in range(0, len(lengths), work.group)]))
    return Result(steps=steps[work.warmup :], facts={"dtype": work.variant})


def _length(row: list[int], work: Generation) -> int:
    """Tokens up to the first end token, which counts; the rest is padding."""
    ends = [] if work.fixed else [place for place, token in enumerate(row) if token in work.end_ids]
    return ends[0] + 1 if ends else len(row)


def tail_logprobs(work: Generation) -> Result:
    """Log-probs of each prompt's last tokens, for the gate."""
    model, _ = _load(work)
    with torch.inference_mode():
        values = [_logprobs(model(input_ids=torch.tensor([ids])).logits[0], ids) for ids in work.prompt_ids]
    return Result(steps=[], facts={"logprobs": torch.stack(values).tolist()})


def _logprobs(logits: Tensor, ids: list[int]) -> Tensor:
    """[TAIL] from logits [T, V]"""
    from _workload import TAIL

    chosen = logits[:-1].float().log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]  # [T - 1]
    return chosen[-TAIL:]
