"""What a server of vLLM loads to take weights from disk: `--worker-extension-cls
r1kit.engines.remote.vllm_worker.WeightsFromDisk`.

vLLM 0.30 adds the class to its worker's bases, and `POST /collective_rpc` calls its methods in every worker. Answers
are plain dictionaries, because vLLM hides the text of exceptions from clients.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from r1kit.models.handover import Handover

FOLDER_ENV = "R1KIT_WEIGHTS_FROM"  # the only folder from which weights are read


class WeightsFromDisk:
    """Methods of a vLLM worker, which has `vllm_config`, `model_runner` and `reload_weights`."""

    vllm_config: Any
    model_runner: Any
    reload_weights: Any

    def r1kit_facts(self) -> dict[str, Any]:
        """See `engines.remote.server.Facts`."""
        import vllm  # type: ignore[import-not-found]

        config = self.vllm_config.model_config
        return {
            "engine": f"vllm {vllm.__version__}",
            "dtype": str(config.dtype).removeprefix("torch."),
            "context": int(config.max_model_len),
            "logprobs": str(config.logprobs_mode),
            "replicas": int(self.vllm_config.parallel_config.data_parallel_size),
            "holds_checkpoint": False,
        }

    def r1kit_load_weights(self, folder: str) -> dict[str, Any]:
        """Load a hand-over; returns the checksum of what was read, and fingerprints of what the worker held and holds.

        Only a folder below the one that the environment variable R1KIT_WEIGHTS_FROM names is read.
        """
        from r1kit.models.fingerprint import fingerprint
        from r1kit.models.handover import Handover
        from r1kit.store import StoreError

        allowed = os.environ.get(FOLDER_ENV, "")
        if not allowed:
            return {"error": f"the server reads no weights: start it with {FOLDER_ENV}=FOLDER in its environment"}
        path = Path(folder).resolve()
        if not path.is_relative_to(Path(allowed).resolve()):
            return {"error": f"{folder} is not below {allowed}, the folder in {FOLDER_ENV}"}
        try:
            handover, before = Handover.read(path), fingerprint(self.model_runner.get_model().state_dict())
            hashes: dict[str, str] = {}
            self.reload_weights(weights_iterator=_hashing(handover, hashes))
        except (StoreError, OSError, ValueError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        if unread := handover.tensors.keys() - hashes.keys():
            return {"error": f"the model took {len(hashes)} of {len(handover.tensors)} weights, not {min(unread)}"}
        if changed := [name for name, each in hashes.items() if each != handover.tensors[name]["hash"]]:
            return {"error": f"{path}: {changed[0]} is damaged: its hash is not the one that was written down"}
        held = fingerprint(self.model_runner.get_model().state_dict())
        return {"read": handover.checksum, "before": before, "held": held}


def _hashing(handover: Handover, hashes: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors, whose hashes are noted as the model takes them."""
    from r1kit.models.handover import hash_of

    for name, tensor in handover.load():
        hashes[name] = hash_of(tensor)
        yield name, tensor
