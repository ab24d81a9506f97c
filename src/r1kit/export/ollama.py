"""Ollama's Modelfile: the trained format as a Go template, with stop texts and parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from r1kit.chat import ChatFormat
from r1kit.export.proof import Check
from r1kit.export.questions import Answers, Questions, begin_of
from r1kit.models.known import ModelError
from r1kit.types import Message, Problem

if TYPE_CHECKING:
    from r1kit.models.load import Policy

GGUF = "model.gguf"
_SYSTEM, _QUESTION, _ANSWER, _NEXT = "S7S", "Q7Q", "A7A", "Q8Q"  # no template changes or writes these
_CONTEXT = 8192  # tokens that Ollama reserves memory for, unless the model takes fewer
# of the paper's evaluations; Ollama's own defaults penalise repetition, which training never did
_SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
_INSTRUCTION = re.compile(
    r'^(?P<name>FROM|TEMPLATE|SYSTEM|(?:PARAMETER|MESSAGE) \w+) (?:"""(?P<block>.*?)"""|(?P<rest>[^\n]*))$', re.S | re.M
)


def modelfile(policy: Policy, chat: ChatFormat) -> str:
    """The Modelfile for a GGUF file beside it."""
    tokenizer = policy.tokenizer
    *exemplars, _ = chat.replace(system="").messages(Problem(id="", prompt="", answer=""))
    lines = [f"FROM ./{GGUF}", f"TEMPLATE {_block(go_template(chat, tokenizer))}"]
    lines += [f"SYSTEM {_block(chat.system)}"] if chat.system else []
    lines += [f"MESSAGE {message.role} {_block(message.content)}" for message in exemplars]
    stops = dict.fromkeys([*tokenizer.convert_ids_to_tokens(list(policy.end_ids)), *policy.end_texts])
    if chat.template == "plain":
        stops |= dict.fromkeys(["\nUser:"])  # a base model would go on as the user
    lines += [f"PARAMETER stop {_block(stop)}" for stop in stops]
    config = policy.model.generation_config
    own = {name: getattr(config, name, None) for name in ("temperature", "top_p", "top_k")} if config.do_sample else {}
    sampling = _SAMPLING | {name: value for name, value in own.items() if value is not None}
    lines += [f"PARAMETER {name} {value}" for name, value in sampling.items()]
    lines += [f"PARAMETER num_ctx {min(policy.context, _CONTEXT)}"]
    return "\n".join(lines) + "\n"


def go_template(chat: ChatFormat, tokenizer: Any) -> str:
    """A Go template that writes the prompts of a format: a text before each turn, by the turn before it."""
    system, question, answer, following = (
        Message(role=role, content=content)  # type: ignore[arg-type]
        for role, content in (("system", _SYSTEM), ("user", _QUESTION), ("assistant", _ANSWER), ("user", _NEXT))
    )
    whole = chat.text((system, question, answer, following), tokenizer)
    alone = chat.text((question,), tokenizer)
    parts = re.split("|".join((_SYSTEM, _QUESTION, _ANSWER, _NEXT)), whole)
    if len(parts) != 5 or alone.count(_QUESTION) != 1:
        raise ModelError("the chat template does not write each turn once, in order: Ollama cannot follow it")
    before_system, after_system, before_answer, after_answer, opening = parts
    first = alone.partition(_QUESTION)[0]
    # Ollama adds a BOS token itself
    first, before_system = (text.removeprefix(begin_of(tokenizer)) for text in (first, before_system))
    return (
        f"{{{{ $next := {_literal(first)} }}}}{{{{ range .Messages }}}}"
        f'{{{{ if eq .Role "system" }}}}{{{{ {_literal(before_system)} }}}}{{{{ .Content }}}}'
        f"{{{{ $next = {_literal(after_system)} }}}}"
        f'{{{{ else if eq .Role "user" }}}}{{{{ $next }}}}{{{{ .Content }}}}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ {_literal(before_answer)} }}}}{{{{ .Content }}}}'
        f"{{{{ $next = {_literal(after_answer)} }}}}"
        f"{{{{ end }}}}{{{{ end }}}}{{{{ {_literal(opening + chat.prefill)} }}}}"
    )


def _block(text: str) -> str:
    """A text of a Modelfile, which may have several lines."""
    if '"""' in text or text.startswith('"') or text.endswith('"'):
        raise ModelError(f"a Modelfile cannot hold the text {text!r:.80}: it has quotes where they would end it")
    return f'"""{text}"""'


def _literal(text: str) -> str:
    """A text of a Go template; Go reads the escapes of JSON, but no pairs of surrogates."""
    return json.dumps(text, ensure_ascii=False)


def read_modelfile(text: str) -> dict[str, list[str]]:
    """The values of each instruction; those of PARAMETER and MESSAGE under two words, such as "PARAMETER stop"."""
    values: dict[str, list[str]] = {}
    for match in _INSTRUCTION.finditer(text):
        values.setdefault(match["name"], []).append(match["rest"] if match["block"] is None else match["block"])
    return values


def check_modelfile(text: str, questions: Questions, reference: Answers, stops: Sequence[str]) -> list[Check]:
    """Compare the prompts that Ollama would build from a Modelfile, and its stop texts, with the trained model's."""
    values = read_modelfile(text)
    earlier = [
        {"role": name.removeprefix("MESSAGE "), "content": content}
        for name, contents in values.items()
        for content in contents
        if name.startswith("MESSAGE ")
    ]
    opening = [{"role": "system", "content": content} for content in values.get("SYSTEM", [])]
    equal = count = 0
    for turns, expected in zip(questions.chats, reference.chats, strict=True):
        has_system = turns[0]["role"] == "system"
        if has_system and earlier:
            continue  # Ollama puts the examples before a system message of the user's
        count += 1
        whole = turns if has_system else [*opening, *earlier, *turns]
        equal += render_go(values["TEMPLATE"][0], whole) == expected.removeprefix(questions.begin)
    kept = sum(stop in values.get("PARAMETER stop", []) for stop in stops)
    return [
        Check("prompts by the Modelfile", f"{equal} of {count}", "all", equal == count),
        Check("stop texts of the Modelfile", f"{kept} of {len(stops)}", "all", kept == len(stops)),
    ]


def render_go(template: str, turns: Sequence[Mapping[str, str]]) -> str:
    """The text of a Go template that uses what `go_template` uses, in Jinja."""
    from jinja2 import Environment

    blocks: list[str] = []

    def translated(match: re.Match[str]) -> str:
        action = match[1]
        if name := re.fullmatch(r"\$(\w+) :?= (.*)", action, re.S):
            return f"{{% set kept.{name[1]} = {name[2]} %}}"
        if action == "range .Messages":
            blocks.append("for")
            return "{% for message in messages %}"
        if condition := re.fullmatch(r"(else )?if eq \.Role (.*)", action):
            if not condition[1]:
                blocks.append("if")
            return f"{{% {'elif' if condition[1] else 'if'} message.role == {condition[2]} %}}"
        if action == "end":
            return f"{{% end{blocks.pop()} %}}"
        return f"{{{{ {action.replace('$', 'kept.').replace('.Content', 'message.content')} }}}}"

    jinja = re.sub(r"\{\{ ((?:\"(?:[^\"\\]|\\.)*\"|[^\"}])*) \}\}", translated, template)
    environment = Environment(keep_trailing_newline=True)
    return environment.from_string("{% set kept = namespace() %}" + jinja).render(messages=turns)
