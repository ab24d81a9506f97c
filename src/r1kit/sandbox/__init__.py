"""Untrusted Python in a sandbox, or not at all: bubblewrap, else Landlock, else a remote server, else a refusal.

`open_sandbox(SandboxSettings())` gives the first mechanism that works here, after a self-test has shown that it keeps
network, files, processes, signals and memory in. To add one: a file, and a line in `choose.KINDS`.
"""

from __future__ import annotations

from r1kit.sandbox.choose import SandboxSettings, default_sandbox, open_sandbox
from r1kit.sandbox.interface import Execution, Limit, Limits, Sandbox, SandboxError

__all__ = [
    "Execution",
    "Limit",
    "Limits",
    "Sandbox",
    "SandboxError",
    "SandboxSettings",
    "default_sandbox",
    "open_sandbox",
]
