"""The processors that this process may use."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Number of processors that this process may use: a container or `taskset` can allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
