"""A model that a command has opened: its weights in an engine, and the format in which it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1kit.chat import ChatFormat, saved
from r1kit.engines.ask import refuse_long
from r1kit.engines.engine_settings import DeviceSettings
from r1kit.engines.opening import open_policy_engine
from r1kit.models.known import resolve
from r1kit.pipeline import Progress
from r1kit.store import sha256, to_plain
from r1kit.types import Problem, SamplingParams

MAX_ROWS = 128  # completions that grow at once


@dataclass(frozen=True)
class Opened:
    """A model that is ready to answer, and the format in which it is asked."""

    folder: Path
    engine: Any
    settings: ChatFormat
    chat: ChatFormat

    @property
    def policy(self) -> Any:
        return self.engine.policy

    def refuse_long(self, problems: Sequence[Problem], max_tokens: int) -> None:
        """Raise ValueError, before any work, for a prompt that leaves no room for an answer."""
        for problem in problems:
            size = len(self.chat.render(problem, self.policy.tokenizer).token_ids)
            name, remedy = ("", "shorten the prompt") if len(problems) == 1 else (problem.id, "leave the problem out")
            refuse_long(name, size, max_tokens, self.policy.context, remedy)

    def setup(self, sampling: SamplingParams) -> dict[str, Any]:
        """What decides a completion beside the problem: two equal setups give equal rows."""
        drawn = {name: value for name, value in asdict(sampling).items() if name != "n"}  # more samples may be added
        made: dict[str, Any] = to_plain({"weights": sha256(self.folder), "chat": self.settings, "sampling": drawn})
        return made


def open_model(name: str, template: str | None, progress: Progress) -> Opened:
    """Load a model by name or folder; `template` is what `chat_format.choose` takes."""
    from r1kit.models.load import load

    folder = resolve(name)
    policy = load(name)
    settings, source = saved.choose(template, folder, policy.tokenizer)
    progress.say(f"prompt format: {source}")
    return Opened(folder, open_policy_engine(DeviceSettings(max_rows=MAX_ROWS), policy), settings, settings)
