"""The learner: forward_backward, step, log-probs, save and load. All training stages share it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain, repeat
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from r1kit import ranks
from r1kit.content import require_sealed, seal
from r1kit.models.batch import Batch, Totals
from r1kit.models.compute import autocast, computing, packed_weights
from r1kit.models.fingerprint import fingerprint
from r1kit.models.policy_net import AnyLoss, PolicyNet, net_of
from r1kit.models.router import RouterBalance
from r1kit.models.routing_replay import RoutingReplay
from r1kit.models.shard import copy_part, copy_whole, sharded_copy, sum_gradients, whole
from r1kit.models.shared_rows import require_shared_rows
from r1kit.settings import Settings
from r1kit.store import StoreError, atomic_folder
from r1kit.train.optimizers import loading, make_optimizer, take_step
from r1kit.train.packing import equal_counts
from r1kit.train.sharded_state import FOLDER, load_moments, load_sharded, save_sharded

READ_ERRORS = (RuntimeError, EOFError, OSError, LookupError, ValueError)  # what readers raise for a damaged file
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """AdamW with a warm-up and a schedule. For RL the paper states only a learning rate: 3e-6 for R1-Zero."""

    kind: Literal["adamw", "adamw-8bit"] = Field("adamw", description="adamw-8bit: moments in 8 bits (bitsandbytes)")
    learning_rate: float = Field(1e-6, gt=0, le=1)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="warm-up as a share of all updates, if warmup_steps is 0")
    final_ratio: float = Field(0.0, ge=0, le=1, description="learning rate at the last step, as a share of the peak")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0, le=1)
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    skip_empty_updates: bool = Field(
        True, description="an update without any gradient (every group solved or failed) leaves the weights as they are"
    )
    router_gamma: float = Field(0.001, ge=0, le=1, description="step of DeepSeek-V3's router bias (V3 section 2.1.2)")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of the update at position `step` (from 0) of `steps` planned ones."""
        warmup = self.warmup_steps or math.ceil(self.warmup_ratio * steps)
        if step < warmup:  # + 1: the first update has a learning rate too
            return self.learning_rate * (step + 1) / warmup
        if self.schedule == "constant":
            return self.learning_rate
        # from 0 right after the warm-up to 1 at the last planned update; a run with more updates stays there
        progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
        decay = 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1 - progress  # from 1 to 0
        return self.learning_rate * (self.final_ratio + (1 - self.final_ratio) * decay)


