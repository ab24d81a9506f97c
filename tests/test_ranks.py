"""Several ranks (gloo, CPU) train as one process does, and end with one clear message."""

from __future__ import annotations

import shutil
import sys
from itertools import chain
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit import ranks

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # the processes of the ranks get the same path

from _rank_stages import KINDS, RankStagesSettings, largest_difference, metrics, train  # noqa: E402


@pytest.mark.parametrize("sizes", [[], [5], [1, 1, 1], [9, 1, 1, 1], [1, 1, 1, 9], [0, 0], [3, 0, 2, 0]])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_shares_of_all_ranks_are_the_items_in_order(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], count: int
) -> None:
    items, shares = list(enumerate(sizes)), []
    for rank in range(count):
        monkeypatch.setattr(ranks, "_member", ranks._Member(rank, count, None))
        shares.append(ranks.share(items, lambda item: item[1]))
    assert list(chain.from_iterable(shares)) == items
    sums = [sum(size for _, size in share) for share in shares]
    assert max(sums) <= sum(sizes) / count + max(sizes, default=0)


def test_two_ranks_train_as_one_process_and_one_process_continues_what_they_began(tmp_path: Path) -> None:
    """Every kind of stage; uneven numbers of rows, so that some ranks run empty batches."""
    settings = RankStagesSettings(kinds=tuple(KINDS), steps=2, checkpoint_every=1)
    alone, together = train(tmp_path, settings, 1), train(tmp_path, settings, 2)
    for name in KINDS:
        difference, where = largest_difference(metrics(alone, name), metrics(together, name))
        assert difference < 1e-4, f"{name}: {where}"
        assert (together / name / "checkpoints" / "step-000001" / "shards").is_dir()
    assert sorted(path.name for path in (alone / "rl").iterdir()) == sorted(p.name for p in (together / "rl").iterdir())
    # as if the two ranks had been stopped after the first step
    resumed = tmp_path / "ranks-1-again" / "ranks" / together.name
    shutil.copytree(together, resumed)
    (resumed / "manifest.json").unlink()
    for name in KINDS:
        for output in ("model", "checkpoints/step-000002"):
            shutil.rmtree(resumed / name / output, ignore_errors=True)
    train(tmp_path, settings, 1, runs="ranks-1-again")
    for name in KINDS:
        difference, where = largest_difference(metrics(alone, name), metrics(resumed, name))
        assert difference < 1e-4, f"{name}: {where}"
