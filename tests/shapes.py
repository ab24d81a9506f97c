"""Tiny models in the shape of real families: a byte tokenizer with the family's marks, its chat template, its ends.

A puppet says a chosen text: its weights map each token to the next one, whatever came before.

    python tests/shapes.py FOLDER    # a folder with each of them, for benchmarks/templates.py
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

SAID = "<think>ad</think><answer>5</answer>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_EACH = "{% for m in messages %}"
_DONE = "{% endfor %}{% if add_generation_prompt %}"


def _template(turn: str, opening: str) -> str:
    """A chat template from the jinja text of one turn and that of the assistant's opening."""
    return f"{_EACH}{turn}{_DONE}{opening}{{% endif %}}"


def _by_role(user: str, assistant: str) -> str:
    return "{% if m.role == 'assistant' %}" + assistant + "{% else %}" + user + "{% endif %}"


CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
LAST = "{{ m.content.split('</think>')[-1] }}"  # templates of reasoning models drop earlier reasoning


@dataclass(frozen=True)
class Shape:
    """A family: its marks (all added tokens), template and ends, and the facts that r1kit must find.

    `named` are the tokenizer's special tokens by name; `listed` are the marks in generation_config.json. `options` are
    variables of the template. `ends` are the marks that end a completion, the one that SFT teaches first.
    """

    marks: tuple[str, ...]
    named: dict[str, str]
    template: str
    ends: tuple[str, ...]
    opened: str = ""
    texts: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    options: dict[str, Any] | None = None
    padding: int = 0  # embeddings beyond the tokenizer's ids

    def tokenizer(self) -> Any:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
        core.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in self.marks])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **self.named)
        tokenizer.chat_template = self.template or None
        return tokenizer

    def save(self, folder: Path, says: str = "") -> Path:
        """A model folder; with `says`, a puppet that writes this text behind the prompt, then goes on for ever.

        All characters of `says` must differ, and the marks that it goes on with are those of the next turn.
        """
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        tokenizer = self.tokenizer()
        size = len(tokenizer) + self.padding
        width = size + -size % 8 if says else 16
        config = LlamaConfig(
            vocab_size=size,
            hidden_size=width,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=False,
        )
        model = LlamaForCausalLM(config)
        if says:
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": "2+3?"}],
                tokenize=False,
                add_generation_prompt=True,
                **(self.options or {}),
            )
            ids = [tokenizer.encode(prompt, add_special_tokens=False)[-1], *tokenizer.encode(says)]
            assert len(set(ids)) == len(ids), "each token has one successor"
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.zero_()
                model.model.norm.weight.fill_(1.0)
                model.model.embed_tokens.weight.copy_(torch.eye(size, width))
                for before, after in pairwise(ids):
                    model.lm_head.weight[after, before] = 1.0
                model.lm_head.weight[len(tokenizer) :] = 2.0  # ids without a token would be the likeliest of all
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        listed = [tokenizer.convert_tokens_to_ids(mark) for mark in self.listed]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": listed} if listed else {}))
        if self.options:
            chat = {"template": "chat", "system": "", "options": self.options}
            (folder / "chat_format.json").write_text(json.dumps(chat))
        return folder


_SPLIT = (  # `answer` without the reasoning of a turn, and the reasoning, wherever the turn holds it
    "{% set answer = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = m.reasoning_content or m.content.split('</think>')[0].split('<think>')[-1].strip('\n') "
    "if m.reasoning_content or '</think>' in m.content else '' %}"
)
_ASKED = (  # the place of the last question
    "{% set q = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set q.last = loop.index %}"
    "{% endif %}{% endfor %}"
)
# as Qwen3: reasoning only behind the last question, and then always a block
_REASONS = _by_role(
    CHATML,
    _SPLIT + "<|im_start|>assistant\n{% if loop.index > q.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}"
    "{{ answer }}<|im_end|>\n",
)
_ALTERNATE = (
    "{% for m in messages if m.role != 'system' %}{% if (m.role == 'user') != (loop.index % 2 == 1) %}"
    "{{ raise_exception('questions and answers must alternate') }}{% endif %}{% endfor %}"
)
_SILENT = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
_QWEN: dict[str, Any] = {
    "marks": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "named": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "ends": ("<|im_end|>", "<|endoftext|>"),
    "listed": ("<|im_end|>", "<|endoftext|>"),
    "padding": 40,
}

