"""Runs untrusted Python in a sandbox: bubblewrap, Landlock, or a remote server. Without one, it refuses to run it.

`open_sandbox(SandboxSettings())` returns the first mechanism that works here and passes a self-test of what it isolates
(network, files, processes, signals, memory). To add a mechanism: one file, and one line in `choose.KINDS`.
"""

from __future__ import annotations

from r1kit.sandbox.choose import SandboxSettings, default_sandbox, open_sandbox
from r1kit.sandbox.interface import Execution, Limits, Sandbox, SandboxError

__all__ = ["Execution", "Limits", "Sandbox", "SandboxError", "SandboxSettings", "default_sandbox", "open_sandbox"]
