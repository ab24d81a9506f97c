"""What the commands `sandbox check` and `sandbox serve` do."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Any

from r1kit.sandbox import Sandbox, SandboxError, SandboxSettings, open_sandbox
from r1kit.sandbox.probes import Finding, examine
from r1kit.sandbox.remote import Remote
from r1kit.sandbox.server import Server


def check() -> dict[str, Any]:
    """Which sandbox programs run in here, and what it enforces, each proven by a program that tries.

    "ok" says whether there is one in which everything holds, "text" is the report for people; nothing is raised.
    """
    try:
        sandbox = open_sandbox(SandboxSettings.from_environment())
        findings = sandbox.findings() if isinstance(sandbox, Remote) else examine(sandbox, quick=False)
    except SandboxError as error:
        return {"ok": False, "kind": None, "python": None, "findings": [], "reason": str(error), "text": str(error)}
    rows = [asdict(finding) for finding in findings]
    return {
        "ok": all(finding.held for finding in findings),
        "kind": sandbox.kind,
        "python": python_of(sandbox),
        "findings": rows,
        "reason": "",
        "text": "\n".join([headline(sandbox), *map(line, findings)]),
    }


def headline(sandbox: Sandbox) -> str:
    """One line on what runs programs here."""
    if isinstance(sandbox, Remote):
        return f"programs run at {sandbox.url}, which reports of its own sandbox:"
    strict = ": one process, no threads, no files written" if sandbox.kind == "landlock" else ""
    return f"programs run under {sandbox.kind}{strict}, with {python_of(sandbox)}"


def python_of(sandbox: Sandbox) -> str | None:
    """The interpreter inside; None where another machine chooses it."""
    interpreter = getattr(sandbox, "interpreter", None)
    return None if interpreter is None else str(interpreter.path)


def line(finding: Finding) -> str:
    """A finding for people."""
    return f"{'held  ' if finding.held else 'BROKEN'}  {finding.what:<42}  {finding.detail}"


def serve(host: str, port: int, token_variable: str) -> None:
    """Run programs for others until Ctrl+C; raises ValueError where no sandbox works here."""
    try:
        sandbox = open_sandbox(SandboxSettings.from_environment())
        if isinstance(sandbox, Remote):
            raise SandboxError(f"R1KIT_SANDBOX names another server ({sandbox.url}): a server needs its own sandbox")
        findings = examine(sandbox, quick=False)
    except SandboxError as error:
        raise ValueError(str(error)) from error
    if broken := [finding.what for finding in findings if not finding.held]:
        raise ValueError(f"the sandbox here does not hold: {', '.join(broken)}; see `r1kit sandbox check`")
    with Server((host, port), sandbox, findings, os.environ.get(token_variable, "")) as server:
        print(f"{headline(sandbox)}; serving at {server.url}", file=sys.stderr, flush=True)
        server.serve_forever()
