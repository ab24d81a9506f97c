"""The source of responses: a model, local or behind a server, or the references in the data itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from r1kit.chat import ChatFormat, saved, whole_response
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
    in_form,
)
from r1kit.curate.formats import render, split
from r1kit.data.errors import DataError
from r1kit.engines import Engine, Report
from r1kit.engines.ask import Answers, ask, refuse_long
from r1kit.engines.engine_settings import DeviceSettings, EngineSettings
from r1kit.engines.opening import open_engine, open_policy_engine
from r1kit.engines.stage_policy import load_policy
from r1kit.pipeline import Context
from r1kit.settings import Temperature, unhashed
from r1kit.types import Completion, Message, Problem, Prompt, SamplingParams

SYSTEMS = {"few_shot": FEW_SHOT_SYSTEM, "reflect": REFLECT_SYSTEM, "general": THINK_SYSTEM}


class ResponseSettings(DeviceSettings):
    """Which model responds, to which prompt, and how its responses are sampled.

    `prompting`: "own" uses the prompt that the policy was trained with; "few_shot" shows exemplars; "reflect" asks for
    a detailed solution with reflection and verification; "general" asks for a chain of thought on hard requests only;
    "reference" calls no model and takes the data's own responses (V3's <problem, original response>). "traces" does so
    too, and writes worked solutions in `format`: as reasoning before the answer, unless they have both already.
    """

    prompting: Literal["own", "few_shot", "reflect", "general", "reference", "traces"] = "own"
    engine: EngineSettings | None = Field(None, description="the model; None: the local model of the input 'model'")
    chat: ChatFormat | None = Field(None, description="own: the prompt format; None: the one saved with the model")
    exemplars: tuple[Exemplar, ...] = Field((), description="few_shot: two or three, with long chains of thought")
    reply_format: Form = Field("special_token", description="few_shot: how exemplars and replies are delimited")
    system: str = Field("", description="few_shot, reflect, general: replaces the default system prompt")
    prefill: str = Field("", description="few_shot, reflect: how the reply of a local model begins, such as <think>")
    hard_words: int = Field(
        20, ge=1, description="general: requests with at least so many words get a chain of thought"
    )
    format: Form = Field("think_answer", description="format of the responses in the rows")
    row_system: str = Field("", description="system message of the rows, as in V3's <system prompt, problem, response>")

    samples: int = Field(4, ge=1, description="completions per request")
    temperature: Temperature = 1.0
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(8192, ge=1)
    max_prompt_tokens: int | None = Field(None, ge=1, description="leave longer prompts out; None: refuse them")
    engines: int = unhashed(
        1, ge=1, description="copies of the input 'model' that respond side by side, as actors on a cluster"
    )
    seed: int = 0

    @model_validator(mode="after")
    def _check_prompting(self) -> Self:
        if (self.prompting == "few_shot") != bool(self.exemplars):
            raise ValueError(
                f"prompting is {self.prompting!r} with {len(self.exemplars)} exemplars: few_shot takes 1 to 8 "
                "(two or three are best), the others take none"
            )
        if len(self.exemplars) > 8:
            raise ValueError(f"{len(self.exemplars)} exemplars: give at most 8")
        for number, shot in enumerate(self.exemplars):
            try:
                render(shot.reasoning, shot.summary, self.reply_format)
            except ValueError as error:
                raise ValueError(f"exemplars.{number}: {error}") from None
        if self.system and self.prompting not in SYSTEMS:
            raise ValueError(f"system has no effect with prompting {self.prompting!r}: set chat.system")
        if self.chat is not None and self.prompting != "own":
            raise ValueError(f"chat has no effect with prompting {self.prompting!r}: leave it out")
        if self.prefill and self.prompting not in ("few_shot", "reflect"):
            reason = f"prefill has no effect with prompting {self.prompting!r}"
            raise ValueError(f"{reason}: set chat.prefill, or leave it out")
        if self.temperature == 0 and self.samples > 1:
            reason = f"temperature 0 gives {self.samples} equal samples"
            raise ValueError(f"{reason}: set samples to 1 or temperature above 0")
        return self

    @property
    def asks_input(self) -> bool:
        """Whether the stage samples from its input `model`: not if an engine answers, or the data itself."""
        return self.engine is None and self.asks_model

    @property
    def asks_model(self) -> bool:
        """Whether a model responds, and not the data itself."""
        return self.prompting not in ("reference", "traces")

    def sampling(self) -> SamplingParams:
        return SamplingParams(
            n=self.samples, temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed
        )

    def prompting_for(self, chat: ChatFormat) -> Prompting:
        """How to prompt a model whose own format is `chat`."""
        system = self.system or SYSTEMS.get(self.prompting, "")
        if self.prompting == "few_shot":
            return FewShot(self.exemplars, self.reply_format, self.format, system)
        if self.prompting == "reflect":
            return Reflect(self.format, system)
        if self.prompting == "general":
            return General(self.format, self.hard_words, system)
        return Own(chat, self.format)


@dataclass(frozen=True)
class ResponseModel:
    """A model that responds to requests; `model` is its name in the rows.

    `engine` is None if copies of this model in other processes respond. `render` makes prompts with token ids; it is
    None for a server, which tokenizes by itself. `limit` is `max_prompt_tokens`.
    """

    model: str
    prompting: Prompting
    engine: Engine | None
    sampling: SamplingParams
    render: Callable[[tuple[Message, ...], str], Prompt] | None = None
    context: int = 0
    limit: int | None = None

    @property
    def samples(self) -> int:
        return self.sampling.n

    def prompt(self, request: Request) -> Prompt:
        messages = self.prompting.messages(request)
        if self.render is not None:
            return self.render(messages, request.problem.id)
        return Prompt(problem_id=request.problem.id, messages=messages, token_ids=())

    def fits(self, prompt: Prompt) -> bool:
        """Whether a prompt is within `limit`; raises ValueError if it leaves no room for the answer."""
        size = len(prompt.token_ids)
        if self.limit is not None and size > self.limit:
            return False
        if self.render is not None:
            remedy = "set max_prompt_tokens to leave longer prompts out"
            refuse_long(prompt.problem_id, size, self.sampling.max_tokens, self.context, remedy)
        return True

    def check(self, request: Request) -> None:
        """Raise ValueError for a request whose prompt does not fit, before any work starts."""
        if self.render is not None:
            self.fits(self.prompt(request))

    def answers(self, requests: Sequence[Request], report: Report) -> list[Answers]:
        """The completions of each request, with whole responses as their texts, or the reason why there are none."""
        assert self.engine is not None, "another process has the engine"
        prompts = [self.prompt(request) for request in requests]
        fitting = [prompt for prompt in prompts if self.fits(prompt)]
        by_id: dict[str, Answers] = {}
        for prompt, answers in zip(fitting, ask(self.engine, fitting, self.sampling, report), strict=True):
            if not isinstance(answers, str):
                answers = [replace(completion, text=whole_response(prompt, completion)) for completion in answers]
            by_id[prompt.problem_id] = answers
        return [by_id.get(prompt.problem_id, "longer than max_prompt_tokens") for prompt in prompts]

    def response(self, request: Request, completion: Completion) -> str:
        return self.prompting.response(request, completion.text)


@dataclass(frozen=True)
class ReferenceResponses:
    """The data's own responses, in place of a model's; with a `form`, worked solutions are written in it."""

    form: Form | None = None
    model: str = "reference"
    samples: int = 1

    def check(self, request: Request) -> None:
        """Raise `DataError` for a request without a response."""
        if not _reference(request).strip():
            reason = f"{request.problem.id} has no reference solution: use another prompting, which samples a model"
            raise DataError("missing column", reason)

    def answers(self, requests: Sequence[Request], report: Report) -> list[Answers]:
        return [
            [Completion(token_ids=(), logprobs=(), text=_reference(request), finish_reason="stop")]
            for request in requests
        ]

    def response(self, request: Request, completion: Completion) -> str:
        if self.form is None:
            return completion.text
        problem = request.problem
        if problem.verifier and split(completion.text) is None:
            with suppress(ValueError):  # a solution with marks of the format stays as it is, and the filters drop it
                return render(completion.text, problem.answer, self.form)
        return in_form(completion.text, self.form)


def _reference(request: Request) -> str:
    """A task's worked solution, or the assistant's turn in an instruction file."""
    problem = request.problem
    return problem.solution if problem.verifier else problem.answer


def open_responses(context: Context, engines: Engines) -> ResponseModel | ReferenceResponses:
    """The source of responses that a stage's settings name.

    A local model is prompted by token ids, in its own chat format or in that of its template. With several `engines` it
    is here without its weights: replicas respond (`collect.replicas`).
    """
    settings: ResponseSettings = context.settings
    if not settings.asks_model:
        return ReferenceResponses(settings.format if settings.prompting == "traces" else None)
    if settings.engine is not None:
        prompting = settings.prompting_for(settings.chat or ChatFormat(template="chat"))
        server = engines.open(settings.engine)
        return ResponseModel(settings.engine.model, prompting, server, settings.sampling())
    from r1kit.engines.local.chat_engine import ChatEngine
    from r1kit.models.load import outline

    folder, is_replicated = context.input("model"), settings.engines > 1
    policy = outline(str(folder)) if is_replicated else load_policy(context)
    own = chat = settings.chat or saved.choose(None, folder, policy.tokenizer)[0]
    context.progress.say(policy.turn(chat))
    policy_engine = None if is_replicated else open_policy_engine(settings, policy)
    engine: Engine | None = policy_engine
    if settings.prompting != "own":  # it reads a conversation, and must stop before it writes the user's next turn
        chat = ChatFormat(
            template=own.template, system="", prefill=settings.prefill, options=own.options, date=own.date
        )
        engine = None if policy_engine is None else ChatEngine(policy_engine, chat)
    if settings.prompting == "few_shot":
        example = Request(problem=Problem(id="", prompt="Q", answer=""))
        chat.require_kept(settings.prompting_for(own).messages(example), policy.tokenizer)
    return ResponseModel(
        name_of(folder),
        settings.prompting_for(own),
        engine,
        settings.sampling(),
        render=lambda messages, name: chat.prompt(messages, policy.tokenizer, name),
        context=policy.context,
        limit=settings.max_prompt_tokens,
    )


def check_responses(context: Context) -> None:
    """Raise ValueError unless there is exactly one model (none for references), and for settings it cannot follow."""
    settings: ResponseSettings = context.settings
    needs_model = settings.asks_model
    candidates = {"the input 'model'": "model" in context.paths, "the setting engine": settings.engine is not None}
    models = [name for name, exists in candidates.items() if exists]
    if len(models) != needs_model:
        remedy = "give the input 'model' or the setting engine"
        if models:
            remedy = (
                "give only one of them"
                if needs_model
                else f"leave it out: prompting {settings.prompting!r} asks no model"
            )
        raise ValueError(f"stage {context.stage} has {' and '.join(models) or 'no model to ask'}: {remedy}")
    if settings.engine is not None and settings.max_prompt_tokens is not None:
        raise ValueError("max_prompt_tokens needs the input 'model': r1kit cannot count a server's tokens")
    if settings.engine is not None and (settings.prefill or (settings.chat is not None and settings.chat.prefill)):
        raise ValueError("a prefill needs the input 'model': a server writes the assistant's turn from its start")
    if settings.engines > 1 and not settings.asks_input:
        raise ValueError(
            f"engines is {settings.engines}, but only copies of the input 'model' can share the work: set 1"
        )
    if settings.engine is not None and settings.chat is not None and settings.chat.options:
        remedy = "set engine.extra_body, such as {'chat_template_kwargs': {...}} (vLLM)"
        raise ValueError(f"chat.options need the input 'model', but the server renders the chat template: {remedy}")


class Engines:
    """Opens each engine once per settings, so that a model that both responds and judges is loaded once.

    Use as a context manager: at the end, also after an error, it reports the servers' requests and costs.
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
    """A model's folder and its parent: `rl-1a2b3c4d/model`."""
    return f"{folder.parent.name}/{folder.name}"
