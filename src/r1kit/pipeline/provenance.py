"""Where a result comes from: versions, commit, machine. No package is imported to find out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import r1kit
from r1kit.redaction import redacted_command

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python, r1kit and the packages that affect results, if they are installed."""
    installed = {"python": platform.python_version(), "r1kit": r1kit.__version__}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def commit() -> dict[str, object] | None:
    """The commit of r1kit's own code and whether files changed since; None if it is not a git checkout."""
    code = Path(r1kit.__file__)
    # git does not track the file if r1kit is installed inside another repository
    if _git(code.parent, "ls-files", "--error-unmatch", code.name) is None:
        return None
    head, status = _git(code.parent, "rev-parse", "HEAD"), _git(code.parent, "status", "--porcelain")
    return {"commit": head, "dirty": bool(status)} if head else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def command() -> str:
    """The command line of this process, without the path of r1kit itself and without secrets."""
    program = Path(sys.argv[0])
    if program.stem == "ipykernel_launcher":  # its arguments are a file of the kernel's connection
        return "a cell of a notebook"
    called = "r1kit" if program.stem in ("r1kit", "__main__") else program.name
    return shlex.join([called, *redacted_command(sys.argv[1:])])


def threads() -> int | None:
    """How many threads torch computes with, which decides the last bits of results; None if it is not loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


def host() -> str:
    """The machine in a few words, without its host name."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
