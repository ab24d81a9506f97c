"""Stages on the nodes of a Ray cluster: `r1kit run RECIPE --on ray`. Ray decides where; nothing else imports it.

Nodes share the run's folder. Each stage runs in a process of its own on one node, with the CPUs and the GPU that it
asks for; the ranks of a stage that several devices share may be on several. A stage whose node or process is killed
starts again and resumes, at most `RESTARTS` times.
"""

from __future__ import annotations

import importlib.util
from functools import partial

from r1kit.pipeline.execute import Cluster

RESTARTS = 3


class ClusterError(ValueError):
    """The cluster cannot run the stages; the message says why and how to fix it."""


def require_ray(purpose: str) -> None:
    """Raise `ClusterError` if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(f"{purpose} needs Ray: pip install 'r1kit[ray]'")


def on_cluster(address: str, limit: int | None = None) -> Cluster:
    """The nodes at `address`, for `execute`: "ray" for the cluster of RAY_ADDRESS or of this machine, or ray://HOST:PORT.

    If "ray" finds no cluster, Ray is started on this machine. At most `limit` stages run at a time, or as many as the
    nodes have room for.
    """
    if address != "ray" and not address.removeprefix("ray://").strip("/:"):
        raise ClusterError(f"the cluster is {address!r}: give ray, or ray://HOST:PORT for a cluster elsewhere")
    if address != "ray" and not address.startswith("ray://"):
        raise ClusterError(f"the cluster is {address!r}: expected ray, or ray://HOST:PORT for a cluster elsewhere")
    require_ray("running on a cluster")
    from r1kit.cluster.nodes import Nodes

    return partial(Nodes, address, limit)
