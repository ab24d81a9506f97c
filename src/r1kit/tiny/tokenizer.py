"""The tiny world's tokenizer: one id per character and one per tag, as a standard fast tokenizer.

The tags are ordinary tokens, not special ones: they appear in decoded text, because verifiers and format rewards look
for them there. Text is lowercased, which halves the number of letters to learn.
"""

from __future__ import annotations

import re
from typing import Any

from r1kit.chat import TAGS
from r1kit.tiny.frame import END, PAD, UNKNOWN

LATIN = "\n !()+,-.0123456789:<=>?\\abcdefghijklmnopqrstuvwxyz{}"
CHINESE = (
    "。，：？！"
    "一不丢个中么书买于人什以会你做偷先共再几别华卖号后和在多大好害对小少帮"
    "得怎我所打找换数明是最有杯查案求然现球的笔等答算红给花说谢问题骗"
)
_TOKEN = re.compile("|".join(map(re.escape, (PAD, END, UNKNOWN, *TAGS))) + r"|[\s\S]")


def vocabulary() -> tuple[str, ...]:
    """All tokens by id: the three special tokens, the tags, then characters."""
    return (PAD, END, UNKNOWN, *TAGS, *LATIN, *CHINESE)


def make() -> Any:
    """The tokenizer as transformers' `PreTrainedTokenizerFast`, without a chat template, as for a base model."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    ids = {token: index for index, token in enumerate(vocabulary())}
    core = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{'|'.join(TAGS)}|[\\s\\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=core, eos_token=END, pad_token=PAD, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )


def count_tokens(text: str) -> int:
    """The number of tokens in a text, without loading the tokenizer."""
    return sum(1 for _ in _TOKEN.finditer(text))
