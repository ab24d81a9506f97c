"""Tokens with their log-probs, as OpenAI's two APIs show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from r1kit.engines.local.scheduler import Top
from r1kit.serve.text import BROKEN

LOWEST = -9999.0  # JSON has no minus infinity


@dataclass(frozen=True)
class TokenTexts:
    """The text of each token. With `as_ids` it is "token_id:7": some tokens are a part of a character only."""

    tokenizer: Any
    as_ids: bool = False
    known: dict[int, str] = field(default_factory=dict)

    def text(self, token: int) -> str:
        if token not in self.known:
            plain = str(self.tokenizer.decode([token], skip_special_tokens=False))
            self.known[token] = f"token_id:{token}" if self.as_ids else plain
        return self.known[token]

    def bytes(self, token: int) -> list[int]:
        """The bytes that the token stands for, also if they are no whole character."""
        text = self.text(token)
        if BROKEN not in text:
            return list(text.encode())
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        piece = str(self.tokenizer.convert_ids_to_tokens(token))
        if piece.startswith("<0x"):  # the byte tokens of sentencepiece
            return [int(piece[1:-1], 16)]
        values = {letter: value for value, letter in bytes_to_unicode().items()}
        known = all(letter in values for letter in piece)
        return [values[letter] for letter in piece] if known else list(text.encode())


def chat_logprobs(
    texts: TokenTexts, token_ids: Sequence[int], logprobs: Sequence[float], tops: Sequence[Top]
) -> dict[str, Any]:
    """Of sampled tokens [n]; `tops` is empty if none were kept."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        return {"token": texts.text(token), "logprob": max(logprob, LOWEST), "bytes": texts.bytes(token)}

    content = []
    for token, logprob, top in zip(token_ids, logprobs, tops or [[]] * len(token_ids), strict=True):
        # the same number in both places: two ways to compute it differ in the last bit
        likeliest = [entry(other, logprob if other == token else value) for other, value in top]
        content.append(entry(token, logprob) | {"top_logprobs": likeliest})
    return {"content": content, "refusal": None}


def completion_logprobs(
    texts: TokenTexts, token_ids: Sequence[int], logprobs: Sequence[float | None], tops: Sequence[Top], start: int
) -> dict[str, Any]:
    """`start` is the place of the first token in the text. A log-prob of None is that of a prompt's first token."""
    tokens = [texts.text(token) for token in token_ids]
    offsets = [*accumulate(map(len, tokens), initial=start)]
    likeliest: list[dict[str, float] | None] = []
    for token, logprob, top in zip(token_ids, logprobs, tops or [[]] * len(token_ids), strict=True):
        if logprob is None:
            likeliest.append(None)
            continue
        by_text: dict[str, float] = {}
        pairs = [(other, logprob if other == token else value) for other, value in top]
        for other, value in (*pairs, (token, logprob)):
            by_text.setdefault(texts.text(other), max(value, LOWEST))  # of two tokens with one text, the likelier
        likeliest.append(by_text)
    return {
        "tokens": tokens,
        "token_logprobs": [None if value is None else max(value, LOWEST) for value in logprobs],
        "top_logprobs": likeliest,
        "text_offset": offsets[:-1],
    }
