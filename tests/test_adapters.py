"""A LoRA adapter is a model: it is merged with its base once, and both count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from r1kit.models.known import ModelError, find, resolve  # noqa: E402
from r1kit.models.load import load  # noqa: E402
from r1kit.stages.shared.sources import model_input  # noqa: E402

IDS = torch.arange(5, 25)[None]


@pytest.fixture
def adapter(tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter with random weights, beside its base; merged models go to a cache of the test's own."""
    monkeypatch.setenv("R1KIT_CACHE", str(tmp_path / "cache"))
    base = shutil.copytree(tiny_policy_folder, tmp_path / "base")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_the_merged_model_computes_what_peft_computes(adapter: Path) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(adapter.parent / "base")
    before = logits(base)
    theirs = logits(peft.PeftModel.from_pretrained(base, adapter))
    merged = transformers.AutoModelForCausalLM.from_pretrained(resolve(str(adapter)))
    assert (theirs - before).abs().max() > 0.1
    torch.testing.assert_close(logits(merged), theirs, atol=1e-5, rtol=1e-5)
    policy = load(str(adapter), device="cpu")
    assert policy.end_ids == load(str(adapter.parent / "base"), device="cpu").end_ids


def test_it_is_merged_once_until_adapter_or_base_changes(adapter: Path) -> None:
    assert find(str(adapter)) is None and model_input(str(adapter)).fetch is not None
    folder = resolve(str(adapter))
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve(str(adapter)) == find(str(adapter)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    weights = adapter.parent / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert find(str(adapter)) is None
    assert resolve(str(adapter)) != folder


def test_a_base_may_be_named_relative_to_the_adapter_and_its_format_goes_along(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "../base"}))
    (adapter.parent / "base" / "chat_format.json").write_text('{"system": "be brief"}')
    assert json.loads((resolve(str(adapter)) / "chat_format.json").read_text()) == {"system": "be brief"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model_name_or_path": None}, "names no base: set base_model_name_or_path"),
        ({"base_model_name_or_path": "/nowhere/model"}, "its base cannot be read .*set base_model_name_or_path in"),
        ({"task_type": "SEQ_CLS"}, "is one for SEQ_CLS: give an adapter of a causal language model"),
        ({"r": 8}, "does not fit its base"),
    ],
)
def test_an_adapter_that_fits_no_base_is_refused(adapter: Path, changes: dict[str, Any], message: str) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelError, match=message):
        resolve(str(adapter))


def test_a_base_that_needs_another_package_is_not_blamed_on_peft(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*parts: Any, **options: Any) -> Any:
        raise ImportError("this checkpoint needs optimum")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fails)
    with pytest.raises(ModelError, match=r"does not fit its base .*needs optimum"):
        resolve(str(adapter))


def test_an_adapter_without_peft_says_what_to_install(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs peft: pip install 'r1kit\[lora\]'"):
        resolve(str(adapter))


def test_an_adapter_without_weights_is_refused(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        resolve(str(adapter))
