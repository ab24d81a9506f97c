"""Exports that are folders: a whole model for transformers, and an adapter with what it needs."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from r1kit.chat import ChatFormat, saved
from r1kit.models import adapters
from r1kit.models.known import ModelError, resolve
from r1kit.store import read_object, write_json

if TYPE_CHECKING:
    from r1kit.models.load import Policy

LOCAL = ("_name_or_path", "_model_name_or_path")  # fields of a configuration that may hold a path of this machine
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
BASE_FILES = (  # of an adapter's base, beside weights and configuration
    *("pytorch_model*.bin", "pytorch_model.bin.index.json", "generation_config.json", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt"),
)


def write_model(policy: Policy, model: Path, chat: ChatFormat, template: str, folder: Path) -> None:
    """Write the whole model in `model`: its weights byte for byte, tokenizer and template, and its end tokens."""
    files = [file for pattern in WEIGHTS for file in sorted(model.glob(pattern))]
    if not files:
        raise ModelError(f"{model} has no safetensors: save it with save_pretrained first")
    for file in files:
        shutil.copyfile(file, folder / file.name)
    write_config(model, folder)
    write_prompting(policy, chat, template, folder)


def write_config(model: Path, folder: Path) -> None:
    """Write a model's configuration without paths of this machine."""
    config = {name: value for name, value in read_object(model / "config.json").items() if name not in LOCAL}
    write_json(folder / "config.json", config)


def write_adapter(policy: Policy, adapter: Path, chat: ChatFormat, template: str, folder: Path) -> None:
    """Write the adapter, its tokenizer and template; a base that is no hub id comes along in the folder base/."""
    config = read_object(adapter / adapters.CONFIG)
    name = adapters.base_name(adapter)
    base = resolve(name)
    if Path(name).expanduser().is_dir() or base.parent.name != "snapshots":
        name = "base"
        (folder / name).mkdir()
        # a list of names: a folder of one's own may also hold notes, keys and the state of an optimizer
        for file in (file for pattern in (*WEIGHTS, *BASE_FILES) for file in sorted(base.glob(pattern))):
            shutil.copyfile(file, folder / name / file.name)
        write_config(base, folder / name)
    write_json(folder / adapters.CONFIG, config | {"base_model_name_or_path": name})
    shutil.copyfile(adapter / adapters.WEIGHTS, folder / adapters.WEIGHTS)
    write_prompting(policy, chat, template, folder)


def write_prompting(policy: Policy, chat: ChatFormat, template: str, folder: Path) -> None:
    """Write what decides prompts and ends: tokenizer, chat template, generation config, and r1kit's own format.

    The template begins with the format's prefill, so r1kit's format has none.
    """
    from r1kit.models.load import set_ends

    tokenizer = copy.copy(policy.tokenizer)  # the policy's own keeps its template
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    set_ends(policy.model, policy.end_ids)
    policy.model.generation_config.save_pretrained(folder)
    saved.save(chat if chat.template == "plain" else chat.replace(prefill=""), folder)
