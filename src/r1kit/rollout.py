"""Problems + engine + rewards -> groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.engines import PolicyEngine, Report, require_all
from r1kit.rewards.scorer import Scorer
from r1kit.types import Completion, Group, Problem, Rollout, SamplingParams


def rollout(
    engine: PolicyEngine,
    problems: Sequence[Problem],
    chat: ChatFormat,
    scorer: Scorer,
    params: SamplingParams,
    report: Report | None = None,
    log_metric: Callable[[str, float], None] | None = None,
) -> list[Group]:
    """Sample and score `params.n` completions of each problem: one group per problem, in order.

    All completions are scored in one call, so that reward models can batch. `log_metric(name, value)` receives the
    metrics that reward functions log. Raises `EngineError` if the engine returns another number of completions.
    """
    prompts = [chat.render(problem, engine.tokenizer) for problem in problems]
    sampled = engine.generate(prompts, params, report)
    require_all(sampled, prompts, params.n)
    pairs = [(problem, each) for problem, completions in zip(problems, sampled, strict=True) for each in completions]
    responses = [chat.complete(completion.text) for _, completion in pairs]
    rewards = iter(scorer(responses, log_metric=log_metric, **reward_columns(pairs, params)))
    groups = []
    for problem, prompt, completions in zip(problems, prompts, sampled, strict=True):
        rollouts = [Rollout(prompt=prompt, completion=each, reward=next(rewards)) for each in completions]
        groups.append(Group(problem=problem, rollouts=tuple(rollouts)))
    return groups


def reward_columns(pairs: Sequence[tuple[Problem, Completion]], params: SamplingParams) -> dict[str, Any]:
    """The columns that reward functions receive beside the completions, one entry per completion (TRL's convention).

    `completion_ids` is left out if any completion came back as text only. A reward that counts tokens then raises an
    error, instead of taking every completion for an empty one.
    """
    ids = [list(completion.token_ids) for _, completion in pairs]
    has_ids = all(token_ids or not completion.text for token_ids, (_, completion) in zip(ids, pairs, strict=True))
    return ({"completion_ids": ids} if has_ids else {}) | {
        "prompts": [problem.prompt for problem, _ in pairs],
        "problem_id": [problem.id for problem, _ in pairs],
        "answer": [problem.answer for problem, _ in pairs],
        "solution": [problem.answer for problem, _ in pairs],
        "verifier": [problem.verifier for problem, _ in pairs],
        "language": [problem.language for problem, _ in pairs],
        "source": [problem.source for problem, _ in pairs],
        "finish_reason": [completion.finish_reason for _, completion in pairs],
        "max_tokens": params.max_tokens,
    }
