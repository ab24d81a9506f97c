"""A run in a tracker, read back through the tracker's own interface without a network."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.data.jsonl import read_rows
from r1kit.tracking.names import plain_names, trainer_names

Point = tuple[str, int]  # metric and step


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """`points` has every stored value, so a step that was sent twice is there twice; `tables` has rows by step."""

    name: str
    config: Mapping[str, Any]
    points: list[tuple[str, int, float]]
    tables: Mapping[int, list[Mapping[str, Any]]]


def read_trackio(stage: Path, reference: str) -> TrackedRun:
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs(stage.parent.name, reference)
    tables = {log["step"]: log["completions"]["_value"] for log in logs if "completions" in log}
    points = [
        (name, log["step"], value)
        for log in logs
        for name, value in log.items()
        if name != "step" and isinstance(value, int | float)
    ]
    config = SQLiteStorage.get_run_config(stage.parent.name, reference) or {}
    return TrackedRun(name=reference, config=config, points=points, tables=tables)


def read_tensorboard(stage: Path, reference: str) -> TrackedRun:
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

    folder = (stage / reference).resolve()
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, TENSORS: 0})
    events.Reload()
    points = [(tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    tables: dict[int, list[Mapping[str, Any]]] = {}
    for event in events.Tensors("completions") if "completions" in events.Tags()["tensors"] else []:
        head, _, *lines = (line[2:-2].split(" | ") for line in event.tensor_proto.string_val[0].decode().splitlines())
        tables[event.step] = [dict(zip(head, line, strict=True)) for line in lines]
    [config] = events.Tensors("config")
    text = config.tensor_proto.string_val[0].decode()
    return TrackedRun(name=folder.name, config=json.loads(text.strip("`\n")), points=points, tables=tables)


def read_wandb(stage: Path, reference: str) -> TrackedRun:
    """From the offline files of all attempts, as `wandb sync` uploads them."""
    from wandb.proto.wandb_internal_pb2 import Record

    from r1kit.tracking.to_wandb import records

    points, tables, config, name = [], {}, {}, ""
    for file in sorted(Path("wandb").absolute().glob(f"*run-*-{reference}/*.wandb")):
        for record in map(Record.FromString, records(file.read_bytes())):
            if record.HasField("run"):
                name = record.run.display_name
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                step, items = record.history.step.num, dict[str, Any]()
                for item in record.history.item:
                    items["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
                if table := items.get("completions/path"):
                    content = json.loads((file.parent / "files" / table).read_text())
                    tables[step] = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
                points += [
                    (key, step, value)
                    for key, value in items.items()
                    if isinstance(value, int | float) and key[0] != "_" and not key.startswith("completions/")
                ]
    return TrackedRun(name=name, config=config, points=points, tables=tables)


def read_mlflow(stage: Path, reference: str) -> TrackedRun:
    from mlflow import MlflowClient

    client = MlflowClient()
    run = client.get_run(reference)
    points = [
        (name, metric.step, metric.value)
        for name in run.data.metrics
        for metric in client.get_metric_history(reference, name)
    ]
    tables = {}
    for entry in client.list_artifacts(reference, "completions"):
        frame = client.load_table(run.info.experiment_id, entry.path, [reference])
        tables[int(Path(entry.path).stem.removeprefix("step-"))] = frame.to_dict("records")
    return TrackedRun(name=run.info.run_name, config=run.data.params, points=points, tables=tables)


READERS = {"trackio": read_trackio, "tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}
STEPS = {"wandb": "train/global_step", "mlflow": "global_step"}  # what these have beside our metrics


def read_back(tracker: str, stage: Path) -> TrackedRun:
    """The run of a stage's folder. wandb and mlflow are read from the current folder, trackio from TRACKIO_DIR."""
    return READERS[tracker](stage, json.loads((stage / "tracking" / f"{tracker}.json").read_text())["run"])


def faults(tracker: str, stage: Path) -> dict[str, list[Point]]:
    """Points that are missing, that are there twice, that are too many, and whose value differs from metrics.jsonl.

    Seconds may differ: a step that a resumed stage repeats takes another time.
    """
    translate = plain_names if tracker == "mlflow" else trainer_names
    expected: dict[Point, float] = {}
    for row in read_rows(stage / "metrics.jsonl"):
        values = translate(row) | ({STEPS[tracker]: row["step"]} if tracker in STEPS else {})
        expected |= {(name, row["step"]): value for name, value in values.items()}
    points = read_back(tracker, stage).points
    stored = {(name, step): value for name, step, value in points}
    counts = Counter(point[:2] for point in points)
    return {
        "missing": sorted(expected.keys() - stored.keys()),
        "twice": sorted(point for point, count in counts.items() if count > 1),
        "too many": sorted(stored.keys() - expected.keys()),
        "other value": [
            point
            for point, value in expected.items()
            if not (point[0].startswith("time/") or point[0].endswith("step_time"))
            and not math.isclose(stored.get(point, value), value, rel_tol=1e-6, abs_tol=1e-30)
        ],
    }
