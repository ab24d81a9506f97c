"""Helpers of all rewards: the text of a completion, required columns, and the reference of each row."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from r1kit.tasks.references import number_text


class RewardFunction(Protocol):
    """A reward function by TRL's convention: `f(completions, **columns) -> list[float | None]`, sync or async.

    `columns` hold one value per completion, and four hooks, any of which may be missing (TRL has the first two):
    - `log_metric(name, value)`: a number of this call, such as a share of the completions;
    - `log_extra(name, values)`: a note per completion, shown beside it and read by no code;
    - `log_verdicts(verdicts)`: a `Verdict` or None per completion, for monitors, audit and alarm;
    - `log_undecided(flags)`: True for a completion that could not be judged (a verdict says so by itself). If its value
      is None, it gets no reward at all; a value of None alone means that this part does not apply.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


def texts(completions: Sequence[Any]) -> list[str]:
    """Completions as plain texts; conversational ones (TRL's `[{"role": ..., "content": ...}]`) are flattened.

    The assistant's messages are joined, and so are the parts of a message's content. Raises ValueError for anything
    but text.
    """
    plain = []
    for completion in completions:
        if isinstance(completion, str):
            plain.append(completion)
        elif isinstance(completion, Sequence) and all(
            isinstance(turn, dict) and "content" in turn for turn in completion
        ):
            turns = [turn for turn in completion if turn.get("role", "assistant") == "assistant"]
            plain.append("".join(message_text(turn["content"]) for turn in turns))
        else:
            kind = type(completion).__name__
            raise ValueError(f"a completion is of type {kind}: expected text or a list of messages")
    return plain


def question_of(prompt: Any) -> str:
    """The question in a prompt: the text itself, or the user's last message."""
    if isinstance(prompt, str):
        return prompt
    return next((message_text(turn["content"]) for turn in reversed(prompt) if turn["role"] == "user"), "")


def column(name: str, columns: Mapping[str, Any], rows: int, reward: str) -> list[Any]:
    """A column with one value per completion; raises ValueError if it is missing, no list, or of another length."""
    values = columns.get(name)
    if values is None:
        has = sorted(key for key, value in columns.items() if value is not None and not key.startswith("log_"))
        known = ", ".join(has) or "none"  # without hooks, and without columns of no values
        raise ValueError(f"{reward} needs the column {name!r}: add it to the task (its columns: {known})")
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ValueError(f"{reward}: column {name!r} is {values!r:.60}: expected a list with a value per completion")
    if len(values) != rows:
        raise ValueError(f"{reward}: column {name!r} has {len(values)} values for {rows} completions")
    return list(values)


def problem_keys(columns: Mapping[str, Any], rows: int, reward: str) -> list[str]:
    """The problem of each row, by its id or, as in TRL's trainers, by its prompt: rows of one problem are a group."""
    if columns.get("problem_id") is not None:
        return [str(key) for key in column("problem_id", columns, rows, reward)]
    return [question_of(prompt) for prompt in column("prompts", columns, rows, reward)]


def names_column(name: str, columns: Mapping[str, Any], rows: int, default: str, reward: str) -> list[str]:
    """A column of names, with `default` for rows without one; raises ValueError for other values than text."""
    values = [default] * rows if columns.get(name) is None else column(name, columns, rows, reward)
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str) and not _is_missing(value):
            raise ValueError(f"{reward}: column {name!r} has {value!r:.60} for completion {number}: expected a name")
    return [default if _is_missing(value) else value for value in values]


def references(columns: Mapping[str, Any], rows: int, reward: str) -> list[str]:
    """Each row's reference as text: `answer`, or `solution` if that is empty; "" if both are.

    Raises ValueError if both columns are missing.
    """
    present = [name for name in ("answer", "solution") if columns.get(name) is not None] or ["answer"]
    pairs = zip(*(column(name, columns, rows, reward) for name in present), strict=True)
    return [next(filter(None, map(reference_text, pair)), "") for pair in pairs]


def reference_text(value: Any) -> str:
    """A reference as text: objects and lists as JSON, numbers as people write them, "" for null, NaN and empty ones."""
    if hasattr(value, "tolist"):  # arrays and scalars of other libraries
        value = value.tolist()
    if _is_missing(value) or (isinstance(value, dict | list | tuple) and not value):
        return ""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf"):
        return number_text(value)
    return str(value)


def _is_missing(value: Any) -> bool:
    """Whether a value is null, NaN (a table's null) or blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def report_not_scored(
    reward: str,
    not_scored: list[bool],
    log_undecided: Callable[[list[bool]], None] | None,
    log_extra: Callable[[str, list[Any]], None] | None,
) -> None:
    """Pass on which completions a model could not score: as undecided, and as a note `REWARD_not_scored`."""
    if log_undecided is not None:
        log_undecided(not_scored)
    if log_extra is not None:
        log_extra(f"{reward}_not_scored", not_scored)


class Configured:
    """A reward function with its options set; it pickles, and has a `__name__`, under which trainers log it.

    A data column with the name of an option is ignored.
    """

    def __init__(self, function: RewardFunction, options: dict[str, Any]) -> None:
        self.function, self.options = function, options
        self.__name__, self.__doc__ = getattr(function, "__name__", ""), function.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's signature without its options."""
        signature = inspect.signature(self.function)
        return signature.replace(parameters=[p for name, p in signature.parameters.items() if name not in self.options])

    def __call__(self, /, completions: Sequence[Any], **columns: Any) -> Any:
        return self.function(completions=completions, **(columns | self.options))


def configured(function: RewardFunction, **options: Any) -> RewardFunction:
    """`function` with its options set: see `Configured`."""
    return Configured(function, options)


def message_text(content: Any) -> str:
    """The text of a message; its content may be a list of parts: `[{"type": "text", "text": "4"}]`."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list | tuple) else [content]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise ValueError(f"the content of a message is {part!r:.60}: expected text, or parts that are text")
    return "".join(part["text"] for part in parts)
