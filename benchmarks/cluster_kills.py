"""The whole tiny R1 on three Ray nodes, which are killed at random times: the results of one process, file by file?

python benchmarks/cluster_kills.py                    # the whole recipe twice; ten kills
python benchmarks/cluster_kills.py --rehearse         # its smallest sizes
python benchmarks/cluster_kills.py --until dev1 --kinds sft --kills 3    # as far as the first SFT, killed alone

First the recipe runs with `--jobs` on this machine. Then it runs on a cluster of a head and three nodes with one CPU
each. At random times, the node of a stage that has begun to train or sample is killed with all its processes, and a new
one joins. All files of results but the times of decisions in them, every metric and the table must be equal, and no
process left.

With `--seconds`, a call ends after that time, by SIGTERM to the run; the same command goes on. The report is printed,
and written into the file `--output`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from r1kit.cluster import RESTARTS
from r1kit.pipeline.provenance import commit

KINDS = ("generate", "rl", "sft")
MARK = "R1KIT_CLUSTER_KILLS"  # an environment variable that the stages' processes get
LOOK_EVERY_S = 0.2
RESULTS = (".safetensors", ".jsonl", ".md")
TIMED = ("metrics.jsonl",)  # rows with seconds
TIME = re.compile(rb'"at": "[0-9T:.+-]+"')  # of a decision on a sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("build/cluster-kills"))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--until", default="", help="the last stage")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of the stages that are killed")
    parser.add_argument("--gap", type=float, default=20.0, help="longest time between two kills, in seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="of the run without a cluster")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="longest time of this call")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/cluster_kills.json"))
    options = parser.parse_args()
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        MARK: str(os.getpid()),
    }
    command = [sys.executable, "-m", "r1kit", "run", "r1", "--scale", "tiny"]
    command += ["--rehearse"] if options.rehearse else []
    command += ["--until", options.until] if options.until else []
    call = Call(time.monotonic() + options.seconds, options.runs / "report.json")
    alone, nodes = options.runs / "alone", options.runs / "nodes"
    with call.timed("seconds alone"):
        driver = subprocess.Popen([*command, "--jobs", str(options.jobs), "--runs", str(alone)], stdout=sys.stderr)
        if call.status_of(driver):
            sys.exit("the run without a cluster failed: see its error above")
    if others := {str(manifest["git"]) for manifest in manifests(alone)} - {str(commit())}:
        sys.exit(f"{alone} was computed by other code ({', '.join(others)}): give another --runs")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            add_node(cluster)
        cluster.wait_for_nodes()
        with call.timed("seconds on nodes"):
            environment = {**os.environ, "RAY_ADDRESS": cluster.address}
            arguments = [*command, "--on", "ray", "--runs", str(nodes)]
            driver = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
            reader = threading.Thread(target=call.read, args=(driver,))
            reader.start()
            kill_at_random(cluster, nodes, driver, call, options)  # in the main thread: Ray handles signals in it
            call.facts["status"] = call.status_of(driver)
            reader.join()
    finally:
        cluster.shutdown()
    _, left = psutil.wait_procs([process for process in psutil.process_iter() if is_marked(process)], timeout=60)
    call.facts |= {**compared(alone, nodes), "processes left": len(left)}
    call.save()
    report = json.dumps(call.facts, indent=2)
    options.output.write_text(f"{report}\n")
    print(report)


class Call:
    """One call of several: `facts` are those of all until now, in a file."""

    def __init__(self, due: float, file: Path) -> None:
        self._due, self._file = due, file
        self.facts: dict[str, Any] = {"kills": [], "restarts": 0, "calls": 0}
        if file.exists():
            self.facts |= json.loads(file.read_text())
        self.facts["calls"] += 1
        self.save()

    def save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self.facts))

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a block."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.facts[name] = self.facts.get(name, 0) + round(time.monotonic() - begun)
            self.save()

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._due

    def status_of(self, driver: subprocess.Popen[Any]) -> int:
        """The exit status of a run. If this call's time is over before, the run is stopped and the call ends."""
        try:
            return driver.wait(None if math.isinf(self._due) else max(0.0, self._due - time.monotonic()))
        except subprocess.TimeoutExpired:
            driver.terminate()
            driver.wait()
            sys.exit("the time is over: the same command goes on")

    def read(self, driver: subprocess.Popen[str]) -> None:
        """Show what the run says, and count its restarts."""
        for line in driver.stderr or ():
            print(line, end="", file=sys.stderr)
            self.facts["restarts"] += "; starts again, " in line


