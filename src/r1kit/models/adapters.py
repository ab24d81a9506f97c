"""LoRA adapters as models: each is merged with its base into a plain folder in the cache, once.

So an adapter is a model wherever r1kit takes one, and the hash of the merged folder covers adapter and base.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1kit.models.hub import tokenizer_of
from r1kit.models.known import ModelError, cache, first_line
from r1kit.store import StoreError, atomic_folder, combine, read_object, sha256

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OUTLINE = ("*.json", "*.model", "*.txt", "*.jinja")  # configurations, a tokenizer and its template
COPIED = ("chat_format.json", "generation_config.json")  # of the adapter, or of its base


def save_adapter(model: Any, base: Path, folder: Path) -> None:
    """Write the adapters that `add_lora` put on the model in `base`, as `PeftModel.from_pretrained` reads them.

    A base in the hub's cache is named by its id, so that the adapter can be read on other machines.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.peft_config["default"]
    cached = base.parts[-3] if base.parent.name == "snapshots" else ""  # models--owner--name/snapshots/commit
    config.base_model_name_or_path = cached.removeprefix("models--").replace("--", "/") or str(base.absolute())
    weights = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
    with atomic_folder(folder) as part:
        # peft's own names, which count its wrapper
        named = {f"base_model.model.{name}": weight.detach().contiguous() for name, weight in weights.items()}
        save_file(named, part / WEIGHTS, metadata={"format": "pt"})
        config.inference_mode = True  # in the file: who loads it does not train it
        config.save_pretrained(part)
        config.inference_mode = False


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model (some trainers save the base's config beside it)."""
    return (folder / CONFIG).is_file() and not any(folder.glob("model*.safetensors"))


def merged_folder(adapter: Path, base_of: Callable[[str], Path | None]) -> Path | None:
    """Where the merged model is or will be; None if `base_of`, which finds a model by its name, gives no base."""
    base = _base(adapter, base_of)
    return None if base is None else _target(adapter, base)


def _target(adapter: Path, base: Path) -> Path:
    """The folder of the merged model; its name depends on both."""
    # weights by size and time: to hash a base of many gigabytes at each look would take minutes
    stats = {file.name: file.stat() for file in base.iterdir() if file.is_file()}
    parts = {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}
    read = {adapter / WEIGHTS, *(file for pattern in OUTLINE for file in adapter.glob(pattern))}
    parts |= {f"adapter/{file.name}": sha256(file) for file in read}
    return cache() / "adapters" / f"{adapter.name}-{combine(parts)[:12]}"


def merge(adapter: Path, base_of: Callable[[str], Path]) -> Path:
    """The folder of the merged model, written on first use. Raises `ModelError` if adapter and base do not fit."""
    base = _base(adapter, base_of)
    assert base is not None, "`base_of` gives a folder or raises"
    target = _target(adapter, base)
    if (target / "config.json").is_file():
        return target
    if importlib.util.find_spec("peft") is None:
        raise ModelError(f"{adapter} is a LoRA adapter, which needs peft: pip install 'r1kit[lora]'")
    try:
        model, tokenizer = _merged(adapter, base)
    except (ModelError, StoreError):  # they name the folder or file that is at fault
        raise
    except (ImportError, RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(f"the adapter {adapter} does not fit its base {base} ({first_line(error)})") from error
    with atomic_folder(target) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        for name in COPIED:
            if file := next((folder / name for folder in (adapter, base) if (folder / name).is_file()), None):
                shutil.copyfile(file, part / name)
    return target


def base_name(adapter: Path) -> str:
    """The name or folder of an adapter's base; raises `ModelError` if it names none, or adapts no causal LM."""
    config = read_object(adapter / CONFIG)
    if not (adapter / WEIGHTS).is_file():
        raise ModelError(f"{adapter} has {CONFIG} but no {WEIGHTS}: save the adapter with save_pretrained")
    if (kind := config.get("task_type")) not in (None, "CAUSAL_LM"):
        raise ModelError(f"the adapter {adapter} is one for {kind}: give an adapter of a causal language model")
    name = str(config.get("base_model_name_or_path") or "")
    if not name:
        raise ModelError(f"{adapter / CONFIG} names no base: set base_model_name_or_path to its folder or hub id")
    beside = adapter / name  # a path may be relative to the adapter
    return str(beside) if beside.is_dir() else name


def _base(adapter: Path, base_of: Callable[[str], Path | None]) -> Path | None:
    """The folder of an adapter's base; raises `ModelError` if it cannot be read."""
    name = base_name(adapter)
    try:
        return base_of(name)
    except ModelError as error:
        remedy = f"set base_model_name_or_path in {adapter / CONFIG}"
        raise ModelError(f"{adapter} is a LoRA adapter, and its base cannot be read ({error}): {remedy}") from error


def _merged(adapter: Path, base: Path) -> tuple[Any, Any]:
    """The model with the adapter in its weights, in the base's own precision, and the tokenizer."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # r1kit reports progress itself
    own = any((adapter / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json"))
    tokenizer = tokenizer_of(adapter, str(adapter)) if own else tokenizer_of(base, str(base))
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto", trust_remote_code=False)
    precision = model.dtype
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))  # the adapter's training added tokens
    # added in fp32 and rounded once; safe_merge refuses weights that are not finite
    merged: Any = PeftModel.from_pretrained(model.to(torch.float32), str(adapter)).merge_and_unload(safe_merge=True)
    merged.generation_config = GenerationConfig()  # the base's own file is copied: it may be one that cannot be saved
    return merged.to(precision), tokenizer
