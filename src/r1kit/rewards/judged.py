"""Rewards by judge: a model reads the response and scores it. If it cannot tell, the reward is None, never 0."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

from r1kit.engines import Engine
from r1kit.engines.engine_settings import EngineSettings, parse_engine
from r1kit.engines.opening import open_engine
from r1kit.judges import RUBRICS, JudgeSettings, Rubric, RubricJudge, VotingJudge
from r1kit.rewards.inputs import RewardFunction, column, question_of, report_not_scored, texts


class JudgedReward:
    """A reward function with scores from 0 to 1, and None if the judge cannot tell; it needs the column `prompts`.

    Logs the fractions of unknown scores and unreadable replies, and the engine's cost so far. The engine is opened at
    the first call, once per process.
    """

    def __init__(self, name: str, engine: EngineSettings, settings: JudgeSettings, rubric: Rubric | None) -> None:
        self.__name__ = name  # trainers log it under this name
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
        questions = [question_of(prompt) for prompt in column("prompts", columns, len(responses), self.__name__)]
        before = replace(self.judge.tally)  # a copy: the tally grows in place
        scores = [assessment.score for assessment in self.judge.assess(responses, questions)]
        if log_metric is not None and scores:
            now, usage = self.judge.tally, getattr(opened(self.engine.model_dump_json()), "usage", None)
            unreadable = (now.unreadable - before.unreadable) / max(1, now.replies - before.replies)
            log_metric(f"{self.__name__}/unknown", scores.count(None) / len(scores))
            log_metric(f"{self.__name__}/unreadable", unreadable)
            if usage is not None and (usage.cost or usage.saved):
                log_metric(f"{self.__name__}/cost", usage.cost)
        report_not_scored(self.__name__, [score is None for score in scores], log_undecided, log_extra)
        return scores

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "judge"}


def get_rubric_judged_reward(
    name: str, *, engine: EngineSettings, judge: JudgeSettings | None = None, rubric: Rubric | None = None
) -> RewardFunction:
    """The judge's score by a rubric, by default `RUBRICS[name]`."""
    return JudgedReward(f"{name}_judged_reward", engine, judge or JudgeSettings(), rubric or RUBRICS[name])


def get_voting_judged_reward(*, engine: EngineSettings, judge: JudgeSettings | None = None) -> RewardFunction:
    """Self-reward by voting (V3, section 5.4): the fraction of the judge's votes that approve the final answer."""
    return JudgedReward("voting_judged_reward", engine, judge or JudgeSettings(votes=6), None)


@cache
def opened(settings: str) -> Engine:
    """The engine of these settings (as JSON), opened once per process, so that a local judge is in memory once."""
    return open_engine(parse_engine(json.loads(settings)))
