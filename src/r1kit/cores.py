"""The processors that this process may use."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Their number; a container or `taskset` can allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
