"""Chat templates of tokenizers: from turns to text, in the way that each template takes them."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.chat.template_bounds import check_bounds
from r1kit.types import Message

THINK, END_THINK = "<think>", "</think>"
_TAG = re.compile(r"</?think>")
_ROLES = "it must accept a question, with answers and questions before it in turn"


def template_turns(messages: Sequence[Message], template: str) -> list[dict[str, str]]:
    """Messages as a chat template reads them.

    A template that reads `reasoning_content` gets an assistant's reasoning in that field, as a server would pass it:
    Qwen3.8's writes an empty block of reasoning before an answer that holds the block itself.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    if "reasoning_content" in template:
        for turn in turns:
            reasoning, closed, answer = turn["content"].rpartition(END_THINK)
            if closed and turn["role"] == "assistant":
                reasoning = reasoning.partition(THINK)[2] if THINK in reasoning else reasoning
                turn |= {"reasoning_content": reasoning.strip("\n"), "content": answer.lstrip("\n")}
    return turns


def rendered(tokenizer: Any, turns: Sequence[dict[str, str]], **options: Any) -> str:
    """The chat template's text. If the template does not take the system message, it begins the first question.

    Gemma 3's template puts it there itself. Raises ValueError if the template refuses the turns.
    """
    text = _with_system(tokenizer, turns, options)
    if text is not None:
        return text
    system, *rest = turns
    if not rest or rest[0]["role"] != "user":
        raise ValueError("the chat template takes no system message, and no question follows that it could go into")
    question = {**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}
    return apply_template(tokenizer, [question, *rest[1:]], **options)


def takes_system(tokenizer: Any, turns: Sequence[dict[str, str]], options: Mapping[str, Any]) -> bool:
    """Whether the chat template writes the system message of `turns` as it is, or there is none."""
    return _with_system(tokenizer, turns, options) is not None


def _with_system(tokenizer: Any, turns: Sequence[dict[str, str]], options: Mapping[str, Any]) -> str | None:
    """The chat template's text; None if it refuses, drops or changes the system message.

    Gemma 2's refuses any, others drop it, and SmolLM3's takes "/think" out of it, also from "</think>".
    """
    system = turns[0]["content"].strip() if turns[0]["role"] == "system" else ""
    try:
        text = apply_template(tokenizer, turns, **options)
    except ValueError:
        if not system:
            raise
        return None
    return text if system in text else None


def require_kept(turns: Sequence[dict[str, str]], text: str) -> None:
    """Raise ValueError if the text of a prompt lacks a part of an exemplar's response."""
    for turn in turns:
        parts = [turn.get("reasoning_content", ""), *_TAG.split(turn["content"])]
        if lost := [part for part in parts if turn["role"] == "assistant" and part.strip() not in text]:
            raise ValueError(
                f"the chat template drops {lost[0].strip()!r:.60} from an exemplar, as templates of reasoning models "
                "drop earlier reasoning: use the template plain, or exemplars without <think> (few-shot prompts: "
                "reply_format special_token)"
            )


def apply_template(tokenizer: Any, turns: Sequence[dict[str, str]], remedy: str = _ROLES, **options: Any) -> str:
    """The chat template's text. Raises ValueError if the template refuses the turns, for whatever reason."""
    from jinja2 import TemplateError, TemplateSyntaxError

    if isinstance(template := getattr(tokenizer, "chat_template", None), str):
        check_bounds(template)
    try:
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, **options))
    except TemplateError as error:
        if isinstance(error, TemplateSyntaxError):
            remedy = f"line {error.lineno} is no Jinja; restore chat_template.jinja or tokenizer_config.json"
        raise ValueError(f"the model's chat template refuses these messages ({error}): {remedy}") from error


def dated(template: str, date: datetime.date) -> str:
    """A chat template that writes `date` in place of today's, as `strftime_now` of transformers would.

    transformers passes text and numbers into a template but no functions, so the function is written in the template.
    """
    if "strftime_now" not in template:
        return template
    codes = [*(f"%-{letter}" for letter in "demjHIMS"), *(f"%{letter}" for letter in "aAbBdejmyYHIMSpuwUWcxXDF%")]
    parts = {code: date.strftime(code) for code in codes}
    replaced = "".join(f" | replace({json.dumps(name)}, {json.dumps(value)})" for name, value in parts.items())
    # "+" keeps a newline with which the template may begin
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro +%}}{template}"
