"""The live page: the time until a long run is open, and what an open page costs a training run.

    python benchmarks/watch_page.py open               # 3,000 steps x 64 completions, all of them stored
    python benchmarks/watch_page.py training --pairs 2

`open` writes the run with r1kit's own writers (about a minute), starts `r1kit watch`, and asks for everything that the
page shows first: runs, stages, curves, and the last group with its tokens. `training` runs the same steps of R1-Zero on
the tiny world with the page open and without, in turn.
Both write benchmarks/results/watch_page.json.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from _beside import TimedRun, compared, timed
from _results import FOLDER, keep

from r1kit.data.jsonl import RowWriter
from r1kit.store import write_json
from r1kit.tiny.tokenizer import make
from r1kit.train.rl.collect import ScoredGroup
from r1kit.train.rl.log import write_rollouts
from r1kit.types import Completion, Group, Problem, Prompt, Reward, Rollout, Verdict

STAGE = "rl-0a1b2c3d"
METRICS = (
    *("reward/mean", "reward/accuracy", "reward/format", "reward/std", "groups/zero_variance", "policy/entropy"),
    *("policy/kl", "policy/ratio_mean", "policy/clip_fraction", "sampler/logprob_gap_mean", "optim/grad_norm"),
    *("optim/learning_rate", "completion/length_mean", "completion/length_right", "completion/length_wrong"),
    *("completion/truncated", "language/mixed", "language/other", "hack/format_only", "hack/copied", "hack/one_answer"),
    *("hack/repetition", "verifier/unknown", "verifier/failed", "tokens/rollout", "tokens/train", "time/rollout_s"),
    *("time/train_s", "time/step_s", "time/rewards_s"),
)
TRAINING = (
    *("rl.prompts_per_step=16", "rl.group_size=8", "rl.rollouts_every=1", "rl.checkpoint_every=0"),
    *("eval.samples=1", "eval.max_tokens=8", 'eval.tasks=[{"name": "tiny/sums", "limit": 2}]'),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("open", "training"))
    parser.add_argument("--steps", type=int, help="of the run (open: 3000, training: 12)")
    parser.add_argument("--completions", type=int, default=64, help="open: per step, in groups of 16")
    parser.add_argument("--tokens", type=int, default=120, help="open: per completion")
    parser.add_argument("--tries", type=int, default=5, help="open: fresh servers")
    parser.add_argument("--pairs", type=int, default=2, help="training: runs with and without the page")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        measure = measure_open if options.what == "open" else measure_training
        result = measure(Path(folder), options)
    keep("watch_page", options.what, result, folder=options.out)


def measure_open(runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the first request to the last answer, of fresh servers."""
    steps = options.steps or 3000
    write_run(runs / "long", steps, options.completions, options.tokens)
    size = sum(path.stat().st_size for path in runs.rglob("*") if path.is_file())
    times = []
    for _ in range(options.tries):
        with watching(runs) as (address, _):
            began = time.perf_counter()
            parts = dict(opening(address, began))
            times.append(parts | {"all": time.perf_counter() - began})
    middle = {name: round(median(each[name] for each in times), 3) for name in times[0]}
    slowest = round(max(each["all"] for each in times), 3)
    return {"steps": steps, "completions": options.completions, "gigabytes": size / 1e9} | middle | {"slowest": slowest}


def opening(address: str, began: float) -> Iterator[tuple[str, float]]:
    """What the page asks for when it opens; gives the seconds until each answer was complete."""
    (run,) = get(f"{address}api/runs")["runs"]
    yield "runs", time.perf_counter() - began
    place = f"{address}api/runs/{run['id']}"
    (stage,) = get(place)["stages"]
    yield "stages", time.perf_counter() - began
    curves = get(f"{place}/curves?stage={stage['id']}")
    assert curves["last"] == stage["total"], "the curves reach to the last step"
    yield "curves", time.perf_counter() - began
    last = get(f"{place}/rollouts?stage={stage['id']}")["steps"][-1]
    groups = get(f"{place}/rollouts/{stage['id']}/{last}")["groups"]
    group = get(f"{place}/rollouts/{stage['id']}/{last}/{groups[-1]['group']}?tokens=1")
    assert group["completions"][-1]["pieces"], "tokens are stored"
    yield "group", time.perf_counter() - began
    assert get(f"{place}/health")["verdict"]
    yield "health", time.perf_counter() - began


