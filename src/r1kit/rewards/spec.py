"""One part of the reward as settings."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from r1kit.rewards.registry import REWARDS
from r1kit.settings import ForSources, Weight, is_dotted_path, nearest


class RewardSpec(ForSources):
    """One part of the reward.

    `name` is a key of `REWARDS` or the dotted path of a reward function, or of a function or class that returns one,
    such as `package.module:function`; `options` are its keywords. `chat`: whether the function gets messages or text;
    None follows the annotation of its `completions`, or else the prompts in the data (docs/guides/rewards.md). `label`
    distinguishes two parts of one name.
    """

    name: str
    weight: Weight = 1.0
    options: dict[str, Any] = Field(default_factory=dict)
    chat: bool | None = None
    label: str = Field(default="", description="the name under which it is logged; empty: its name")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """A plain string is the name."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name in REWARDS or is_dotted_path(name):
            return name
        raise ValueError(f"there is no reward {name!r}: {nearest(name, REWARDS)} (or give package.module:function)")

    @property
    def title(self) -> str:
        """The name under which the part is logged: its label, or the last piece of its name."""
        return self.label or re.split(r"[.:]", self.name)[-1]