class Learner:
    """A net, its optimizer and the number of updates done: all loops train with `forward_backward`, then `step`.

    `model` is a Hugging Face model, `steps` the planned number of updates for the learning-rate schedule, and
    `temperature` that of sampling, so that log-probs of trainer and sampler are of one distribution. On a GPU the
    weights stay fp32 and the forward pass runs under bf16 autocast.

    With several ranks the learner trains a copy that is sharded over them (FSDP2), or without `shard` the model itself,
    which every rank then updates in the same way. Each rank passes the batches of its own share and the totals of all
    ranks. Every rank must call every method, in the same order: most of them gather.
    """

    def __init__(
        self, model: Any, settings: OptimizerSettings, *, steps: int, temperature: float = 1.0, shard: bool = True
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}: log-probs for training need a temperature above 0")
        self.net = net_of(model)
        self._whole = self.net.model  # the caller's model, which engines sample from and files are made of
        self._whole_updates = 0  # the updates that it has seen; -1 if weights were loaded since
        require_shared_rows(self._whole)
        self.is_sharded = shard and ranks.count() > 1
        if self.is_sharded:
            self.net = sharded_copy(self._whole)
        self.model, self.settings, self.steps, self.temperature = self.net.model, settings, steps, temperature
        self.device = next(self.model.parameters()).device
        # with LoRA only the adapters: everything else is neither updated nor in a checkpoint
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(self.parameters.values(), settings)
        self.router = RouterBalance(self.model, settings.router_gamma)
        self.routing = RoutingReplay(self.model)
        self.updates = 0
        self.gradient = self.weights = ""  # the fingerprints of the last update, for `step_hashes.jsonl`
        self._require_same_weights()

    def forward_backward(
        self, batches: Iterable[Batch], loss: AnyLoss, totals: Totals, measured: Iterable[Batch] = ()
    ) -> dict[str, float]:
        """Add the gradient of `loss` over all `batches` to the gradients that the weights have.

        `measured` are batches that are known to have no gradient: they cost a forward pass, and only enter the means.
        Returns the loss, and the mean of each of its sums over the tokens (or pairs) of all batches of all ranks.
        """
        self.net.eval()  # no dropout: on-policy the ratio is exactly 1
        if self.is_sharded:  # every pass gathers
            batches, measured = equal_counts(batches, self.device), equal_counts(measured, self.device)
        total, num_items, sums = 0.0, 0, dict[str, float]()
        with packed_weights(self.model, training=True):  # packed weights are copies: right until the next update
            for batch, has_gradient in chain(zip(batches, repeat(True)), zip(measured, repeat(False))):
                # with activation checkpointing the backward pass runs layers again: routing must be replayed there too,
                # and must not be counted twice
                counting = self.router.counting(batch.layout) if has_gradient and batch.order else nullcontext()
                with self.routing.replaying(batch.routing, counts=True):
                    with torch.set_grad_enabled(has_gradient), autocast(self.model), counting:
                        output = self.net(batch, loss, totals, self.temperature)
                    if has_gradient:
                        # adds to the gradients of the batches before, so the order of batches decides the last bits
                        output.loss.backward()
                        total += float(output.loss.detach())
                assert output.num_items is not None, "a net fills in the number of its targets"
                num_items += output.num_items
                for name, value in output.sums.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
        total, num_items, sums = _sum_over_ranks(total, num_items, sums)
        # the loss was divided by `totals`, which count the whole update; the sums only cover the items measured here
        means = {name: value / max(1, num_items) for name, value in sums.items()}
        return {"loss": total, **means} if num_items else means

    def step(self, position: int | None = None) -> dict[str, float]:
        """Clip the gradient, update the weights, clear the gradient; returns its norm and the learning rate.

        `position` is the place of this update among the planned ones, from 0, for the schedule; None takes the number
        of updates done. If the gradient is zero, `skip_empty_updates` decides whether momentum and weight decay still
        move the weights. Without a position they always do: training on given rows finds its place in the data by the
        number of updates. Raises FloatingPointError if the gradient is not finite: it would make every weight NaN.
        """
        rate = self.settings.rate(self.updates if position is None else position, self.steps)
        for parameter in self.parameters.values():
            if parameter.grad is None:  # AdamW would skip it; momentum and weight decay move all alike
                parameter.grad = torch.zeros_like(parameter)
        if ranks.count() > 1 and not self.is_sharded:  # FSDP adds them up in the backward pass
            sum_gradients(self.parameters.values())
        # hashed before clipping, which would hide a wrong scale
        self.gradient = fingerprint({name: p.grad for name, p in self.parameters.items() if p.grad is not None})
        # the norm of the whole gradient: of a sharded one each rank has a part, and `whole` gathers them
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.grad_clip)))
        if not math.isfinite(norm):  # checked before the update, so the weights are still good
            raise FloatingPointError(
                f"the gradient's norm is {norm} at update {self.updates + 1}: lower the learning rate, "
                "and look for NaN in the weights or log-probs of the last metrics"
            )
        metrics = {"optim/grad_norm": norm, "optim/learning_rate": rate}
        if self.routing.blocks:
            differing, replayed = map(sum, zip(*ranks.gather(self.routing.disagreement()), strict=True))
            if replayed:
                metrics["router/disagreement"] = differing / replayed
        if position is not None and self.settings.skip_empty_updates and norm == 0.0:
            self.optimizer.zero_grad(set_to_none=True)
            self.router.forget()
            self.weights = self.fingerprint()
            return metrics
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        take_step(self.optimizer, self.parameters.values(), self.updates)
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        if self.router.routers:
            # after the optimizer: the loads are those of the weights before this update (V3 section 2.1.2)
            metrics["router/worst_load"] = self.router.update()
        self.weights = self.fingerprint()
        self._require_same_weights(self.weights)
        return metrics

    def all_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """log pi [N] of the targets of each batch; ranks may have different numbers of batches."""
        padded = equal_counts(batches, self.device) if self.is_sharded else batches
        return [self.logprobs(batch) for batch in padded][: len(batches)]

    def logprobs(self, batch: Batch, model: Any = None) -> Tensor:
        """log pi [N] of a batch's targets under the policy, or under `model` (a reference)."""
        net = PolicyNet.of(self.net if model is None else model)
        net.eval()  # as in `forward_backward`: dropout would make a ratio of equal weights differ from 1
        with torch.no_grad(), computing(net.model), self.routing.replaying(batch.routing):
            return net.logprobs(batch, self.temperature)

    def whole_model(self) -> Any:
        """The model with its newest weights in one piece, for engines and files.

        It is the model that the learner was given; sharded weights are gathered into it.
        """
        if self._whole is not self.model and self._whole_updates != self.updates:
            copy_whole(self.model, self._whole)
            self._whole_updates = self.updates
        return self._whole

    def save(self, folder: Path, state: dict[str, Any], reference: Mapping[str, Tensor] | None = None) -> None:
        """Write a checkpoint, atomically, from which `load` continues bit for bit.

        `state` is what the loop needs to continue, as JSON, and `reference` the tensors of a reference model that
        training replaces. Another number of ranks can load it too, and then continues up to rounding.
        """
        from safetensors.torch import save_file

        with atomic_folder(folder) as part:  # a kill leaves no half-written checkpoint
            if self.is_sharded:
                # `atomic_folder` gives each rank a temporary folder of its own, and all write into that of the first
                save_sharded(self._checkpoint_tensors(reference), self.optimizer, ranks.gather(part)[0])
            elif ranks.is_first():
                save_file(self.tensors(self.model), part / "policy.safetensors")
                torch.save(self.optimizer.state_dict(), part / "optimizer.pt")
                if reference is not None:  # only one that is refreshed: any other is the policy of the start
                    save_file(dict(reference), part / "reference.safetensors")
            (part / "state.json").write_text(json.dumps({"updates": self.updates, **state}))
            seal(part)
        ranks.meet()  # no rank goes on before the folder has its final name

    def load(self, folder: Path, reference: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """Continue from a checkpoint; returns the state saved with it. Raises `StoreError` if it is damaged.

        All ranks raise it if one does, since they must continue from the same checkpoint.
        """
        with ranks.alike(StoreError):
            state = self._load(folder, reference)
        self._require_same_weights()
        return state

    def _load(self, folder: Path, reference: Mapping[str, Tensor] | None) -> dict[str, Any]:
        from safetensors import SafetensorError
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            if (folder / FOLDER).is_dir():
                load_sharded(self._checkpoint_tensors(reference), self.optimizer, folder)
            else:
                self._read_into(self.tensors(self.model), folder / "policy.safetensors")
                # weights_only: any other pickle could run code
                moments = torch.load(folder / "optimizer.pt", weights_only=True)
                if self.is_sharded:
                    load_moments(moments, self.optimizer)
                else:
                    with loading(self.parameters.values()):
                        self.optimizer.load_state_dict(moments)
                if reference is not None:
                    self._read_into(reference, folder / "reference.safetensors")
            state: dict[str, Any] = json.loads((folder / "state.json").read_text())
            self.updates, self._whole_updates = int(state["updates"]), -1
        except (CheckpointException, SafetensorError, UnpicklingError, *READ_ERRORS) as error:
            reason = str(error).split("\n")[0].split(". ")[0][:200] or type(error).__name__
            raise StoreError(f"{folder} is damaged ({reason})") from error
        except (TypeError, AttributeError) as error:  # JSON or a pickle of another shape
            raise StoreError(f"{folder} is damaged (its state is not one of r1kit's: {error})") from error
        return state

    def fingerprint(self) -> str:
        """A hash of the exact bits of the weights in training; of sharded ones, of this rank's part of them."""
        return fingerprint(self.tensors(self.model))

    def _require_same_weights(self, own: str = "") -> None:
        """Raise RuntimeError unless all ranks that keep the weights whole have the same ones; `own`: their hash."""
        if ranks.count() > 1 and not self.is_sharded:
            hashes = ranks.gather(own or self.fingerprint())
            if len(set(hashes)) > 1:
                raise RuntimeError(
                    f"the ranks have different weights after update {self.updates} ({', '.join(hashes)}), as with "
                    "processors of different kinds: set shard to true"
                )

    def sharing(self) -> dict[str, int]:
        """How several ranks share a step, for its hashes; empty in a process alone.

        Hashes of rows are those of the first rank's part, and so are those of updates if weights are sharded.
        """
        if ranks.count() == 1:
            return {}
        return {"ranks": ranks.count(), "sequence_devices": ranks.row_size(), "sharded": int(self.is_sharded)}

    def save_weights(self, folder: Path) -> None:
        """Write the weights alone; `load_weights` reads them back."""
        from safetensors.torch import save_file

        with atomic_folder(folder) as part:
            save_file(self.tensors(self.whole_model()), part / "policy.safetensors")
            seal(part)
        ranks.meet()  # as in `save`

    def load_weights(self, folder: Path) -> None:
        """Read the weights that `save_weights` wrote; raises `StoreError` if they are damaged or missing."""
        from safetensors import SafetensorError

        try:
            require_sealed(folder)
            self._read_into(self.tensors(self.model), folder / "policy.safetensors")
        except (SafetensorError, RuntimeError, OSError, KeyError) as error:  # `StoreError` is a RuntimeError
            raise StoreError(
                f"the weights in {folder} are damaged or missing ({str(error)[:200]}): delete best/ and checkpoints/ "
                "in the stage's folder, and the stage is trained again"
            ) from error
        self._whole_updates = -1

    def tensors(self, model: Any) -> dict[str, Tensor]:
        """What a checkpoint holds: the policy's trained weights, or all of a reference's, and the routers' biases."""
        parameters = self.parameters if model is self.model else dict(model.named_parameters())
        tensors = {name: parameter.detach() for name, parameter in parameters.items()}
        # `RouterBalance` moves these, not the optimizer, so they are buffers
        biases = {name: b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")}
        # safetensors refuses views; `contiguous` copies nothing else
        return {name: tensor.contiguous() for name, tensor in (tensors | biases).items()}

    def _checkpoint_tensors(self, reference: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The tensors of a sharded checkpoint, by their names in it, without the optimizer's."""
        policy = {f"policy/{name}": tensor for name, tensor in self.tensors(self.model).items()}
        return policy | {f"reference/{name}": tensor for name, tensor in (reference or {}).items()}

    def _read_into(self, tensors: Mapping[str, Tensor], file: Path) -> None:
        """Copy the values of a safetensors file into tensors, in place: optimizer and engine hold these tensors."""
        from safetensors.torch import load_file

        saved = load_file(file, device=str(self.device))
        for name, tensor in tensors.items():
            copy_part(tensor, saved[name])


def _sum_over_ranks(loss: float, num_items: int, sums: dict[str, float]) -> tuple[float, int, dict[str, float]]:
    """The three as sums over all ranks; a rank without batches may lack some of the names."""
    losses, counts, sums_by_rank = zip(*ranks.gather((loss, num_items, sums)), strict=True)
    whole: dict[str, float] = {}
    for name, value in chain.from_iterable(own.items() for own in sums_by_rank):
        whole[name] = whole.get(name, 0.0) + value
    return sum(losses), sum(counts), whole
