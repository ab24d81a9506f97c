"""The reference of the KL term: the policy of an earlier time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from r1kit.models.batch import Batch
from r1kit.models.idle import HOME, visiting
from r1kit.models.load import frozen_copy, has_adapters
from r1kit.train.learner import Learner


class Reference:
    """The learner's policy as it is now, frozen.

    With LoRA it keeps a copy of the adapters only and borrows the learner's model; new adapters change nothing, so the
    first reference is the base model. Otherwise it is a second model, which with `idles_off` waits in main memory
    between two passes.
    """

    def __init__(self, learner: Learner, *, idles_off: bool = True) -> None:
        self.learner = learner
        self.model: Any = None
        if has_adapters(learner.model):
            self.adapters = {name: weight.detach().clone() for name, weight in learner.parameters.items()}
            return
        self.model = frozen_copy(learner.whole_model())
        if idles_off:
            self.model.to(HOME)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The adapters or weights, and the biases of the routers, for a checkpoint."""
        return self.adapters if self.model is None else self.learner.tensors(self.model)

    def logprobs(self, batches: Sequence[Batch]) -> list[Tensor]:
        """log pi [N] of each batch's targets under the reference.

        Its routers choose for themselves: the experts that the sampler recorded are those of other weights.
        """
        batches = [replace(batch, routing=None) for batch in batches]
        if self.model is None:
            with self._adapters_swapped():
                return [self.learner.logprobs(batch) for batch in batches]
        with visiting(self.model, self.learner.device):
            return [self.learner.logprobs(batch, self.model) for batch in batches]

    @contextmanager
    def _adapters_swapped(self) -> Iterator[None]:
        """A block in which the learner's model has the reference's adapters, in the same parameters."""
        current = {name: weight.data for name, weight in self.learner.parameters.items()}
        try:
            for name, weight in self.learner.parameters.items():
                weight.data = self.adapters[name]
            yield
        finally:
            for name, weight in self.learner.parameters.items():
                weight.data = current[name]
