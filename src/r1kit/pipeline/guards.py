"""Guards around a stage's work: one process at a time, and a clean stop on a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from r1kit.store import held


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
    refusal = f"{{holder}} is working in {folder}: wait for it or stop it first"
    with held(folder / ".lock", f"process {os.getpid()} on {socket.gethostname()}", refusal, patience_s):
        yield