SHAPES = {
    "qwen-2.5": Shape(  # a system message of its own if there is none
        template="{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
        + _template(CHATML, "<|im_start|>assistant\n"),
        **_QWEN,
    ),
    "qwen-3": Shape(
        template=_ASKED + _template(_REASONS, "<|im_start|>assistant\n" + _SILENT + "{% endif %}"), **_QWEN
    ),
    "qwen-3.5": Shape(
        template=_ASKED
        + "{% if not q.last %}{{ raise_exception('no question') }}{% endif %}"
        + _template(_REASONS, "<|im_start|>assistant\n" + _SILENT + "{% else %}<think>\n{% endif %}"),
        opened="<think>\n",
        **_QWEN,
    ),
    "qwen-3.8": Shape(  # keeps earlier reasoning, but knows it only from a field of its own
        template=_template(
            _by_role(
                CHATML,
                "<|im_start|>assistant\n<think>\n{{ m.reasoning_content }}\n</think>\n\n{{ m.content }}<|im_end|>\n",
            ),
            "<|im_start|>assistant\n<think>\n",
        ),
        opened="<think>\n",
        **_QWEN,
    ),
    "llama-3": Shape(  # a header with today's date, white space cut off
        ("<|begin_of_text|>", "<|end_of_text|>", "<|head|>", "<|tail|>", "<|eom_id|>", "<|eot_id|>"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        "{{ bos_token }}<|head|>system<|tail|>\n\nToday: {{ strftime_now('%d %b %Y') }}\n\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}<|eot_id|>"
        + _template(
            "{% if m.role != 'system' %}<|head|>{{ m.role }}<|tail|>\n\n{{ m.content | trim }}<|eot_id|>{% endif %}",
            "<|head|>assistant<|tail|>\n\n",
        ),
        ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
        listed=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "gemma-2": Shape(  # refuses system messages
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + _ALTERNATE
        + _template(
            "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n",
            "<start_of_turn>model\n",
        ),
        ("<end_of_turn>", "<eos>"),
        listed=("<eos>", "<end_of_turn>"),
    ),
    "mistral-3": Shape(  # no generation prompt; the system message in the last question, as long as it is the last turn
        ("<s>", "</s>", "[INST]", "[/INST]"),
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"},
        "{{ bos_token }}" + _ALTERNATE + "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST] "
        "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
        "{{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
        ("</s>",),
    ),
    "smollm-3": Shape(  # always a header; takes its switches out of the system message, also from inside a tag
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        "{% set own = messages[0].content if messages[0].role == 'system' else '' %}"
        "<|im_start|>system\nToday: {{ strftime_now('%d %B %Y') }}\n"
        "Mode: {{ '/no_think' if '/no_think' in own else '/think' }}\n\n"
        "{{ own.replace('/no_think', '').replace('/think', '') or 'Be of help.' }}<|im_end|>\n"
        + _template(
            "{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}<|im_end|>"
            "{% endgeneration %}\n{% elif m.role == 'user' %}" + CHATML + "{% endif %}",
            "<|im_start|>assistant\n",
        ),
        ("<|im_end|>",),
    ),
    "mistral": Shape(
        ("<s>", "</s>", "[INST]", "[/INST]"),
        {"bos_token": "<s>", "eos_token": "</s>"},
        "{{ bos_token }}" + _template(_by_role("[INST] {{ m.content }} [/INST]", " {{ m.content }}</s>"), ""),
        ("</s>",),
    ),
    "gemma-3": Shape(
        ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        {"bos_token": "<bos>", "eos_token": "<eos>"},
        "{{ bos_token }}"
        + _template(
            "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n",
            "<start_of_turn>model\n",
        ),
        ("<end_of_turn>", "<eos>"),
        listed=("<eos>", "<end_of_turn>"),
    ),
    "chatml-base": Shape(  # a base model: its tokenizer ends at the document's end, the template at the turn's
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        _template(CHATML, "<|im_start|>assistant\n"),
        ("<|im_end|>", "<|endoftext|>"),
        padding=60,
    ),
    "qwen-3-silent": Shape(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        _template(
            CHATML,
            "<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
            "<think>\n\n</think>\n\n{% endif %}",
        ),
        ("<|im_end|>", "<|endoftext|>"),
        opened="<think>\n\n</think>\n\n",
        listed=("<|im_end|>", "<|endoftext|>"),
        options={"enable_thinking": False},
        padding=40,
    ),
    "phi-4": Shape(
        ("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        {"eos_token": "<|endoftext|>"},
        _template("<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>", "<|im_start|>assistant<|im_sep|>"),
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "deepseek-r1": Shape(
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"},
        "{{ bos_token }}"
        + _template(
            _by_role(
                "{% if m.role == 'user' %}<｜User｜>{% endif %}{{ m.content }}",
                f"<｜Assistant｜>{LAST}<｜end▁of▁sentence｜>",
            ),
            "<｜Assistant｜><think>\n",
        ),
        ("<｜end▁of▁sentence｜>",),
        opened="<think>\n",
    ),
    "command-r": Shape(
        ("<BOS>", "<EOS>", "<|START|>", "<|END|>", "<|USER|>", "<|CHATBOT|>"),
        {"bos_token": "<BOS>", "eos_token": "<EOS>"},
        "{{ bos_token }}"
        + _template(
            "<|START|>" + _by_role("<|USER|>", "<|CHATBOT|>") + "{{ m.content }}<|END|>", "<|START|><|CHATBOT|>"
        ),
        ("<|END|>", "<EOS>"),
    ),
    "glm-4": Shape(  # nothing closes a turn: the next one begins
        ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        {"eos_token": "<|endoftext|>"},
        _template("<|{{ m.role }}|>\n{{ m.content }}", "<|assistant|>\n"),
        ("<|user|>", "<|endoftext|>", "<|observation|>"),
        listed=("<|endoftext|>", "<|user|>", "<|observation|>"),
    ),
    "vicuna": Shape(  # turns without any token of their own
        ("</s>",),
        {"eos_token": "</s>"},
        _template("{{ '\n' }}{{ m.role | capitalize }}: {{ m.content }}", "{{ '\n' }}Assistant: "),
        ("</s>",),
        texts=("\nUser:",),
    ),
}

if __name__ == "__main__":
    for name, shape in SHAPES.items():
        print(shape.save(Path(sys.argv[1]) / name))
