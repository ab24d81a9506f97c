"""Stages whose ranks fail, for `test_ranks`: the processes of the ranks import them.

As a script, `python failing_ranks.py RUNS` runs two ranks that wait for each other.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1kit import ranks
from r1kit.pipeline import Context, Kind, Recipe, Stage, execute
from r1kit.pipeline.other_nodes import Summons, serve_part
from r1kit.pipeline.progress import Display
from r1kit.settings import Settings

MARK = "R1KIT_TEST_MARK"  # environment variable: a file that says that the rank has died


class FailingSettings(Settings):
    how: str


def run(context: Context) -> Mapping[str, Any]:
    """All ranks but the last are in a collective while the last one fails, or all fail alike."""
    (context.folder / f"process-{ranks.rank()}").write_text(str(os.getpid()))
    ranks.gather("all are here")
    context.progress.step(1, 4)
    context.progress.say("all are here")
    how = context.settings.how
    if how == "full":
        _save_on_a_full_disk(context.folder / "step-000001")
    if how == "exit":
        sys.exit("no more")
    if how == "raise":
        raise ValueError("the data is bad")
    if ranks.rank() == ranks.count() - 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1000)  # it ends with the others
    ranks.gather("never")
    return {}


def _save_on_a_full_disk(folder: Path) -> None:
    from r1kit.models.load import fresh_llama
    from r1kit.tiny.tokenizer import make
    from r1kit.train.learner import Learner, OptimizerSettings

    learner = Learner(
        fresh_llama(make(), layers=1, width=64, heads=2, context=64, seed=0), OptimizerSettings(), steps=1
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    learner.save(folder, {})


def serve_second_part(summons: Summons) -> None:
    """The process of another agent."""
    serve_part(summons, 1, Display())


FAILING = Kind(name="failing", run=run, settings=FailingSettings, shards=True)


def failing(how: str) -> Recipe:
    return Recipe("ranks", (Stage("failing", FAILING, FailingSettings(how=how)),))


def dying_reward(completions: Sequence[str], completion_ids: Sequence[list[int]], **columns: Any) -> list[float]:
    """The share of low ids; in the second step, the second rank dies, once."""
    mark = Path(os.environ[MARK])
    if ranks.rank() == 1 and columns["trainer_state"].global_step == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [sum(token < 100 for token in ids) / len(ids) for ids in completion_ids]


def unhealthy_reward(completions: Sequence[str], completion_ids: Sequence[list[int]], **columns: Any) -> list[float]:
    """The share of low ids, and from step 3 on the verdict on the stage is a fault."""
    from r1kit.report.folders import StageFolder
    from r1kit.report.health import Verdict
    from r1kit.stages.shared import alarm

    def judged(folder: StageFolder) -> Verdict:
        name = "collapsed" if folder.metrics.steps[-1] >= 3 else "healthy"
        return Verdict(name=name, evidence=("planted",), remedy="lower it")

    alarm.verdict = judged  # type: ignore[assignment]
    return [sum(token < 100 for token in ids) / len(ids) for ids in completion_ids]


if __name__ == "__main__":
    execute(failing("hang"), Path(sys.argv[1]), devices=2)
