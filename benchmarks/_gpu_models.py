"""Models with random weights in the shapes of published ones, rollouts of random tokens, and what a pass costs."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from r1kit.models import attention
from r1kit.models.load import Policy, place
from r1kit.tiny.tokenizer import make
from r1kit.types import ComputeDtype, Prompt, Sample

attention.register()

COMMON = {"tie_word_embeddings": True, "attn_implementation": attention.NAME, "eos_token_id": None}
QWEN3 = {**COMMON, "vocab_size": 151936, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
CONFIGS: dict[str, Callable[[], Any]] = {
    "smollm2-135m": lambda: transformers.LlamaConfig(
        **COMMON,
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
    ),
    "qwen3-0.6b": lambda: transformers.Qwen3Config(
        **QWEN3, hidden_size=1024, intermediate_size=3072, head_dim=128, max_position_embeddings=40960
    ),
    "qwen3-1.7b": lambda: transformers.Qwen3Config(
        **QWEN3, hidden_size=2048, intermediate_size=6144, head_dim=128, max_position_embeddings=40960
    ),
    "tiny": lambda: transformers.Qwen3Config(
        **COMMON,
        vocab_size=640,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
    ),
}


@dataclass(frozen=True)
class Groups:
    """The sizes of a rollout: prompts, completions of each, and their tokens."""

    prompts: int
    group: int
    prompt: int
    completion: int

    @property
    def tokens(self) -> int:
        """Tokens of the packed rows, each prompt once."""
        return self.prompts * (self.prompt + self.group * self.completion)

    def prompt_ids(self, vocabulary: int) -> list[list[int]]:
        rng = random.Random(0)
        return [[rng.randrange(3, vocabulary) for _ in range(self.prompt)] for _ in range(self.prompts)]

    def asked(self, vocabulary: int) -> list[Prompt]:
        return [
            Prompt(problem_id=str(number), messages=(), token_ids=tuple(ids))
            for number, ids in enumerate(self.prompt_ids(vocabulary))
        ]

    def samples(self, vocabulary: int) -> list[Sample]:
        """Completions of random tokens; half of each group is rewarded."""
        rng, samples = random.Random(1), []
        for ids in self.prompt_ids(vocabulary):
            for number in range(self.group):
                completion = [rng.randrange(3, vocabulary) for _ in range(self.completion)]
                samples.append(sample(ids, completion, [-3.0] * self.completion, 1.0 if number % 2 else -1.0))
        return samples


def sample(prompt: Sequence[int], completion: Sequence[int], logprobs: Sequence[float], advantage: float) -> Sample:
    """A completion as RL trains on it."""
    before = len(prompt)
    return Sample(
        token_ids=(*prompt, *completion),
        loss_mask=(False,) * before + (True,) * len(completion),
        logprobs=(0.0,) * before + tuple(logprobs),
        advantages=(0.0,) * before + (advantage,) * len(completion),
    )


def random_model(name: str, device: str = "cpu") -> Any:
    """A model with random weights in fp32."""
    torch.manual_seed(0)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()


def policy_of(model: Any, device: str, compute_dtype: ComputeDtype) -> Policy:
    """A policy whose completions all run to `max_tokens`; its tokenizer only decodes."""
    place(model, device, compute_dtype)
    return Policy(model, make(), ())


def copied(model: Any, device: str, compute_dtype: ComputeDtype) -> Policy:
    return policy_of(copy.deepcopy(model), device, compute_dtype)


@dataclass(frozen=True)
class Cost:
    """What passes over a model need, in floating-point operations and bytes."""

    trunk: int  # weights of linear layers without the head
    head: int
    attention: int  # flop per pair of query and key, in all layers
    kv: int  # numbers in the cache per token

    @staticmethod
    def of(model: Any) -> Cost:
        config, head = model.config, model.get_output_embeddings()
        linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Cost(
            sum(m.weight.numel() for m in linears),
            head.weight.numel(),
            4 * config.num_hidden_layers * config.num_attention_heads * width,
            2 * config.num_hidden_layers * config.num_key_value_heads * width,
        )

    def training(self, groups: Groups) -> float:
        """Flop of a forward and backward pass, without any that are done twice."""
        targets = groups.prompts * groups.group * groups.completion
        own = groups.group * (groups.completion * groups.prompt + groups.completion**2 / 2)
        pairs = groups.prompts * (groups.prompt**2 / 2 + own)
        return 3 * (2 * self.trunk * groups.tokens + 2 * self.head * targets + self.attention * pairs)

    def decoding(self, groups: Groups, width: int) -> float:
        """Bytes that decoding reads at least: all weights once per step, and the cache, each prompt once per row."""
        rows = groups.prompts * groups.group
        steps = groups.completion - 1  # the first token comes from the prompts' pass
        cached = rows * (steps * groups.prompt + steps**2 / 2)
        return float(width * (steps * (self.trunk + self.head) + self.kv * cached))


class Clock:
    """Seconds and peak memory of work on a device."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device.startswith("cuda")

    @contextmanager
    def timed(self) -> Iterator[dict[str, float]]:
        """Fills the dictionary with `s` and, on a GPU, `peak_GB` when the block ends."""
        facts: dict[str, float] = {}
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        yield facts
        if self.on_gpu:
            torch.cuda.synchronize()
            facts["peak_GB"] = torch.cuda.max_memory_allocated() / 1e9
        facts["s"] = time.perf_counter() - start
