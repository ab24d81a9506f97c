"""Which path each causal language model of transformers takes: a tiny one of every class goes through `r1-zero`.

    python benchmarks/architectures.py [--only llama mamba2 ...] [--again refused failed] [--logs FOLDER]
    writes benchmarks/results/architectures.json and docs/architectures.md

Each class is built with random weights from a configuration whose sizes are shrunk, saved, and run for two steps of
GRPO in a process of its own with a time limit. Classes with a result are left out, so a stopped sweep continues;
`--again` runs those with the named outcomes once more. `--logs` keeps the tracebacks; results have the reasons.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from r1kit.recipes.scales.tiny import TINY

SCALE = replace(TINY, largest=None)  # some classes have two million parameters at any size
RESULTS = Path(__file__).parent / "results" / "architectures.json"
PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
LARGEST = 20_000_000  # parameters: a larger model was not shrunk
TOLERANCE = 1e-4  # between the log-probs of sampler and learner, in the mean
WIDTH, HEADS, LAYERS, CONTEXT = 32, 4, 4, 256
# by the first pattern that matches a field's whole name; other sizes above 64 become WIDTH
SIZES: tuple[tuple[str, int], ...] = (
    (r"index_(n_heads|topk)", 16),  # fewer heads give many tokens the same score, and any choice among those is right
    (
        r"(max_)?(position_embeddings|sequence_length|seq_len|target_positions|source_positions)|n_positions|n_ctx",
        CONTEXT,
    ),
    (r".*(max_position_embeddings|context_length)", CONTEXT),
    (r"first_k_dense_replace|.*dense_layers", 1),
    (r".*(attn|attention)_layer_(period|interval)|full_attention_interval", 2),
    (r".*(attn|attention)_layer_offset", 1),
    (
        r".*(num_hidden_layers|num_layers|n_layers?|(en|de)coder_layers|num_blocks|depth|num_(en|de)coder_layers)",
        LAYERS,
    ),
    (r".*(experts_per_tok(en)?|top_?k|num_selected_experts|moe_k|experts_top_k)", 2),
    (r".*(n_group|topk_group|n_shared_experts|num_shared_experts?|expert_layer_offset)", 1),
    (r".*(num|n)_\w*experts|num_local_experts|moe_num_experts", 4),
    (r".*(key_value_heads|kv_heads|n_head_kv|num_kv_heads)", 2),
    (r".*(_heads|n_heads?|num_heads|attn_heads)", HEADS),
    (r".*(rotary_dim|head_dim|head_size|d_head|d_kv|qk_\w*dim|v_head_dim)", WIDTH // HEADS),
    (r".*(lora_rank|low_rank_dim)", 16),
    (r".*(sliding_window|attention_window|attention_chunk_size|window_size)", 16),
    (r".*(d_state|state_size)", 8),
)
KEPT = re.compile(r".*(token_id|_id|kernel|d_conv|conv_\w*|rope\w*|theta|factor|groups|bits|multiple_of|chunk_size)s?")
SIZE = re.compile(r".*(size|dim|width|hidden|inter\w*|d?ffn?\w*|d_model|n_embd|n_inner|embd|d_\w+|rank|channels|units)")
# what no rule can know: sizes that must agree, or parts without which a class is another one
ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)
SPECIAL: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "blt": {"encoder_hash_byte_group_vocab": 100},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": WIDTH, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots3_note_text": {
        "swa_num_attention_heads": HEADS,
        "swa_num_key_value_heads": HEADS,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "layer_types": ALTERNATING,
        "activation_sparsity_pattern": [0.0] * LAYERS,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * (LAYERS // 2)},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * (LAYERS // 2)},
    "longcat_flash": {"zero_expert_num": 2},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "nemotron_h": {"n_groups": 1, "mamba_num_heads": 4, "mamba_head_dim": 16},
    "reformer": {
        "axial_pos_embds_dim": (16, 16),
        "axial_pos_shape": (16, 16),
        "attn_layers": ["local", "lsh"],
        "num_buckets": 2,
    },
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * (LAYERS // 2)},
    "zaya": {"num_experts_per_tok": 1},
}
# left out, some classes compute these from other sizes and others fail
FILLED = {
    "num_key_value_heads": HEADS,
    "head_dim": WIDTH // HEADS,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
}


def small(config: Any, vocabulary: int) -> Any:
    """A configuration of the class `config` whose sizes are shrunk."""
    known = {field.name: field.default for field in fields(config) if field.default is not MISSING}
    values: dict[str, Any] = {"vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    values = {name: value for name, value in values.items() if name in known}
    for name in config.sub_configs:
        inner = type(getattr(config(), name))
        if inner is not type(None):
            values[name] = small(inner, vocabulary).to_dict()
    for name, default in known.items():
        if name in values or isinstance(default, bool) or name in config.sub_configs:
            continue
        if default is None and name in FILLED:
            values[name] = FILLED[name]
        if not isinstance(default, int) or default <= 0:
            continue
        size = next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
        if "key_value_heads" in name and default == known.get("num_attention_heads"):
            size = HEADS  # multi-head latent attention has no groups
        if size is None and "vocab" in name:
            size = vocabulary
        if size is None and default > 64 and SIZE.fullmatch(name) and not KEPT.fullmatch(name):
            size = WIDTH
        if size is not None:
            values[name] = size
    return config(**{**values, **SPECIAL.get(config.model_type, {})})


def build(kind: str, tokenizer: Any) -> Any:
    """A tiny causal language model of the model type `kind`, with weights as large as trained ones."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = small(type(AutoConfig.for_model(kind)), len(tokenizer))
    if hasattr(config, "is_decoder"):
        config.is_decoder = True  # an encoder's class is causal only then
    with torch.device("meta"):
        size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"the smallest configuration has {size / 1e6:.0f}M parameters")
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return model


