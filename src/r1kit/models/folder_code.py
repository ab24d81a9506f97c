"""Python code in a model folder: it runs only if the user allows it by the model's name, and never after a question.

The names are in the environment variable R1KIT_ALLOW_CODE, separated by commas (`--allow-code NAME`, or `allow_code` in
a recipe file), so that the processes of a run know them too. A stage saves a trained model with the same code, which is
allowed there as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from r1kit.models.known import find
from r1kit.store import sha256

VARIABLE = "R1KIT_ALLOW_CODE"
MARK = "its code is allowed"  # counts in the fingerprint of a stage that reads the model


def allow(names: Iterable[str]) -> None:
    """Allow the code of these models in this process and in those that it starts."""
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*allowed_names(), *names]))


def allowed_names() -> list[str]:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def is_allowed(name: str) -> bool:
    """Whether the user allowed the code of the model of that name, or folder."""
    return any(
        name == other or Path(name).absolute() == Path(other).expanduser().absolute() for other in allowed_names()
    )


def code_options(folder: Path) -> dict[str, Any]:
    """The arguments with which transformers runs the folder's code if all of it is code of allowed models."""
    code = _code_in(folder)
    allowed = {digest for name in allowed_names() if (home := find(name)) is not None for digest in _code_in(home)}
    return {"trust_remote_code": bool(code) and code <= allowed}


def _code_in(folder: Path) -> set[str]:
    return {sha256(path) for path in folder.glob("*.py")}
