"""Time and peak memory of the learner's forward and backward pass: the tiny model, and one of SmolLM2-135M's shape.

    python benchmarks/learner_memory.py [tiny|smollm2] [--repeats 5] [--threads 1] [--compute-dtype plain|fp32|bf16]

Prints one line of JSON: processor seconds per `forward_backward` of GRPO over one rollout (the least of the repeats)
and the peak memory of the process. To compare two versions of the code, run it with each in turns. `--compute-dtype`
sets the precision of SmolLM2's linear layers (`plain`: fp32 without packed weights, as torch computes them).
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from typing import Any

import torch
import transformers

from r1kit.models import attention, compute
from r1kit.models.batch import Totals
from r1kit.models.load import load
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.policy_gradient import grpo
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.packing import pack
from r1kit.types import Sample

SHAPES = {"tiny": (16, 8, 40, 60, 4096), "smollm2": (2, 4, 60, 120, 512)}  # prompts, group, prompt, completion, budget


def smollm2_shape() -> Any:
    """A Llama with random weights in the shape of SmolLM2-135M."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        attn_implementation=attention.NAME,
    )
    return transformers.LlamaForCausalLM(config)


def rollout(prompts: int, group: int, prompt: int, completion: int, vocabulary: int) -> list[Sample]:
    """Groups of completions of random tokens, between half of `completion` tokens and all of them."""
    rng = random.Random(0)
    samples = []
    for _ in range(prompts):
        ids = [rng.randrange(3, vocabulary) for _ in range(prompt)]
        for number in range(group):
            size = rng.randrange(completion // 2, completion)
            advantages = (0.0,) * prompt + (1.0 if number % 2 else -1.0,) * size
            samples.append(
                Sample(
                    token_ids=(*ids, *(rng.randrange(3, vocabulary) for _ in range(size))),
                    loss_mask=(False,) * prompt + (True,) * size,
                    logprobs=(0.0,) * prompt + (-3.0,) * size,
                    advantages=advantages,
                )
            )
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", choices=SHAPES, default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compute-dtype", choices=("plain", "fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    attention.register()
    model = load("tiny", device="cpu").model if options.model == "tiny" else smollm2_shape()
    if options.compute_dtype == "plain":
        compute.SMALL = sys.maxsize  # no model is large enough to be packed
    else:
        compute.choose(model, options.compute_dtype)
    *sizes, budget = SHAPES[options.model]
    samples = rollout(*sizes, vocabulary=model.config.vocab_size)
    learner, batches = Learner(model, OptimizerSettings(), steps=1), pack(samples, budget)
    seconds = []
    for _ in range(options.repeats):
        learner.optimizer.zero_grad(set_to_none=True)
        start = time.process_time()
        learner.forward_backward(batches, grpo(PRESETS["grpo"]), Totals.of(samples))
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {"model": options.model, "compute_dtype": options.compute_dtype, "threads": options.threads}
    print(json.dumps({**facts, "batches": len(batches), "s": min(seconds), "peak_MB": peak}))


if __name__ == "__main__":
    main()
