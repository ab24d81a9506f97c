"""What several devices cannot share, refused before any work starts."""

from __future__ import annotations

from r1kit.pipeline import Context


def check_sharing(context: Context) -> None:
    """Raise ValueError if a training stage has settings that work on one device only, or more devices than there are.

    On CPUs, several ranks share the machine.
    """
    from r1kit.models.devices import device_of

    count, settings = context.devices, context.settings
    if count == 1:
        return
    if device_of(settings.device).type == "cuda":
        import torch

        if torch.cuda.device_count() < count:
            raise ValueError(
                f"stage {context.stage} asks for {count} devices, and there are {torch.cuda.device_count()} GPUs"
            )
        if ":" in settings.device:
            raise ValueError(f"device is {settings.device}, one GPU: set it to cuda for {count} devices")
    refused = {
        "lora_rank": ("adapters", bool(getattr(settings, "lora_rank", 0)), "set it to 0"),
        "optimizer.kind": ("moments in 8 bits", settings.optimizer.kind != "adamw", "set it to adamw"),
        "weights_dtype": ("weights in bf16", settings.weights_dtype != "fp32", "set it to fp32"),
    }
    for name, (what, is_set, remedy) in refused.items():
        if is_set:
            reason = f"{what} are not sharded over devices: {remedy}, or run on one device"
            raise ValueError(f"stage {context.stage} cannot run on {count} devices, because of {name}: {reason}")
