"""What all tests share: one thread, no network, reproducible property tests, and the folder of real data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before any import of torch: its thread pool takes its size from here, and the workers share the machine.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"

settings.register_profile(
    "r1kit", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("r1kit")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository; tests that need it are skipped where it is missing."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data: ../shared/data is not beside the repository")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. For one module: while it is open, no event loop can run in this thread."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'r1kit[dev]'")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--disable-background-networking"])
        page = opened.new_page()
        page.set_content("<p>text</p>")
        if not page.evaluate("document.querySelector('p').offsetHeight"):
            opened.close()
            pytest.skip("no font, so Chromium draws no text: apt-get install fonts-dejavu")
        page.close()
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def tiny_policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llama of 30 thousand random weights with the tiny world's tokenizer, context 1024; do not write to it."""
    from r1kit.models.load import Policy, fresh_llama
    from r1kit.tiny.tokenizer import make

    tokenizer = make()
    model = fresh_llama(tokenizer, layers=2, width=32, heads=2, context=1024, seed=0)
    folder = tmp_path_factory.mktemp("models") / "tiny-random"
    Policy(model, tokenizer, (tokenizer.eos_token_id,)).save(folder)
    return folder


@pytest.fixture
def no_public_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data folder, and an empty cache."""
    monkeypatch.delenv("R1KIT_DATA", raising=False)
    monkeypatch.setenv("R1KIT_CACHE", str(tmp_path / "cache"))


def llama(seed: int = 0, width: int = 32, context: int = 128) -> Any:
    """A Llama of two layers with random weights and the tiny world's vocabulary."""
    from r1kit.models.load import fresh_llama
    from r1kit.tiny.tokenizer import make

    return fresh_llama(make(), layers=2, width=width, heads=4, context=context, seed=seed)


def small(**changes: Any) -> dict[str, Any]:
    """Fields of a configuration with two layers of width 32 and the tiny world's vocabulary."""
    from r1kit.tiny.tokenizer import make

    return {
        "vocab_size": len(make()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    } | changes


def small_deepseek(**changes: Any) -> dict[str, Any]:
    """The same for DeepSeek-V3: a dense layer, then one of eight experts in two groups."""
    experts = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "n_shared_experts": 1}
    latent = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    layers = {"first_k_dense_replace": 1, "moe_intermediate_size": 16, "num_nextn_predict_layers": 0}
    return small(num_key_value_heads=4, **experts, **latent, **layers) | changes


def deepseek(seed: int = 0) -> Any:
    """A DeepSeek-V3 with random weights on packed rows."""
    import torch
    import transformers

    from r1kit.models import attention

    attention.register()
    torch.manual_seed(seed)
    config = transformers.DeepseekV3Config(**small_deepseek())
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME).float()


def grpo_trainer(template: str, rows: list[dict[str, Any]], functions: list[Any], folder: Path, **settings: Any) -> Any:
    """TRL's trainer, for two steps on the CPU: a Llama of one layer, a chat template, rows and reward functions."""
    import datasets
    import trl

    from r1kit.models.load import fresh_llama
    from r1kit.tiny.tokenizer import make

    tokenizer = make()
    tokenizer.chat_template = template
    model = fresh_llama(tokenizer, layers=1, width=32, heads=2, context=128, seed=0)
    model.set_attn_implementation("eager")
    fixed = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_steps": 2}
    return trl.GRPOTrainer(
        model=model,
        args=trl.GRPOConfig(output_dir=str(folder), **fixed, **settings),
        processing_class=tokenizer,
        reward_funcs=functions,
        train_dataset=datasets.Dataset.from_list(rows),
    )
