"""Run the work of one stage in several processes of this machine, which torch's elastic agent starts and ends.

Each rank has a pipe to the process that started it. Progress and errors come through it; when it closes, because that
process was killed, the rank stops too.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from r1kit import ranks
from r1kit.pipeline.context import Context
from r1kit.pipeline.progress import Display, Progress
from r1kit.pipeline.relay import Relay
from r1kit.settings import SettingsError

Run = Callable[[Context], Mapping[str, Any]]
TIME_LIMIT = "R1KIT_RANK_TIMEOUT_S"  # environment variable: seconds that a rank may keep the others waiting
TIME_LIMIT_S = 1800.0
GRACE_S = 3.0  # in which the rank that caused an error can report it, before the others end
RESUME = "the same command resumes from the newest checkpoint"


def run_on_ranks(run: Run, context: Context, title: str, display: Display) -> Mapping[str, Any]:
    """Call `run(context)` in `context.devices` ranks; returns the result of the first one.

    Raises the error of a rank, or `RankError` if one was killed or does not answer. No rank is left behind.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=context.devices,
        logs_specs=DefaultLogsSpecs(os.devnull),  # each rank has a log of its own; the agent would leave empty folders
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        virtual_local_rank=torch.cuda.is_available(),  # each rank sees its own GPU only
        signals_to_handle="SIGQUIT",  # Ctrl-C and SIGTERM are handled by `stop_on_signals`
        shutdown_timeout=int(GRACE_S),
    )
    threads, limit = max(1, torch.get_num_threads() // context.devices), time_limit()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = zip(*(spawn.Pipe() for _ in range(context.devices)), strict=True)
    portable = replace(context, progress=None)  # type: ignore[arg-type]  # its display stays in this process
    errors: dict[int, Exception] = {}
    with _listening(ours, theirs, display, errors), _undisturbed():
        try:
            results = elastic_launch(config, _serve_rank)(run, portable, title, theirs, threads, limit)
            metrics: Mapping[str, Any] = results[0]
            return metrics
        except ChildFailedError as failed:
            exitcodes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
        finally:
            context.progress.take_over()  # the first rank has written the steps
    raise _cause(exitcodes, errors, context, limit)


def time_limit() -> float:
    """Seconds that a rank may keep the others waiting; raises `SettingsError` if the variable holds something else."""
    text = os.environ.get(TIME_LIMIT, str(TIME_LIMIT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < ranks.LONG_S:
        raise SettingsError(f"{TIME_LIMIT} is {text!r}: give seconds, more than 0 and less than {ranks.LONG_S:g}")
    return seconds


def run_as_rank(
    run: Run, context: Context, title: str, display: Display, *, threads: int, limit: float
) -> Mapping[str, Any]:
    """Call `run(context)` in this process, as one of the ranks that torch's environment variables describe.

    Only the first rank shows progress.
    """
    import torch

    torch.set_num_threads(threads)
    device = "cpu" if getattr(context.settings, "device", "auto") == "cpu" or not torch.cuda.is_available() else "cuda"
    with ranks.joined(limit, device):
        if ranks.is_first():
            progress = Progress(title, display, folder=context.folder)
        else:
            progress = Progress(title, Display(open(os.devnull, "w")))  # noqa: SIM115 (until the process ends)
        return run(replace(context, progress=progress))


def _serve_rank(
    run: Run, context: Context, title: str, pipes: Sequence[connection.Connection], threads: int, limit: float
) -> Mapping[str, Any]:
    """The main function of a rank's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal: the run decides
    rank = int(os.environ["RANK"])
    pipe = pipes[rank]
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    with open(log_of(context.folder, rank), "ab") as log:
        for output in (1, 2):
            os.dup2(log.fileno(), output)
    try:
        return run_as_rank(run, context, title, Relay(pipe), threads=threads, limit=limit)
    except BaseException as error:  # also SystemExit, of a user's function
        logging.getLogger("r1kit").exception("rank %s", rank)
        with contextlib.suppress(OSError):
            pipe.send(("fails", _portable(error)))
        if rank or _is_lost(error):  # the first rank's own error is the one to show
            time.sleep(GRACE_S)
        raise SystemExit(1) from None


def log_of(folder: Path, rank: int) -> Path:
    """The output of a rank."""
    return folder / f"rank-{rank}.log"


def _end_with(pipe: connection.Connection) -> None:
    """End this process when the one that started it is gone."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()  # nothing is ever sent this way
    os._exit(1)


@contextlib.contextmanager
def _listening(
    ours: Sequence[connection.Connection],
    theirs: Sequence[connection.Connection],
    display: Display,
    errors: dict[int, Exception],
) -> Iterator[None]:
    """A block in which the ranks have the pipes `theirs`; it ends when the last message of every rank is read."""
    listener = threading.Thread(target=_listen, args=(ours, display, errors), daemon=True)
    listener.start()
    try:
        yield
    finally:
        for end in theirs:
            end.close()
        listener.join(GRACE_S)
        for end in ours:
            end.close()


def _listen(pipes: Sequence[connection.Connection], display: Display, errors: dict[int, Exception]) -> None:
    """Show the progress of the ranks and keep their errors, until all pipes are closed."""
    left = {pipe: rank for rank, pipe in enumerate(pipes)}
    while left:
        ready = connection.wait(left)
        for pipe in [each for each in left if each in ready]:
            try:
                method, *values = pipe.recv()
            except (EOFError, OSError):
                del left[pipe]
                continue
            if method == "fails":
                (errors[left[pipe]],) = values
            else:
                getattr(display, method)(*values)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A block in which the agent logs nothing and leaves signals as they were: the error says all that it would."""
    before = logging.root.manager.disable
    on_quit = signal.getsignal(signal.SIGQUIT)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGQUIT, on_quit)


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


def _is_lost(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone or late."""
    is_collective = isinstance(error, RuntimeError) and any(
        name in str(error) for name in ("gloo", "monitored", "NCCL")
    )
    return isinstance(error, ranks.RankError) or is_collective


def _cause(exitcodes: Mapping[int, int], errors: Mapping[int, Exception], context: Context, limit: float) -> Exception:
    """Why a stage's ranks failed: a rank that was killed, an error of its own, or a rank that does not answer."""
    for rank, exitcode in exitcodes.items():
        if exitcode < 0 and rank not in errors:
            memory = ", as the system does when memory runs out" if exitcode == -signal.SIGKILL else ""
            name = signal.Signals(-exitcode).name
            return ranks.RankError(f"rank {rank} of {context.devices} was killed by {name}{memory}; {RESUME}")
    for _, error in sorted(errors.items()):
        if not _is_lost(error):
            return error
    silent = sorted(set(range(context.devices)) - errors.keys())
    if silent and errors:
        names = ", ".join(f"rank {rank} (log: {log_of(context.folder, rank)})" for rank in silent)
        return ranks.RankError(f"no answer for {limit:g} s from {names}: it hangs or is too slow; {RESUME}")
    return next(iter(errors.values()), ranks.RankError(f"the ranks ended with exit codes {dict(exitcodes)}; {RESUME}"))
