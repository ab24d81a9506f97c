"""Continuous batching: prompts are prefilled once for all their completions, finished rows leave, new prompts come
in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from r1kit.engines import Report
from r1kit.engines.local.sampling import sample, uniforms
from r1kit.models.attention import Layout
from r1kit.models.cached import DecodeLayout, KVCache, PrefillLayout
from r1kit.models.head import Head
from r1kit.models.load import Policy
from r1kit.types import Completion, Prompt, SamplingParams


@dataclass
class _Row:
    """One completion under way: whose it is and what has been sampled so far."""

    prompt: int
    number: int
    uniforms: list[float]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Work:
    """Some completions of one prompt that start together; larger groups than the cache holds come in several."""

    prompt: int
    numbers: range


class LocalEngine:
    """Generates with `policy`'s own tensors, so the newest weights are always the ones that sample.

    `max_rows` is how many completions grow at once; keys and values take `max_rows` x longest sequence of memory.
    """

    def __init__(self, policy: Policy, *, max_rows: int = 128) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}: at least one completion must fit")
        self.policy, self.max_rows = policy, max_rows
        self.version = 0  # of the weights; the training loop raises it with each update

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Raises ValueError, before any work, where a prompt leaves no room for `max_tokens` in the model's context."""
        self._check(prompts, params)
        self.policy.model.eval()
        device = self.policy.model.device
        autocast = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
        with torch.inference_mode(), autocast:
            return _Generation(self, prompts, params, report).run()

    def _check(self, prompts: Sequence[Prompt], params: SamplingParams) -> None:
        for prompt in prompts:
            needed = len(prompt.token_ids) + params.max_tokens
            if not prompt.token_ids:
                raise ValueError(f"the prompt of {prompt.problem_id} is empty: it needs at least one token")
            if needed > self.policy.context:
                raise ValueError(
                    f"the prompt of {prompt.problem_id} has {len(prompt.token_ids)} tokens; with max_tokens "
                    f"{params.max_tokens} that is {needed}, and the model's context is {self.policy.context}: "
                    "lower max_tokens or drop long prompts"
                )


