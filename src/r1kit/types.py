"""The records that travel through r1kit: plain frozen data, no torch, no third-party imports.

Data takes one path: Problem -> Prompt -> Completion -> Rollout -> Group -> Sample. Each step creates the next record
and never changes the previous one.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length"]
Outcome = Literal["right", "wrong", "unknown", "failed"]
ComputeDtype = Literal["auto", "fp32", "bf16"]  # precision of the products of linear layers
WeightsDtype = Literal["fp32", "bf16"]  # of linear layers in memory
HOTTEST = 10.0  # temperature of sampling; above it, tokens are nearly random


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation: `Message(role="user", content="What is 2 + 2?")`."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A task item that can be checked.

    `Problem(id="gsm8k/train/17", prompt="Tom has 3 apples ...", answer="72", verifier="math")`
    `id` is the same in every run; `verifier` is a name in `r1kit.verifiers.VERIFIERS`; `language` is ISO 639-1.
    `solution` is the worked reference solution, "" if there is none. `columns` are those of the row that the problem
    comes from, under their own names, for reward functions of the user's own.
    """

    id: str
    prompt: str
    answer: str
    verifier: str = "math"
    language: str = "en"
    source: str = ""
    solution: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The engine's input: a problem's messages and the exact token ids that they were rendered to.

    `opened` is the start of the assistant's turn that the prompt holds, such as "<think>": part of the response.
    """

    problem_id: str
    messages: tuple[Message, ...]
    token_ids: tuple[int, ...]
    opened: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling settings of completions; field names are vLLM's.

    `temperature=0` is greedy; `top_k=0` and `top_p=1.0` disable truncation. `max_tokens` counts completion tokens, the
    end token included. A seed gives the same tokens whatever else is in the batch. `sampling_mask` and
    `routing` ask for those of `Completion`; an engine that has none leaves them empty.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int = 0
    sampling_mask: bool = False
    routing: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n is {self.n}: ask for at least 1 completion per prompt")
        if not 0 <= self.temperature <= HOTTEST:
            raise ValueError(f"temperature is {self.temperature}: it must be 0 (greedy) to {HOTTEST:g}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: it must be 0 (off) or more")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}: it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A policy's answer: the sampled token ids, including the end token if there is one.

    `logprobs[t]` is log pi(token_ids[t] | prompt, token_ids[:t]) at the sampling temperature, before top-k and top-p.
    `text` is the decoded completion without the end token and without a stop string. Only on request,
    `sampling_mask[t]` holds the ids, ascending, that top-k and top-p left for token t; then `logprobs[t]` is that of
    the distribution over these ids. Only on request, `routing` holds the experts of each token of the prompt and then
    of the completion, router by router; the last token has none, because the model never read it.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    policy_version: int = 0
    sampling_mask: Sequence[array[int]] = field(default=(), hash=False)
    routing: Sequence[array[int]] = field(default=(), hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A verifier's judgement of one response: `Verdict(outcome="right", extracted="72", detail="equal as numbers")`.

    `unknown`: the reference cannot be used. `failed`: the verifier itself broke or ran out of time. Neither says
    anything about the response, so neither is ever scored as wrong. `scores` are finer counts, as pairs (count, of):
    `{"instruction_strict": (2, 3)}`; evaluation adds them up over problems.
    """

    outcome: Outcome
    extracted: str | None = None
    detail: str = ""
    scores: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        correct: bool | None,
        *,
        extracted: str | None = None,
        detail: str = "",
        scores: Mapping[str, tuple[int, int]] | None = None,
    ) -> Verdict:
        """Right for True, wrong for False, unknown for None."""
        outcome: Outcome = "unknown" if correct is None else "right" if correct else "wrong"
        return cls(outcome=outcome, extracted=extracted, detail=detail, scores=scores or {})

    @classmethod
    def failed(cls, reason: str, *, extracted: str | None = None) -> Verdict:
        """The verifier failed for `reason`; `detail` repeats that for readers, since `to_json` has no outcome."""
        return cls(outcome="failed", extracted=extracted, detail=f"verifier failed: {reason}")

    @property
    def correct(self) -> bool | None:
        """True (right), False (wrong), or None if the response could not be judged."""
        return {"right": True, "wrong": False}.get(self.outcome)

    def to_json(self) -> dict[str, Any]:
        """The verdict as rows of data files hold it."""
        return {"correct": self.correct, "extracted": self.extracted, "detail": self.detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The weighted sum of a completion's reward parts; a total of None leaves the rollout out of training.

    `Reward(total=1.2, parts={"accuracy": 1.0, "format": 0.2}, verdict=Verdict(outcome="right", extracted="72"))`
    `parts` are unweighted; None means that the part does not apply or could not judge. `verdict` is that of the first
    weighted part that gives one (a part of weight 0 counts only if no other part judges). `notes` are what reward
    functions logged about the completion (TRL's `log_extra`): for readers only, no code looks at them.
    """

    total: float | None
    parts: Mapping[str, float | None]
    verdict: Verdict | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A prompt, one completion of it, and its reward."""

    prompt: Prompt
    completion: Completion
    reward: Reward


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The G rollouts of one problem, from which GRPO takes its baseline."""

    problem: Problem
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The input of every trainer: sequences of one length.

    Prompt tokens have `loss_mask` False and zeros in the other sequences. For a prompt (7, 8) and a completion (9, 2):
    `Sample(token_ids=(7, 8, 9, 2), loss_mask=(False, False, True, True), logprobs=(0.0, 0.0, -1.2, -0.1),
    advantages=(0.0, 0.0, 0.7, 0.7), ref_logprobs=(0.0, 0.0, -1.1, -0.2))`
    Losses without a sampler or reference (SFT) leave `logprobs`, `advantages` and `ref_logprobs` empty.
    `sampling_mask` is that of the completion, and empty if the whole vocabulary could be sampled. `routing` is that of
    the completion; a token without experts, or an empty `routing`, is left to the routers. `source` is that of the
    problem.
    """

    token_ids: Sequence[int]
    loss_mask: Sequence[bool]
    logprobs: Sequence[float] = ()
    advantages: Sequence[float] = ()
    ref_logprobs: Sequence[float] = ()
    sampling_mask: Sequence[Sequence[int]] = ()
    routing: Sequence[Sequence[int]] = ()
    source: str = ""

    def __post_init__(self) -> None:
        length = len(self.token_ids)
        for name in ("loss_mask", "logprobs", "advantages", "ref_logprobs", "sampling_mask", "routing"):
            size = len(getattr(self, name))
            if size != length and (size or name == "loss_mask"):
                raise ValueError(f"Sample.{name} has {size} entries for {length} token ids: give one for each token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A record for supervised training; the loss covers the assistant's turns."""

    messages: tuple[Message, ...]
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """Two answers to one prompt; `chosen` is the preferred one."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
