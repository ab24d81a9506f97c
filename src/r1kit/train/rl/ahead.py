"""One step off: the next rollout is sampled while the learner updates, and a checkpoint holds it.

A resumed run could not sample that rollout again: its weights, those before the last update, are gone.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from r1kit.store import to_plain
from r1kit.train.rl.collect import Collected, Collector, Draws
from r1kit.types import Completion, Group, Prompt, Reward, Rollout, Verdict


@dataclass(frozen=True)
class Sampled:
    """A rollout, and what the step that trains on it must know of its sampling."""

    collected: Collected
    version: int  # of the weights that sampled it: the updates that the learner had done
    position: int  # where its problems begin among the draws
    seconds: float  # that sampling and scoring took


@dataclass
class Ahead:
    """At most one rollout that is being sampled, or waits for its step."""

    pending: Future[Sampled] | None = None

    def begin(self, sample: Callable[[], Sampled]) -> None:
        """Sample in a thread; a daemon, so that Ctrl+C does not wait for it."""
        assert self.pending is None, "the rollout before was not taken"
        future = self.pending = Future[Sampled]()

        def run() -> None:
            try:
                future.set_result(sample())
            except BaseException as error:  # raised again by `take` and `look`, in the thread that trains
                future.set_exception(error)

        threading.Thread(target=run, name="rollout", daemon=True).start()

    def resume(self, sampled: Sampled) -> None:
        """Let a rollout of a checkpoint wait for its step."""
        self.pending = Future()
        self.pending.set_result(sampled)

    def take(self) -> Sampled | None:
        """The rollout, once it is complete; None if none was begun. Raises what its sampling raised."""
        pending, self.pending = self.pending, None
        return None if pending is None else pending.result()

    def look(self) -> Sampled | None:
        """The same, but the rollout still waits for its step."""
        return None if self.pending is None else self.pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait until nothing samples any more, except after Ctrl+C, and drop the rollout."""
        if self.pending is not None and (error is None or isinstance(error, Exception)):
            self.pending.exception()
            self.pending = None


def to_state(sampled: Sampled) -> dict[str, Any]:
    """A rollout as JSON. Problems and prompts are left out: its position among the draws tells which they are."""
    collected = sampled.collected
    return {
        "version": sampled.version,
        "position": sampled.position,
        "seconds": sampled.seconds,
        "reported": collected.reported,
        "reward_seconds": collected.reward_seconds,
        "groups": [[_rollout_state(each) for each in group.rollouts] for group in collected.groups],
    }


def from_state(state: Mapping[str, Any], draws: Draws, collector: Collector) -> Sampled:
    """The rollout that `to_state` wrote. `draws` must stand at its position, and are behind it afterwards."""
    groups = []
    for problem, rows in zip(draws.next(len(state["groups"])), state["groups"], strict=True):
        prompt = collector.chat.render(problem, collector.engine.tokenizer)
        groups.append(Group(problem=problem, rollouts=tuple(_rollout(row, prompt) for row in rows)))
    collected = collector.with_advantages(groups, state["reported"], state["reward_seconds"])
    return Sampled(collected, state["version"], state["position"], state["seconds"])


def _rollout_state(rollout: Rollout) -> dict[str, Any]:
    """The inverse of `_rollout`."""
    completion, reward = rollout.completion, rollout.reward
    verdict = reward.verdict
    return {
        "token_ids": completion.token_ids,
        "logprobs": completion.logprobs,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "policy_version": completion.policy_version,
        "sampling_mask": [list(ids) for ids in completion.sampling_mask],
        "total": reward.total,
        "parts": dict(reward.parts),
        "notes": to_plain(reward.notes),
        # its fields, because its form in files has no outcome
        "verdict": verdict and [verdict.outcome, verdict.extracted, verdict.detail, to_plain(verdict.scores)],
    }


def _rollout(row: Mapping[str, Any], prompt: Prompt) -> Rollout:
    completion = Completion(
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        text=row["text"],
        finish_reason=row["finish_reason"],
        policy_version=row["policy_version"],
        sampling_mask=tuple(array("i", ids) for ids in row["sampling_mask"]),
    )
    verdict = None
    if row["verdict"] is not None:
        outcome, extracted, detail, scores = row["verdict"]
        pairs = {name: (count, of) for name, (count, of) in scores.items()}  # JSON has no tuples
        verdict = Verdict(outcome=outcome, extracted=extracted, detail=detail, scores=pairs)
    reward = Reward(total=row["total"], parts=row["parts"], verdict=verdict, notes=row["notes"])
    return Rollout(prompt=prompt, completion=completion, reward=reward)
