"""How processes on other nodes work as if they were the one that started them."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import r1kit
from r1kit.cluster import ClusterError

PASSED_ON = ("R1KIT_", "HF_", "TRANSFORMERS_", "TOKENIZERS_")  # names of environment variables begin with one of them


@dataclass(frozen=True, slots=True)
class Site:
    """The working directory of a process, its command line, module path, version, and some environment variables."""

    directory: Path
    command_line: Sequence[str]
    module_path: Sequence[str]
    environment: Mapping[str, str]
    version: str = r1kit.__version__

    @classmethod
    def here(cls) -> Self:
        """Those of this process."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(PASSED_ON) or name.endswith("_API_KEY")  # of teachers and judges
        }
        directory = Path.cwd()
        return cls(directory, [*sys.argv], [path or str(directory) for path in sys.path], environment)

    def enter(self) -> None:
        """Take them over; raises `ClusterError` if this node has another version or no such directory."""
        node = f"node {socket.gethostname()}"
        if r1kit.__version__ != self.version:
            raise ClusterError(f"{node} has r1kit {r1kit.__version__}, and this is {self.version}: install the same")
        try:
            os.chdir(self.directory)
        except OSError as error:
            remedy = "runs on a cluster need a file system that all nodes mount at the same path"
            raise ClusterError(f"{node} has no folder {self.directory} ({error.strerror}): {remedy}") from None
        os.environ.update(self.environment)
        sys.argv[:] = self.command_line
        sys.path += [path for path in self.module_path if path not in sys.path]
