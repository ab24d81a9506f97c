"""MLflow: its local database (mlflow.db in the current folder), or the server of MLFLOW_TRACKING_URI."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.tracking.names import plain_names
from r1kit.tracking.trackers import Row, TrackedStage

TABLES = "completions"  # the folder of artifacts
STEP = "global_step"  # every row has it, and it is stored last
PARAMETERS, CHARACTERS = 100, 6000  # MLflow's limits for a call, and for a value
REFUSED = re.compile(r"[^\w\-. :/]", re.ASCII)


def open_run(stage: TrackedStage, reference: str) -> MLflowRun:
    """The reference is the run's id, which MLflow chooses."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # usage statistics for its makers
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient()
    if reference:
        client.update_run(reference, status="RUNNING")
        last_step = max((metric.step for metric in client.get_metric_history(reference, STEP)), default=-1)
        return MLflowRun(client, reference, last_step)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or stage.recipe
    experiment = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
    run_id = client.create_run(experiment_id, run_name=stage.name).info.run_id
    parameters = [Param(REFUSED.sub("_", key), str(value)[:CHARACTERS]) for key, value in flat(stage.config).items()]
    for start in range(0, len(parameters), PARAMETERS):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS])
    return MLflowRun(client, run_id, -1)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    parameters: dict[str, Any] = {}
    for key, value in config.items():
        parameters |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return parameters


class MLflowRun:
    def __init__(self, client: Any, run_id: str, last_step: int) -> None:
        self.client, self.reference, self.last_step = client, run_id, last_step
        self.hint = f"mlflow ui --backend-store-uri {client.tracking_uri}"

    def log(self, step: int, row: Row, samples: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        values = {REFUSED.sub("_", name): value for name, value in plain_names(row).items()} | {STEP: step}
        file = f"{TABLES}/step-{step:06d}.json"
        # before the step is stored; `log_table` would append to the table of an attempt that was killed in between
        if samples and file not in [entry.path for entry in self.client.list_artifacts(self.reference, TABLES)]:
            table = {column: [sample[column] for sample in samples] for column in samples[0]}
            self.client.log_table(self.reference, table, file)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.reference, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        self.client.set_terminated(self.reference, "FINISHED" if finished else "KILLED")
