"""The whole tiny R1 on three Ray nodes, which are killed at random times: the results of one process, file by file?

python benchmarks/cluster_kills.py                    # the whole recipe twice; ten kills
python benchmarks/cluster_kills.py --rehearse         # its smallest sizes
python benchmarks/cluster_kills.py --rehearse --until dev1 --kills 3    # as far as the first generate, rl and sft

First the recipe runs with `--jobs` on this machine, or did in an earlier call. Then it runs on a cluster of a head and
three nodes with one CPU each. At random times, the node of a stage that has begun to train or sample is killed with all
its processes, and a new one joins. All files of results but the times of decisions in them, every metric and the table
must be equal, and no process left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from r1kit.cluster import RESTARTS
from r1kit.pipeline.provenance import commit

KINDS = ("generate", "rl", "sft")
MARK = "R1KIT_CLUSTER_KILLS"  # an environment variable that the stages' processes get
LOOK_EVERY_S = 0.5
RESULTS = (".safetensors", ".jsonl", ".md")
TIMED = ("metrics.jsonl",)  # rows with seconds
TIME = re.compile(rb'"at": "[0-9T:.+-]+"')  # of a decision on a sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("build/cluster-kills"))
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--until", default="", help="the last stage")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--gap", type=float, default=20.0, help="longest time between two kills, in seconds")
    parser.add_argument("--seed", type=int, default=0)
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
    clock = time.monotonic()
    subprocess.run([*command, "--jobs", "1", "--runs", str(options.runs / "alone")], check=True, stdout=sys.stderr)
    if others := {str(manifest["git"]) for manifest in manifests(options.runs / "alone")} - {str(commit())}:
        sys.exit(f"{options.runs / 'alone'} was computed by other code ({', '.join(others)}): give another --runs")
    report: dict[str, Any] = {"seconds alone": round(time.monotonic() - clock)}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        add_node(cluster)
    cluster.wait_for_nodes()
    clock = time.monotonic()
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    runs = options.runs / f"nodes-{time.strftime('%H%M%S')}"
    driver = subprocess.Popen(
        [*command, "--on", "ray", "--runs", str(runs)], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert driver.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(map(shown, driver.stderr or ())))
    reader.start()
    report["kills"] = kill_at_random(cluster, runs, driver, options)
    report["status"] = driver.wait()
    reader.join()
    report["seconds on nodes"] = round(time.monotonic() - clock)
    report["restarts"] = sum("; starts again, " in line for line in said)
    report |= compared(options.runs / "alone", runs)
    cluster.shutdown()
    _, left = psutil.wait_procs([process for process in psutil.process_iter() if is_marked(process)], timeout=60)
    report["processes left"] = len(left)
    print(json.dumps(report, indent=2))


def manifests(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in runs.rglob("manifest.json")]


def shown(line: str) -> str:
    print(line, end="", file=sys.stderr)
    return line


def add_node(cluster: Cluster) -> None:
    """Its workers see that it was killed as soon as this process has waited for it."""
    node = cluster.add_node(num_cpus=1, wait=False)
    threading.Thread(target=node.all_processes["raylet"][0].process.wait, daemon=True).start()


def kill_at_random(
    cluster: Cluster, runs: Path, driver: subprocess.Popen[str], options: argparse.Namespace
) -> list[str]:
    """Kill nodes while the driver runs. Returns what each of them was doing."""
    chance = random.Random(options.seed)
    killed: list[str] = []
    due = time.monotonic() + chance.uniform(0, options.gap)
    while driver.poll() is None:
        time.sleep(LOOK_EVERY_S)
        if len(killed) < options.kills and time.monotonic() >= due:
            # each kind in turn, so that all are hit; a stage that dies more often has failed
            begun = [
                stage
                for stage in running_stages(runs)
                if stage["done"] is not None and sum(stage["name"] in line for line in killed) < RESTARTS
            ]
            stages = sorted(begun, key=lambda stage: sum(f" {stage['kind']} " in line for line in killed))
            if stages and (raylet := raylet_of(stages[0]["process"])) is not None:
                for process in [*raylet.children(recursive=True), raylet]:
                    process.kill()
                killed.append("{name}, kind {kind} at {done} of {total}".format(**stages[0]))
                print(f"killed the node of {killed[-1]}", file=sys.stderr)
                due = time.monotonic() + chance.uniform(0, options.gap)
                add_node(cluster)
    return killed


def running_stages(runs: Path) -> list[dict[str, Any]]:
    stages = []
    for file in runs.glob("*/*/progress.json"):
        kind = (
            json.loads((file.parent / "stage.json").read_text())["kind"]
            if (file.parent / "stage.json").exists()
            else ""
        )
        progress = json.loads(file.read_text())
        if progress["state"] == "running" and kind in KINDS:
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
    different = [str(name) for name in both if content_of(alone / name) != content_of(nodes / name)]
    one_sided = sorted(map(str, files[0] ^ files[1]))
    result = {"stages": len(done), "equal files": len(both) - len(different)}
    result |= {"different": sorted(different), "on one side": one_sided}
    summaries = [next(runs.glob("*/report-*/summary.json"), None) for runs in (alone, nodes)]
    if None not in summaries:
        tables = [json.loads(file.read_text())["table"] for file in summaries if file is not None]
        result |= {"same table": tables[0] == tables[1], "table": tables[1].splitlines()}
    return result


def content_of(path: Path) -> bytes:
    return TIME.sub(b"", path.read_bytes())


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