def manifests(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in runs.rglob("manifest.json")]


def add_node(cluster: Cluster) -> None:
    """Its workers see that it was killed as soon as this process has waited for it."""
    node = cluster.add_node(num_cpus=1, wait=False)
    threading.Thread(target=node.all_processes["raylet"][0].process.wait, daemon=True).start()


def kill_at_random(
    cluster: Cluster, runs: Path, driver: subprocess.Popen[str], call: Call, options: argparse.Namespace
) -> None:
    """Kill nodes while the driver runs, and note what each of them was doing."""
    killed: list[str] = call.facts["kills"]
    chance = random.Random(f"{options.seed}/{len(killed)}")
    due = time.monotonic() + chance.uniform(0, options.gap)
    while driver.poll() is None and not call.is_over:
        time.sleep(LOOK_EVERY_S)
        if len(killed) < options.kills and time.monotonic() >= due:
            # each kind in turn, so that all are hit; a stage that dies more often has failed
            begun = [
                stage
                for stage in running_stages(runs, options.kinds)
                if stage["done"] is not None and sum(stage["name"] in line for line in killed) < RESTARTS
            ]
            stages = sorted(begun, key=lambda stage: sum(f" {stage['kind']} " in line for line in killed))
            if stages and (raylet := raylet_of(stages[0]["process"])) is not None:
                for process in [*raylet.children(recursive=True), raylet]:
                    process.kill()
                killed.append("{name}, kind {kind} at {done} of {total}".format(**stages[0]))
                call.save()
                print(f"killed the node of {killed[-1]}", file=sys.stderr)
                due = time.monotonic() + chance.uniform(0, options.gap)
                add_node(cluster)


def running_stages(runs: Path, kinds: Sequence[str]) -> list[dict[str, Any]]:
    stages = []
    for file in runs.glob("*/*/progress.json"):
        kind = (
            json.loads((file.parent / "stage.json").read_text())["kind"]
            if (file.parent / "stage.json").exists()
            else ""
        )
        progress = json.loads(file.read_text())
        if progress["state"] == "running" and kind in kinds:
            stages.append({**progress, "kind": kind, "name": file.parent.name})
    return stages


def raylet_of(process: int) -> psutil.Process | None:
    try:
        return next(parent for parent in psutil.Process(process).parents() if parent.name() == "raylet")
    except (psutil.Error, StopIteration):
        return None  # it has just ended


def compared(alone: Path, nodes: Path) -> dict[str, Any]:
    """How many result files there are, and which of them differ or exist on one side only."""
    done = {path.parent.relative_to(nodes) for path in nodes.rglob("manifest.json")}  # the other may have gone further
    files = [
        {path.relative_to(runs) for stage in done for path in (runs / stage).rglob("*") if is_result(path)}
        for runs in (alone, nodes)
    ]
    both = files[0] & files[1]
    different = [str(name) for name in both if content_of(alone, name) != content_of(nodes, name)]
    one_sided = sorted(map(str, files[0] ^ files[1]))
    result = {"stages": len(done), "equal files": len(both) - len(different)}
    result |= {"different": sorted(different), "on one side": one_sided}
    summaries = [next(runs.glob("*/report-*/summary.json"), None) for runs in (alone, nodes)]
    if None not in summaries:
        tables = [json.loads(file.read_text())["table"] for file in summaries if file is not None]
        result |= {"same table": tables[0] == tables[1], "table": tables[1].splitlines()}
    return result


def content_of(runs: Path, name: Path) -> bytes:
    """What a result file says, without times of decisions and without the folder of the runs in paths."""
    return TIME.sub(b"", (runs / name).read_bytes()).replace(bytes(runs), b"")


def is_result(path: Path) -> bool:
    return path.is_file() and path.suffix in RESULTS and path.name not in TIMED and not path.name.startswith(".")


def is_marked(process: psutil.Process) -> bool:
    try:
        is_stage = process.environ().get(MARK) == str(os.getpid()) and process.pid != os.getpid()
        return is_stage and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
