"""What every reward shares: the text of a completion, and columns that must be there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

RewardFunction: TypeAlias = Callable[..., Any]  # f(completions, **columns) -> list[float | None], sync or async


def texts(completions: Sequence[Any]) -> list[str]:
    """Plain texts of plain or conversational completions (TRL's `[{"role": ..., "content": ...}]`).

    Of several messages, the assistant's are joined. Raises TypeError for anything else.
    """
    return [_text(completion) for completion in completions]


def column(name: str, columns: dict[str, Any], rows: int, reward: str) -> list[Any]:
    """A column of one value per completion; raises ValueError where it is missing or has another length."""
    values = columns.get(name)
    if values is None:
        raise ValueError(f"{reward} needs the column {name!r}, given are {', '.join(sorted(columns)) or 'none'}")
    if len(values) != rows:
        raise ValueError(f"{reward}: column {name!r} has {len(values)} values for {rows} completions")
    return list(values)


class Configured:
    """A function with its options set: it pickles, and trainers that log by `__name__` find one.

    Options are not to be had from the data: a column of an option's name is left out.
    """

    def __init__(self, function: RewardFunction, options: dict[str, Any]) -> None:
        self.function, self.options = function, options
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    def __call__(self, completions: Sequence[Any], **columns: Any) -> Any:
        return self.function(completions, **(columns | self.options))


def configured(function: RewardFunction, **options: Any) -> RewardFunction:
    """`function` with its options set: see `Configured`."""
    made: RewardFunction = Configured(function, options)
    return made


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Sequence) and all(isinstance(turn, dict) and "content" in turn for turn in completion):
        turns = [turn for turn in completion if turn.get("role", "assistant") == "assistant"]
        return "".join(turn["content"] or "" for turn in turns)
    raise TypeError(f"a completion is a str or a list of messages, not {type(completion).__name__}")
