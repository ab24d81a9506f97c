"""Guards around a stage's work: one process at a time, and a clean stop on a signal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from r1kit.store import StoreError, held

LOCK = ".lock"  # in a stage's folder
REFUSAL = "{{holder}} is working in {folder}: wait for it or stop it first"
# struct flock asks who holds a lock without taking it: (format, place of the type), by the system's order of fields
FLOCK = {"linux": ("hhqqi4x", 0), "darwin": ("qqihh", 3)}


class Stopped(KeyboardInterrupt):
    """A signal stopped the run. Finished stages and checkpoints are on disk, and the same command resumes."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


@contextlib.contextmanager
def stop_on_signals(*signums: signal.Signals) -> Iterator[None]:
    """Raise `Stopped` in the main thread on the first of these signals, so that `finally` blocks run.

    A second signal has its usual effect. In other threads this does nothing, because only the main one gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {signum: signal.getsignal(signum) for signum in signums}

    def restore() -> None:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

    def stop(signum: int, frame: FrameType | None) -> None:
        restore()
        raise Stopped(signum)

    try:
        for signum in previous:
            signal.signal(signum, stop)
        yield
    finally:
        restore()


@contextlib.contextmanager
def locked(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold a folder's lock; raises `StoreError` if another process still holds it after `patience_s` seconds."""
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with held(folder / LOCK, holder, REFUSAL.format(folder=folder), patience_s):
        yield


def require_free(folder: Path) -> None:
    """Raise `StoreError` if another process holds the folder's lock; takes no lock."""
    if is_locked(folder / LOCK):
        holder = (folder / LOCK).read_text(errors="replace")[:80].strip() or "another process"
        raise StoreError(REFUSAL.format(folder=folder).replace("{holder}", holder))


def is_locked(path: Path) -> bool:
    """Whether another process holds this lock file; asks only, and takes no lock."""
    layout, place = FLOCK.get(sys.platform, FLOCK["linux"])
    values = [0] * 5
    values[place] = fcntl.F_WRLCK
    try:
        with open(path, "rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *values))
    except OSError:
        return False
    return bool(struct.unpack(layout, answer)[place] != fcntl.F_UNLCK)
