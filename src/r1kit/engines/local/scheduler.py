"""Continuous batching: which sequences wait, and which run in which slot of the KV cache."""

from __future__ import annotations

from collections import abc, deque
from dataclasses import dataclass, field


@dataclass
class Sequence:
    """One completion in the making: sample number `sample` of the prompt with index `prompt`."""

    prompt: int
    sample: int
    uniforms: list[float] = field(default_factory=list)  # one random number per token, drawn when the sequence starts
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def draws(self, count: int) -> list[float]:
        """The random numbers of the next `count` tokens."""
        return self.uniforms[len(self.token_ids) :][:count]

    @property
    def left(self) -> int:
        """The number of tokens that it may still get."""
        return len(self.uniforms) - len(self.token_ids)


class Scheduler:
    """Groups of sequences wait until slots are free; `running[i]` is the sequence in slot i.

    A group holds sequences of one prompt, which is prefilled once for all of them.
    """

    def __init__(self, prompt_lengths: abc.Sequence[int], n: int, slots: int) -> None:
        self.slots = slots
        self.running: list[Sequence] = []
        # longest prompts first: if they do not fit into memory, that shows at the start of a long generation
        order = sorted(range(len(prompt_lengths)), key=lambda i: -prompt_lengths[i])
        self.waiting = deque(
            # a group larger than the cache is split into several
            [Sequence(prompt, sample) for sample in range(start, min(start + slots, n))]
            for prompt in order
            for start in range(0, n, slots)
        )

    def admit(self) -> list[list[Sequence]]:
        """Move waiting groups into free slots and return them.

        While only a few slots are free, none is filled: one prefill for many sequences costs less than several for few.
        """
        free = self.slots - len(self.running)
        if not self.waiting or (self.running and free < min(self.slots // 4 + 1, len(self.waiting[0]) * 2)):
            return []
        # in order, even if a later and smaller group would fit: a large group must not wait for ever
        admitted: list[list[Sequence]] = []
        while self.waiting and len(self.waiting[0]) <= free:
            admitted.append(self.waiting.popleft())
            free -= len(admitted[-1])
            self.running += admitted[-1]
        return admitted

    def remove(self, slot: int) -> int:
        """Free a slot: the last running sequence moves into it. Returns the slot that it came from."""
        # the n running sequences must fill slots 0 to n - 1 without a gap: a decode step uses one slice of the cache
        last = len(self.running) - 1
        self.running[slot] = self.running[last]
        self.running.pop()
        return last
