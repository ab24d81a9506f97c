"""Continuous batching: which sequences wait, and which run in which slot of the KV cache."""

from __future__ import annotations

from array import array
from collections import abc, deque
from dataclasses import dataclass, field

from r1kit.types import Completion, SamplingParams

Top = list[tuple[int, float]]  # the likeliest tokens at a position with their log-probs, the likeliest first


@dataclass(eq=False)
class Request:
    """A prompt that `params.n` sequences continue.

    Their random numbers depend on `params.seed`, `name` and the number of the sample only. `top` is how many of the
    likeliest tokens are kept at each position. With `scores_prompt`, the prompt's own tokens get log-probs too, at
    temperature 1 and from the second token on: nothing predicts the first.
    """

    name: str
    token_ids: abc.Sequence[int]
    params: SamplingParams
    top: int = 0
    scores_prompt: bool = False
    prompt_logprobs: list[float] = field(default_factory=list)
    prompt_top: list[Top] = field(default_factory=list)


@dataclass(eq=False)
class Sequence:
    """One completion in the making: sample number `sample` of a request."""

    request: Request
    sample: int
    # one random number in [0, 1) per token, drawn when the sequence starts: what it samples cannot depend on others
    uniforms: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[Top] = field(default_factory=list)
    sampling_mask: list[array[int]] = field(default_factory=list)
    routing: list[array[int]] = field(default_factory=list)  # experts of each token, the prompt's included
    completion: Completion | None = None  # once it has ended

    def next_uniforms(self, count: int) -> list[float]:
        """The random numbers of the next `count` tokens."""
        start = len(self.token_ids)
        return self.uniforms[start : start + count]

    @property
    def remaining(self) -> int:
        """The number of tokens until `max_tokens`."""
        return len(self.uniforms) - len(self.token_ids)


class Scheduler:
    """Groups of sequences wait until slots are free; `running[i]` is the sequence in slot i.

    A group holds sequences of one request, whose prompt is prefilled once for all of them. No running sequence moves on
    meanwhile, so a prefill has at most `prefill_tokens` tokens, unless a single prompt is longer.
    """

    def __init__(self, slots: int, prefill_tokens: float = float("inf")) -> None:
        self.slots, self.prefill_tokens = slots, prefill_tokens
        self.running: list[Sequence] = []
        self.waiting: deque[list[Sequence]] = deque()

    def add(self, requests: abc.Iterable[Request]) -> None:
        """Let requests wait behind those that wait already."""
        # longest prompts first: if they do not fit into memory, that shows at the start of a long generation
        for request in sorted(requests, key=lambda request: -len(request.token_ids)):
            sequences = [Sequence(request, sample) for sample in range(request.params.n)]
            # a group larger than the cache is split into several
            self.waiting += [sequences[start : start + self.slots] for start in range(0, len(sequences), self.slots)]

    def admit(self) -> list[list[Sequence]]:
        """Move waiting groups into free slots and return them.

        Free slots wait until they are a quarter of all, or twice as many as the next group needs: one prefill for many
        sequences costs less than several for few.
        """
        free, tokens = self.slots - len(self.running), 0
        if not self.waiting or (self.running and free < min(self.slots // 4 + 1, len(self.waiting[0]) * 2)):
            return []
        # in order, even if a later and smaller group would fit: a large group must not wait for ever
        admitted: list[list[Sequence]] = []
        while self.waiting and len(self.waiting[0]) <= free:
            tokens += len(self.waiting[0][0].request.token_ids)
            if admitted and tokens > self.prefill_tokens:
                break
            admitted.append(self.waiting.popleft())
            free -= len(admitted[-1])
            self.running += admitted[-1]
        return admitted

    def remove(self, slot: int) -> int:
        """Free a slot: the last running sequence moves into it. Returns the slot that it came from."""
        # n running sequences fill slots 0 to n - 1 without a gap, because a decode step uses one slice of the cache
        last = len(self.running) - 1
        self.running[slot] = self.running[last]
        self.running.pop()
        return last

    def withdraw(self, request: Request) -> None:
        """Take a request's waiting groups out of the queue."""
        self.waiting = deque(group for group in self.waiting if group[0].request is not request)
