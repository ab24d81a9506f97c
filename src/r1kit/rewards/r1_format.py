"""Rewards that look at form alone: the R1 format, its tags, and visible steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit import chat
from r1kit.rewards.columns import texts


def format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1.0 for one non-empty `<think>` part, then one non-empty `<answer>` part and nothing else; else 0.0."""
    return [float(chat.parse(text).well_formed) for text in texts(completions)]


def tag_count_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """0.25 for each of the four tags that occurs exactly once: a slope towards a format that is never hit by chance."""
    return [sum(0.25 for tag in chat.TAGS if text.count(tag) == 1) for text in texts(completions)]


def reasoning_steps_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """min(1, marks / 3), where marks are what `chat.count_steps` counts."""
    return [min(1.0, chat.count_steps(text) / 3) for text in texts(completions)]
