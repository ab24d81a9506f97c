"""Which sandbox: by settings or environment, proven by a self-test at first use, refused where none holds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Literal

from r1kit.sandbox.bubblewrap import Bubblewrap
from r1kit.sandbox.interface import Sandbox, SandboxError
from r1kit.sandbox.landlock import Landlock
from r1kit.sandbox.probes import examine
from r1kit.sandbox.python import Interpreter, interpreters
from r1kit.sandbox.remote import Remote
from r1kit.settings import Settings, SettingsError

KINDS: dict[str, Callable[[Interpreter], Sandbox]] = {"bubblewrap": Bubblewrap.find, "landlock": Landlock.find}
VARIABLE = "R1KIT_SANDBOX"


class SandboxSettings(Settings):
    """Where untrusted programs run.

    `auto` is bubblewrap, else landlock; `remote` needs the `url` of a server that speaks the protocol of
    `r1kit.sandbox.remote` (`r1kit sandbox serve` does), and takes its token from the variable named `token_variable`.
    `python` is the interpreter inside, by default r1kit's own where the sandbox can reach it, else the system's.
    """

    kind: Literal["auto", "bubblewrap", "landlock", "remote"] = "auto"
    url: str = ""
    token_variable: str = f"{VARIABLE}_TOKEN"
    python: str = ""

    @classmethod
    def from_environment(cls) -> SandboxSettings:
        """R1KIT_SANDBOX is the kind, R1KIT_SANDBOX_URL the url (alone it means remote), R1KIT_SANDBOX_PYTHON python."""
        given = {"url": os.environ.get(f"{VARIABLE}_URL"), "python": os.environ.get(f"{VARIABLE}_PYTHON")}
        kind = os.environ.get(VARIABLE) or ("remote" if given["url"] else "auto")
        return cls.parse({"kind": kind} | {name: value for name, value in given.items() if value})


def open_sandbox(settings: SandboxSettings) -> Sandbox:
    """A sandbox whose self-test holds; raises `SandboxError` that says, for each that was tried, why it does not."""
    if settings.kind == "remote":
        return Remote.connect(settings.url, os.environ.get(settings.token_variable, ""))
    reasons: list[str] = []
    for kind in KINDS if settings.kind == "auto" else [settings.kind]:
        for interpreter in interpreters(settings.python):
            try:
                return tested(KINDS[kind](interpreter))
            except SandboxError as error:
                reasons.append(f"{kind} with {interpreter.path}: {error}")
    listed = "\n  ".join(reasons) or f"there is no Python at {settings.python!r}"
    raise SandboxError(
        f"no sandbox works here, and untrusted code is not run without one:\n  {listed}\n"
        f"install bubblewrap, allow user namespaces, or set {VARIABLE}_URL to a server that runs `r1kit sandbox serve`"
    )


def tested(sandbox: Sandbox) -> Sandbox:
    """The same sandbox, if every quick probe holds."""
    if broken := [f"{one.what}: {one.detail}" for one in examine(sandbox, quick=True) if not one.held]:
        raise SandboxError(f"the self-test fails: {'; '.join(broken)}")
    return sandbox


_lock = threading.Lock()
_opened: Sandbox | SandboxError | None = None


def default_sandbox() -> Sandbox:
    """The sandbox of the environment's settings, opened once for the process; a refusal is repeated, not tried anew."""
    global _opened
    with _lock:
        if _opened is None:
            try:
                _opened = open_sandbox(SandboxSettings.from_environment())
            except (SandboxError, SettingsError) as error:
                _opened = SandboxError(str(error))
    if isinstance(_opened, SandboxError):
        raise SandboxError(str(_opened))
    return _opened
