"""The learner: forward_backward, step, log-probs, save and load. All training stages share it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain, pairwise, repeat
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from r1kit import ranks
from r1kit.content import require_sealed, seal
from r1kit.models.batch import Batch, Totals
from r1kit.models.compute import autocast, computing, packing
from r1kit.models.fingerprint import fingerprint
from r1kit.models.policy_net import AnyLoss, PolicyNet, net_of
from r1kit.models.router import RouterBalance
from r1kit.models.routing_replay import RoutingReplay
from r1kit.models.shard import copy_part, copy_whole, sharded_copy, whole
from r1kit.models.shared_rows import require_shared_rows
from r1kit.settings import Settings
from r1kit.store import StoreError, atomic_folder
from r1kit.train.optimizers import loading, make_optimizer, take_step
from r1kit.train.packing import level
from r1kit.train.sharded_state import FOLDER, load_moments, load_sharded, save_sharded

BROKEN = (RuntimeError, EOFError, OSError, LookupError, ValueError)  # errors of readers of a damaged file
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """AdamW with a warm-up and a schedule. Of these the paper gives only R1-Zero's learning rate (3e-6)."""

    kind: Literal["adamw", "adamw-8bit"] = Field("adamw", description="adamw-8bit: moments in 8 bits (bitsandbytes)")
    learning_rate: float = Field(1e-6, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="warm-up as a share of all updates, if warmup_steps is 0")
    final_ratio: float = Field(0.0, ge=0, le=1, description="learning rate at the last step, as a share of the peak")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    skip_empty_updates: bool = Field(
        True, description="an update without any gradient (every group solved or failed) leaves the weights as they are"
    )
    router_gamma: float = Field(0.001, ge=0, description="step of DeepSeek-V3's router bias (V3 section 2.1.2)")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of the update at position `step` (from 0) of `steps` planned ones."""
        warmup = self.warmup_steps or math.ceil(self.warmup_ratio * steps)
        if step < warmup:  # + 1: the first update has a learning rate too
            return self.learning_rate * (step + 1) / warmup
        if self.schedule == "constant":
            return self.learning_rate
        # from 0 right after the warm-up to 1 at the last planned update; a run with more updates stays there
        progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
        falling = 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1 - progress
        return self.learning_rate * (self.final_ratio + (1 - self.final_ratio) * falling)


class Learner:
    """A net, its optimizer and the number of updates done.

    `model` is a Hugging Face model. With several ranks, the learner trains a copy that is sharded over them: each rank
    passes the batches of its share and the totals of all ranks, and calls each method that the others call. `steps` is
    the planned number of updates, for the schedule. On a GPU the weights stay fp32 and the forward pass runs under bf16
    autocast.
    """

    def __init__(self, model: Any, settings: OptimizerSettings, *, steps: int, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}: log-probs for training need a temperature above 0")
        self.net = net_of(model)
        self._whole, self._whole_updates = self.net.model, 0  # the model given, and the updates that it has seen
        require_shared_rows(self._whole)
        if ranks.count() > 1:
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

    def forward_backward(
        self, batches: Iterable[Batch], loss: AnyLoss, totals: Totals, measured: Iterable[Batch] = ()
    ) -> dict[str, float]:
        """Add the gradient of `loss` over all `batches`.

        Returns the loss and the means of its sums, over the tokens (or pairs) of `batches` and of `measured`: batches
        known to have no gradient, which only the means cover. All are of all ranks.
        """
        self.net.eval()  # no dropout: on-policy the ratio is exactly 1
        if ranks.count() > 1:
            batches, measured = level(batches, self.device), level(measured, self.device)
        total, count, sums = 0.0, 0, dict[str, float]()
        with packing(self.model, training=True):  # until the update, the weights stay as they are
            for batch, has_gradient in chain(zip(batches, repeat(True)), zip(measured, repeat(False))):
                # the backward pass may compute activations again, so experts are counted in the forward pass alone
                counting = self.router.counting(batch.layout) if has_gradient and batch.order else nullcontext()
                with self.routing.replaying(batch.routing, counts=True):
                    with torch.set_grad_enabled(has_gradient), autocast(self.model), counting:
                        output = self.net(batch, loss, totals, self.temperature)
                    if has_gradient:
                        # adds to the gradients of the batches before: their order decides the last bits
                        output.loss.backward()
                        total += float(output.loss.detach())
                assert output.num_items is not None, "a net fills in the number of its targets"
                count += output.num_items
                for name, value in output.sums.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
        total, count, sums = _added(ranks.gather((total, count, sums)))
        # the loss is divided by `totals` already; the sums are divided here, by the tokens that were measured
        means = {name: value / max(1, count) for name, value in sums.items()}
        return {"loss": total, **means} if count else means

    def step(self, position: int | None = None) -> dict[str, float]:
        """Clip the gradient, update the weights, clear the gradient; returns its norm and the learning rate.

        `position` is the place of this update among the planned ones, from 0, for the schedule; None: the updates done.
        If the gradient is zero, `skip_empty_updates` decides whether momentum and weight decay still move the weights.
        They always do in an update without a position: training on given rows counts its steps by the updates done.
        Raises FloatingPointError if the gradient is not finite, which would make every weight NaN.
        """
        rate = self.settings.rate(self.updates if position is None else position, self.steps)
        for parameter in self.parameters.values():
            if parameter.grad is None:  # AdamW would skip it; momentum and weight decay move all alike
                parameter.grad = torch.zeros_like(parameter)
        # before it is clipped, since a wrong sign or scale shows here first
        self.gradient = fingerprint({name: p.grad for name, p in self.parameters.items() if p.grad is not None})
        # over all ranks: `whole` gathers a sharded norm, and each rank must call it
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.grad_clip)))
        if not math.isfinite(norm):  # before the update, so the weights are still good
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
        return metrics

    def all_logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """log pi [N] of the targets of each batch; ranks may have different numbers of batches."""
        levelled = level(batches, self.device) if ranks.count() > 1 else batches
        return [self.logprobs(batch) for batch in levelled][: len(batches)]

    def logprobs(self, batch: Batch, model: Any = None) -> Tensor:
        """log pi [N] of a batch's targets under the policy, or under `model` (a reference)."""
        net = PolicyNet.of(self.net if model is None else model)
        net.eval()  # as in `forward_backward`: dropout would make a ratio of equal weights differ from 1
        with torch.no_grad(), computing(net.model), self.routing.replaying(batch.routing):
            return net.logprobs(batch, self.temperature)

    def whole_model(self) -> Any:
        """The model with its newest weights in one piece, for engines and files.

        With several ranks it is the model that the learner was given; the weights are gathered into it.
        """
        if self._whole is not self.model and self._whole_updates != self.updates:
            copy_whole(self.model, self._whole)
            self._whole_updates = self.updates
        return self._whole

    def save(self, folder: Path, state: dict[str, Any], reference: Mapping[str, Tensor] | None = None) -> None:
        """Write a checkpoint, atomically, from which `load` continues bit for bit; `reference`: its tensors.

        Any number of ranks can load it, up to rounding where that differs from the number that wrote it.
        """
        from safetensors.torch import save_file

        with atomic_folder(folder) as part:  # a kill leaves no half-written checkpoint
            if ranks.count() > 1:
                shared = ranks.gather(part)[0]
                save_sharded(self._named(reference), self.optimizer, shared)
            else:
                save_file(self.tensors(self.model), part / "policy.safetensors")
                torch.save(self.optimizer.state_dict(), part / "optimizer.pt")
                if reference is not None:  # only one that is refreshed: any other is the policy of the start
                    save_file(dict(reference), part / "reference.safetensors")
            (part / "state.json").write_text(json.dumps({"updates": self.updates, **state}))
            seal(part)
        ranks.meet()  # it has its name now

    def load(self, folder: Path, reference: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """Continue from a checkpoint; returns the state saved with it. Raises `StoreError` if it is damaged."""
        from safetensors import SafetensorError
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            if (folder / FOLDER).is_dir():
                load_sharded(self._named(reference), self.optimizer, folder)
            else:
                self._restore(self.tensors(self.model), folder / "policy.safetensors")
                # weights_only: a pickle could run code
                moments = torch.load(folder / "optimizer.pt", weights_only=True)
                if ranks.count() > 1:
                    load_moments(moments, self.optimizer)
                else:
                    with loading(self.parameters.values()):
                        self.optimizer.load_state_dict(moments)
                if reference is not None:
                    self._restore(reference, folder / "reference.safetensors")
            state: dict[str, Any] = json.loads((folder / "state.json").read_text())
            self.updates, self._whole_updates = int(state["updates"]), -1
        except (CheckpointException, SafetensorError, UnpicklingError, *BROKEN) as error:
            reason = str(error).split("\n")[0].split(". ")[0][:200] or type(error).__name__
            raise StoreError(f"{folder} is damaged ({reason})") from error
        except (TypeError, AttributeError) as error:  # JSON or a pickle of another shape
            raise StoreError(f"{folder} is damaged (its state is not one of r1kit's: {error})") from error
        return state

    def fingerprint(self) -> str:
        """A hash of the exact weights."""
        return fingerprint(self.tensors(self.model))

    def save_weights(self, folder: Path) -> None:
        """Write the weights alone; `load_weights` reads them back."""
        from safetensors.torch import save_file

        with atomic_folder(folder) as part:
            save_file(self.tensors(self.whole_model()), part / "policy.safetensors")
            seal(part)
        ranks.meet()  # they have their name now

    def load_weights(self, folder: Path) -> None:
        """Read the weights that `save_weights` wrote; raises `StoreError` if they are damaged or missing."""
        from safetensors import SafetensorError

        try:
            require_sealed(folder)
            self._restore(self.tensors(self.model), folder / "policy.safetensors")
        except (SafetensorError, RuntimeError, OSError, KeyError) as error:  # `StoreError` is a RuntimeError
            raise StoreError(
                f"the weights in {folder} are damaged or missing ({str(error)[:200]}): delete best/ and checkpoints/ "
                "in the stage's folder, and the stage is trained again"
            ) from error
        self._whole_updates = -1

    def tensors(self, model: Any) -> dict[str, Tensor]:
        """The policy's trainable weights or all of a reference's, and the biases of the routers."""
        parameters = self.parameters if model is self.model else dict(model.named_parameters())
        tensors = {name: parameter.detach() for name, parameter in parameters.items()}
        # moved by `RouterBalance`, not by the optimizer, so they are buffers
        biases = {name: b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")}
        # safetensors refuses views; `contiguous` copies nothing else
        return {name: tensor.contiguous() for name, tensor in (tensors | biases).items()}

    def _named(self, reference: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The tensors of a sharded checkpoint beside the optimizer's."""
        policy = {f"policy/{name}": tensor for name, tensor in self.tensors(self.model).items()}
        return policy | {f"reference/{name}": tensor for name, tensor in (reference or {}).items()}

    def _restore(self, tensors: Mapping[str, Tensor], file: Path) -> None:
        from safetensors.torch import load_file

        saved = load_file(file, device=str(self.device))
        for name, tensor in tensors.items():
            copy_part(tensor, saved[name])  # in place: optimizer and engine hold these tensors


def _added(parts: Sequence[tuple[float, int, dict[str, float]]]) -> tuple[float, int, dict[str, float]]:
    """The loss, the number of items and the sums of all ranks."""
    sums: dict[str, float] = {}
    for name, value in chain.from_iterable(own.items() for _, _, own in parts):
        sums[name] = sums.get(name, 0.0) + value
    return sum(part[0] for part in parts), sum(part[1] for part in parts), sums


def split(items: Sequence[Any], parts: int) -> list[list[Any]]:
    """`parts` runs of nearly equal size: `split([1, 2, 3], 2) == [[1, 2], [3]]`."""
    # rounded bounds, so sizes differ by one at most; empty runs are left out
    bounds = [round(index * len(items) / parts) for index in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(bounds) if b > a]
