"""The format that a model was trained in, as one chat template: it writes the same prompts without r1kit."""

from __future__ import annotations

import json
import re
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.chat.template import dated
from r1kit.types import Problem

_PLACEHOLDER = re.compile(r"(\{(?:system|history|question)\})")
_PLAIN = """\
{%- set ns = namespace(system='', history='', question='', answer='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = ns.system + ('\\n' if ns.system else '') + message.content -%}
{%- elif message.role == 'user' -%}
{%- set ns.question = message.content -%}
{%- elif loop.last -%}
{%- set ns.answer = message.content + END -%}
{%- else -%}
{%- set ns.history = ns.history + 'User: ' + ns.question + '\\nAssistant: ' + message.content + '\\n' -%}
{%- endif -%}
{%- endfor -%}
{{- PROMPT + ns.answer -}}
"""


def trained_template(chat: ChatFormat, tokenizer: Any) -> str:
    """A chat template whose prompts are those of `chat`, prefill included.

    The format's system message and exemplars begin conversations that do not bring them.
    """
    opening = chat.messages(Problem(id="", prompt="", answer=""))[:-1]
    turns = [{"role": message.role, "content": message.content} for message in opening]
    begun = ""
    if turns and chat.folds_system(tokenizer):
        system, *turns = turns
        if turns:
            turns[0]["content"] = f"{system['content']}\n\n{turns[0]['content']}"
        else:
            start = _literal(f"{system['content']}\n\n")
            first = f"messages[0].role == 'user' and not messages[0].content.startswith({start})"
            question = f"[{{'role': 'user', 'content': {start} + messages[0].content}}]"
            begun = f"{{%- if {first} %}}{{%- set messages = {question} + messages[1:] %}}{{%- endif %}}"
    if turns:
        first = f"messages[0].role != 'system' and messages[0].content != {_literal(turns[0]['content'])}"
        begun = f"{{%- if {first} %}}{{%- set messages = {_literal(turns)} + messages %}}{{%- endif %}}"
    for name, value in chat.options.items():
        begun += f"{{%- set {name} = {name} if {name} is defined else {_literal(value)} %}}"
    prefill = f"{{% if add_generation_prompt %}}{{{{ {_literal(chat.prefill)} }}}}{{% endif %}}" if chat.prefill else ""
    if chat.template == "plain":
        return begun + _plain(chat, tokenizer).rstrip("\n") + prefill
    body = dated(tokenizer.get_chat_template(), chat.date)
    if begun and body.startswith("\n"):
        begun += "\n"  # a template's first newline behind a block is dropped
    return begun + (body.removesuffix("\n") if prefill else body) + prefill


def _plain(chat: ChatFormat, tokenizer: Any) -> str:
    """The template of a plain format: its placeholders as sums of texts."""
    pieces, only_after_system = [], False
    if tokenizer.bos_token:
        pieces.append(_literal(tokenizer.bos_token))
    for place, part in enumerate(filter(None, _PLACEHOLDER.split(chat.plain.lstrip("\n")))):
        if _PLACEHOLDER.fullmatch(part):
            pieces.append(f"ns.{part[1:-1]}")
            only_after_system = place == 0 and part == "{system}"
            continue
        newlines = len(part) - len(part.lstrip("\n")) if only_after_system else 0
        if newlines:  # a prompt does not begin with newlines
            pieces.append(f"({_literal(part[:newlines])} if ns.system else '')")
        if part[newlines:]:
            pieces.append(_literal(part[newlines:]))
        only_after_system = False
    end = _literal(tokenizer.eos_token or "")
    return _PLAIN.replace("END", end).replace("PROMPT", " + ".join(pieces))


def _literal(value: Any) -> str:
    """A value as Jinja writes it."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
