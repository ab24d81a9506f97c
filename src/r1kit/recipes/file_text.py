"""The text of recipe files: the lines of keys, for errors, and settings as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import r1kit
from r1kit.redaction import redacted
from r1kit.store import to_plain

NULL = "null"  # TOML has none, so this text is None, as in --set
_BARE = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)
_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[\w.-]|\s*\.\s*|"[^"]*"|'[^']*')+?)\s*=""")


def key_lines(text: str) -> dict[str, int]:
    """The line of each key by dotted path: `stages.rl.steps`, and for settings also `rl.steps`."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            path = table = plain_key(header[1])
        elif key := _KEY.match(line):
            path = f"{table}.{plain_key(key[1])}".lstrip(".")
        else:
            continue
        lines.setdefault(path, number)
        lines.setdefault(path.removeprefix("stages."), number)
    return lines


def plain_key(key: str) -> str:
    return re.sub(r"""["'\s]""", "", key)


def located(message: str, path: Path, lines: Mapping[str, int]) -> str:
    """Each line of a message with the file, and with the line of the key that it names: a setting, or the last key.

    The last part of a dotted key is enough if it is quoted: `there is no data role 'problem'` names `data.problem`.
    """
    texts = []
    for text in message.splitlines():
        text = text.removeprefix("--set ")
        about = re.split(": (?:did you mean|known are)", text)[0]
        named = [
            key
            for key in lines
            if re.search(rf"(?<![\w.-]){re.escape(key)}(?![\w-])", about)
            or ("." in key and f"'{key.rpartition('.')[2]}'" in about)
        ]
        named.sort(key=lambda key: (key.count("."), len(key) if "." in key else about.rfind(key)))
        place = f"{path}, line {lines[named[-1]]}" if named else str(path)
        texts.append(f"{place}: {text}")
    return "\n".join(texts)


def to_toml(recipe: str, options: Mapping[str, Any]) -> str:
    """The recipe file of a run, from the arguments of `build_recipe`; only what differs from the defaults is in it.

    Secrets are hidden.
    """
    values: dict[str, Any] = redacted(to_plain({"recipe": recipe, **options}))
    stages: dict[str, dict[str, Any]] = {}
    for path, value in values.pop("overrides", {}).items():
        stage, _, setting = path.partition(".")
        stages.setdefault(stage, {})[setting] = value
    tables = {"data": values.pop("data", {}), **{f"stages.{stage}": fields for stage, fields in stages.items()}}
    lines = [f"# Written by r1kit {r1kit.__version__}: `r1kit run` with this file repeats the run.", *entries(values)]
    for name, fields in tables.items():
        lines += ["", f"[{name}]", *entries(fields)] if fields else []
    return "\n".join(lines) + "\n"


def entries(table: Mapping[str, Any]) -> list[str]:
    """Lines of `key = value`. A key that goes on from another one's value is quoted: TOML would refuse it otherwise."""
    lines = []
    for key, value in table.items():
        is_under_value = any(key.startswith(f"{other}.") for other in table)
        lines.append(f"{key if _BARE.fullmatch(key) and not is_under_value else quoted(key)} = {toml_value(value)}")
    return lines


def toml_value(value: Any) -> str:
    """JSON-like data as TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(entries(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if value is None:
        return quoted(NULL)
    return quoted(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)


def quoted(text: str) -> str:
    """A basic string; JSON escapes all that TOML wants escaped except DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
