"""The base of the sandboxes on this machine: both methods of `Sandbox`, given a way to start a process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager

from r1kit.sandbox import process
from r1kit.sandbox.interface import DEFAULT, NONE, Abandon, Execution, Files, Limits


class LocalSandbox(ABC):
    """Runs programs in processes of this machine."""

    kind: str

    @abstractmethod
    def start(self, files: Mapping[str, str], limits: Limits) -> AbstractContextManager[process.Start]:
        """How to start one process; the context holds what the process needs while it runs."""

    def run(
        self,
        program: str,
        *,
        stdin: str = "",
        files: Files = NONE,
        limits: Limits = DEFAULT,
        abandon: Abandon | None = None,
    ) -> Execution:
        """See `Sandbox`. Raises `Abandoned` once `abandon` is set."""
        with self.start(files, limits) as start:
            return process.run_program(start, program, stdin, files, limits, abandon)

    def converse(
        self,
        checker: str,
        program: str,
        *,
        checker_files: Files = NONE,
        files: Files = NONE,
        limits: Limits = DEFAULT,
        abandon: Abandon | None = None,
    ) -> tuple[Execution, Execution]:
        """See `Sandbox`. Raises `Abandoned` once `abandon` is set."""
        with self.start(checker_files, limits) as first, self.start(files, limits) as second:
            return process.converse((first, second), ((checker, checker_files), (program, files)), limits, abandon)
