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

from r1kit.rewards.completion_form import annotated_form
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
    is_reward, chat = False, None
    try:
        signature = inspect.signature(function)
        is_reward, chat = "completions" in signature.parameters, annotated_form(function)
        if not is_reward:
            signature.bind("response", "reference")
    except TypeError:
        reason = f"verifier {name!r} neither takes (response, reference) nor is a reward function"
        raise SettingsError(reason) from None
    except ValueError:  # some built-in functions have no signature
        pass

    def judge(response: str, reference: str) -> Verdict:
        if not is_reward:
            return _verdict(lambda: function(response, reference))
        completion: Any = [{"role": "assistant", "content": response}] if chat else response
        columns = {"completions": [completion], "solution": [reference], "answer": [reference]}
        return _verdict(lambda: function(**columns)[0])

    return Subject(
        name, lambda responses, references: [judge(*pair) for pair in zip(responses, references, strict=True)]
    )


def _verdict(call: Callable[[], Any]) -> Verdict:
    """The value of a call as a verdict; an error is a finding about the function under test, so other pairs go on."""
    try:
        value = call()
        if isinstance(value, Verdict):
            return value
        if value is None or isinstance(value, bool):
            return Verdict.of(value)
        if isinstance(value, Real):
            return Verdict.of(float(value) >= 1, detail=f"value {float(value):g}")
        raise TypeError(f"returned {type(value).__name__}: expected a Verdict, a bool, a number or None")
    except Exception as error:
        return Verdict(outcome="failed", detail=f"raised {type(error).__name__}: {error}"[:200])
