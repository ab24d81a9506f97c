"""The local engine: continuous batching with the policy's own tensors, on CPU or one GPU.

A step prefills the prompts that were admitted (each prompt once for all its completions), then decodes one token of
every running sequence. Finished sequences leave at once and free their slot of the KV cache.
"""

from __future__ import annotations

import math
from collections import Counter, abc
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from r1kit.engines import PromptError, Report
from r1kit.engines.ask import refuse_long
from r1kit.engines.local.decoders import decoder_of
from r1kit.engines.local.sampling import sample, uniforms
from r1kit.engines.local.scheduler import Scheduler, Sequence
from r1kit.models.compute import computing
from r1kit.models.head import Head
from r1kit.models.load import Policy, has_adapters
from r1kit.types import Completion, Prompt, SamplingParams

LOGITS_ROWS = 64  # rows whose logits are sampled at once, while they are in the processor's cache
READ_EVERY = {"cpu": 1, "cuda": 16}  # tokens of a row by device; a GPU would stand still while each token is read


class LocalEngine:
    """A `PolicyEngine` that samples with `policy`'s own tensors: if a learner trains them, it samples the newest.

    At most `max_rows` completions run side by side; the KV cache takes `max_rows` x the longest sequence so far.
    Sampled tokens are read back after `read_every` of each row; rows that ended before run on until then, in vain.
    """

    def __init__(self, policy: Policy, *, max_rows: int = 128, read_every: int | None = None) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}: at least one completion must run")
        self.policy, self.max_rows = policy, max_rows
        self.read_every = read_every or READ_EVERY.get(policy.model.device.type, 1)
        self.version = 0

    @property
    def tokenizer(self) -> Any:
        return self.policy.tokenizer

    @property
    def context(self) -> int:
        return self.policy.context

    def load_weights(self, named_tensors: abc.Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copy tensors that are not the policy's own. Raises ValueError for a name or shape that the model lacks.

        A policy with LoRA adapters samples through them, so its merged weights are not read.
        """
        self.version = version
        if has_adapters(self.policy.model):
            return
        # tensors without gradients that share the parameters' memory, so copy_ changes the model
        own = self.policy.model.state_dict()
        for name, tensor in named_tensors:
            if name not in own or own[name].shape != tensor.shape:
                have = f"{name} with shape {tuple(own[name].shape)}" if name in own else "no such tensor"
                raise ValueError(f"weights came for {name} with shape {tuple(tensor.shape)}: the policy has {have}")
            if own[name].data_ptr() != tensor.data_ptr():
                own[name].copy_(tensor)

    def generate(
        self, prompts: abc.Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Raises `PromptError`, before any work, if a prompt is empty or leaves no room for `max_tokens`."""
        for prompt in prompts:
            name, size = prompt.problem_id, len(prompt.token_ids)
            if not size:
                raise PromptError(f"the prompt of {name} is empty: it needs at least one token", name)
            refuse_long(name, size, params.max_tokens, self.context, "drop long prompts")
        self.policy.model.eval()  # no dropout; a learner switches back to train()
        with torch.inference_mode(), computing(self.policy.model):
            return Generation(self, prompts, params, report).run()


class Generation:
    """The state of one `generate` call."""

    def __init__(
        self, engine: LocalEngine, prompts: abc.Sequence[Prompt], params: SamplingParams, report: Report | None
    ) -> None:
        params = replace(params, stop=(*params.stop, *engine.policy.end_texts))
        self.engine, self.prompts, self.params, self.report = engine, prompts, params, report
        self.model, self.tokenizer = engine.policy.model, engine.policy.tokenizer
        self.device = self.model.device
        self.head = Head.of(self.model)
        self.eos_ids = {*engine.policy.end_ids, *params.stop_token_ids}
        lengths = [len(prompt.token_ids) for prompt in prompts]
        slots = min(engine.max_rows, len(prompts) * params.n)  # sequences that run at once
        self.scheduler = Scheduler(lengths, params.n, slots)
        self.decoder = decoder_of(self.model, slots, [prompt.token_ids for prompt in prompts])
        self.last_tokens = torch.zeros(slots, dtype=torch.long, device=self.device)  # [slots], inputs of the next step
        # [prompts][n], in the order of the request, however the sequences were scheduled
        self.results: list[list[Completion | None]] = [[None] * params.n for _ in prompts]
        self.num_done = 0
        # a sequence's random numbers depend on its problem and sample only; a problem that comes twice gets two names
        seen: Counter[str] = Counter()
        self.names = []
        for prompt in prompts:
            self.names.append(f"{prompt.problem_id}#{seen[prompt.problem_id]}")
            seen[prompt.problem_id] += 1

    def run(self) -> list[list[Completion]]:
        while self.scheduler.waiting or self.scheduler.running:
            first = len(self.scheduler.running)
            if admitted := self.scheduler.admit():
                self.prefill(admitted, first)
            if self.scheduler.running:
                self.decode()
        assert self.num_done == len(self.prompts) * self.params.n, "a sequence got lost"
        return [[completion for completion in group if completion is not None] for group in self.results]

    def prefill(self, admitted: list[list[Sequence]], first: int) -> None:
        """Run the prompts of new groups and sample their first tokens; they take slots [first:]."""
        for sequence in (sequence for group in admitted for sequence in group):
            name = f"{self.names[sequence.prompt]}/{sequence.sample}"
            sequence.uniforms = uniforms(self.params.seed, name, self.params.max_tokens).tolist()
        sizes = [len(group) for group in admitted]
        hidden = self.decoder.prefill([self.prompts[group[0].prompt].token_ids for group in admitted], sizes)
        logits = self.head.logits(hidden)  # [groups, V], of the first tokens of all their completions
        repeats = torch.tensor(sizes, device=self.device)
        # with the size of the result, which a GPU would otherwise be asked for
        logits = logits.repeat_interleave(repeats, dim=0, output_size=sum(sizes))  # [new slots, V]
        tokens, logprobs = sample(logits, self.draws(first, 1)[:, 0], self.params)  # [new slots] each
        self.last_tokens[first : first + len(tokens)] = tokens
        self.read(first, tokens[:, None], logprobs[:, None])

    def decode(self) -> None:
        """`read_every` tokens for every running sequence, or as many as the first to reach `max_tokens` has left."""
        steps = min(self.engine.read_every, *(sequence.left for sequence in self.scheduler.running))
        uniform = self.draws(0, steps)  # [rows, steps]
        self.decoder.reserve(steps)
        tokens, logprobs = zip(*(self.step(uniform[:, step]) for step in range(steps)), strict=True)
        self.read(0, torch.stack(tokens, dim=1), torch.stack(logprobs, dim=1))

    def draws(self, first: int, steps: int) -> Tensor:
        """[slots - first, steps], the random numbers of the next tokens of slots [first:]."""
        draws = [sequence.draws(steps) for sequence in self.scheduler.running[first:]]
        return torch.tensor(draws, dtype=torch.float64, device=self.device)

    def step(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The next token and its log-prob [rows] for every running sequence, from uniform numbers [rows].

        Only tensors on the device go in and out, and all shapes depend on `rows` and the cache's size alone. So a GPU
        never waits for the host here, and the step can be recorded.
        """
        rows = len(uniform)
        hidden = self.decoder.step(self.last_tokens[:rows])  # [rows, d]
        parts = zip(hidden.split(LOGITS_ROWS), uniform.split(LOGITS_ROWS), strict=True)
        sampled = [sample(self.head.logits(states), draws, self.params) for states, draws in parts]
        tokens, logprobs = (torch.cat(pieces) for pieces in zip(*sampled, strict=True))
        self.last_tokens[:rows] = tokens
        return tokens, logprobs

    def read(self, first: int, tokens: Tensor, logprobs: Tensor) -> None:
        """Give the sequences of slots [first:] their new tokens [slots - first, steps]; finished ones leave."""
        running = self.scheduler.running
        rows = zip(range(first, len(running)), tokens.tolist(), logprobs.tolist(), strict=True)
        for slot, *new in reversed(list(rows)):  # backwards: a sequence that moves into `slot` was read
            completion = self.extended(running[slot], *new)
            if completion is not None:
                self.results[running[slot].prompt][running[slot].sample] = completion
                self.num_done += 1
                if self.report:
                    self.report(self.num_done, len(self.prompts) * self.params.n)
                self.last_tokens[slot] = self.last_tokens[self.scheduler.remove(slot)]
                self.decoder.remove(slot)

    def extended(self, sequence: Sequence, token_ids: list[int], logprobs: list[float]) -> Completion | None:
        """The completion, if one of the new tokens ended it; those behind it are dropped.

        Raises FloatingPointError for logits that were NaN or infinite.
        """
        for token, logprob in zip(token_ids, logprobs, strict=True):
            if math.isnan(logprob):
                raise FloatingPointError(
                    "the model's logits are NaN or infinite: its weights are damaged or training diverged"
                )
            sequence.token_ids.append(token)
            sequence.logprobs.append(logprob)
            if completion := self.finished(sequence):
                return completion
        return None

    def finished(self, sequence: Sequence) -> Completion | None:
        """The completion, if its newest token ended it."""
        ended = sequence.token_ids[-1] in self.eos_ids
        text = self.text_before_stop(sequence.token_ids) if self.params.stop and not ended else None
        stopped = ended or text is not None
        if not stopped and len(sequence.token_ids) < self.params.max_tokens:
            return None
        if text is None:  # the text excludes the end token, the ids include it
            text = self.decoded(sequence.token_ids[:-1] if ended else sequence.token_ids)
        return Completion(
            token_ids=tuple(sequence.token_ids),
            logprobs=tuple(sequence.logprobs),
            text=text,
            finish_reason="stop" if stopped else "length",
            policy_version=self.engine.version,
        )

    def text_before_stop(self, token_ids: list[int]) -> str | None:
        """The text before the first stop string, if the newest token completed one."""
        # decode only the end first: decoding all tokens at each step would take quadratic time
        tail = self.decoded(token_ids[-32 - max(map(len, self.params.stop)) :])  # a token may hold many stop strings
        if not any(stop in tail for stop in self.params.stop):
            return None
        text = self.decoded(token_ids)
        cuts = [place for place in (text.find(stop) for stop in self.params.stop) if place >= 0]
        return text[: min(cuts)] if cuts else None

    def decoded(self, token_ids: abc.Sequence[int]) -> str:
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=False))