def letters(completions: list[str], **columns: Any) -> list[float]:
    """A reward that differs between completions of random models: the share of letters."""
    return [sum(map(str.isalpha, text)) / max(1, len(text)) for text in completions]


def measure(kind: str) -> dict[str, Any]:
    """The outcome of one class: which path it takes and why, or what fails."""
    import torch

    from r1kit.models.known import ModelError
    from r1kit.models.load import Policy, load
    from r1kit.tiny.tokenizer import make

    torch.set_num_threads(1)
    tokenizer = make()
    try:
        model = build(kind, tokenizer)
    except Exception as error:
        return _unsuccessful("not built", error)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        try:
            Policy(model, tokenizer, (tokenizer.eos_token_id,)).save(folder)
            path = load(str(folder), device="cpu").model.plain_path
        except ModelError as error:
            return _unsuccessful("refused", error)
        except Exception as error:
            return _unsuccessful("failed", error)
        facts: dict[str, Any] = {"outcome": "packed", "reason": ""}
        if path is not None:
            rows = {name: getattr(path, name) for name in ("pads_right", "pads_left", "forks", "caches")}
            facts = {"outcome": "plain", "reason": path.reason, **rows}
        try:
            steps = train(folder, Path(temporary) / "runs")
        except Exception as error:
            return facts | _unsuccessful("failed", error)
    gap = max(step["sampler/logprob_gap_mean"] for step in steps)
    if not gap < TOLERANCE:
        return {**facts, "outcome": "failed", "reason": f"log-probs of sampler and learner differ by {gap:.2g}"}
    return {**facts, "steps": len(steps), "gap": gap, "grad_norm": steps[-1]["optim/grad_norm"]}


def train(model: Path, runs: Path) -> list[dict[str, Any]]:
    """The metrics of two steps of GRPO."""
    from r1kit.pipeline import execute
    from r1kit.recipes.r1_zero import r1_zero

    overrides = {
        "rl.steps": 2,
        "rl.prompts_per_step": 2,
        "rl.group_size": 3,
        "rl.max_tokens": 24,
        "rl.rewards": ["architectures:letters"],
        "rl.audit_share": 0.0,  # no processes for a second verifier
    }
    recipe = r1_zero(scale="architectures:SCALE", model=str(model), overrides=overrides)
    recipe = replace(recipe, stages=tuple(stage for stage in recipe.stages if stage.name == "rl"))
    return [json.loads(line) for line in (execute(recipe, runs) / "metrics.jsonl").read_text().splitlines()]


def _unsuccessful(outcome: str, error: Exception) -> dict[str, Any]:
    """The outcome with the error as its reason; the log gets the traceback."""
    traceback.print_exception(error)
    return {"outcome": outcome, "reason": _short(error)}


def _short(error: Exception) -> str:
    """An error's message in one line; the type of any error but r1kit's own."""
    from r1kit.models.known import ModelError

    kind = "" if isinstance(error, ModelError) else f"{type(error).__name__}: "
    message = re.sub(r"\S*/model: ", "", " ".join(str(error).split()))
    return kind + re.sub(r"\S*/model\b", "the saved folder", message)[:300]


