"""The sampler beside the trainer, on a few of a run's own prompts: stops, log-probs, ratio, KL, and new weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from r1kit.chat import ChatFormat
from r1kit.engines import PolicyEngine, require_all
from r1kit.models.batch import Batch, Totals
from r1kit.models.compute import compute_dtype_of
from r1kit.models.load import Policy, named_weights
from r1kit.train.learner import Learner
from r1kit.train.preflight.gradient import CHECK, Piece, gradient_line, gradient_of
from r1kit.train.preflight.lines import Line, line, unclear
from r1kit.train.rl.collect import to_sample
from r1kit.train.rl.objective import Objective
from r1kit.types import Problem, Reward, Rollout, Sample, SamplingParams

SAMPLES, TOKENS = 4, 48  # completions of each prompt, and their longest
ROWS = slice(2, 6)  # samples whose gradient is compared: two of the first prompt and two of the second
UPDATE = 0.02  # of a weight's root mean square: far larger than training's updates, so a stale sampler shows
# Mean difference of log-probs. fp32: 4e-7 in the tiny model, up to 1e-5 in 24 layers. bf16: 0.016 at an entropy of 1.
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.02}
KL_LIMIT = 1e-6  # the same weights and the same code
TEMPERATURES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0)
Rollouts = Sequence[tuple[Problem, Rollout]]


@dataclass(frozen=True)
class Trial:
    """The parts with which a loop samples and trains, tried on a few problems of its task."""

    policy: Policy
    learner: Learner
    objective: Objective
    engine: PolicyEngine
    chat: ChatFormat
    problems: Sequence[Problem]
    params: SamplingParams

    def rollouts(self, n: int = SAMPLES) -> list[tuple[Problem, Rollout]]:
        """`n` short completions of each problem's prompt, sampled as in training, without rewards."""
        prompts = [self.chat.render(problem, self.engine.tokenizer) for problem in self.problems]
        most = min(TOKENS, self.params.max_tokens)
        params = replace(self.params, n=min(n, self.params.n), max_tokens=most)
        sampled = self.engine.generate(prompts, params)
        require_all(sampled, prompts, params.n)
        unjudged = Reward(total=0.0, parts={})
        return [
            (problem, Rollout(prompt=prompt, completion=completion, reward=unjudged))
            for problem, prompt, group in zip(self.problems, prompts, sampled, strict=True)
            for completion in group
        ]

    def lines(self, rollouts: Rollouts) -> list[Line]:
        """All checks of sampler and trainer, on rollouts of this trial."""
        samples = _alternating_samples(rollouts)
        rows = samples[ROWS] or samples  # the slice is empty for fewer completions
        gradient = gradient_of(self.learner, self._pieces(rows), self._totals(rows))
        return [
            self._ends([rollout for _, rollout in rollouts]),
            self._gradient(rows, gradient),  # before the gap, which a leak between packed rows opens too
            *self._on_policy(samples),
            self._new_weights(gradient),
        ]

    def _ends(self, rollouts: Sequence[Rollout]) -> Line:
        """Check that completions end at the policy's end tokens, and nowhere else."""
        ends, check = set(self.policy.end_ids), "end of completions"
        ended = beyond = elsewhere = 0
        for completion in (rollout.completion for rollout in rollouts):
            *before, last = completion.token_ids
            is_at_end, is_stopped = last in ends, completion.finish_reason == "stop"
            beyond += not ends.isdisjoint(before) or (is_at_end and not is_stopped)
            elsewhere += is_stopped and not is_at_end and not self.policy.end_texts
            ended += is_at_end
        marks = ", ".join(self.policy.tokenizer.convert_ids_to_tokens(list(self.policy.end_ids)))
        if beyond or elsewhere:
            value = f"of {len(rollouts)} completions {beyond} go on behind {marks}, {elsewhere} stop at another token"
            remedy = "let the sampler stop at the end tokens that training teaches: give the engine those of the policy"
            return line(check, value, False, remedy, "0")
        if not ended:
            return unclear(check, f"none of the short completions reaches its end, {marks}")
        return line(check, f"{ended} of {len(rollouts)} short completions end, at {marks}", True, "")

    def _on_policy(self, samples: Sequence[Sample]) -> list[Line]:
        """Check for equal log-probs of sampler and trainer, ratios of 1, and a KL of 0 to the reference."""
        batches = self._batches(samples)
        now = self._logprobs(batches)  # [N]
        sampler, old, reference = (
            torch.cat([getattr(batch.targets, name) for batch in batches])
            for name in ("sampler_logprobs", "old_logprobs", "ref_logprobs")
        )
        gap, ratio, limit = _distance(now, sampler), float((now - old).expm1().abs().mean()), self._limit(now)
        remedy = "use one temperature, one precision and the same weights on both sides, as r1kit's own engine does"
        if gap > limit and (temperature := self._temperature_of(batches, sampler)):
            remedy = f"the sampler's temperature is about {temperature:g}, the trainer's {self.learner.temperature:g}"
            remedy += ": set one for both"
        lines = [line("sampler-trainer gap", f"{gap:.1g} nats per token", gap <= limit, remedy, f"{limit:.2g}")]
        remedy = "the ratio needs the log-probs of the policy that sampled: see the gap; or set recompute_old_logprobs"
        value = f"1 \N{PLUS-MINUS SIGN} {ratio:.1g}"
        lines.append(line("ratio on-policy", value, ratio <= limit, remedy, f"{limit:.2g}"))
        if self.objective.reference is not None:
            kl = float(((reference - now).expm1() - (reference - now)).mean())  # k3
            remedy = "the reference must be the policy of the start: it has other weights, adapters or precision"
            lines.append(line("KL at step 0", f"{kl:.1g} nats per token", kl <= KL_LIMIT, remedy, f"{KL_LIMIT:g}"))
        return lines

    def _limit(self, logprobs: Tensor) -> float:
        """The limit of the gap between sampler and trainer.

        If either rounds to bf16, log-probs of a flat distribution (a high entropy) differ more.
        """
        limit = LIMITS[compute_dtype_of(self.learner.model)]
        if self.engine.dtype != "float32":
            limit = LIMITS[torch.bfloat16]
        return limit if limit < 0.01 else max(limit, 0.1 * float(-logprobs.mean()))

    def _temperature_of(self, batches: Sequence[Batch], sampler: Tensor) -> float | None:
        """The temperature at which the trainer's log-probs are the sampler's; None if none explains the gap."""
        own, distances = self.learner.temperature, dict[float, float]()
        for temperature in (own, *TEMPERATURES):
            self.learner.temperature = temperature
            distances[temperature] = _distance(self._logprobs(batches), sampler)
        self.learner.temperature = own
        best = min(distances, key=distances.__getitem__)
        return best if best != own and distances[best] < 0.3 * distances[own] else None

    def _gradient(self, rows: Sequence[Sample], gradient: dict[str, Tensor]) -> Line:
        """Check that the gradient does not depend on whether samples share rows and prompts."""
        if self.objective.chooses_tokens:
            return unclear(CHECK, "the loss chooses tokens among all of an update")
        return gradient_line(self.learner, gradient, [self._pieces([row]) for row in rows], self._totals(rows))

    def _new_weights(self, gradient: dict[str, Tensor]) -> Line:
        """Check that an update reaches the sampler: its log-probs are the new policy's, not those of the one before.

        Only one layer's weights move, and they get their exact bits back afterwards, in the sampler too.
        """
        check, learner = "weights reach the sampler", self.learner
        with _moved(learner, gradient):
            self.engine.load_weights(named_weights(learner.model), version=learner.updates)
            moved = _alternating_samples(self.rollouts(n=1))
            gap_to_new = self._gap(moved)
        self.engine.load_weights(named_weights(learner.model), version=learner.updates)
        gap_to_old = self._gap(moved)
        value = f"{gap_to_new:.1g} from the updated policy, {gap_to_old:.1g} from the one before"
        if max(gap_to_new, gap_to_old) <= LIMITS[compute_dtype_of(learner.model)]:
            return unclear(check, "the trial update moves no log-prob")
        remedy = "updates do not arrive in the sampler: check how the engine loads weights, adapters too"
        return line(check, value, gap_to_new < gap_to_old, remedy, "nearer to the updated one")

    def _pieces(self, samples: Sequence[Sample]) -> list[Piece]:
        return [(part.loss, part.batches) for part in self.objective.prepare(samples)]

    def _batches(self, samples: Sequence[Sample]) -> list[Batch]:
        return [batch for part in self.objective.prepare(samples) for batch in (*part.batches, *part.measured)]

    def _totals(self, samples: Sequence[Sample]) -> Totals:
        return Totals.of(samples, self.params.max_tokens)

    def _logprobs(self, batches: Sequence[Batch]) -> Tensor:
        return torch.cat([self.learner.logprobs(batch) for batch in batches])  # [N]

    def _gap(self, samples: Sequence[Sample]) -> float:
        """The mean difference, in nats per token, between the sampler's log-probs and the trainer's now."""
        batches = self._batches(samples)
        return _distance(self._logprobs(batches), torch.cat([batch.targets.sampler_logprobs for batch in batches]))


def _alternating_samples(rollouts: Rollouts) -> list[Sample]:
    """Samples with advantages of 1 and -1 in turn, so that each has a gradient."""
    return [
        to_sample(rollout, 1.0 - 2.0 * (number % 2), problem.source)
        for number, (problem, rollout) in enumerate(rollouts)
    ]


def _distance(logprobs: Tensor, others: Tensor) -> float:
    assert logprobs.shape == others.shape, "log-probs of the same tokens"
    return float((logprobs - others).abs().mean())


@contextmanager
def _moved(learner: Learner, gradient: dict[str, Tensor]) -> Iterator[None]:
    """A block in which the last weight of each kind, those of one layer, has moved a step down its gradient.

    Afterwards the weights have their exact bits again.
    """
    last = {re.sub(r"\d+", "", name): name for name in learner.parameters}.values()
    weights = {name: learner.parameters[name] for name in last}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        for name, weight in weights.items():
            rms = float(weight.float().square().mean().sqrt()) or 1.0  # new adapters are 0
            direction = torch.where(gradient[name] > 0, -1.0, 1.0)  # moves weights without a gradient too
            weight.add_(direction.to(weight.dtype), alpha=UPDATE * rms)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
