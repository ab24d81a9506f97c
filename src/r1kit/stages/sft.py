"""The stage `sft`: cold start, SFT 2, distillation from traces and the V3 SFT differ only in data and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.engines.stage_policy import load_policy
from r1kit.pipeline import Context, Kind
from r1kit.stages.shared.costs import training_work
from r1kit.stages.shared.given_conversations import GivenSettings, check, probe_sources, tokenised, train_given
from r1kit.stages.shared.given_rows import longest_row
from r1kit.train.losses.next_token import next_token
from r1kit.train.supervised import cosine


class SFTSettings(GivenSettings):
    """The defaults are the paper's for the cold start and for SFT 2 (V2 B.4.2); `SFT_PRESETS` has the others."""


# V2 B.4.2: cosine 5e-5 -> 5e-6, 32,768 tokens, batch 128, two epochs on the 800k (V1) and 2-3 in general. V3 section
# 5.1: two epochs, 5e-6 -> 1e-6; its batch is not published. V2 B.4.3, table 6: students with batch 64, cosine to 1/10.
SFT_PRESETS: dict[str, SFTSettings] = {
    "cold-start": SFTSettings(epochs=2, optimizer=cosine(5e-5, 5e-6)),
    "sft-2": SFTSettings(epochs=2, optimizer=cosine(5e-5, 5e-6)),
    "v3": SFTSettings(epochs=2, optimizer=cosine(5e-6, 1e-6)),
} | {
    f"distill-{student}": SFTSettings(epochs=2, batch_size=64, optimizer=cosine(rate, rate / 10))
    for student, rate in {
        "qwen-1.5b": 1e-4,
        "qwen-7b": 8e-5,
        "qwen-14b": 7e-5,
        "qwen-32b": 6e-5,
        "llama-8b": 5e-5,
        "llama-70b": 2e-5,
    }.items()
}


def run(context: Context) -> Mapping[str, Any]:
    """Train the model of input "model" on the inputs "data..." (see `train_given`)."""
    settings: SFTSettings = context.settings
    policy = load_policy(context)
    data = tokenised(context, policy, longest_row(settings.max_tokens, policy))
    return train_given(context, policy, data, lambda samples: next_token)


SFT = Kind(
    name="sft",
    run=run,
    settings=SFTSettings,
    version=3,
    check=check,
    sources=probe_sources,
    curves=True,
    shards=True,
    cost=training_work,
)