def _child(kind: str, file: str) -> None:
    with open(Path(file).with_suffix(".log"), "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        Path(file).write_text(json.dumps(measure(kind)))


HEAD = """# Architectures

When r1kit loads a causal language model of transformers, a check compares numbers and chooses one of two paths,
whatever the model's name:

- **packed**: training rows have no padding and contain each prompt once for its group, and generation uses r1kit's own
  cache. Layers with a recurrent state start completions from copies of their prompt's state.
- **plain**: the model's own forward pass and cache, for models that packed rows do not support. Each completion carries
  its own prompt. The rows of a batch are padded, or have equal lengths if padding changes the model's numbers. This
  path is slower, with the same losses and log-probs; a line at load says why it is taken.
- **refused**: the model's own code computes other numbers for a sequence alone than in a batch or token by token, so
  that sampling and training could not agree; or its head scales logits in a way that r1kit does not support; or
  transformers cannot load the folder that it saved.
- **not built**, **failed**: transformers could not make a tiny model of the class, or r1kit could not train it.

`python benchmarks/architectures.py` builds a tiny model of every class with random weights and trains it for two steps
of GRPO (the stage `rl` of `r1-zero`); the log-probs of sampler and learner must agree to {tolerance} in the mean. The
last sweep, with transformers {version}: {counts}

| model type | path | rows in training | rows in generation | why not packed |
|---|---|---|---|---|
"""


def page(results: dict[str, Any]) -> str:
    """The page of documentation with the table of all classes."""
    from collections import Counter

    import transformers

    counts = Counter(result["outcome"] for result in results.values())
    text = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    lines = [HEAD.format(version=transformers.__version__, counts=f"{text}.", tolerance=TOLERANCE)]
    for kind, result in sorted(results.items()):
        rows = [""] * 2
        if "pads_right" in result:
            rows = ["padded" if result[name] else "equal lengths" for name in ("pads_right", "pads_left")]
            if not result["forks"]:
                rows[1] += ", prompts once per completion"
            if not result.get("caches", True):
                rows[1] += ", no cache"
        reason = result["reason"].replace("|", "\\|")
        lines.append(f"| {kind} | {result['outcome']} | {rows[0]} | {rows[1]} | {reason} |\n")
    return "".join(lines)


def sweep(kinds: list[str], seconds: float, logs: Path | None, results: dict[str, Any]) -> Iterator[str]:
    """Measure each class in a process of its own, started from this one, which has imported everything."""
    import torch
    import transformers  # noqa: F401

    import r1kit.engines.local
    import r1kit.recipes.r1_zero
    import r1kit.train.rl.loop  # noqa: F401
    from r1kit.verifiers import verify_all  # noqa: F401

    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    for kind in kinds:
        with tempfile.TemporaryDirectory() as temporary:
            file, started = Path(temporary) / "result", time.monotonic()
            child = context.Process(target=_child, args=(kind, str(file)))
            child.start()
            child.join(seconds)
            if child.is_alive():
                child.kill()
                child.join()
                results[kind] = {"outcome": "failed", "reason": f"took more than {seconds:.0f} s"}
            elif not file.is_file():
                results[kind] = {"outcome": "failed", "reason": f"the process ended with exit code {child.exitcode}"}
            else:
                results[kind] = json.loads(file.read_text())
            if logs and results[kind]["outcome"] not in ("packed", "plain"):
                shutil.copy(file.with_suffix(".log"), logs / f"{kind}.log")
            results[kind]["seconds"] = round(time.monotonic() - started, 1)
        yield kind


def main() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    parser.add_argument("--only", nargs="+", choices=known, metavar="TYPE", help="model types, such as llama")
    parser.add_argument("--again", nargs="+", default=[], metavar="OUTCOME")
    parser.add_argument("--seconds", type=float, default=240.0, help="limit for each class (default: 240)")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="a folder for the output of what is not trained")
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    left = [kind for kind in known if results.get(kind, {}).get("outcome") in (None, *arguments.again)]
    if arguments.logs:
        arguments.logs.mkdir(parents=True, exist_ok=True)
    for kind in sweep(arguments.only or left, arguments.seconds, arguments.logs, results):
        RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
        PAGE.write_text(page(results))
        print(kind, results[kind], flush=True)


if __name__ == "__main__":
    main()
