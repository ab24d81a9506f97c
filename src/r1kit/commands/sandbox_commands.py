"""The commands `sandbox check` and `sandbox serve`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Any

from r1kit.net.address import is_loopback, listening, names_of
from r1kit.redaction import redacted
from r1kit.sandbox import Sandbox, SandboxError, SandboxSettings, open_sandbox
from r1kit.sandbox.local import LocalSandbox
from r1kit.sandbox.probes import examine
from r1kit.sandbox.remote import Remote

_LIST = """
import sys
from importlib import metadata
print(sys.version.split()[0])
for name in sorted({f"{found.metadata['Name']} {found.version}" for found in metadata.distributions()}):
    print(name)
"""


def check_sandbox() -> dict[str, Any]:
    """Which sandbox this machine has, what is installed in it, and what it enforces.

    Each rule is tested by a program that tries to break it. "ok" tells whether all rules hold, "text" is the report for
    people. Without a sandbox, "reason" says why; nothing is raised.
    """
    try:
        sandbox = open_sandbox(SandboxSettings.from_environment())
        findings = sandbox.findings() if isinstance(sandbox, Remote) else examine(sandbox, quick=False)
        version, *packages = sandbox.run(_LIST).stdout.splitlines() or [""]
    except SandboxError as error:
        nothing: dict[str, Any] = {"kind": None, "python": None, "version": None, "packages": [], "findings": []}
        return {"ok": False, **nothing, "reason": str(error), "text": str(error)}
    listed = (
        f"and {', '.join(packages)}" if packages else "only; R1KIT_SANDBOX_PACKAGES names folders with more packages"
    )
    installed = f"programs can import the standard library of Python {version} {listed}"
    lines = [f"{'held  ' if finding.held else 'BROKEN'}  {finding.what:<42}  {finding.detail}" for finding in findings]
    return {
        "ok": all(finding.held for finding in findings),
        "kind": sandbox.kind,
        "python": _python_of(sandbox),
        "version": version,
        "packages": packages,
        "findings": [asdict(finding) for finding in findings],
        "reason": "",
        "text": "\n".join([_headline(sandbox), installed, *lines]),
    }


def _headline(sandbox: Sandbox) -> str:
    if isinstance(sandbox, Remote):
        return f"programs run on {redacted(sandbox.url)}, which reports on its own sandbox:"
    strict = ": one process, no threads, no files written" if sandbox.kind == "landlock" else ""
    return f"programs run under {sandbox.kind}{strict}, with {_python_of(sandbox)}"


def _python_of(sandbox: Sandbox) -> str | None:
    """The interpreter in the sandbox; None if another machine chooses it."""
    interpreter = getattr(sandbox, "interpreter", None)
    return None if interpreter is None else str(interpreter.path)


def serve_sandbox(host: str, port: int, token_variable: str) -> None:
    """Run programs for other machines until Ctrl+C. Raises ValueError without the extra or a sandbox."""
    try:
        from r1kit.sandbox.server import Service
    except ModuleNotFoundError as error:
        raise ValueError(f"the sandbox server needs {error.name}: pip install 'r1kit[web]'") from None
    token = os.environ.get(token_variable, "")
    if not is_loopback(host) and not token:
        raise ValueError(f"other machines can reach {host}: set a token in {token_variable}, or listen on 127.0.0.1")
    try:
        sandbox = open_sandbox(SandboxSettings.from_environment())
        if isinstance(sandbox, Remote):
            other = f"R1KIT_SANDBOX names another server ({redacted(sandbox.url)})"
            raise SandboxError(f"{other}: a server needs its own sandbox")
        findings = examine(sandbox, quick=False)
    except SandboxError as error:
        raise ValueError(str(error)) from error
    if broken := [finding.what for finding in findings if not finding.held]:
        raise ValueError(
            f"the sandbox of this machine does not enforce its limits: {', '.join(broken)}; see `r1kit sandbox check`"
        )
    assert isinstance(sandbox, LocalSandbox)
    with listening(host, port) as (opened, address):
        print(f"{_headline(sandbox)}; serving at {address.rstrip('/')}", file=sys.stderr, flush=True)
        Service(sandbox, findings, token, names_of(host)).server().run_until_stopped(opened)
