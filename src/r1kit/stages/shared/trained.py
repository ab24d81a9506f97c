"""The policy that a stage trains: its adapters before, its folders after."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from r1kit import ranks
from r1kit.chat import saved
from r1kit.pipeline import Context
from r1kit.train.memory_settings import LoraSettings

if TYPE_CHECKING:
    from r1kit.models.load import Policy


def check_heads(context: Context) -> None:
    """Raise ValueError unless devices that share rows can share the attention heads of the model and its teachers."""
    from r1kit.models.load import outline
    from r1kit.models.shared_rows import require_shared_heads

    count = context.settings.sequence_devices
    for name, path in context.paths.items() if count > 1 else ():
        if name == "model" or name.startswith("teacher"):
            require_shared_heads(outline(str(path)).model.config, count)


def with_lora(policy: Policy, settings: LoraSettings) -> Policy:
    """The policy with new adapters on its linear layers, if the settings ask for them."""
    from r1kit.models.load import add_lora

    if not settings.lora_rank:
        return policy
    return add_lora(policy, settings.lora_rank, settings.lora_alpha, settings.lora_targets)


def save_trained(context: Context, policy: Policy) -> None:
    """Write model/ and, if the policy has adapters, adapter/ for the model of input "model"."""
    from r1kit.models.adapters import COPIED, save_adapter
    from r1kit.models.load import has_adapters

    if not ranks.is_first():
        return
    folder, adapter = context.folder / "model", context.folder / "adapter"
    policy.save(folder)
    saved.save(context.settings.chat, folder)
    if has_adapters(policy.model):
        save_adapter(policy.model, context.input("model"), adapter)
        policy.tokenizer.save_pretrained(adapter)
        for name in COPIED:  # as complete as the model: what a prompt is, and where a completion ends
            shutil.copyfile(folder / name, adapter / name)
