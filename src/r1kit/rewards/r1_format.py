"""Rewards for form alone: the R1 format, its tags, and visible steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit import chat
from r1kit.rewards.inputs import texts


def format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1.0 for one non-empty `<think>` part followed by one non-empty `<answer>` part and no other text, else 0.0."""
    return [float(chat.parse(text).well_formed) for text in texts(completions)]


def tag_count_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """0.25 for each of the four tags that occurs exactly once: a gradual path to a format that chance never hits."""
    return [sum(0.25 for tag in chat.TAGS if text.count(tag) == 1) for text in texts(completions)]


def reasoning_steps_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """min(1, steps / 3); `chat.count_steps` counts the visible steps."""
    return [min(1.0, chat.count_steps(text) / 3) for text in texts(completions)]
