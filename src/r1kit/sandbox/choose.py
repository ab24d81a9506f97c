"""Chooses a sandbox by settings or environment, and tests it before first use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Literal

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

    `auto` tries bubblewrap, then landlock. `remote` needs the `url` of a server that speaks the protocol of
    `r1kit.sandbox.remote` (`r1kit sandbox serve`); its token is in the environment variable `token_variable`. `python`
    is the interpreter inside: by default r1kit's own if the sandbox can reach it, otherwise the system's. Programs can
    import its standard library, and what is installed in the folders `packages` (`pip install --target FOLDER numpy`).
    """

    kind: Literal["auto", "bubblewrap", "landlock", "remote"] = "auto"
    url: str = ""
    token_variable: str = f"{VARIABLE}_TOKEN"
    python: str = ""
    packages: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> SandboxSettings:
        """From R1KIT_SANDBOX (kind), R1KIT_SANDBOX_URL (alone it means remote), _PYTHON and _PACKAGES (as PATH)."""
        values: dict[str, Any] = {name: os.environ.get(f"{VARIABLE}_{name.upper()}") for name in ("url", "python")}
        values["packages"] = [*filter(None, os.environ.get(f"{VARIABLE}_PACKAGES", "").split(os.pathsep))]
        kind = os.environ.get(VARIABLE) or ("remote" if values["url"] else "auto")
        return cls.parse({"kind": kind} | {name: value for name, value in values.items() if value})


def open_sandbox(settings: SandboxSettings) -> Sandbox:
    """The first sandbox that passes its self-test; raises `SandboxError` with the reason for each that does not."""
    if settings.kind == "remote":
        return Remote.connect(settings.url, os.environ.get(settings.token_variable, ""))
    if missing := [folder for folder in settings.packages if not os.path.isdir(folder)]:
        raise SandboxError(f"{missing[0]!r} is not a folder: packages must name folders with installed packages")
    reasons: list[str] = []
    for kind in KINDS if settings.kind == "auto" else [settings.kind]:
        for interpreter in interpreters(settings.python, settings.packages):
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
    """The same sandbox; raises `SandboxError` if a quick probe does not hold."""
    if broken := [f"{probe.what}: {probe.detail}" for probe in examine(sandbox, quick=True) if not probe.held]:
        raise SandboxError(f"the self-test fails: {'; '.join(broken)}")
    return sandbox


# One sandbox per process. A verifier is a plain function (response, reference) -> Verdict, called from many threads, so
# it cannot be passed a sandbox; and the self-test of a sandbox takes seconds.
_lock = threading.Lock()
_opened: Sandbox | SandboxError | None = None


def default_sandbox() -> Sandbox:
    """The sandbox of the environment's settings, opened once per process. An error is remembered and raised again."""
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
