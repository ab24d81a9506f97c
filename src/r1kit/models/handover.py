"""Weights on their way from a learner to engines elsewhere: files, and a checksum that both sides compute.

A hand-over is a folder of safetensors files and `handover.json`, which names every tensor with its type, shape and
hash. The learner hashes what it writes, and an engine what it read and, if it can, what it holds afterwards.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r1kit.store import StoreError, atomic_folder, combine, read_object, write_json

FILE = "handover.json"
FILE_BYTES = 2 << 30  # of one file, about: a larger model needs no second copy of all its weights in memory
_NAME = re.compile(r"weights-\d{5}\.safetensors")


@dataclass(frozen=True)
class Handover:
    """What a folder holds: for each tensor its file, dtype, shape and hash.

    `checksum` is that of all tensors. `matrices` is that of those which the engine keeps in the type they came in: if
    it changes, what the engine holds must change.
    """

    folder: Path
    tensors: Mapping[str, Mapping[str, Any]]
    checksum: str
    matrices: str

    @classmethod
    def of(cls, folder: Path, tensors: Mapping[str, Mapping[str, Any]]) -> Handover:
        """The hand-over of these tensors."""
        matrices = {name: each for name, each in tensors.items() if len(each["shape"]) > 1}
        return cls(folder, tensors, _combined(tensors), _combined(matrices))

    @classmethod
    def read(cls, folder: Path) -> Handover:
        """What `write` wrote down; raises `StoreError` if the folder is damaged or holds something else."""
        tensors = read_object(folder / FILE).get("tensors")
        if not isinstance(tensors, dict) or not tensors or not all(_is_entry(each) for each in tensors.values()):
            raise StoreError(f"{folder / FILE} is damaged: expected tensors with file, dtype, shape and hash")
        return cls.of(folder, tensors)

    @property
    def name(self) -> str:
        """The name of these weights: the folder's, which says the learner's version, and two hashes."""
        return f"{self.folder.name}-{self.checksum[:12]}-{self.matrices[:12]}"

    def load(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors, one at a time, on the CPU.

        Raises `StoreError` for a tensor that is missing or is not of the type and shape that were written down.
        """
        from safetensors import SafetensorError, safe_open

        by_file: dict[str, list[str]] = {}
        for name, entry in self.tensors.items():
            by_file.setdefault(entry["file"], []).append(name)
        for file, names in by_file.items():
            try:
                with safe_open(self.folder / file, framework="pt") as opened:
                    for name in names:
                        tensor = opened.get_tensor(name)
                        if _described(tensor) != {key: self.tensors[name][key] for key in ("dtype", "shape")}:
                            raise StoreError(f"{self.folder / file}: {name} has another type or shape than {FILE} says")
                        yield name, tensor
            except (SafetensorError, OSError) as error:
                raise StoreError(f"{self.folder / file} is damaged or missing ({error})") from error


def write(folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Handover:
    """Write weights for an engine that keeps them in `dtype`, atomically.

    Vectors stay as they are: engines keep some of them, such as a router's biases, in fp32. Weights that share memory
    (a tied head) are written once, under their first name.
    """
    from safetensors.torch import save_file

    tensors: dict[str, dict[str, Any]] = {}
    with atomic_folder(folder) as part:
        pending, size, number = dict[str, Tensor](), 0, 1

        def flush() -> None:
            nonlocal size, number
            if pending:
                save_file(pending, part / f"weights-{number:05d}.safetensors")
                pending.clear()
                size, number = 0, number + 1

        for name, tensor in distinct(weights):
            rounds = tensor.is_floating_point() and tensor.dim() > 1
            ready = tensor.detach().to("cpu", dtype if rounds else tensor.dtype).contiguous()
            tensors[name] = {"file": f"weights-{number:05d}.safetensors", **_described(ready), "hash": hash_of(ready)}
            pending[name], size = ready, size + ready.nbytes
            if size >= FILE_BYTES:
                flush()
        flush()
        write_json(part / FILE, {"tensors": tensors})
    return Handover.of(folder, tensors)


def distinct(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors without those that share all their memory with an earlier one."""
    seen = set[tuple[int, torch.Size]]()
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        yield name, tensor


def checksum(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The checksum of tensors as they are: that of a `Handover` which holds the same ones."""
    return _combined({name: {**_described(tensor), "hash": hash_of(tensor)} for name, tensor in tensors})


def hash_of(tensor: Tensor) -> str:
    """A hash of a tensor's bytes."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()[:32]


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def _combined(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    return combine({name: f"{each['dtype']} {each['shape']} {each['hash']}" for name, each in tensors.items()})[:32]


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("file"), str)
        and _NAME.fullmatch(value["file"]) is not None  # a plain name: it cannot lead out of the folder
        and isinstance(value.get("dtype"), str)
        and isinstance(value.get("shape"), list)
        and isinstance(value.get("hash"), str)
    )
