"""Stages on three Ray nodes, which are processes of this machine: results of one process, whatever is killed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import parallel_stages as stages
from r1kit.cli import main
from r1kit.cli.parser import parser
from r1kit.cluster import ClusterError, on_cluster
from r1kit.pipeline import External, Recipe, Stage, StagesFailed, execute
from r1kit.recipes import build_recipe
from r1kit.stages.generate import GENERATE
from r1kit.stages.mix import MIX
from r1kit.store import StoreError

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="no Ray: pip install 'r1kit[ray]'")
from ray.util.placement_group import placement_group, remove_placement_group  # noqa: E402

from r1kit.cluster.connection import connected  # noqa: E402
from r1kit.cluster.gangs import Gang, alive_nodes  # noqa: E402
from r1kit.cluster.on_node import Beacon  # noqa: E402
from r1kit.cluster.shares import Share, share_of  # noqa: E402
from r1kit.cluster.site import Site  # noqa: E402

FAST = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "idle_worker_killing_time_threshold_ms": 600_000,  # the next test uses them again
    "worker_niceness": 0,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs and three nodes with one each. This process stays connected: every new connection would start
    workers of its own on each node."""
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}.items():
        os.environ[name] = value
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": FAST}
    started = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    for _ in range(3):
        add_node(started, wait=False)
    started.wait_for_nodes(stages.PATIENCE_S)
    os.environ["RAY_ADDRESS"] = started.address
    with connected("ray"):
        yield started
    del os.environ["RAY_ADDRESS"]
    started.shutdown()


def add_node(cluster: Any, cpus: int = 1, *, wait: bool = True) -> Any:
    """Add a node, and wait until it has joined. Its workers see its death once this process has waited for it.

    The cluster's `wait_for_nodes` would wait for the killed nodes too, which it still counts.
    """
    node = cluster.add_node(num_cpus=cpus, wait=wait)
    raylet = node.all_processes["raylet"][0].process
    threading.Thread(target=raylet.wait, daemon=True).start()
    return node