class _Generation:
    """The state of one `generate` call."""

    def __init__(
        self, engine: LocalEngine, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None
    ) -> None:
        self.engine, self.prompts, self.params, self.report = engine, prompts, params, report
        self.policy, self.device = engine.policy, engine.policy.model.device
        self.head = Head.of(self.policy.model)
        self.ends = {*self.policy.end_ids, *params.stop_token_ids}
        self.slots = min(engine.max_rows, len(prompts) * params.n)
        longest = max((len(prompt.token_ids) for prompt in prompts), default=1) + params.max_tokens
        self.cache = KVCache(self.slots, longest)
        self.rows: list[_Row] = []
        self.tokens = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        self.results: list[list[Completion | None]] = [[None] * params.n for _ in prompts]
        self.done = 0
        self.names = self._names()
        # long prompts first: what is most likely to fail for lack of memory fails at once
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].token_ids))
        self.queue = [
            _Work(i, range(start, min(start + self.slots, params.n)))
            for i in order
            for start in range(0, params.n, self.slots)
        ]

    def _names(self) -> list[str]:
        """A name per prompt for its random numbers; a problem that is asked twice gets two."""
        seen: Counter[str] = Counter()
        names = []
        for prompt in self.prompts:
            names.append(f"{prompt.problem_id}#{seen[prompt.problem_id]}")
            seen[prompt.problem_id] += 1
        return names

    def run(self) -> list[list[Completion]]:
        while self.queue or self.rows:
            self._admit()
            self._decode()
        return [[completion for completion in group if completion is not None] for group in self.results]

    def _admit(self) -> None:
        """Prefill as many waiting groups as free slots hold; small gaps wait until they are worth a forward pass."""
        free = self.slots - len(self.rows)
        if not self.queue or (self.rows and free < min(self.slots // 4 + 1, len(self.queue[0].numbers) * 2)):
            return
        admitted: list[_Work] = []
        while self.queue and len(self.queue[0].numbers) <= free:
            admitted.append(self.queue.pop(0))
            free -= len(admitted[-1].numbers)
        if not admitted:
            return
        first = len(self.rows)
        for work in admitted:
            for number in work.numbers:
                draws = uniforms(self.params.seed, f"{self.names[work.prompt]}/{number}", self.params.max_tokens)
                self.rows.append(_Row(work.prompt, number, draws.tolist()))
        self._prefill(admitted, first)

    def _prefill(self, admitted: list[_Work], first: int) -> None:
        ids = [self.prompts[work.prompt].token_ids for work in admitted]
        slots, start = [], first
        for work in admitted:
            slots.append(range(start, start + len(work.numbers)))
            start += len(work.numbers)
        shared = common_prefix(ids)
        rests = [run[shared:] for run in ids]
        layout = PrefillLayout(self.cache, shared, [len(rest) for rest in rests], slots, self.device)
        flat = [*ids[0][:shared], *(token for rest in rests for token in rest)]
        hidden = self._forward(torch.tensor([flat], device=self.device), layout.position_ids[None], layout)[0]
        last = shared + torch.tensor([len(rest) for rest in rests], device=self.device).cumsum(0) - 1
        counts = torch.tensor([len(group) for group in slots], device=self.device)
        self._append(torch.repeat_interleave(self.head.logits(hidden[last]), counts, dim=0), first)

    def _decode(self) -> None:
        count = len(self.rows)
        if not count:
            return
        layout = DecodeLayout(self.cache, count, self.device)
        hidden = self._forward(self.tokens[:count, None], layout.position_ids, layout)[:, 0]
        self.cache.lengths[:count] += 1
        self._append(self.head.logits(hidden), 0)

    def _forward(self, token_ids: Tensor, position_ids: Tensor, layout: Layout) -> Tensor:
        base = self.policy.model.base_model
        output = base(input_ids=token_ids, position_ids=position_ids, layout=layout, use_cache=False)
        return output.last_hidden_state  # type: ignore[no-any-return]

    def _append(self, logits: Tensor, first: int) -> None:
        """Sample the next token of rows [first:], then let finished rows leave."""
        rows = self.rows[first:]
        draws = torch.tensor(
            [row.uniforms[len(row.token_ids)] for row in rows], dtype=torch.float64, device=self.device
        )
        tokens, logprobs = sample(logits, draws, self.params)
        self.tokens[first : first + len(rows)] = tokens
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.token_ids.append(token)
            row.logprobs.append(logprob)
        for index in reversed(range(first, len(self.rows))):  # from the end: a row that moves in was looked at already
            if self._finish(self.rows[index]):
                self._leave(index)

    def _finish(self, row: _Row) -> bool:
        """Store the row's completion if it ended."""
        ended = row.token_ids[-1] in self.ends
        text = self._stopped_text(row) if self.params.stop and not ended else None
        stopped = ended or text is not None
        if not stopped and len(row.token_ids) < self.params.max_tokens:
            return False
        if text is None:
            text = self._text(row.token_ids[:-1] if ended else row.token_ids)
        self.results[row.prompt][row.number] = Completion(
            token_ids=tuple(row.token_ids),
            logprobs=tuple(row.logprobs),
            text=text,
            finish_reason="stop" if stopped else "length",
            policy_version=self.engine.version,
        )
        self.done += 1
        if self.report:
            self.report(self.done, len(self.prompts) * self.params.n)
        return True

    def _leave(self, index: int) -> None:
        last = len(self.rows) - 1
        if index != last:
            self.cache.move(last, index)
            self.tokens[index] = self.tokens[last]
            self.rows[index] = self.rows[last]
        self.rows.pop()

    def _text(self, token_ids: Sequence[int]) -> str:
        return str(self.policy.tokenizer.decode(token_ids, skip_special_tokens=False))

    def _stopped_text(self, row: _Row) -> str | None:
        """The text before the first stop string, if the newest token completed one."""
        tail = self._text(row.token_ids[-32 - max(len(stop) for stop in self.params.stop) :])
        if not any(stop in tail for stop in self.params.stop):
            return None
        text = self._text(row.token_ids)
        cuts = [place for place in (text.find(stop) for stop in self.params.stop) if place >= 0]
        return text[: min(cuts)] if cuts else None


def common_prefix(runs: Sequence[tuple[int, ...]]) -> int:
    """How many first tokens all runs share, with at least one of each left: `common_prefix([(7, 8), (7, 9)]) == 1`."""
    first, last = min(runs), max(runs)  # what the smallest and the largest share in order, all between them share
    limit = min(len(run) for run in runs) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), limit)
    return min(same, limit)
