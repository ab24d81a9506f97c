"""The local engine: continuous batching with the policy's own tensors, on CPU or one GPU.

`Generation.advance` prefills the prompts that were admitted (each prompt once for all its completions), then decodes a
token of every running sequence. Finished sequences leave at once and free their slot of the KV cache.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import abc
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from r1kit.engines import Report
from r1kit.engines.local.decoders import decoder_of
from r1kit.engines.local.sampling import ids_of, likeliest, sample_rows, uniforms
from r1kit.engines.local.scheduler import Request, Scheduler, Sequence
from r1kit.engines.token_prompts import numbered_names, require_fitting, text_before
from r1kit.models.compute import compute_dtype_of, computing
from r1kit.models.head import Head
from r1kit.models.load import Policy, has_adapters
from r1kit.types import Completion, Prompt, SamplingParams

LOGITS_AT_ONCE = 3 << 20  # logits that are sampled together, while they are in the processor's cache
READ_EVERY = {"cpu": 1, "cuda": 16}  # tokens of a row by device; a GPU would stand still while each token is read


class LocalEngine:
    """A `PolicyEngine` that samples with `policy`'s own tensors: if a learner trains them, it samples the newest.

    At most `max_rows` completions run side by side; the KV cache takes `max_rows` x the longest sequence so far.
    Sampled tokens are read back after `read_every` of each row; rows that ended before that run on until then, and what
    they sampled is dropped.
    """

    def __init__(self, policy: Policy, *, max_rows: int = 128, read_every: int | None = None) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}: at least one completion must run")
        self.policy, self.max_rows = policy, max_rows
        self.read_every = read_every or READ_EVERY.get(policy.model.device.type, 1)
        self.version = 0
        self.lock = threading.Lock()  # of a judge that rewards and the probe ask from different threads (staleness=1)

    @property
    def tokenizer(self) -> Any:
        return self.policy.tokenizer

    @property
    def context(self) -> int:
        return self.policy.context

    @property
    def dtype(self) -> str:
        return str(compute_dtype_of(self.policy.model)).removeprefix("torch.")

    def load_weights(self, named_tensors: abc.Iterable[tuple[str, Tensor]], version: int) -> None:
        """Copy tensors that are not the policy's own. Raises ValueError for a name or shape that the model lacks.

        A policy with LoRA adapters samples through them, so its merged weights are not read.
        """
        self.version = version
        if has_adapters(self.policy.model):
            return
        # `state_dict` gives tensors that share the parameters' memory, so `copy_` changes the model
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
        requests = self.requests(prompts, params)
        completions: dict[Request, list[Completion | None]] = {request: [None] * params.n for request in requests}
        num_done, total = 0, len(prompts) * params.n
        with self.session():
            generation = Generation(self, requests)
            while generation.busy:
                for sequence in generation.advance():
                    completions[sequence.request][sequence.sample] = sequence.completion
                    num_done += 1
                    if report:
                        report(num_done, total)
        assert num_done == total, "a sequence got lost"
        # in the order of the prompts, however the sequences were scheduled
        return [[completion for completion in group if completion is not None] for group in completions.values()]

    def requests(self, prompts: abc.Sequence[Prompt], params: SamplingParams) -> list[Request]:
        """One request per prompt. Raises `PromptError` if one is empty or leaves no room for `max_tokens`."""
        require_fitting(prompts, params.max_tokens, self.context)
        params = self.policy.with_ends(params)
        names = numbered_names(prompts)
        return [Request(name, prompt.token_ids, params) for name, prompt in zip(names, prompts, strict=True)]

    @contextmanager
    def session(self) -> abc.Iterator[None]:
        """A block in which a `Generation` may run, in this thread; others wait. The weights must not change inside."""
        with self.lock:
            self.policy.model.eval()  # no dropout; a learner switches back to train()
            with torch.inference_mode(), computing(self.policy.model):
                yield


class Generation:
    """Sequences that run side by side. Requests may join and leave between steps.

    If all prompts of the first `requests` begin alike, they share that part of the cache, and prompts that are added
    later must begin with it too. `prefill_tokens` is that of `Scheduler`. Use it inside the engine's `session`.

    In comments, `slots` are places in the cache, `rows` those in use: row r is the sequence `scheduler.running[r]`.
    """

    def __init__(
        self, engine: LocalEngine, requests: abc.Sequence[Request] = (), prefill_tokens: float = math.inf
    ) -> None:
        self.engine = engine
        self.model, self.tokenizer = engine.policy.model, engine.policy.tokenizer
        self.device = self.model.device
        self.head = Head.of(self.model)
        self.rows_at_once = max(64, LOGITS_AT_ONCE // len(self.head.weight))  # a part costs some twenty calls
        count = sum(request.params.n for request in requests)
        slots = min(engine.max_rows, count) if requests else engine.max_rows  # sequences that run at once
        self.scheduler = Scheduler(slots, prefill_tokens)
        self.scheduler.add(requests)
        self.records_routing = any(request.params.routing for request in requests)
        prompts = [request.token_ids for request in requests]
        self.decoder = decoder_of(self.model, slots, prompts, records=self.records_routing)
        self.last_tokens = torch.zeros(slots, dtype=torch.long, device=self.device)  # [slots], inputs of the next step
        self.ended: list[Sequence] = []  # since `advance` was called

    @property
    def busy(self) -> bool:
        """Whether any sequence runs or waits."""
        return bool(self.scheduler.waiting or self.scheduler.running)

    def add(self, requests: abc.Iterable[Request]) -> None:
        """Let more requests join as soon as slots are free."""
        requests = list(requests)
        assert self.records_routing or not any(r.params.routing for r in requests), "the first requests decide it"
        self.scheduler.add(requests)

    def cancel(self, request: Request) -> None:
        """Drop a request's sequences, waiting and running ones; the others do not notice."""
        self.scheduler.withdraw(request)
        running = self.scheduler.running
        for slot in reversed(range(len(running))):  # backwards: the sequence that moves into `slot` was checked already
            if running[slot].request is request:
                self.free(slot)

    def advance(self) -> list[Sequence]:
        """Start waiting requests if slots are free, and decode once. Returns the sequences that ended."""
        self.ended = []
        first = len(self.scheduler.running)
        if admitted := self.scheduler.admit():
            self.prefill(admitted, first)
        if self.scheduler.running:
            self.decode()
        return self.ended

    def prefill(self, admitted: list[list[Sequence]], first: int) -> None:
        """Run the prompts of new groups and sample their first tokens; they take slots [first:]."""
        for sequence in (sequence for group in admitted for sequence in group):
            request = sequence.request
            name = f"{request.name}/{sequence.sample}"
            sequence.uniforms = uniforms(request.params.seed, name, request.params.max_tokens).tolist()
        sizes, requests = [len(group) for group in admitted], [group[0].request for group in admitted]
        prompts, whole = [request.token_ids for request in requests], any(each.scores_prompt for each in requests)
        hidden, prompt_states, experts = self.decoder.prefill(prompts, sizes, whole=whole)
        # `strict` is off: both lists are empty unless they were asked for
        for group, experts_of_prompt in zip(admitted, experts, strict=False):
            routing = _by_token(experts_of_prompt)  # the arrays are shared by the group, the lists are not
            for sequence in group:
                sequence.routing = routing.copy()
        for request, states in zip(requests, prompt_states, strict=False):
            if request.scores_prompt and not request.prompt_logprobs:  # a large group is prefilled in parts
                self.score_prompt(request, states)
        logits = self.head.logits(hidden)  # [groups, V], for the first token of each completion
        repeats = torch.tensor(sizes, device=self.device)
        # the size is given, because a GPU would have to be asked for it
        logits = logits.repeat_interleave(repeats, dim=0, output_size=sum(sizes))  # [new rows, V]
        uniform = self.next_uniforms(first, 1)[:, 0]  # [new rows]
        tokens, *rest = sample_rows(logits, uniform, *self.sampling(first))  # [new rows] each
        self.last_tokens[first : first + len(tokens)] = tokens
        self.read(first, *(each[:, None] for each in (tokens, *rest)))

    def score_prompt(self, request: Request, states: Tensor) -> None:
        """Log-probs of a prompt's tokens [1:] from the hidden states [tokens, d] of all of them."""
        targets = torch.tensor(request.token_ids[1:], device=self.device)
        for part, ids in zip(states[:-1].split(self.rows_at_once), targets.split(self.rows_at_once), strict=True):
            logits = self.head.logits(part)  # [n, V]
            logprobs = logits.log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]
            request.prompt_logprobs += logprobs.tolist()
            if request.top:
                top_logprobs, top_ids = likeliest(logits, request.top)
                request.prompt_top += map(_pairs, top_ids.tolist(), top_logprobs.tolist())

    def decode(self) -> None:
        """`read_every` tokens for every running sequence, or fewer if one of them reaches its `max_tokens` before."""
        steps = min(self.engine.read_every, *(sequence.remaining for sequence in self.scheduler.running))
        uniform = self.next_uniforms(0, steps)  # [rows, steps]
        self.decoder.reserve(steps)
        sampled = zip(*(self.step(uniform[:, step]) for step in range(steps)), strict=True)
        stacked = [torch.stack(each, dim=1) for each in sampled]  # [rows, steps, ...] each
        if self.records_routing:
            experts = stacked.pop().cpu()  # [rows, steps, R * k], in one transfer
            for sequence, experts_of_row in zip(self.scheduler.running, experts, strict=True):
                sequence.routing += _by_token(experts_of_row)
        self.read(0, *stacked)

    def next_uniforms(self, first: int, steps: int) -> Tensor:
        """The random numbers [rows - first, steps] of the next tokens of rows [first:]."""
        uniform = [sequence.next_uniforms(steps) for sequence in self.scheduler.running[first:]]
        return torch.tensor(uniform, dtype=torch.float64, device=self.device)

    def sampling(self, first: int = 0) -> tuple[list[SamplingParams], int]:
        """How rows [first:] sample, and how many of the likeliest tokens are kept for each."""
        requests = [sequence.request for sequence in self.scheduler.running[first:]]
        return [request.params for request in requests], max(request.top for request in requests)

    def step(self, uniform: Tensor) -> tuple[Tensor, ...]:
        """The next token and its log-prob [rows] for every running sequence, from uniform numbers [rows].

        If a request keeps the likeliest tokens, also their log-probs and ids [rows, top]; if one keeps its sampling
        mask, also the mask's bits [rows, V / 8]; if one keeps its routing, also the experts [rows, R * k] of the tokens
        that the model read. Only tensors on the device go in and out, and all shapes depend on `rows` and the cache's
        size alone. So a GPU never waits for the host here, and the step can be recorded and replayed.
        """
        rows, size = len(uniform), self.rows_at_once
        params, top = self.sampling()
        hidden, *experts = self.decoder.step(self.last_tokens[:rows])  # [rows, d]
        parts = zip(range(0, rows, size), hidden.split(size), uniform.split(size), strict=True)
        sampled = [
            sample_rows(self.head.logits(states), numbers, params[start : start + size], top)
            for start, states, numbers in parts
        ]
        tokens, *rest = (torch.cat(pieces) for pieces in zip(*sampled, strict=True))
        self.last_tokens[:rows] = tokens
        return (tokens, *rest, *experts)

    def read(self, first: int, tokens: Tensor, logprobs: Tensor, *top: Tensor) -> None:
        """Give the sequences of rows [first:] their new tokens [rows - first, steps]; finished ones leave.

        `top` are log-probs and ids [rows - first, steps, top] of the likeliest tokens, and then the bits
        [rows - first, steps, V / 8] of the sampling masks, each if a request asked for it.
        """
        running = self.scheduler.running
        if any(sequence.request.params.sampling_mask for sequence in running[first:]):
            top, masks = top[:-1], top[-1]
            for sequence, bits in zip(running[first:], masks.cpu().numpy(), strict=True):
                if sequence.request.params.sampling_mask:
                    sequence.sampling_mask += map(ids_of, bits)
        if top:
            top_logprobs, top_ids = (each.tolist() for each in top)
            for sequence, *by_step in zip(running[first:], top_ids, top_logprobs, strict=True):
                kept = sequence.request.top  # another row may keep more
                sequence.top += [_pairs(ids[:kept], values) for ids, values in zip(*by_step, strict=True) if kept]
        rows = zip(range(first, len(running)), tokens.tolist(), logprobs.tolist(), strict=True)
        for slot, *new in reversed(list(rows)):  # backwards: the sequence that moves into `slot` was read already
            if self.extend(running[slot], *new):
                self.ended.append(running[slot])
                self.free(slot)

    def free(self, slot: int) -> None:
        """Free a slot, into which the last running sequence moves."""
        self.last_tokens[slot] = self.last_tokens[self.scheduler.remove(slot)]
        self.decoder.remove(slot)

    def extend(self, sequence: Sequence, token_ids: list[int], logprobs: list[float]) -> bool:
        """Append new tokens to a sequence; returns whether one of them ended it, and drops those behind that one.

        Raises FloatingPointError for logits that were NaN or infinite.
        """
        for token, logprob in zip(token_ids, logprobs, strict=True):
            if math.isnan(logprob):
                raise FloatingPointError(
                    "the model's logits are NaN or infinite: its weights are damaged or training diverged"
                )
            sequence.token_ids.append(token)
            sequence.logprobs.append(logprob)
            sequence.completion = self.finished(sequence)
            if sequence.completion:
                del sequence.top[len(sequence.token_ids) :]
                return True
        return False

    def finished(self, sequence: Sequence) -> Completion | None:
        """The completion, if its newest token ended it."""
        params = sequence.request.params
        ended = sequence.token_ids[-1] in params.stop_token_ids
        text = self.text_before_stop(sequence.token_ids, params.stop) if params.stop and not ended else None
        stopped = ended or text is not None
        if not stopped and len(sequence.token_ids) < params.max_tokens:
            return None
        if text is None:  # the text excludes the end token, the ids include it
            text = self.decoded(sequence.token_ids[:-1] if ended else sequence.token_ids)
        return Completion(
            token_ids=tuple(sequence.token_ids),
            logprobs=tuple(sequence.logprobs),
            text=text,
            finish_reason="stop" if stopped else "length",
            policy_version=self.engine.version,
            sampling_mask=tuple(sequence.sampling_mask[: len(sequence.token_ids)]),
            routing=tuple(sequence.routing[: len(sequence.request.token_ids) + len(sequence.token_ids) - 1]),
        )

    def text_before_stop(self, token_ids: list[int], stops: abc.Sequence[str]) -> str | None:
        """The text before the first stop string, if the newest token completed one."""
        # only the end is decoded first, with room for characters of several tokens: to decode all tokens at each step
        # would take quadratic time
        tail = self.decoded(token_ids[-32 - max(map(len, stops)) :])
        if not any(stop in tail for stop in stops):
            return None
        return text_before(self.decoded(token_ids), stops)

    def decoded(self, token_ids: abc.Sequence[int]) -> str:
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=False))


def _by_token(experts: Tensor) -> list[array[int]]:
    """The experts of each token, from int16 [tokens, R * k]."""
    return [array("h", row.tobytes()) for row in experts.cpu().numpy()]


def _pairs(ids: list[int], logprobs: list[float]) -> list[tuple[int, float]]:
    """Ids with their log-probs, of which there may be more."""
    return list(zip(ids, logprobs, strict=False))
