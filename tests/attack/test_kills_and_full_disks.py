"""A run that is killed, or whose disk is full, at any write: the next attempt ends as an undisturbed run does."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("writing_run.py")
TRIES = 3  # of about sixty writes; `make attack-kills` disturbs a whole recipe


def attempt(runs: Path, kind: str = "none", at: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, RUN, str(runs), kind, str(at)], capture_output=True, text=True, timeout=120)


def results(runs: Path) -> dict[str, bytes]:
    """What the stages wrote: all but the records of the attempts themselves."""
    records = ("manifest.json", "stage.json", "run.json", "plan.json", "progress.json", ".lock", ".hashes.json")
    files = [path for path in sorted(runs.rglob("*")) if path.is_file()]
    return {str(path.relative_to(runs)): path.read_bytes() for path in files if path.name not in records}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    runs = tmp_path_factory.mktemp("straight") / "runs"
    done = attempt(runs)
    assert done.returncode == 0, done.stderr
    return results(runs), int(done.stdout.split()[-1])


@pytest.mark.parametrize("number", range(TRIES))
@pytest.mark.parametrize("kind", ["kill", "full"])
def test_any_write_may_fail(kind: str, number: int, straight: tuple[dict[str, bytes], int], tmp_path: Path) -> None:
    expected, writes = straight
    chance, runs = random.Random(f"{kind}/{number}"), tmp_path / "runs"
    broken = 0
    for most in (writes // 2, writes):  # the second attempt may have fewer writes left
        at = chance.randrange(1, most)
        done = attempt(runs, kind, at)
        broken += done.returncode != 0
        assert done.returncode in (0, -9 if kind == "kill" else 1)
        if done.returncode == 1:
            assert "No space left on device" in done.stderr, f"at write {at}: {done.stderr}"
    done = attempt(runs)
    assert done.returncode == 0, f"after trouble at write {at}: {done.stderr}"
    assert broken and results(runs) == expected
