"""Rewards by judge: a model reads the response and scores it; where it cannot tell, the reward is None, never 0."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

from r1kit.engines import Engine
from r1kit.engines.engine_settings import EngineSettings, parse_engine
from r1kit.engines.opening import open_engine
from r1kit.judges import RUBRICS, JudgeSettings, Rubric, RubricJudge, Tally, VotingJudge
from r1kit.rewards.columns import RewardFunction, column, texts


class JudgedReward:
    """A reward function by TRL's convention: scores from 0 to 1, None where the judge cannot tell.

    Needs the column `prompts`. Reports the shares of unknown scores and of unreadable replies, and the engine's cost so
    far, through `log_metric`. The engine is opened at the first call, and again in each process that gets the function.
    """

    def __init__(self, name: str, engine: EngineSettings, settings: JudgeSettings, rubric: Rubric | None) -> None:
        self.__name__ = name  # under which trainers log it
        self.engine, self.settings, self.rubric = engine, settings, rubric

    @cached_property
    def judge(self) -> RubricJudge | VotingJudge:
        engine = opened(self.engine.model_dump_json())
        if self.rubric is None:
            return VotingJudge(engine, self.settings)
        return RubricJudge(engine, self.rubric, self.settings)

    def __call__(
        self,
        completions: Sequence[Any],
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_undecided: Callable[[list[bool]], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        responses = texts(completions)
        questions = [_asked(prompt) for prompt in column("prompts", columns, len(responses), self.__name__)]
        before = replace(self.judge.tally)
        scores = [found.score for found in self.judge.assess(responses, questions)]
        if log_metric is not None and scores:
            for name, value in self._metrics(scores, before).items():
                log_metric(f"{self.__name__}/{name}", value)
        not_scored = [score is None for score in scores]
        if log_undecided is not None:
            log_undecided(not_scored)
        if log_extra is not None:
            log_extra(f"{self.__name__}_not_scored", not_scored)
        return scores

    def _metrics(self, scores: Sequence[float | None], before: Tally) -> dict[str, float]:
        """Shares of unknown scores and of unreadable replies in this call, and what the engine cost so far."""
        now, usage = self.judge.tally, getattr(opened(self.engine.model_dump_json()), "usage", None)
        metrics = {
            "unknown": sum(score is None for score in scores) / len(scores),
            "unreadable": (now.unreadable - before.unreadable) / max(1, now.replies - before.replies),
        }
        return metrics | ({"cost": usage.cost} if usage is not None and (usage.cost or usage.saved) else {})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "judge"}


def get_reasoning_quality_judged_reward(
    *, engine: EngineSettings, judge: JudgeSettings | None = None, rubric: Rubric | None = None
) -> RewardFunction:
    """Logical flow, completeness of steps, stated assumptions and self-correction, of the whole response."""
    return _made("reasoning_quality", engine, judge, rubric)


def get_helpfulness_judged_reward(
    *, engine: EngineSettings, judge: JudgeSettings | None = None, rubric: Rubric | None = None
) -> RewardFunction:
    """How much the final answer helps; the reasoning is not looked at (paper, section 3.1)."""
    return _made("helpfulness", engine, judge, rubric)


def get_harmlessness_judged_reward(
    *, engine: EngineSettings, judge: JudgeSettings | None = None, rubric: Rubric | None = None
) -> RewardFunction:
    """Whether anything in the whole response, the reasoning included, could do harm (paper, section 3.1)."""
    return _made("harmlessness", engine, judge, rubric)


def get_voting_judged_reward(*, engine: EngineSettings, judge: JudgeSettings | None = None) -> RewardFunction:
    """Self-reward by voting (V3, section 5.4): the share of the judge's votes that approve the final answer."""
    return JudgedReward("voting_judged_reward", engine, judge or JudgeSettings(votes=6), None)


def _made(name: str, engine: EngineSettings, judge: JudgeSettings | None, rubric: Rubric | None) -> RewardFunction:
    return JudgedReward(f"{name}_judged_reward", engine, judge or JudgeSettings(), rubric or RUBRICS[name])


@cache
def opened(settings: str) -> Engine:
    """One engine for all rewards of a process that name the same one: a local judge is in memory once."""
    return open_engine(parse_engine(json.loads(settings)))


def _asked(prompt: Any) -> str:
    """The question in a prompt: the text, or the last turn of the user."""
    if isinstance(prompt, str):
        return prompt
    return next((str(turn["content"]) for turn in reversed(prompt) if turn["role"] == "user"), "")
