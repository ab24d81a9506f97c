"""Devices by name, and the speeds to expect of a model on them."""

from __future__ import annotations

from dataclasses import dataclass

from r1kit.pipeline import ModelSize
from r1kit.settings import SettingsError, nearest

# Shares of a device's peak. Training: DeepSeek-V3's 14.8T tokens x 37B in 2.788M H800-hours are 33 % of bf16. Sampling:
# its serving gives 14.8k tokens/s on a node of 8, 14 %. A sampling step takes at least STEP_S, beside reading weights.
TRAINING_SHARE, SAMPLING_SHARE, STEP_S = 0.33, 0.14, 0.01
LINK_SHARE = 0.8  # of a link's peak that large collectives reach; V3 section 3.2: 160 of NVLink's 200 GB/s
PER_NODE = 8  # devices of a node, if only a larger number of them is given
ROW_BYTES = 4.0  # of a row of a data file per token: English prose and mathematics, with the row's JSON


@dataclass(frozen=True)
class Hardware:
    """One device: operations and bytes per second at its peak, memory, bytes of a weight in sampling.

    `link` and `network` are bytes per second in one direction to devices of the same node, and of other nodes.
    """

    flops: float
    bandwidth: float
    memory_gib: float
    link: float
    network: float
    weight_bytes: int = 2

    @property
    def device(self) -> str:
        """The device's name in torch."""
        return "cpu" if self.weight_bytes == 4 else "cuda"

    def rates(self, size: ModelSize) -> Rates:
        """The speeds to expect of a model."""
        step = size.active * self.weight_bytes / self.bandwidth + STEP_S
        return Rates(self.flops * TRAINING_SHARE, step, 2 * size.active / (self.flops * SAMPLING_SHARE))


@dataclass(frozen=True)
class Rates:
    """Speeds of one model on one device: operations per second in training, seconds per step of decoding that it takes
    however many rows run, and seconds per token of a full batch.

    If measured, `length` is the model's mean completion, `row_bytes` the bytes of a data file's row per token, and
    `low` says whether its linear layers compute in bf16.
    """

    training: float
    step: float
    token: float
    length: float | None = None
    row_bytes: float = ROW_BYTES
    low: bool | None = None


HARDWARE = {
    # links: NVLink of the makers' data sheets, PCIe 4.0 of 16 lanes; networks: assumed, an adapter of 400 Gbit/s for
    # each device (V3 section 3.1 for h800), 200 for a100, 100 for rtx-4090, 10 for a core
    "cpu": Hardware(8e10, 1.5e10, 4, 5e9, 1.25e9, weight_bytes=4),  # a core
    "rtx-4090": Hardware(1.65e14, 1.0e12, 24, 3.2e10, 1.25e10),
    "a100": Hardware(3.12e14, 2.0e12, 80, 3.0e11, 2.5e10),
    "h100": Hardware(9.89e14, 3.35e12, 80, 4.5e11, 5.0e10),
    "h800": Hardware(9.89e14, 3.35e12, 80, 2.0e11, 5.0e10),
    "h200": Hardware(9.89e14, 4.8e12, 141, 4.5e11, 5.0e10),
}


def hardware_named(name: str) -> Hardware:
    """One of `HARDWARE`; raises `SettingsError` for any other."""
    if name not in HARDWARE:
        raise SettingsError(f"there is no hardware {name!r}: {nearest(name, HARDWARE)}")
    return HARDWARE[name]
