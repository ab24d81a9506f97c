"""One step off: the next rollout is sampled while the learner updates, and a checkpoint holds it."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from r1kit.chat import ChatFormat
from r1kit.store import to_plain
from r1kit.train.rl.collect import Collected, Collector, Draws
from r1kit.types import Completion, Group, Problem, Reward, Rollout, Verdict


@dataclass(frozen=True)
class Sampled:
    """A rollout, the version of the weights that sampled it, where its problems begin among the draws, and seconds."""

    collected: Collected
    version: int
    position: int
    seconds: float


@dataclass
class Ahead:
    """At most one rollout that is being sampled, or waits for its step."""

    pending: Future[Sampled] | None = field(default=None)

    def begin(self, sample: Callable[[], Sampled]) -> None:
        """Sample in a thread. It is a daemon: Ctrl+C does not wait for it."""
        assert self.pending is None, "the rollout before was not taken"
        future = self.pending = Future[Sampled]()

        def run() -> None:
            try:
                future.set_result(sample())
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="rollout", daemon=True).start()

    def keep(self, sampled: Sampled) -> None:
        """A rollout of a checkpoint waits for its step."""
        self.pending = Future()
        self.pending.set_result(sampled)

    def take(self) -> Sampled | None:
        """The rollout, once it is there; None if none was begun. Raises what its sampling raised."""
        pending, self.pending = self.pending, None
        return None if pending is None else pending.result()

    def look(self) -> Sampled | None:
        """Like `take`, but it stays."""
        return None if self.pending is None else self.pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait until nothing samples any more, but for Ctrl+C; the rollout is dropped."""
        if self.pending is not None and (error is None or isinstance(error, Exception)):
            self.pending.exception()
            self.pending = None


def to_state(sampled: Sampled) -> dict[str, Any]:
    """A rollout as JSON. Problems and prompts are left out: its position among the draws says which they are."""
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
    """The rollout that `to_state` wrote; `draws` stand at its position, and behind it afterwards."""
    problems = draws.next(len(state["groups"]))
    tokenizer = collector.engine.tokenizer
    groups = [
        _group(problem, rows, collector.chat, tokenizer)
        for problem, rows in zip(problems, state["groups"], strict=True)
    ]
    collected = collector.with_advantages(groups, state["reported"], state["reward_seconds"])
    return Sampled(collected, state["version"], state["position"], state["seconds"])


def _rollout_state(rollout: Rollout) -> dict[str, Any]:
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


def _group(problem: Problem, rows: Sequence[Mapping[str, Any]], chat: ChatFormat, tokenizer: Any) -> Group:
    prompt = chat.render(problem, tokenizer)
    return Group(
        problem=problem,
        rollouts=tuple(Rollout(prompt=prompt, completion=_completion(row), reward=_reward(row)) for row in rows),
    )


def _completion(row: Mapping[str, Any]) -> Completion:
    return Completion(
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        text=row["text"],
        finish_reason=row["finish_reason"],
        policy_version=row["policy_version"],
        sampling_mask=tuple(array("i", ids) for ids in row["sampling_mask"]),
    )


def _reward(row: Mapping[str, Any]) -> Reward:
    verdict = None
    if row["verdict"] is not None:
        outcome, extracted, detail, scores = row["verdict"]
        pairs = {name: (count, of) for name, (count, of) in scores.items()}
        verdict = Verdict(outcome=outcome, extracted=extracted, detail=detail, scores=pairs)
    return Reward(total=row["total"], parts=row["parts"], verdict=verdict, notes=row["notes"])
