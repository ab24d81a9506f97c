"""The process of one rank, which an agent starts (`pipeline.agent`)."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from r1kit import ranks
from r1kit.pipeline.context import Context
from r1kit.pipeline.progress import Display, Progress
from r1kit.pipeline.relay import Relay

Run = Callable[[Context], Mapping[str, Any]]
GRACE_S = 3.0  # in which the rank that caused an error can report it, before the others end


def serve_rank(
    pipes: Sequence[connection.Connection], first: int, content: bytes, threads: int, limit: float
) -> Mapping[str, Any]:
    """The main function of the process. `pipes` are of the ranks from `first` on; `content` is a pickled `Run` with its
    context and title."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal: the run decides
    rank = int(os.environ["RANK"])
    pipe = pipes[rank - first]
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    run, context, title = pickle.loads(content)
    with open(log_of(context.folder, rank), "ab") as log:
        for output in (1, 2):
            os.dup2(log.fileno(), output)
    try:
        return run_as_rank(run, context, title, Relay(pipe), threads=threads, limit=limit)
    except BaseException as error:  # also SystemExit, of a user's function
        logging.getLogger("r1kit").exception("rank %s", rank)
        with contextlib.suppress(OSError):
            pipe.send(("fails", _portable(error)))
        if rank or is_lost(error):  # the first rank's own error is the one to show
            time.sleep(GRACE_S)
        raise SystemExit(1) from None


def run_as_rank(
    run: Run, context: Context, title: str, display: Display, *, threads: int, limit: float
) -> Mapping[str, Any]:
    """Call `run(context)` in this process, as one of the ranks that torch's environment variables describe.

    Only the first rank shows progress.
    """
    import torch

    torch.set_num_threads(threads)
    device = "cpu" if getattr(context.settings, "device", "auto") == "cpu" or not torch.cuda.is_available() else "cuda"
    with ranks.joined(limit, device, getattr(context.settings, "sequence_devices", 1)):
        if ranks.is_first():
            progress = Progress(title, display, folder=context.folder)
        else:
            progress = Progress(title, Display(open(os.devnull, "w")))  # noqa: SIM115 (until the process ends)
        return run(replace(context, progress=progress))


def log_of(folder: Path, rank: int) -> Path:
    """The output of a rank."""
    return folder / f"rank-{rank}.log"


def is_lost(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone or late."""
    is_collective = isinstance(error, RuntimeError) and any(
        name in str(error) for name in ("gloo", "monitored", "NCCL")
    )
    return isinstance(error, ranks.RankError) or is_collective


def _end_with(pipe: connection.Connection) -> None:
    """End this process when its agent is gone, or says so by sending anything."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os._exit(1)


def _portable(error: BaseException) -> Exception:
    """The error itself, or its text if no other process can receive it, or if it would end that process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        pass
    else:
        if isinstance(error, Exception):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")
