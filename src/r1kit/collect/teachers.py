"""How a model is asked for training data: settings, and the model they open, local or behind a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from r1kit.chat import ChatFormat, saved
from r1kit.collect.prompting import (
    FEW_SHOT_SYSTEM,
    REFLECT_SYSTEM,
    THINK_SYSTEM,
    Exemplar,
    FewShot,
    Form,
    General,
    Own,
    Prompting,
    Reflect,
    Request,
)
from r1kit.curate.formats import render
from r1kit.data.errors import DataError
from r1kit.engines import Engine, Report
from r1kit.engines.ask import Answers, ask, refuse_long
from r1kit.engines.engine_settings import DeviceSettings, EngineSettings
from r1kit.engines.opening import open_engine, open_policy_engine
from r1kit.pipeline import Context
from r1kit.types import Completion, Message, Prompt, SamplingParams

SYSTEMS = {"few_shot": FEW_SHOT_SYSTEM, "reflect": REFLECT_SYSTEM, "general": THINK_SYSTEM}


class AskingSettings(DeviceSettings):
    """Who is asked, and how.

    `prompting`: "own" asks a policy as it was trained; "few_shot" shows exemplars; "reflect" asks for details with
    reflection and verification; "general" asks hard requests with a chain of thought and simple ones without;
    "reference" asks nobody and takes the data's own responses (V3's <problem, original response>).
    """

    prompting: Literal["own", "few_shot", "reflect", "general", "reference"] = "own"
    engine: EngineSettings | None = Field(None, description="who is asked; None: the local model of the input 'model'")
    chat: ChatFormat | None = Field(None, description="own: the prompt format; None: the one saved with the model")
    exemplars: tuple[Exemplar, ...] = Field((), description="few_shot: two or three, with long chains of thought")
    reply_format: Form = Field("special_token", description="few_shot: how exemplars and replies are delimited")
    system: str = Field("", description="few_shot, reflect, general: in place of their own system prompt")
    prefill: str = Field("", description="few_shot, reflect: how the reply of a local model begins, such as <think>")
    hard_words: int = Field(20, ge=1, description="general: requests of so many words get a chain of thought")
    format: Form = Field("think_answer", description="of the responses that are written")
    row_system: str = Field("", description="a system message for the rows, as V3's <system prompt, problem, response>")

    samples: int = Field(4, ge=1, description="k, completions per request")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(8192, ge=1)
    max_prompt_tokens: int | None = Field(None, ge=1, description="leave longer prompts out; None: refuse them")
    seed: int = 0

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if (self.prompting == "few_shot") != bool(self.exemplars):
            raise ValueError(
                f"prompting is {self.prompting!r} with {len(self.exemplars)} exemplars: give few_shot "
                "two or three (1 to 8 are taken), and the others none"
            )
        if len(self.exemplars) > 8:
            raise ValueError(f"{len(self.exemplars)} exemplars: at most 8 leave the question to be seen")
        for one in self.exemplars:
            render(one.reasoning, one.summary, self.reply_format)  # raises for one that cannot be shown
        if self.system and self.prompting not in SYSTEMS:
            raise ValueError(f"system has no effect with prompting {self.prompting!r}: set chat.system")
        if self.chat is not None and self.prompting != "own":
            raise ValueError(f"chat has no effect with prompting {self.prompting!r}: leave it out")
        if self.prefill and self.prompting not in ("few_shot", "reflect"):
            raise ValueError(
                f"prefill has no effect with prompting {self.prompting!r}: set chat.prefill, or leave it out"
            )
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(
                f"temperature 0 gives {self.samples} equal samples: set samples to 1 or temperature above 0"
            )
        return self

    def sampling(self) -> SamplingParams:
        return SamplingParams(
            n=self.samples, temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed
        )

    def way(self, chat: ChatFormat) -> Prompting:
        """The way to ask a model whose own format is `chat`."""
        system = self.system or SYSTEMS.get(self.prompting, "")
        if self.prompting == "few_shot":
            return FewShot(self.exemplars, self.reply_format, self.format, system)
        if self.prompting == "reflect":
            return Reflect(self.format, system)
        if self.prompting == "general":
            return General(self.format, self.hard_words, system)
        return Own(chat, self.format)


@dataclass(frozen=True)
class Asked:
    """A model that is asked in one way; `model` is its name for the rows."""

    model: str
    way: Prompting
    engine: Engine
    sampling: SamplingParams
    encode: Callable[[tuple[Message, ...]], Sequence[int]] | None = None  # None: the server does that
    context: int = 0
    limit: int | None = None
    prefill: str = ""

    @property
    def samples(self) -> int:
        return self.sampling.n

    def prompt(self, request: Request) -> Prompt:
        messages = self.way.messages(request)
        token_ids = tuple(self.encode(messages)) if self.encode else ()
        return Prompt(problem_id=request.problem.id, messages=messages, token_ids=token_ids)

    def fits(self, prompt: Prompt) -> bool:
        """Whether a prompt is within `max_prompt_tokens`; raises ValueError for one that leaves no room to answer."""
        size = len(prompt.token_ids)
        if self.limit is not None and size > self.limit:
            return False
        if self.encode:
            remedy = "set max_prompt_tokens to leave longer prompts out"
            refuse_long(prompt.problem_id, size, self.sampling.max_tokens, self.context, remedy)
        return True

    def check(self, request: Request) -> None:
        """Refuse a request that cannot be asked, before any is."""
        if self.encode:
            self.fits(self.prompt(request))

    def answers(self, requests: Sequence[Request], report: Report) -> list[Answers]:
        """The completions of each request, or why there are none."""
        prompts = [self.prompt(request) for request in requests]
        asked = [prompt for prompt in prompts if self.fits(prompt)]
        found = dict(
            zip([one.problem_id for one in asked], ask(self.engine, asked, self.sampling, report), strict=True)
        )
        return [found.get(prompt.problem_id, TOO_LONG) for prompt in prompts]

    def response(self, request: Request, completion: Completion) -> str:
        return self.way.response(request, self.prefill + completion.text)


TOO_LONG = "longer than max_prompt_tokens"


@dataclass(frozen=True)
class References:
    """In place of a model: the responses that the data has."""

    model: str = "reference"
    samples: int = 1

    def check(self, request: Request) -> None:
        """Raises `DataError` for a request without a response."""
        if not _reference(request).strip():
            reason = f"{request.problem.id} has no response of its own (a reference solution): ask a model for one"
            raise DataError("missing column", reason)

    def answers(self, requests: Sequence[Request], report: Report) -> list[Answers]:
        return [
            [Completion(token_ids=(), logprobs=(), text=_reference(request), finish_reason="stop")]
            for request in requests
        ]

    def response(self, request: Request, completion: Completion) -> str:
        return completion.text


def _reference(request: Request) -> str:
    """A task's worked solution, or what an instruction file has the assistant say."""
    problem = request.problem
    return str(problem.metadata.get("solution") or "") if problem.verifier else problem.answer


