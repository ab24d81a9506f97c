"""Hides secrets in settings and texts before they are written or shown.

A secret is the password of an address, a value under a name such as `api_key`, or text in the form of a known kind of
key. It does not decide a result, so a fingerprint has `HIDDEN` in its place. Settings can name an environment variable
instead: `${NAME}` is replaced when an engine opens, and is stored as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "***"
LEAST_LENGTH = 4  # of a secret that is looked for in a server's text
_NAME = (  # after other words too: CLIENT_SECRET, x-api-key, clientSecret
    r"(?:[\w-]{0,60}(?:[_-]|(?-i:(?<=[a-z0-9])(?=[A-Z]))))?(?:(?:api|access|auth|secret|private|signing|subscription)[_-]?keys?|secret|password|passwd|passphrase"
    r"|authorization|credentials?|cookie|(?:access|api|auth|bearer|hf|refresh|security|session|sandbox|x)[_-]?token)"
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)(?P<user>[^\s/?#:@]*):(?P<secret>[^\s/?#]+)@")  # up to the last @
_IN_QUERY = re.compile(
    rf"(?P<name>[?&](?:{_NAME}|key|token|sig|[\w-]{{0,60}}signature)=)(?P<secret>[^\s&#\"']+)", re.IGNORECASE
)
# Keys are random: they have a long run without separators, and not of small letters alone. `hf-internal-testing/tiny`
# and `hf_questions_2024.jsonl` are names.
_KNOWN_KEY = re.compile(
    r"\b(?P<secret>(?:sk|gsk|hf|gh[opsu]|github_pat|glpat|xox[abp]|nvapi|xai|pplx|r8|fw|tgp)[-_]"
    r"(?=[\w-]{0,100}[A-Z0-9])(?=[\w-]{0,100}?[A-Za-z0-9]{16})[A-Za-z0-9_-]{16,}"
    r"|AKIA[A-Z0-9]{16}\b|AIza[A-Za-z0-9_-]{35}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+)"
)
_BEARER = re.compile(r"\b(?P<name>Bearer |Basic )(?P<secret>[^\s\"']{8,})")
_ASSIGNED = re.compile(
    rf"(?P<name>\b{_NAME}\\?[\"']?\s*[:=]\s*\\?)(?P<secret>\$\{{\w+\}}|\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s\"'&,;}}]+)",
    re.IGNORECASE,
)
_SETTING = re.compile(  # all of an argument: a password may have spaces and commas
    rf"(?P<name>(?:--[\w-]+=)?[\w.-]*\b{_NAME}=)(?P<secret>.+)", re.IGNORECASE | re.DOTALL
)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _is_secret_name(name: object) -> bool:
    """Also of a setting by its path, such as `rl.engine.extra_body.api_key`."""
    return _SECRET_NAME.fullmatch(str(name).rpartition(".")[2]) is not None


def redacted(value: Any, *, is_secret: bool = False) -> Any:
    """Plain data without its secrets."""
    if isinstance(value, Mapping):
        return {name: redacted(item, is_secret=is_secret or _is_secret_name(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, is_secret=is_secret) for item in value]
    if is_secret and type(value) in (int, float):
        return HIDDEN
    if not isinstance(value, str):
        return value
    if is_secret:
        return HIDDEN if value and not _VARIABLE.fullmatch(value) else value
    for pattern in (_IN_ADDRESS, _IN_QUERY, _KNOWN_KEY):
        value = pattern.sub(_hide, value)
    return value


def redacted_text(text: str, secrets: Iterable[str] = ()) -> str:
    """A message, or a part of a command line, without its secrets; `secrets` are more of them."""
    for secret in secrets:
        if len(secret) >= LEAST_LENGTH:
            text = text.replace(secret, HIDDEN)
    for pattern in (_IN_ADDRESS, _IN_QUERY, _BEARER, _ASSIGNED, _KNOWN_KEY):
        text = pattern.sub(_hide, text)
    return text


def redacted_command(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command without secrets, also after an option such as `--api-key`."""
    options = ["", *arguments]
    return [
        HIDDEN
        if option.startswith("--") and _SECRET_NAME.fullmatch(option[2:])
        else (_SETTING.sub(_hide, argument) if _SETTING.fullmatch(argument) else redacted_text(argument))
        for option, argument in zip(options, arguments, strict=False)
    ]


def secrets_in(value: Any, *, is_secret: bool = False) -> Iterator[str]:
    """The secrets that `redacted` hides, and the values of the environment variables that the data names."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from secrets_in(item, is_secret=is_secret or _is_secret_name(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item, is_secret=is_secret)
    elif is_secret and type(value) in (int, float):
        yield str(value)
    elif isinstance(value, str):
        yield from (os.environ.get(match[1], "") for match in _VARIABLE.finditer(value))
        if is_secret:
            yield value
        for pattern in (_IN_ADDRESS, _IN_QUERY, _KNOWN_KEY):
            yield from (match["secret"] for match in pattern.finditer(value))


def resolved(value: Any, name: str) -> Any:
    """Plain data with the environment's values for `${NAME}`.

    Raises ValueError if a variable is not set, or if a secret was hidden when the settings were written.
    """
    if isinstance(value, Mapping):
        return {key: resolved(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(item, name) for item in value]
    if not isinstance(value, str):
        return value
    if value == HIDDEN or any(match["secret"] == HIDDEN for match in _IN_ADDRESS.finditer(value)):
        remedy = "set it again, or name an environment variable: ${NAME}"
        raise ValueError(f"{name} has {HIDDEN} for a secret, which r1kit does not store: {remedy}")

    def from_environment(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"{name} names the environment variable {match[1]}, which is not set")
        return os.environ[match[1]]

    return _VARIABLE.sub(from_environment, value)


def _hide(match: re.Match[str]) -> str:
    secret = match["secret"]
    if _VARIABLE.fullmatch(secret.strip("\"'")):
        return match[0]
    quote = secret[0] if secret[0] in "\"'" else ""
    start, end = match.span("secret")
    at = match.start()
    return f"{match[0][: start - at]}{quote}{HIDDEN}{quote}{match[0][end - at :]}"
