"""The Python inside the sandbox, and the folders of the host that it needs: the system's and its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1kit.sandbox.interface import SandboxError

_SYSTEM = ("/usr", "/nix/store")
_LINKED = ("/lib", "/lib64", "/lib32", "/bin")  # links into /usr, or folders on systems that do not merge the two
_LINKER = ("/etc/ld.so.cache", "/etc/alternatives")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python outside virtual environments: its executable, and the folders and files that it must see.

    Programs find the standard library, and what is in the folders `packages`.
    """

    path: str
    folders: tuple[str, ...]
    packages: tuple[str, ...] = ()

    def links(self) -> list[tuple[str, str]]:
        """The links to create, as pairs of place and target."""
        return [(path, os.readlink(path)) for path in _LINKED if os.path.islink(path)]


def interpreters(chosen: str = "", packages: Sequence[str] = ()) -> Iterator[Interpreter]:
    """Interpreters to try in turn: the chosen one; or r1kit's own (other users may not reach it), then the system's.

    Raises `SandboxError` if the chosen one is a script, such as those of pyenv, which start another file.
    """
    installed = tuple(os.path.realpath(folder) for folder in packages)
    own = os.path.join(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    seen = set()
    for path in [chosen] if chosen else [own, "/usr/bin/python3", "/usr/local/bin/python3"]:
        real = os.path.realpath(path)
        if real in seen or not os.access(real, os.X_OK):
            continue
        seen.add(real)
        if _is_script(real):
            if not chosen:
                continue
            printed = "the path that `import sys; print(sys.executable)` prints in it"
            raise SandboxError(f"{path} is a script that starts a Python, not one itself: give {printed}")
        folders = [path for path in _SYSTEM if os.path.isdir(path)]
        folders += [path for path in _LINKED if os.path.isdir(path) and not os.path.islink(path)]
        folders += [path for path in _LINKER if os.path.exists(path)]
        if not any(Path(real).is_relative_to(folder) for folder in _SYSTEM):
            folders += [real, *_libraries(Path(real))]
        yield Interpreter(path=real, folders=tuple(folders), packages=installed)


def _is_script(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:  # one that may be executed and not read
        return False


def _libraries(python: Path) -> list[str]:
    """The folders with the standard library and the shared libraries of an interpreter outside the system's folders.

    Its whole prefix may be ~/.local, and hold much else.
    """
    for prefix in (python.parents[1] if len(python.parents) > 1 else python.parent, python.parent):
        folders = [prefix / name for name in ("lib", "lib64") if any(prefix.glob(f"{name}/python3*/os.py"))]
        if folders:
            return [str(folder) for folder in folders if not folder.is_symlink()]
    return []
