"""Values of options, from the texts that a user types. Each raises argparse's own error, which names the option."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1kit.store import StoreError, read_bounded


def setting(text: str) -> tuple[str, Any]:
    """`"rl.steps=9"` -> `("rl.steps", "9")`; lists, objects and null are read as JSON."""
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")) or "." not in path:
        raise argparse.ArgumentTypeError(f"{text!r} is not STAGE.FIELD=VALUE, as in rl.optimizer.learning_rate=1e-4")
    return path, _json_value(path, value)


def whole(least: int) -> Callable[[str], int]:
    """Reads whole numbers from `least` on."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return number

    return read


def names(text: str) -> list[str]:
    """`"trackio,wandb"` -> `["trackio", "wandb"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def role(text: str) -> tuple[str, Any]:
    """`"problems=mine.jsonl"` -> `("problems", "mine.jsonl")`; lists and objects are read as JSON."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not ROLE=DATA, as in problems=mine.jsonl or eval=gsm8k")
    return name, _json_value(name, value)


def _json_value(path: str, value: str) -> Any:
    if value[:1] not in ("[", "{") and value != "null":
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{path}: {value!r} looks like JSON but is not: {error}") from None


def columns(text: str) -> dict[str, str]:
    """A mapping from our names to a file's: `"prompt=q,answer=a"`."""
    from r1kit.data.columns import parse_columns  # imports pydantic, so only now

    try:
        parsed: dict[str, str] = parse_columns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return parsed


def engine(text: str) -> dict[str, Any]:
    """Engine settings from a server's address, the dotted path of a class, JSON, or the path of a JSON file."""
    if text.startswith(("http://", "https://")):
        return {"kind": "openai", "base_url": text}
    module, colon, name = text.partition(":")
    if colon and all(part.isidentifier() for part in (*module.split("."), name)):
        return {"kind": "custom", "path": text}
    try:
        values = json.loads(text if text.lstrip().startswith("{") else read_bounded(Path(text)).removeprefix("\ufeff"))
    except OSError as error:
        expected = "expected an address, module:Class, JSON or a file"
        reason = f"as a file: {error.strerror or error}"
        raise argparse.ArgumentTypeError(f"{text!r} is not an engine: {expected} ({reason})") from None
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError(f"{text!r} holds {values!r:.60}: expected a JSON object of engine settings")
    return values
