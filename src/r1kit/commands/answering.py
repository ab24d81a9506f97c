"""A model that is ready to answer a command: here or behind a server, in its own prompt format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1kit.chat import ChatFormat, saved
from r1kit.engines import Engine
from r1kit.engines.ask import refuse_long
from r1kit.engines.engine_settings import EngineSettings, LocalEngineSettings, OwnEngineSettings, parse_engine
from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.engines.opening import open_engine, open_policy_engine
from r1kit.evaluate.measurement import prompt_of
from r1kit.models.known import resolve
from r1kit.pipeline import Progress
from r1kit.pipeline.manifest import require_as_written
from r1kit.redaction import redacted
from r1kit.store import sha256, to_plain
from r1kit.types import Problem, Prompt, SamplingParams

OWN_PARALLEL = 32  # completions of an engine of the user's own per call and round


@dataclass(frozen=True)
class AnsweringModel:
    """An engine, the prompt format, and the facts that identify the weights.

    `tokenizer` and `context` are None for a served model: its server renders the messages and counts the tokens.
    """

    engine: Engine
    chat: ChatFormat
    weights: Mapping[str, Any]
    parallel: int  # completions that the engine works on at once
    tokenizer: Any = None
    context: int | None = None

    def prompts(self, problems: Sequence[Problem]) -> list[Prompt]:
        return [prompt_of(problem, self.chat, self.tokenizer) for problem in problems]

    def refuse_long(self, problems: Sequence[Problem], max_tokens: int) -> None:
        """Raise `PromptError`, before any work, if a prompt leaves no room for a completion."""
        if self.context is None:
            return
        for prompt in self.prompts(problems):
            single = len(problems) == 1
            name, remedy = ("", "shorten the prompt") if single else (prompt.problem_id, "leave the problem out")
            refuse_long(name, len(prompt.token_ids), max_tokens, self.context, remedy)

    def setup(self, sampling: SamplingParams) -> dict[str, Any]:
        """All that determines a completion besides the problem, secrets hidden: equal setups give equal rows."""
        params = {name: value for name, value in asdict(sampling).items() if name != "n"}  # samples may be added later
        plain: dict[str, Any] = redacted(to_plain({**self.weights, "chat": self.chat, "sampling": params}))
        return plain


def engine_settings(model: str, engine: Mapping[str, Any] | None) -> EngineSettings:
    """The settings of the engine that runs `model`. Raises ValueError for a local model that does not exist."""
    settings = parse_engine({"model": model, **(engine or {})})
    if isinstance(settings, LocalEngineSettings):
        resolve(settings.model)
    return settings


def open_model(settings: EngineSettings, template: str | None, progress: Progress | None = None) -> AnsweringModel:
    """Load a local model, or create a server's client or the user's engine; `template` is that of `saved.choose`."""
    if isinstance(settings, LocalEngineSettings):
        from r1kit.models.load import load

        folder = resolve(settings.model)
        require_as_written(folder)
        policy = load(settings.model, device=settings.device, compute_dtype=settings.compute_dtype)
        if template is None and settings.template != "auto":
            template = settings.template
        chat, source = saved.choose(template, folder, policy.tokenizer)
        if progress is not None:
            progress.say(f"prompt format: {source}; {policy.turn(chat)}")
            if policy.path:
                progress.say(policy.path)
        engine, weights = open_policy_engine(settings, policy), {"weights": sha256(folder)}
        return AnsweringModel(engine, chat, weights, settings.max_rows, policy.tokenizer, policy.context)
    if template == "plain":
        raise ValueError(
            "a server or your own engine renders prompts itself, so --format plain has no effect: leave it out"
        )
    chat = ChatFormat(template="chat") if template in (None, "chat") else saved.read(Path(str(template)).expanduser())
    if chat.prefill:
        raise ValueError(f"the format {template} has a prefill, which a server cannot continue: use one without")
    if chat.options:
        remedy = "give them as engine settings, such as extra_body={'chat_template_kwargs': {...}} (vLLM)"
        raise ValueError(f"the format {template} has options for a chat template, which the server renders: {remedy}")
    if isinstance(settings, OwnEngineSettings):
        own = {"engine": settings.path, "model": settings.model, "options": settings.options}
        return AnsweringModel(open_engine(settings), chat, own | {"code": sha256(settings.source_file())}, OWN_PARALLEL)
    if template is None and _renders_itself(settings):
        chat = ChatFormat(template="chat", system="")
        if progress is not None:
            progress.say("prompt format: the server's own, in which the model was trained")
    weights = {"server": settings.base_url, "model": settings.model}
    return AnsweringModel(open_engine(settings), chat, weights, settings.concurrency)


def _renders_itself(settings: OpenAIEngineSettings) -> bool:
    """Whether the server puts the format's system message and exemplars before a question, as `r1kit serve` does."""
    from r1kit.engines.openai.card import model_card

    return "chat_format" in model_card(settings)
