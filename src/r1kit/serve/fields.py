"""The fields of requests: which are answered, which change nothing, and which are refused and why."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, field_validator

from r1kit.serve.errors import APIError
from r1kit.settings import Settings, SettingsError, Temperature, nearest
from r1kit.types import SamplingParams

MAX_STOPS, MAX_STOP_CHARS, MAX_TOP = 16, 200, 20
LOWEST_TEMPERATURE = 0.01  # logits divided by less may overflow
# who asks and how the server works, but not what is answered
IGNORED = frozenset(
    [
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "request_id",
        "priority",
        "cache_salt",
        "spaces_between_special_tokens",
    ]
)
# fields that the server does not implement, with the values that ask for nothing, and the reason
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    **dict.fromkeys(
        ("frequency_penalty", "presence_penalty", "min_p", "min_tokens", "length_penalty"),
        ((0,), "the model samples from its own distribution"),
    ),
    "repetition_penalty": ((1,), "the model samples from its own distribution"),
    "logit_bias": (({},), "the model samples from its own distribution"),
    "ignore_eos": ((False,), "a completion ends at the model's end token"),
    "use_beam_search": ((False,), "the model samples token by token"),
    "best_of": ((1,), "all completions are returned: ask for n and choose"),
    "suffix": (("",), "the model continues a prompt and knows no text behind it"),
    **dict.fromkeys(("tools", "functions"), (([],), "the model calls no tools")),
    **dict.fromkeys(("tool_choice", "function_call"), (("none", "auto"), "the model calls no tools")),
    "response_format": (({"type": "text"},), "replies are not constrained: ask for the form in the prompt"),
    **dict.fromkeys(
        ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
        ((), "replies are not constrained: ask for the form in the prompt"),
    ),
    "modalities": ((["text"],), "the model writes text only"),
    **dict.fromkeys(("audio", "prediction", "web_search_options", "moderation"), ((), "the model writes text only")),
    **dict.fromkeys(("reasoning_effort", "verbosity"), ((), "the model has no levels of it: see chat_template_kwargs")),
    "skip_special_tokens": ((False,), "the text holds all tokens but the one that ends it"),
    "include_stop_str_in_output": ((False,), "the text ends before the stop string"),
    "continue_final_message": ((False,), "the last message is the user's"),
    "add_generation_prompt": ((True,), "the answer begins a turn of the assistant"),
    "prompt_logprobs": ((), "ask for echo and logprobs"),
}


class StreamOptions(Settings):
    include_usage: bool = False
    include_obfuscation: bool = Field(False, description="accepted, and never done")


class SamplingFields(Settings):
    """The fields of both kinds of request; names are OpenAI's and vLLM's."""

    model: str = ""
    n: int = Field(1, ge=1)
    temperature: Temperature = 1.0
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    stop: tuple[str, ...] = Field((), max_length=MAX_STOPS)
    stop_token_ids: tuple[int, ...] = Field((), max_length=MAX_STOPS)
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False

    @field_validator("stop", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _short(cls, stops: tuple[str, ...]) -> tuple[str, ...]:
        if any(not 0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
            raise ValueError(f"a stop has 1 to {MAX_STOP_CHARS} characters")
        return stops

    @field_validator("temperature")
    @classmethod
    def _divides(cls, temperature: float) -> float:
        if 0 < temperature < LOWEST_TEMPERATURE:
            raise ValueError(f"it must be 0 (greedy) or at least {LOWEST_TEMPERATURE}")
        return temperature

    @classmethod
    def read(cls, body: Any) -> Self:
        """The request in a parsed body. Raises `APIError` that names the field."""
        if not isinstance(body, dict):
            raise APIError(400, f"the body is {body!r:.60}: expected a JSON object")
        values = {name: value for name, value in body.items() if value is not None and name not in IGNORED}
        for name in values.keys() & REFUSED.keys():
            neutral, reason = REFUSED[name]
            if values[name] not in neutral and not (name == "best_of" and values[name] == values.get("n", 1)):
                raise APIError(400, f"{name} is not supported: {reason}", param=name, code="unsupported_parameter")
            del values[name]
        for name in values.keys() - cls.model_fields.keys():
            hint = nearest(name, cls.model_fields.keys())
            raise APIError(400, f"there is no field {name}: {hint}", param=name, code="unknown_parameter")
        try:
            return cls.parse(values)
        except SettingsError as error:
            name = str(error).removeprefix("there is no setting ").split(":")[0].split(" ")[0]
            raise APIError(400, str(error), param=name) from None

    @property
    def completions(self) -> int:
        """How many completions the request asks for."""
        return self.n

    def sampling(self, max_tokens: int) -> SamplingParams:
        """The settings of the engine. Without a seed, each request draws its own."""
        return SamplingParams(
            n=self.n,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),  # vLLM's clients switch it off with -1
            max_tokens=max_tokens,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            seed=secrets.randbits(31) if self.seed is None else self.seed,
        )


class ChatFields(SamplingFields):
    """The body of /v1/chat/completions."""

    messages: tuple[Mapping[str, Any], ...] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_TOP)
    chat_template_kwargs: dict[str, Any] = Field({})

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def top(self) -> int:
        return self.top_logprobs if self.logprobs else 0


class CompletionFields(SamplingFields):
    """The body of /v1/completions. `max_tokens=0` with `echo` only scores the prompt."""

    prompt: tuple[Any, ...]  # each a text or a list of token ids
    max_tokens: int = Field(16, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP)
    echo: bool = False
    add_special_tokens: bool = True

    @property
    def completions(self) -> int:
        return self.n * len(self.prompt)

    @field_validator("prompt", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        prompts = value if isinstance(value, list) and value and not isinstance(value[0], int) else [value]
        for prompt in prompts:
            ids = isinstance(prompt, list) and all(type(token) is int for token in prompt)
            if not isinstance(prompt, str) and not ids:
                raise ValueError("it must be text, token ids, or a list of either")
        return prompts
