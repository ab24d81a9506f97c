"""The subject of a measurement: a verifier by name, or any function by dotted path.

A function takes `(response, reference)` and returns a `Verdict`, a bool, a number (1 is right) or None; or it is a
reward function in TRL's convention: `f(completions, solution=..., answer=..., **columns)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

from r1kit.settings import SettingsError, import_function
from r1kit.types import Verdict
from r1kit.verifiers import VERIFIERS, find, verify_all

Judge = Callable[[Sequence[str], Sequence[str]], list[Verdict]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A verifier under test; `judge` returns one verdict per pair of response and reference."""

    name: str
    judge: Judge


def subject(name: str) -> Subject:
    """A verifier by name or dotted path; raises `SettingsError` if it does not exist or cannot be called."""
    if name in VERIFIERS or not (":" in name or "." in name):
        find(name)
        return Subject(name, partial(verify_all, name))
    function = import_function(name, "verifier")
    if not _takes_two(function):
        raise SettingsError(f"verifier {name!r} neither takes (response, reference) nor is a reward function")
    return Subject(name, partial(_judge_each, _adapted(function, chat=name.startswith(("trl.", "trl:")))))


def _adapted(function: Callable[..., Any], chat: bool) -> Callable[[str, str], Any]:
    if "completions" not in _parameters(function):
        return function

    def judge(response: str, reference: str) -> Any:
        completion: Any = [{"role": "assistant", "content": response}] if chat else response
        return function(completions=[completion], solution=[reference], answer=[reference])[0]

    return judge


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether the signature allows a call as a verifier or as a reward function."""
    if "completions" in _parameters(function):
        return True
    try:
        inspect.signature(function).bind("response", "reference")
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        pass
    return True


def _parameters(function: Callable[..., Any]) -> Sequence[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return []


def _judge_each(
    function: Callable[[str, str], Any], responses: Sequence[str], references: Sequence[str]
) -> list[Verdict]:
    """One verdict per pair; an error is a finding about the function under test, so the other pairs go on."""

    def judge(response: str, reference: str) -> Verdict:
        try:
            return _verdict(function(response, reference))
        except Exception as error:
            return Verdict(outcome="failed", detail=f"raised {type(error).__name__}: {error}"[:200])

    return [judge(response, reference) for response, reference in zip(responses, references, strict=True)]


def _verdict(value: Any) -> Verdict:
    if isinstance(value, Verdict):
        return value
    if value is None or isinstance(value, bool):
        return Verdict.of(value)
    if isinstance(value, Real):
        return Verdict.of(float(value) >= 1, detail=f"value {float(value):g}")
    raise TypeError(f"returned {type(value).__name__}: expected a Verdict, a bool, a number or None")
