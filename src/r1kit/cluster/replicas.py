"""Copies of one object in actors, on any nodes that have room: each answers items, and answers keep their order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import ray
from ray.exceptions import RayActorError, RayTaskError

from r1kit.cluster import RESTARTS, ClusterError
from r1kit.cluster.connection import connected, ended_among
from r1kit.cluster.site import Site

DEPTH = 2  # items that an actor holds: the next one is there when it ends the first
AHEAD = 4  # items per actor that are in work or wait for an earlier one: more would fill the memory
LOOK_EVERY_S = 0.05
SAY_AFTER = 1200  # looks without an actor that is ready: a minute

Item = TypeVar("Item")
Answer = TypeVar("Answer", covariant=True)


class Answering(Protocol[Answer]):
    """An object that answers items."""

    def answers(self, item: Any) -> Answer: ...


class Replica:
    """An actor with a copy. It is not built at once, so that the first one can decide for all (`ready`)."""

    def __init__(self, site: Site, build: Callable[[], Answering[Any]], threads: str) -> None:
        site.enter()
        os.environ["OMP_NUM_THREADS"] = threads  # before torch is imported
        self._build = build

    @ray.method(max_task_retries=-1)  # waits until a killed actor has started again
    def ready(self) -> None:
        self._object = self._build()

    def answers(self, item: Any) -> Any:
        return self._object.answers(item)


def replicated(
    build: Callable[[], Answering[Answer]],
    items: Iterable[Item],
    count: int,
    *,
    on_device: bool,
    say: Callable[[str], None],
) -> Generator[tuple[Item, Answer], None, None]:
    """The items with their answers, in order, from `count` actors: fewer if the cluster has no room for all.

    Each actor has a GPU, if the cluster has any and `on_device` is set, and as many CPUs as OMP_NUM_THREADS says (1).
    Items are read as actors become free. If an actor dies, others answer its items, and it starts again, at most
    `RESTARTS` times. Raises what `build` or an answer raises, and `ClusterError` if no actor is left.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or "1"
    with connected("ray"):
        gpus = int(on_device and ray.cluster_resources().get("GPU", 0) >= 1)
        kind: Any = ray.remote(Replica)
        kind = kind.options(num_cpus=int(threads), num_gpus=gpus, max_restarts=RESTARTS)
        actors = [kind.remote(Site.here(), build, threads) for _ in range(count)]
        try:
            yield from _Dispatch(actors, say).answered(items)
        finally:
            for actor in actors:
                ray.kill(actor)


class _Dispatch:
    """Gives items to actors that are ready."""

    def __init__(self, actors: list[Any], say: Callable[[str], None]) -> None:
        self._say = say
        self._starting = actors[1:]  # the first one may choose what the others must follow, such as a precision
        self._count = self._left = len(actors)
        self._ready: set[Any] = set()
        self._held: Counter[Any] = Counter()  # items by actor
        self._calls: dict[Any, tuple[Any, tuple[int, Any] | None]] = {actors[0].ready.remote(): (actors[0], None)}
        self._lost: list[tuple[int, Any]] = []  # items of actors that died

    def answered(self, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        source = enumerate(items)
        answers: dict[int, tuple[Item, Any]] = {}
        place, begun, looks, is_all = 0, 0, 0, False
        while True:
            while (actor := self._free()) is not None and (self._lost or begun < place + AHEAD * self._count):
                task = self._lost.pop() if self._lost else next(source, None)
                if task is None:
                    is_all = True
                    break
                begun = max(begun, task[0] + 1)
                self._held[actor] += 1
                self._calls[actor.answers.remote(task[1])] = actor, task
            if place in answers:
                yield answers.pop(place)
                place += 1
            elif is_all and place == begun:
                return
            else:
                for call in ended_among([*self._calls], LOOK_EVERY_S):
                    answers |= self._outcome(call)
                looks += not self._ready
                if looks == SAY_AFTER:
                    self._say("no engine is ready yet: they load the model, or wait for CPUs or GPUs that are in use")

    def _free(self) -> Any | None:
        """The ready actor with the fewest items, if it may hold another one."""
        actor = min(self._ready, key=lambda actor: self._held[actor], default=None)
        return actor if actor is not None and self._held[actor] < DEPTH else None

    def _outcome(self, call: Any) -> dict[int, tuple[Any, Any]]:
        """The item and the answer of a call that has ended, by the item's place; none if its actor died."""
        actor, task = self._calls.pop(call)
        self._held[actor] -= task is not None
        try:
            answer = ray.get(call)
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError as error:
            self._bury(actor, task, error)
            return {}
        if task is not None:
            return {task[0]: (task[1], answer)}
        self._ready.add(actor)
        self._say(f"{len(self._ready)} of {self._count} engines are ready")
        while self._starting:
            follower = self._starting.pop()
            self._calls[follower.ready.remote()] = follower, None
        return {}

    def _bury(self, actor: Any, task: tuple[int, Any] | None, error: RayActorError) -> None:
        """Take back the item of an actor that died, and wait until the actor has started again."""
        if task is None:  # it does not start any more
            self._left -= 1
            if not self._left:
                raise ClusterError(f"all {self._count} engines died: see the nodes' memory") from error
            return
        self._lost.append(task)
        if actor in self._ready:
            self._ready.discard(actor)
            self._say("an engine died; the others take over its prompts, and it restarts")
            self._calls[actor.ready.remote()] = actor, None