class Processes:
    """The processes of stages, which have an environment variable that the driver passes on."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def running(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_marked(process)]

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            is_mine = process.ppid() == os.getpid()  # a verifier's
            is_marked = process.environ().get("R1KIT_TEST") == self._mark
            is_stages = not is_mine and "resource_tracker" not in str(process.cmdline())  # of a worker, which stays
            return is_marked and is_stages and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def left(self) -> list[psutil.Process]:
        """Those that do not end by themselves."""
        _, alive = psutil.wait_procs(self.running(), timeout=stages.PATIENCE_S)
        return [process for process in alive if self._is_marked(process)]


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.setenv("R1KIT_TEST", str(tmp_path))
    return Processes(str(tmp_path))


def run(recipe: Recipe, runs: Path, **options: Any) -> Path:
    return execute(recipe, runs, cluster=on_cluster("ray"), **options)


def test_ready_stages_run_at_the_same_time_in_processes_on_nodes(
    cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    folder = run(stages.meeting(pipe), tmp_path / "runs")
    assert (folder / "result").read_text() == "last"
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("Ray 2.") and lines[0].endswith("4 nodes, 3 CPUs, 0 GPUs; each stage asks for 1 CPU")
    assert len([line for line in lines if re.match(r"\[\d/4\] [a-z-]+: on \S+, node [0-9a-f]{8}$", line)]) == 4
    assert all(re.match(r"\[\d/4\] (left|right|after-left|last): ", line) for line in lines[1:])


def test_a_failed_stage_stops_only_the_stages_that_need_it(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(StagesFailed) as error:
        run(stages.failing(), tmp_path)
    (log,) = tmp_path.glob("failing/bad-*/log.txt")
    assert str(error.value).splitlines() == [
        "1 of 5 stages failed; the same command tries them again:",
        f"  bad: KeyError: 'the data is bad' ({log})",
        "not run, because they need one of these: victim, last",
    ]
    assert "printed by the stage" in log.read_text() and len(list(tmp_path.glob("*/*/manifest.json"))) == 2


def test_a_stage_whose_node_or_process_is_killed_resumes(
    cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], processes: Processes
) -> None:
    run(stages.killing(), tmp_path)
    said = capfd.readouterr().err
    assert "itself: its process was killed by SIGKILL; starts again, 1 of at most 3 times" in said
    assert re.search(r"raylet: its (node|worker process) died; starts again, 1 of at most 3 times", said)
    for name in ("raylet", "itself"):
        (folder,) = tmp_path.glob(f"killing/{name}-*")
        assert json.loads((folder / "manifest.json").read_text())["metrics"] == {"resumed from": 3}
        assert (folder / "rows.jsonl").read_text() == "".join(f'{{"step": {n}}}\n' for n in range(5))
    assert processes.left() == []
    add_node(cluster)  # in place of the one that was killed


def start_counting(runs: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A driver whose two stages both wait, and the processes of its stages."""
    command = [sys.executable, stages.__file__, "counting", str(runs), "ray"]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert driver.stderr is not None
    waiting: list[int] = []
    for line in driver.stderr:
        waiting += [int(number) for number in re.findall(r"process (\d+) waits", line)]
        if len(waiting) == 2:
            break
    return driver, waiting


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_stages_end_with_their_driver_and_a_second_one_is_refused(
    cluster: Any, tmp_path: Path, signum: signal.Signals, processes: Processes
) -> None:
    driver, waiting = start_counting(tmp_path)
    assert {process.pid for process in processes.running()} >= set(waiting)
    with pytest.raises(StoreError, match=f"process {driver.pid} on .* runs the recipe in .*counting on a cluster"):
        run(stages.counting(), tmp_path)
    driver.send_signal(signum)
    _, errors = driver.communicate()
    if signum == signal.SIGTERM:
        assert errors.count("Traceback") == 1 and errors.rstrip().endswith("Stopped: stopped by SIGTERM")
    assert processes.left() == []
    run(stages.counting(), tmp_path)
    for rows in tmp_path.glob("*/*/rows.jsonl"):
        assert rows.read_text() == "".join(f'{{"step": {n}}}\n' for n in range(5))


def test_results_are_those_of_one_machine_although_a_node_of_two_dies_in_training(
    cluster: Any,
    tiny_policy_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    processes: Processes,
) -> None:
    """The node does not come back: the ranks start again on the others."""
    monkeypatch.setenv("R1KIT_RANKS_ABOVE_CORES", "1")  # for the run on this machine
    small = {"rl.steps": 8, "rl.prompts_per_step": 4, "rl.max_tokens": 24, "rl.optimizer.learning_rate": 0.01}
    built = build_recipe(
        "r1-zero", scale="tiny", model=str(tiny_policy_folder), overrides=small | {"rl.checkpoint_every": 1}
    )
    (rl,) = (stage for stage in built.stages if stage.name == "rl")
    recipe = Recipe("small", (rl,), light=True, devices=2)
    killed: list[int] = []

    def kill_node_of_second_rank(folder: Path) -> None:
        if not killed and json.loads((folder / "progress.json").read_text())["done"]:
            log = str(folder.absolute() / "rank-1.log")
            second = next(each for each in processes.running() if log in {file.path for file in each.open_files()})
            (raylet,) = (parent for parent in second.parents() if parent.name() == "raylet")
            for process in [*raylet.children(recursive=True), raylet]:
                process.kill()
            killed.append(raylet.pid)

    alone = execute(recipe, tmp_path / "alone", devices=2)
    nodes = run(recipe, tmp_path / "nodes", devices=2, on_step=kill_node_of_second_rank)
    assert re.search(r"rl: .*\(node [0-9a-f]{8}\).* died; .*starts again, 1 of", capfd.readouterr().err)
    for name in ("model/model.safetensors", "step_hashes.jsonl"):
        assert (alone / name).read_bytes() == (nodes / name).read_bytes(), name
    assert {path.name for path in nodes.glob("rank-*.log")} == {"rank-0.log", "rank-1.log"}
    assert processes.left() == []
    add_node(cluster)