def open_asked(context: Context, engines: Engines) -> Asked | References:
    """Who the settings of a stage ask."""
    settings: AskingSettings = context.settings
    if settings.prompting == "reference":
        return References()
    if settings.engine is None:
        return _local(settings, context.input("model"))
    chat = settings.chat or ChatFormat(template="chat")
    engine = engines.open(settings.engine)
    return Asked(settings.engine.model, settings.way(chat), engine, settings.sampling())


def _local(settings: AskingSettings, folder: Path) -> Asked:
    """A model's folder: asked by token ids, in its own format or in that of its template."""
    from r1kit.engines.local.chat_engine import ChatEngine
    from r1kit.models.load import load

    policy = load(str(folder), device=settings.device)
    own = settings.chat or saved.choose(None, folder, policy.tokenizer)[0]
    policy_engine = open_policy_engine(settings, policy)
    engine: Engine = policy_engine
    chat = own
    if settings.prompting != "own":  # it sees conversations, and stops where it would go on as the user
        chat = ChatFormat(template=own.template, system="", prefill=settings.prefill)
        engine = ChatEngine(policy_engine, chat)
    return Asked(
        name_of(folder),
        settings.way(own),
        engine,
        settings.sampling(),
        encode=lambda messages: chat.encode(messages, policy.tokenizer),
        context=policy.context,
        limit=settings.max_prompt_tokens,
        prefill=settings.prefill,
    )


def check_asked(context: Context) -> None:
    """Refuse a model that is given twice or not at all, and settings that its kind cannot follow."""
    settings: AskingSettings = context.settings
    wanted = settings.prompting != "reference"
    given = [
        name
        for name, is_given in (
            ("the input 'model'", "model" in context.paths),
            ("the setting engine", settings.engine is not None),
        )
        if is_given
    ]
    if len(given) != wanted:
        expected = "the input 'model' or the setting engine" if wanted else "neither, for nobody is asked"
        raise ValueError(f"stage {context.stage} has {' and '.join(given) or 'no model to ask'}: give {expected}")
    if settings.engine is not None and settings.max_prompt_tokens is not None:
        raise ValueError("max_prompt_tokens needs the input 'model': a server counts tokens itself")
    if settings.engine is not None and (settings.prefill or (settings.chat is not None and settings.chat.prefill)):
        raise ValueError("a prefill needs the input 'model': a server writes the assistant's turn from its start")


class Engines:
    """Engines by their settings, each opened once: a teacher that also judges is loaded once.

    As a context manager it tells at the end, also of work that failed, what the servers were asked and what it cost.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._open: dict[str, Engine] = {}
        self._say = say

    def open(self, settings: EngineSettings) -> Engine:
        key = settings.model_dump_json()
        if key not in self._open:
            self._open[key] = open_engine(settings)
        return self._open[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self._open.values():
            if hasattr(engine, "usage"):
                self._say(engine.usage.summary())


def name_of(folder: Path) -> str:
    """A model's folder without the place where it lies: `rl-1a2b3c4d/model`."""
    return f"{folder.parent.name}/{folder.name}"
