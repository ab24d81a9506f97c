"""Trackers show the training stages of a run: trackio, TensorBoard, Weights & Biases, MLflow.

Trainers know nothing of them. A tracker is a process of its own (`follow`), which reads metrics.jsonl and the rollouts
as they grow and sends each row once. It cannot change, slow or stop a run: metrics.jsonl stays the truth.
"""

from r1kit.tracking.follower import check_names, tracked
from r1kit.tracking.trackers import TRACKERS

__all__ = ["TRACKERS", "check_names", "tracked"]
