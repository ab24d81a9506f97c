"""Stages that worker processes import: they meet, fail, die or wait. As a script, it runs one of the recipes.

`python parallel_stages.py RECIPE RUNS` runs two stages side by side, and with `ray` after it on a cluster.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil

from r1kit import ranks
from r1kit.cluster import on_cluster
from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.pipeline import Context, Kind, Recipe, Stage, execute
from r1kit.settings import Settings
from r1kit.store import read_object

PATIENCE_S = 100  # then the system's alarm ends a process that would wait for ever


class Meeting(Settings):
    pipe: str = ""


def meet(context: Context) -> Mapping[str, Any]:
    """Wait until the other stage runs too: opening a named pipe blocks until its other end is opened."""
    signal.alarm(PATIENCE_S)
    pipe = Path(context.settings.pipe)
    if context.stage == "left":
        pipe.write_text("here")
    else:
        assert pipe.read_text() == "here"
    signal.alarm(0)
    return {"process": os.getpid()}


def finish(context: Context) -> Mapping[str, Any]:
    (context.folder / "result").write_text(context.stage)
    return {"process": os.getpid()}


def fail(context: Context) -> Mapping[str, Any]:
    print("printed by the stage")
    raise KeyError("the data is bad")


def meet_and_die(context: Context) -> Mapping[str, Any]:
    meet(context)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def count(context: Context) -> Mapping[str, Any]:
    """Write five rows. The first attempt waits after three, for a signal that ends it."""
    path = context.folder / "rows.jsonl"
    done = len(list(read_rows(path))) if path.exists() else 0
    with RowWriter(path) as rows:
        for step in range(done, 5):
            rows.append({"step": step})
            if step == 2:
                context.progress.say(f"process {os.getpid()} waits")
                signal.alarm(PATIENCE_S)
                signal.pause()
    return {"resumed from": done}


def count_despite_kills(context: Context) -> Mapping[str, Any]:
    """Write five rows. The first attempt kills a process after three: its own, or one that it descends from."""
    path = context.folder / "rows.jsonl"
    done = len(list(read_rows(path))) if path.exists() else 0
    with RowWriter(path) as rows:
        for step in range(done, 5):
            rows.append({"step": step})
            if step == 2:
                ancestors = {parent.name(): parent for parent in psutil.Process().parents()}
                os.kill(ancestors[context.stage].pid if context.stage in ancestors else os.getpid(), signal.SIGKILL)
                signal.alarm(PATIENCE_S)
                signal.pause()
    return {"resumed from": done}


def count_in_ranks(context: Context) -> Mapping[str, Any]:
    """Write five rows, which all ranks know. In the first attempt the second rank is killed after two."""
    path, attempt = context.folder / "rows.jsonl", read_object(context.folder / "stage.json")["attempts"]
    done = ranks.gather(len(list(read_rows(path, missing_ok=True))))[0]
    with RowWriter(path) if ranks.is_first() else nullcontext() as rows:
        for step in range(done, 5):
            heard = ranks.gather(step)
            if rows is not None:
                rows.append({"step": step, "heard": heard})
            if step == attempt == 1:
                if ranks.rank() == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                signal.alarm(PATIENCE_S)
                ranks.meet()
    raylet = next(parent.pid for parent in psutil.Process().parents() if parent.name() == "raylet")
    nodes, threads, gpus = zip(*ranks.gather((raylet, torch_threads(), visible_gpus())), strict=True)
    return {"resumed from": done, "nodes": len(set(nodes)), "threads": threads, "gpus": gpus}


def visible_gpus() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def torch_threads() -> int:
    import torch

    return torch.get_num_threads()


class KillsItsLoader:
    """Kills the process that unpickles it, as the system may do while a worker imports torch."""

    def __reduce__(self) -> tuple[Any, ...]:
        return kill_this_process, ()


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def finish_with(_: KillsItsLoader, context: Context) -> Mapping[str, Any]:
    return finish(context)


def talk(context: Context) -> Mapping[str, Any]:
    """Report from four threads at once, then print half a surrogate pair and no end of line."""

    def say(letter: str) -> None:
        for _ in range(20):
            context.progress.say(letter * 40_000)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(say, "abcd"))
    print("half \ud800, no end", end="")
    return {}


HOSTILE = {
    "question": "一加一 [/red]?",
    "completion": "<think>\x1b]0;title\x07\x1b[2J 一二三\u202e" + "很长" * 300 + "</think>\n\ud800 <answer>2</answer>",
    "verdict": "wrong",
    "reward": "total 0.2, accuracy 0",
}


def show(context: Context) -> Mapping[str, Any]:
    """Show a completion that tries to control the terminal."""
    context.progress.table("step 5", [HOSTILE])
    return {}


def print_to_a_full_disk(context: Context) -> Mapping[str, Any]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
    print("more than the disk holds")
    return {}


def stage(name: str, run: Any, *parents: Stage, pipe: str = "") -> Stage:
    kind = Kind(name=getattr(run, "__name__", name), run=run, settings=Meeting)
    return Stage(name, kind, Meeting(pipe=pipe), {parent.name: parent / "." for parent in parents})


def meeting(pipe: Path, right: Any = meet) -> Recipe:
    """Two stages that end only if they run at the same time, and two that read them."""
    left, other = stage("left", meet, pipe=str(pipe)), stage("right", right, pipe=str(pipe))
    after = stage("after-left", finish, left)
    return Recipe("meeting", (left, other, after, stage("last", finish, after, other)))


def failing() -> Recipe:
    """`bad` fails, `victim` needs it, `good` and `better` do not."""
    bad, good = stage("bad", fail), stage("good", finish)
    victim, better = stage("victim", finish, bad), stage("better", finish, good)
    return Recipe("failing", (bad, good, victim, better, stage("last", finish, victim, better)))


def counting() -> Recipe:
    """Two stages that wait midway, and one that reads them."""
    return Recipe("counting", (stage("last", finish, stage("first", count), stage("second", count)),))


def killing() -> Recipe:
    """`raylet` kills its node, `itself` its own process, and one stage reads them."""
    parents = [stage(name, count_despite_kills) for name in ("raylet", "itself")]
    return Recipe("killing", (stage("last", finish, *parents),))


def sharing() -> Recipe:
    """Two ranks that count."""
    kind = Kind(name="count-in-ranks", run=count_in_ranks, settings=Meeting, shards=True)
    return Recipe("sharing", (Stage("shared", kind, Meeting(), {}),), light=True, devices=2)


def showing() -> Recipe:
    return Recipe("showing", (stage("first", show), stage("last", show)))


if __name__ == "__main__":
    recipe = {"failing": failing, "counting": counting}[sys.argv[1]]()
    execute(recipe, Path(sys.argv[2]), jobs=2, cluster=on_cluster("ray") if sys.argv[3:] == ["ray"] else None)
