"""How a model is trained on one device or several: a table by its parameters, and rules for the device's memory.

Prompts, lengths and learning rates follow the parameters, and whether the device is a GPU or a CPU. The memory decides
between all weights and LoRA, and how much work is done at once. Free memory is never looked at: the choice is the same
in every attempt at a run.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1kit.models.facts import ModelFacts
from r1kit.recipes.hardware import HARDWARE, hardware_named
from r1kit.settings import SettingsError
from r1kit.train.memory import GIB


@dataclass(frozen=True, slots=True)
class Row:
    """Models of up to `billions` parameters: prompts per step, completion tokens in RL, and learning rates."""

    billions: float
    prompts: int
    tokens: int
    rl_rate: float
    sft_rate: float


GROUP = 8  # completions per prompt
GPU_ROWS = (
    Row(0.3, 32, 512, 1e-5, 5e-5),
    Row(1.0, 32, 1024, 2e-6, 4e-5),
    Row(2.5, 32, 2048, 1e-6, 2e-5),
    Row(5.0, 32, 3072, 1e-6, 1e-5),
    Row(float("inf"), 32, 4096, 1e-6, 1e-5),
)
CPU_ROWS = (Row(0.3, 8, 256, 1e-5, 5e-5), Row(float("inf"), 8, 512, 2e-6, 2e-5))
LORA_RANK, LORA_RATE = 32, 10.0  # the best learning rate of LoRA is about ten times that of all weights

USABLE = 0.85  # of a device's memory
# Bytes per parameter. All weights: 16 of training state, 4 of working copies, and two reward models of the same size in
# fp32. LoRA on a GPU: frozen weights in bf16, beside reward models of a smaller base; on a CPU they stay fp32.
STATE_BYTES, COPY_BYTES, FULL_BYTES = 16, 12, 28
LORA_BYTES, LORA_BYTES_CPU = 4, 6
WHOLE_BYTES = 4  # of the model in one piece, in fp32, that each of several devices has beside its part of the state
ACTIVATION_BYTES = 70  # per token, layer and width, in bf16
CPU_GIB = 16  # a CPU counts as this, whatever it has
REHEARSAL_GIB = 4096  # a rehearsal's model is small, and the device of the run itself is not known
CLASSES_GIB = (16, 24, 32, 40, 48, 64, 80, 96, 141, 192, 288)  # cards report a little less than their name says


@dataclass(frozen=True, slots=True)
class Device:
    """The device that sizes are chosen for."""

    name: str
    memory_gib: float

    @property
    def is_cpu(self) -> bool:
        return self.name == "cpu"

    @property
    def usable(self) -> float:
        """Bytes."""
        return USABLE * self.memory_gib * GIB


@dataclass(frozen=True, slots=True)
class Sizing:
    """The sizes that follow from a model and a device; `lora_rank` is 0 if all weights are trained."""

    row: Row
    device: Device
    lora_rank: int
    max_tokens: int
    prompt_tokens: int
    row_tokens: int  # of a row of supervised training
    tokens_per_batch: int
    max_rows: int
    recompute: bool
    devices: int = 1
    shard: bool = True  # whether several devices divide the state of training

    @property
    def rl_rate(self) -> float:
        return self._scaled(self.row.rl_rate)

    @property
    def sft_rate(self) -> float:
        return self._scaled(self.row.sft_rate)

    def _scaled(self, rate: float) -> float:
        """2e-05, not 1.9999999999999998e-05: people read it in recipe files."""
        return float(f"{rate * LORA_RATE:.6g}") if self.lora_rank else rate

    def as_text(self, model: str, facts: ModelFacts) -> str:
        """The choice in words, with how to change it."""
        weights = f"LoRA of rank {self.lora_rank}" if self.lora_rank else "all weights"
        recompute = ", activations recomputed" if self.recompute else ""
        shared = ""
        if self.devices > 1:
            shared = f", sharded over {self.devices} of them" if self.shard else f", whole on each of {self.devices}"
        memory = f"{self.device.memory_gib:g} GiB{' each' if shared else ''}"
        if self.device.is_cpu:
            memory = f"counted as {memory}, whatever it has"
        if self.device.memory_gib == REHEARSAL_GIB:
            memory = "as if it had the memory for all weights: --hardware names the device of the run itself"
        return (
            f"sizes for {model} ({facts.size.parameters / 1e9:.3g}B parameters) on {self.device.name} "
            f"({memory}): trains {weights}{shared}; RL with "
            f"{self.row.prompts} prompts x {GROUP} of up to "
            f"{self.max_tokens} tokens, learning rates {self.rl_rate:g} (RL) and {self.sft_rate:g} (SFT); "
            f"{self.tokens_per_batch} tokens per batch, {self.max_rows} completions at once{recompute}. "
            "--set STAGE.FIELD=VALUE changes any of these"
        )


def device_for(hardware: str | None, *, rehearse: bool = False) -> Device:
    """The named device of `HARDWARE`, or the one that this machine has.

    A rehearsal on a CPU is of a run that another machine will do, unless `hardware` is cpu: no memory is too small.
    """
    if hardware == "cpu":
        return Device("cpu", CPU_GIB)
    if hardware is not None:
        return Device(hardware, hardware_named(hardware).memory_gib)
    from r1kit.models.devices import first_card

    if (card := first_card()) is None:
        return Device("cpu", REHEARSAL_GIB if rehearse else CPU_GIB)
    name, memory = card
    return Device(name, max((size for size in CLASSES_GIB if size <= 1.06 * memory / GIB), default=memory / GIB))


def full_bytes(device: Device, devices: int) -> float:
    """Bytes per parameter on each of `devices` if all weights are trained. Ranks on a CPU share one memory."""
    if devices == 1 or device.is_cpu:
        return FULL_BYTES
    return WHOLE_BYTES + COPY_BYTES + STATE_BYTES / devices


def fits_whole(facts: ModelFacts, device: Device, devices: int) -> bool:
    """Whether each of several devices keeps all weights.

    On a GPU, half of the memory must hold them with their state, copies and reward models; on a CPU, whose ranks share
    one memory, the state of all ranks.
    """
    if device.memory_gib == REHEARSAL_GIB:  # the device of the run itself is not known
        return False
    each = devices * STATE_BYTES if device.is_cpu else FULL_BYTES
    return facts.size.parameters * each <= device.usable / 2


def sizing(model: str, facts: ModelFacts, device: Device, devices: int = 1) -> Sizing:
    """The sizes for a model on so many devices. Raises `SettingsError` if not even LoRA fits.

    LoRA is for one device, and for the ranks of a CPU: several GPUs shard the state of all weights instead.
    """
    billions = facts.size.parameters / 1e9
    row = next(row for row in (CPU_ROWS if device.is_cpu else GPU_ROWS) if billions <= row.billions)
    is_full = trains_fully(facts, device, devices)
    if not is_full and devices > 1 and not device.is_cpu:
        largest = device.usable / full_bytes(device, devices) / 1e9
        raise SettingsError(
            f"{model} has {billions:.3g}B parameters, and {devices} of {device.name} with {device.memory_gib:g} GiB "
            f"train up to {largest:.2g}B together, because each also holds the whole model: give a smaller model, or "
            "leave devices out for LoRA on one device"
        )
    lora_rank = 0 if is_full else LORA_RANK
    lora_bytes = LORA_BYTES_CPU if device.is_cpu else LORA_BYTES
    shard = not (lora_rank or fits_whole(facts, device, devices))
    copies = devices if device.is_cpu and not shard else 1  # of everything, in one memory
    full = full_bytes(device, devices) if shard else FULL_BYTES * copies
    state = facts.size.parameters * (lora_bytes * copies if lora_rank else full)
    free = device.usable - state  # for activations in training, and for keys and values in sampling
    if free < 0:
        largest = device.usable / (lora_bytes * copies) / 1e9
        raise SettingsError(
            f"{model} has {billions:.3g}B parameters, and {device.name} with {device.memory_gib:g} GiB trains up to "
            f"{largest:.2g}B (with LoRA): give a smaller model, or name other hardware ({', '.join(HARDWARE)})"
        )
    # at least half of the context is for the prompt
    max_tokens = min(row.tokens, facts.context // 2)
    prompt_tokens = min(2048, facts.context - max_tokens)
    row_tokens = min(facts.context, prompt_tokens + 2 * max_tokens)
    value_bytes = 4 if device.is_cpu else 2
    token_bytes = ACTIVATION_BYTES * value_bytes / 2 * facts.size.layers * facts.size.width
    cached_bytes = (max_tokens + 512) * facts.size.layers * facts.size.cached * value_bytes
    recompute = row_tokens * token_bytes > free  # a long row is computed whole
    tokens_per_batch = _power_of_two(free / max(1, token_bytes), 1024, 2048 if device.is_cpu else 16_384)
    return Sizing(
        row=row,
        device=device,
        lora_rank=lora_rank,
        max_tokens=max_tokens,
        prompt_tokens=prompt_tokens,
        row_tokens=row_tokens,
        tokens_per_batch=max(4096, tokens_per_batch) if recompute else tokens_per_batch,
        max_rows=_power_of_two(free / max(1, cached_bytes), 8, 128 if device.is_cpu else 256),
        recompute=recompute,
        devices=devices,
        shard=shard,
    )


def trains_fully(facts: ModelFacts, device: Device, devices: int = 1) -> bool:
    """Whether all weights of a model can be trained on so many devices."""
    return facts.size.parameters * full_bytes(device, devices) <= device.usable


def _power_of_two(value: float, lowest: int, highest: int) -> int:
    """The largest power of two up to `value`, within bounds."""
    result = lowest
    while result * 2 <= min(value, highest):
        result *= 2
    return result