def write_run(run: Path, steps: int, completions: int, tokens: int) -> None:
    """A finished RL stage, all steps of rollouts stored."""
    folder, chance, tokenizer = run / STAGE, random.Random(0), make()
    folder.mkdir(parents=True)
    head = {"stage": "rl", "kind": "rl", "settings": {"steps": steps}, "inputs": {}, "fingerprint": "0a1b2c3d" * 8}
    write_json(folder / "stage.json", head | {"started": "2026-01-01T00:00:00+00:00", "attempts": 1})
    with RowWriter(folder / "metrics.jsonl") as rows:
        for step in range(1, steps + 1):
            rows.append({"step": step} | {name: math.exp(-step / steps) + chance.random() for name in METRICS})
    ids = [tuple(chance.randrange(4, len(tokenizer)) for _ in range(tokens)) for _ in range(completions)]
    logprobs = [tuple(-chance.random() for _ in range(tokens)) for _ in range(completions)]
    for step in range(1, steps + 1):
        scored = []
        for first in range(0, completions, 16):
            problem = Problem(id=f"p/{step}/{first}", prompt=f"What is {step} + {first}?", answer=str(step + first))
            members = []
            for number in range(first, min(first + 16, completions)):
                verdict = Verdict.of(number % 3 == 0, extracted=str(number), detail="equal as numbers")
                reward = Reward(total=float(number % 3 == 0), parts={"accuracy": 1.0, "format": 1.0}, verdict=verdict)
                text = tokenizer.decode(ids[number])
                completion = Completion(
                    token_ids=ids[number], logprobs=logprobs[number], text=text, finish_reason="length"
                )
                prompt = Prompt(problem_id=problem.id, messages=(), token_ids=(5,))
                members.append(Rollout(prompt=prompt, completion=completion, reward=reward))
            advantages = [float(number % 3 == 0) - 0.3 for number in range(len(members))]
            scored.append(ScoredGroup(Group(problem=problem, rollouts=tuple(members)), advantages))
        write_rollouts(folder, step, scored, tokenizer)
    write_json(folder / "progress.json", {"state": "done", "done": steps, "total": steps})
    write_json(folder / "manifest.json", head | {"started": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "metrics": {}})


def measure_training(runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What the open page costs a run, and its own processor seconds, in pairs of runs in turn."""
    pairs, page_s = [], []
    for pair in range(options.pairs):
        sides: dict[bool, TimedRun] = {}
        for is_open in (False, True) if pair % 2 == 0 else (True, False):
            folder = runs / f"{pair}-{is_open}"
            with page_open(folder, is_open) as seconds_of_page:
                sides[is_open] = timed(training(folder, options.steps or 12), folder)
                page_s += [round(seconds_of_page(), 2)] if is_open else []
        pairs.append((sides[False], sides[True]))
    return compared(pairs) | {"processor seconds of the page": page_s, "steps": options.steps or 12}


def training(runs: Path, steps: int) -> list[str]:
    command = [sys.executable, "-m", "r1kit", "run", "r1-zero", "--scale", "tiny", "--until", "rl", "--jobs", "1"]
    settings = [part for text in (f"rl.steps={steps}", *TRAINING) for part in ("--set", text)]
    return [*command, *settings, "--runs", str(runs)]


@contextmanager
def page_open(runs: Path, is_open: bool) -> Iterator[Callable[[], float]]:
    """With the page open, a client does what the page in the browser does: it fetches what events name.

    Gives the processor seconds of the server since it listens.
    """
    if not is_open:
        yield lambda: 0.0
        return
    with watching(runs) as (address, process):
        before = sum(process.cpu_times()[:2])
        stop = threading.Event()
        client = threading.Thread(target=follow, args=(address, runs, stop), daemon=True)
        client.start()
        yield lambda: sum(process.cpu_times()[:2]) - before
        stop.set()


def follow(address: str, runs: Path, stop: threading.Event) -> None:
    while not stop.is_set():
        if known := get(f"{address}api/runs")["runs"]:
            break
        time.sleep(0.5)
    else:
        return
    place = f"{address}api/runs/{known[0]['id']}"
    with urllib.request.urlopen(f"{address}api/events?run={known[0]['id']}") as stream:
        name, last = "", 0
        for line in stream:
            if stop.is_set():
                return
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            if not line.startswith(b"data: "):
                continue
            data = json.loads(line[6:])
            if name == "stage":
                get(place)
            if name == "step":
                get(f"{place}/curves?stage={data['stage']}&since={last}")
                last = data["step"]
                get(f"{place}/health")
            if name == "rollouts":
                get(f"{place}/rollouts/{data['stage']}/{data['step']}")
                get(f"{place}/rollouts/{data['stage']}/{data['step']}/0?tokens=1")


@contextmanager
def watching(runs: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`r1kit watch` in a process of its own; gives its address."""
    command = [sys.executable, "-m", "r1kit", "watch", str(runs), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], psutil.Process(process.pid)
        process.kill()


def get(address: str) -> Any:
    with urllib.request.urlopen(address) as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    main()
