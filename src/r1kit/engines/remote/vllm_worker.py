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

    from r1kit.engines.remote.claim import Claim
    from r1kit.models.handover import Handover

FOLDER_ENV = "R1KIT_WEIGHTS_FROM"  # the only folder from which weights are read


class WeightsFromDisk:
    """Methods of a vLLM worker, which has `vllm_config`, `model_runner` and `reload_weights`."""

    vllm_config: Any
    model_runner: Any
    reload_weights: Any
    r1kit_claimed: Claim | None = None
    r1kit_version = ""

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

    def r1kit_claim(self, folder: str) -> dict[str, Any]:
        """See `engines.remote.claim`; returns the name of the weights.

        Only folders below the one that the environment variable R1KIT_WEIGHTS_FROM names are read.
        """
        from r1kit.engines.remote.claim import START, Claim
        from r1kit.store import StoreError

        allowed = os.environ.get(FOLDER_ENV, "")
        if not allowed:
            return {"error": f"the server reads no weights: start it with {FOLDER_ENV}=FOLDER in its environment"}
        self.r1kit_claimed = self.r1kit_claimed or Claim(Path(allowed))
        try:
            self.r1kit_claimed.take(folder)
        except (StoreError, OSError, ValueError) as error:
            return {"error": str(error)}
        return {"version": self.r1kit_version or START}

    def r1kit_load_weights(self, folder: str) -> dict[str, Any]:
        """Load a hand-over of the run that has claimed the server; returns the checksum of what was read, and
        fingerprints of what the worker held and holds."""
        from r1kit.models.fingerprint import fingerprint
        from r1kit.models.handover import Handover
        from r1kit.store import StoreError

        if self.r1kit_claimed is None:
            return {"error": "no run has claimed this server: call r1kit_claim first"}
        try:
            path = self.r1kit_claimed.handed_over(folder)
            handover, before = Handover.read(path), fingerprint(self.model_runner.get_model().state_dict())
            hashes: dict[str, str] = {}
            self.reload_weights(weights_iterator=_hashing(handover, hashes))
        except (StoreError, OSError, ValueError) as error:
            return {"error": f"{type(error).__name__}: {error}"}
        if unread := handover.tensors.keys() - hashes.keys():
            return {"error": f"the model took {len(hashes)} of {len(handover.tensors)} weights, not {min(unread)}"}
        if changed := [name for name, each in hashes.items() if each != handover.tensors[name]["hash"]]:
            return {"error": f"{path}: {changed[0]} is damaged: its hash is not the one that was written down"}
        after = fingerprint(self.model_runner.get_model().state_dict())
        self.r1kit_version = handover.name
        return {"read": handover.checksum, "before": before, "held": after}


def _hashing(handover: Handover, hashes: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors, whose hashes are noted as the model takes them."""
    from r1kit.models.handover import hash_of

    for name, tensor in handover.load():
        hashes[name] = hash_of(tensor)
        yield name, tensor
