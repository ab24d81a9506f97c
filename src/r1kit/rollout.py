"""Problems + engine + rewards -> groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit import ranks
from r1kit.chat import ChatFormat, whole_response
from r1kit.engines import PolicyEngine, Report, require_all
from r1kit.types import Completion, Group, Problem, Reward, Rollout, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerState:
    """How far the training is, as TRL passes it to reward functions: `global_step` steps of `max_steps` are done."""

    global_step: int
    max_steps: int


def roll_out(
    engine: PolicyEngine,
    problems: Sequence[Problem],
    chat: ChatFormat,
    scorer: Callable[..., Iterable[Reward]],
    params: SamplingParams,
    report: Report | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    trainer_state: TrainerState | None = None,
    names: Iterable[str] = (),
) -> list[Group]:
    """Sample and score `params.n` completions of each problem: one group per problem, in order.

    `scorer` (a `Scorer`) scores all completions in one call, so that reward models can batch. `log_metric(name, value)`
    receives the metrics that reward functions log. `names` are columns of the task that these problems may lack: then
    rewards get None. Raises `EngineError` if the engine returns another number of completions.
    """
    prompts = [chat.render(problem, engine.tokenizer) for problem in problems]
    sampled = engine.generate(prompts, params, report)
    require_all(sampled, prompts, params.n)
    pairs = [(problem, each) for problem, completions in zip(problems, sampled, strict=True) for each in completions]
    answered = zip(prompts, sampled, strict=True)
    responses = [whole_response(prompt, each) for prompt, completions in answered for each in completions]
    columns = reward_columns(pairs, params)
    data = data_columns([problem for problem, _ in pairs], names, columns)
    hooks = {"log_metric": log_metric} | ({} if trainer_state is None else {"trainer_state": trainer_state})
    rewards = iter(scorer(responses, data, **columns, **hooks))
    groups = []
    for problem, prompt, completions in zip(problems, prompts, sampled, strict=True):
        rollouts = [Rollout(prompt=prompt, completion=each, reward=next(rewards)) for each in completions]
        groups.append(Group(problem=problem, rollouts=tuple(rollouts)))
    return groups


def over_ranks(problems: Sequence[Problem], groups_of: Callable[[list[Problem]], list[Group]]) -> list[Group]:
    """The groups of all problems, in order, on every rank; `groups_of` makes those of this rank's share."""
    # a problem that comes twice stays on one rank, because the engine numbers the completions of equal problems
    names = set(ranks.share(list(dict.fromkeys(problem.id for problem in problems))))
    places = [place for place, problem in enumerate(problems) if problem.id in names]
    groups = groups_of([problems[place] for place in places]) if places else []
    by_place = {place: group for part in ranks.gather(list(zip(places, groups, strict=True))) for place, group in part}
    return [by_place[place] for place in range(len(problems))]


def reward_columns(pairs: Sequence[tuple[Problem, Completion]], params: SamplingParams) -> dict[str, Any]:
    """The columns that every reward function receives beside the completions, one entry per completion.

    `completion_ids` is left out if any completion came back as text only. A reward that counts tokens then raises an
    error, instead of taking every completion for an empty one.
    """
    ids = [list(completion.token_ids) for _, completion in pairs]
    has_ids = all(token_ids or not completion.text for token_ids, (_, completion) in zip(ids, pairs, strict=True))
    return ({"completion_ids": ids} if has_ids else {}) | {
        "prompts": [problem.prompt for problem, _ in pairs],
        "problem_id": [problem.id for problem, _ in pairs],
        "reference": [problem.answer for problem, _ in pairs],
        "answer": [problem.answer for problem, _ in pairs],
        "solution": [problem.answer for problem, _ in pairs],
        "verifier": [problem.verifier for problem, _ in pairs],
        "language": [problem.language for problem, _ in pairs],
        "source": [problem.source for problem, _ in pairs],
        "finish_reason": [completion.finish_reason for _, completion in pairs],
        "max_tokens": params.max_tokens,
    }


def data_columns(problems: Sequence[Problem], names: Iterable[str], others: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns of the data, and those of `names`, with a value per problem.

    A problem without a column has the value of `others`, if that has such a column, or None.
    """
    every = dict.fromkeys([*names, *(name for problem in problems for name in problem.columns)])
    values = {name: others.get(name) for name in every}
    return {
        name: [p.columns.get(name, other[row] if isinstance(other, list) else other) for row, p in enumerate(problems)]
        for name, other in values.items()
    }


def column_names(problems: Iterable[Problem]) -> frozenset[str]:
    """The names of all columns that a reward function of the user's own gets for these problems."""
    fixed = reward_columns([], SamplingParams())
    return frozenset(fixed).union(*(problem.columns for problem in problems))
