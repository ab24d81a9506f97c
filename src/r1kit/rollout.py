"""Problems + engine + rewards -> groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.engines import Engine, Report
from r1kit.rewards import Scorer
from r1kit.types import Completion, Group, Problem, Prompt, Rollout, SamplingParams


def rollout(
    engine: Engine,
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    chat: ChatFormat,
    scorer: Scorer,
    params: SamplingParams,
    report: Report | None = None,
    log_metric: Callable[[str, float], None] | None = None,
) -> list[Group]:
    """`params.n` scored completions of each problem; all are scored in one call, so that reward models can batch.

    `log_metric(name, value)` takes what reward functions report of themselves (TRL's convention).
    """
    answers = engine.generate(prompts, params, report)
    flat = [(problem, prompt, c) for problem, prompt, cs in zip(problems, prompts, answers, strict=True) for c in cs]
    rewards = scorer(
        [chat.complete(completion.text) for _, _, completion in flat], log_metric=log_metric, **columns(flat, params)
    )
    rollouts = [
        Rollout(prompt=prompt, completion=completion, reward=reward)
        for (_, prompt, completion), reward in zip(flat, rewards, strict=True)
    ]
    return [
        Group(problem=problem, rollouts=tuple(rollouts[index * params.n : (index + 1) * params.n]))
        for index, problem in enumerate(problems)
    ]


def columns(flat: Sequence[tuple[Problem, Prompt, Completion]], params: SamplingParams) -> dict[str, Any]:
    """What reward functions are given beside the completions: TRL's convention, one entry per completion.

    Without `completion_ids` where an engine sends text alone: a reward that counts tokens then fails by name, in place
    of taking every completion for an empty one.
    """
    ids = [list(completion.token_ids) for _, _, completion in flat]
    counted = all(some or not completion.text for some, (_, _, completion) in zip(ids, flat, strict=True))
    return ({"completion_ids": ids} if counted else {}) | {
        "prompts": [problem.prompt for problem, _, _ in flat],
        "problem_id": [problem.id for problem, _, _ in flat],
        "answer": [problem.answer for problem, _, _ in flat],
        "solution": [problem.answer for problem, _, _ in flat],
        "verifier": [problem.verifier for problem, _, _ in flat],
        "language": [problem.language for problem, _, _ in flat],
        "source": [problem.source for problem, _, _ in flat],
        "finish_reason": [completion.finish_reason for _, _, completion in flat],
        "max_tokens": params.max_tokens,
    }
