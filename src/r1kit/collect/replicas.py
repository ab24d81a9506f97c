"""Copies of the model that responds, as actors on a cluster. Each samples whole batches, so their number is free."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from r1kit.collect.prompting import Request
from r1kit.collect.responses import Engines, ResponseSettings, open_responses
from r1kit.engines.ask import Answers
from r1kit.pipeline import Context

Answered = Generator[tuple[list[Request], list[Answers]], None, None]


class Replica:
    """One copy, with its weights."""

    def __init__(self, stage: str, settings: ResponseSettings, folder: Path, paths: Mapping[str, Path]) -> None:
        context = Context(stage=stage, settings=settings, folder=folder, paths=paths)
        self._responses = open_responses(context, Engines(print))

    def answers(self, requests: Sequence[Request]) -> list[Answers]:
        return self._responses.answers(requests, lambda done, total: None)


def replicated_answers(context: Context, batches: Iterable[list[Request]]) -> Answered:
    """Each batch with its answers, in order; raises what a copy raises."""
    from r1kit.cluster import require_ray

    require_ray("several engines")
    from r1kit.cluster.replicas import replicated

    settings: ResponseSettings = context.settings
    alone = settings.model_copy(update={"engines": 1})
    build = partial(Replica, context.stage, alone, context.folder, dict(context.paths))
    on_device, say = settings.device != "cpu", context.progress.say
    with closing(replicated(build, batches, settings.engines, on_device=on_device, say=say)) as answered:
        yield from answered