def test_ranks_on_two_nodes_start_again_when_one_of_them_is_killed(
    cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], processes: Processes
) -> None:
    with pytest.raises(ClusterError, match=r"devices is 4, and the cluster has 3 CPUs, on 3 of its nodes: .* 3"):
        run(replace(stages.sharing(), devices=4), tmp_path / "refused", devices=4)
    folder = run(stages.sharing(), tmp_path, devices=2)
    (killed,) = (line for line in capfd.readouterr().err.splitlines() if "; starts again, " in line)
    rank = r"rank 1 of 2 on \S+ \(node [0-9a-f]{8}\)"
    assert re.match(rf"\[1/1\] shared: RankError: {rank} was killed by SIGKILL, .*; starts again, 1 of", killed)
    done = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert (done["resumed from"], done["nodes"], done["threads"]) == (2, 2, [1, 1])
    assert (folder / "rows.jsonl").read_text() == "".join(f'{{"step": {n}, "heard": [{n}, {n}]}}\n' for n in range(5))
    assert processes.left() == []


def test_a_gang_waits_for_nodes_that_are_busy_and_for_others_if_one_dies(cluster: Any) -> None:
    (stage,) = stages.sharing().stages
    with connected("ray"):
        count = len(alive_nodes())
        extra = add_node(cluster, cpus=2)
        gang, busy = Gang(Share(1, 0, 4), stage), placement_group([{"CPU": 2}])
        assert busy.wait(stages.PATIENCE_S)
        assert not gang.has_place(alive_nodes()) and gang.is_possible
        remove_placement_group(busy)
        until(lambda: gang.has_place(alive_nodes()))
        assert [part.ranks for part in gang.parts] == [2, 1, 1] and gang.dead(alive_nodes()) is None
        cluster.remove_node(extra)
        until(lambda: len(alive_nodes()) == count)
        assert gang.dead(alive_nodes()) == gang.parts[0]
        assert not gang.has_place(alive_nodes()) and not gang.is_possible  # three are left
        smaller = Gang(Share(1, 0, 3), stage)
        until(lambda: smaller.has_place(alive_nodes()))
        assert [place.ranks for place in smaller.places] == ["rank 0", "rank 1", "rank 2"]
        assert {part.address for part in smaller.parts} == {node["NodeManagerAddress"] for node in alive_nodes()}
        smaller.leave()


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what Ray does in the background."""
    due = time.monotonic() + stages.PATIENCE_S
    while not is_so():
        assert time.monotonic() < due
        time.sleep(0.05)


def test_the_command_names_what_is_wrong(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("slurm", "ray://", "10.0.0.1:6379"):
        assert main(["run", "r1-zero", "--scale", "tiny", "--on", address]) == 1
        assert f"the cluster is {address!r}" in capfd.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=re.escape("needs Ray: pip install 'r1kit[ray]'")):
        on_cluster("ray")


def test_a_node_without_the_drivers_files_or_locks_is_refused(tmp_path: Path) -> None:
    beacon = Beacon(tmp_path / "beacon", "a", tmp_path / "lock")
    with pytest.raises(ClusterError, match=r"cannot read .*beacon \(No such file.*file system that all nodes mount"):
        beacon.check()
    beacon.file.write_text("a")
    with pytest.raises(ClusterError, match=r"does not see locks of other machines in .*Lustre with flock"):
        beacon.check()
    with pytest.raises(ClusterError, match=r"has another file .*beacon: .*file system that all nodes mount"):
        replace(beacon, token="b").check()
    site = Site.here()
    with pytest.raises(ClusterError, match=r"has no folder .*elsewhere \(No such file.*that all nodes mount"):
        replace(site, directory=tmp_path / "elsewhere").enter()
    with pytest.raises(ClusterError, match=r"has r1kit .*, and this is 0\.0\.9: install the same"):
        replace(site, version="0.0.9").enter()


def test_stages_share_the_cpus_of_a_node_between_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def nodes(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
        return [{"Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in sizes]

    monkeypatch.delenv("OMP_NUM_THREADS")
    assert share_of(nodes((0, 0), (8, 0), (6, 0)), light=False) == Share(6, 0)
    assert share_of(nodes((0, 0), (8, 0), (6, 0)), light=True) == Share(1, 0)
    assert share_of(nodes((4, 0), (96, 8), (64, 4)), light=False) == Share(12, 1)
    assert share_of(nodes((96, 8), (64, 4)), light=False, devices=8) == Share(12, 1, 8)
    with pytest.raises(ClusterError, match=r"16, and the cluster has 12 GPUs with 12 CPUs each, on 2 .* --devices 12"):
        share_of(nodes((0, 0), (96, 8), (64, 4)), light=False, devices=16)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert share_of(nodes((8, 0), (6, 0)), light=True) == Share(5, 0)
    with pytest.raises(ClusterError, match="OMP_NUM_THREADS is 5, and the largest node has 4 CPUs"):
        share_of(nodes((4, 0)), light=True)
    with pytest.raises(ClusterError, match="no node of the cluster has a CPU"):
        share_of(nodes((0, 8)), light=True)


def test_a_stage_asks_for_a_gpu_if_it_computes_on_one(tiny_policy_folder: Path) -> None:
    local, server = {"model": External(tiny_policy_folder)}, {"kind": "openai", "model": "m", "base_url": "http://h/v1"}
    rl = build_recipe("r1-zero", scale="tiny").stages[1]
    mix = Stage("mix", MIX, MIX.settings(), {})
    asks_server = Stage("asks-server", GENERATE, GENERATE.settings.parse({"engine": server}), {})
    judges = replace(asks_server, name="judges", inputs={"judge": External(tiny_policy_folder)})
    samples = Stage("samples", GENERATE, GENERATE.settings(), local)
    on_cpu = Stage("on-cpu", GENERATE, GENERATE.settings(device="cpu"), local)
    stages_on_device = [stage.name for stage in (rl, mix, asks_server, judges, samples, on_cpu) if stage.uses_device]
    assert stages_on_device == ["rl", "judges", "samples"]
    assert Share(4, 1).of(rl) == {"CPU": 4, "GPU": 1} and Share(4, 1).of(mix)["GPU"] == 0
    assert Share(4, 1, 8).of_ranks(rl, 8) == {"CPU": 32, "GPU": 8} and Share(4, 1, 8).threads_of(rl) == 32
    assert Share(4, 1, 8).of(samples) == {"CPU": 4, "GPU": 1}
    for cpus, threads in ((1, 2), (6, 6)):  # without GPUs
        assert Share(cpus, 0, 2).of_ranks(rl, 2) == {"CPU": threads, "GPU": 0}
        assert Share(cpus, 0, 2).threads_of(rl) == threads


@pytest.mark.parametrize(
    ("devices", "parts"), [(8, (8,)), (2, (2,)), (12, (8, 4)), (18, (8, 8, 2)), (20, (8, 8, 4)), (21, ())]
)
def test_ranks_are_on_as_few_nodes_as_have_room(devices: int, parts: tuple[int, ...]) -> None:
    """Nodes of 8, 4 and 8 GPUs; the CPUs of another one do for no rank."""
    sizes = ((64, 8), (32, 4), (64, 8), (0, 0), (64, 0))
    nodes = [{"Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in sizes]
    rl = build_recipe("r1-zero", scale="tiny").stages[1]
    assert Share(8, 1, devices).spread(rl, nodes) == parts


def test_engines_share_a_stage_and_lose_nothing_when_one_is_killed(
    cluster: Any,
    tiny_policy_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("r1kit.collect.loops.BATCH", 4)
    killed: list[int] = []

    def kill_an_engine(folder: Path) -> None:
        for process in psutil.process_iter(["cmdline"]):
            if "ray::Replica.answers" in " ".join(process.info["cmdline"] or ()) and not killed:
                process.kill()
                killed.append(process.pid)

    tasks = [{"name": "tiny/sums", "limit": 48}]
    settings = {"tasks": tasks, "samples": 2, "max_tokens": 24, "may_be_empty": True}
    files = {}
    for engines, on_step in ((1, None), (2, kill_an_engine)):
        parsed = GENERATE.settings.parse(settings | {"engines": engines})
        stage = Stage("samples", GENERATE, parsed, {"model": External(tiny_policy_folder)})
        folder = execute(Recipe("samples", (stage,)), tmp_path / str(engines), on_step=on_step)
        files[engines] = [(folder / name).read_bytes() for name in ("samples.jsonl", "kept.jsonl", "funnel.json")]
        assert (folder / "samples.jsonl").read_text().count("\n") == 96
    assert files[1] == files[2]
    said = capfd.readouterr().err
    assert killed and "samples: 1 of 2 engines are ready" in said and "an engine died; the others take over" in said


def test_only_copies_of_a_local_model_share_a_stage(tmp_path: Path) -> None:
    engine = {"kind": "openai", "model": "m", "base_url": "http://h/v1"}
    settings = GENERATE.settings.parse({"tasks": [{"name": "tiny/sums", "limit": 2}], "engine": engine, "engines": 4})
    with pytest.raises(ValueError, match=r"engines is 4, but only copies of the input 'model' can share the work"):
        execute(Recipe("asks-server", (Stage("samples", GENERATE, settings, {}),)), tmp_path)


GUIDE = (Path(__file__).parents[1] / "docs" / "guides" / "cluster.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL), ids=["one node", "several"])
def test_the_guides_slurm_scripts_start_what_ray_and_r1kit_understand(script: str, tmp_path: Path) -> None:
    """Slurm's own commands are replaced by ones that print their arguments."""
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for name, line in {"srun": 'printf "%s\\n" "$@"', "scontrol": "echo localhost; echo other"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    numbers = {"SLURM_NNODES": "4", "SLURM_CPUS_ON_NODE": "96", "SLURM_GPUS_ON_NODE": "8"}
    job = {
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "n[1-4]",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    ran = subprocess.run(["bash", "-c", script], env={**job, **numbers}, capture_output=True, text=True, check=True)
    words = ran.stdout.split("\n")[:-1]
    assert words[:2] == ["--cpus-per-task", "96"]
    if "symmetric-run" in words:
        ray_words, words = words[words.index("symmetric-run") + 1 : words.index("--")], words[words.index("--") + 1 :]
        assert "127.0.0.1:6379" in ray_words
        started = start.make_context("start", ["--head", *curate_and_validate_ray_start_args(ray_words)])
        assert started.params["num_cpus"] == 96 and started.params["num_gpus"] == 8
    run = parser().parse_args(words[words.index("r1kit") + 1 :])
    assert (run.on, run.devices) in ((None, 8), ("ray", None))


# The fields of KubeRay's types that the manifest may have, of ray.io/v1.
KUBERAY = {
    "job": {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"},
    "cluster": {"rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling"},
    "head": {"rayStartParams", "template", "serviceType"},
    "worker": {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"},
}


def test_the_guides_manifest_has_fields_of_kuberays_types_and_a_command_that_r1kit_reads() -> None:
    (manifest,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    spec = manifest["spec"]
    cluster, head = spec["rayClusterSpec"], spec["rayClusterSpec"]["headGroupSpec"]
    for name, part in (("job", spec), ("cluster", cluster), ("head", head)):
        assert part.keys() <= KUBERAY[name], name
    for group in cluster["workerGroupSpecs"]:
        assert {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"} <= group.keys()
        assert group.keys() <= KUBERAY["worker"] and group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    groups = [head, *cluster["workerGroupSpecs"]]
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())
    pods = [group["template"]["spec"] for group in groups]
    assert all(pod["volumes"][0]["name"] == pod["containers"][0]["volumeMounts"][0]["name"] for pod in pods)
    words = shlex.split(shlex.split(spec["entrypoint"])[-1].partition(" && ")[2])
    assert words[0] == "r1kit" and parser().parse_args(words[1:]).on == "ray"
