"""A tokenizer as llama.cpp reads it from a GGUF file: byte-level BPE, and vocabularies of single characters."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.export.questions import begin_of
from r1kit.models.known import ModelError

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# llama.cpp's names of rules that cut a text before the merges; its own name decides the rule, the file cannot hold one
SPLITS = {_LETTERS + r"\p{N}{1,3}" + _REST: "llama-bpe", _LETTERS + r"\p{N}" + _REST: "qwen2"}
REMEDY = "export the model as hub-folder, or use llama.cpp's own converter"
_ANY_CHARACTER = r"|[\s\S]"
_SPACE = "\u2581"  # llama.cpp writes a space so in vocabularies with scores


def add_tokenizer(writer: Any, tokenizer: Any, ends: Sequence[int], size: int) -> None:
    """Write the vocabulary of `size` ids, the rule that cuts texts, and the special tokens.

    Raises `ModelError` for a tokenizer that llama.cpp would read in another way.
    """
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = parts["model"]["type"]
    if kind == "BPE" and not parts["model"].get("byte_fallback"):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer_name(parts))
        _add_tokens(writer, tokenizer, size)
        merges = parts["model"]["merges"]
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    elif kind == "WordLevel":
        marks = _marks_among_characters(parts)
        writer.add_tokenizer_model("t5")
        writer.add_tokenizer_pre("default")
        _add_tokens(writer, tokenizer, size, marks)
        writer.add_token_scores([-1.0] * size)  # no character is preferred
        writer.add_add_space_prefix(False)
        writer.add_remove_extra_whitespaces(False)
        if parts["normalizer"]:
            writer.add_precompiled_charsmap(lower_case_map())
    else:
        raise ModelError(f"its tokenizer is {kind}, and GGUF files are written for byte-level BPE only: {REMEDY}")
    _add_special_ids(writer, tokenizer, ends)


def pre_tokenizer_name(parts: Mapping[str, Any]) -> str:
    """llama.cpp's name of the rule by which a byte-level BPE tokenizer cuts texts."""
    normalizer = parts["normalizer"]
    steps = (parts["pre_tokenizer"] or {}).get("pretokenizers") or [parts["pre_tokenizer"] or {}]
    kinds = [step.get("type") for step in steps]
    if normalizer is None or normalizer["type"] == "NFC":
        if kinds == ["ByteLevel"] and steps[0]["use_regex"]:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1]["use_regex"]:
            return "smollm"
        pattern = steps[0].get("pattern", {}).get("Regex", "")
        if kinds == ["Split", "ByteLevel"] and steps[0]["behavior"] == "Isolated" and pattern in SPLITS:
            return SPLITS[pattern]
    raise ModelError(
        "its tokenizer cuts texts by a rule that is not among those that r1kit can name to llama.cpp (gpt-2, smollm, "
        f"{', '.join(SPLITS.values())}): {REMEDY}"
    )


def _marks_among_characters(parts: Mapping[str, Any]) -> set[str]:
    """The longer tokens of a vocabulary of single characters, such as "<think>"."""
    cut, normalizer = parts["pre_tokenizer"] or {}, parts["normalizer"]
    pattern = cut.get("pattern", {}).get("Regex", "")
    special = {token["content"] for token in parts["added_tokens"]}
    longer = {token for token in parts["model"]["vocab"] if len(token) > 1} - special
    if (
        longer != set(pattern.removesuffix(_ANY_CHARACTER).split("|")) - {""}
        or not pattern.endswith(_ANY_CHARACTER)
        or (normalizer is not None and normalizer["type"] != "Lowercase")
    ):
        raise ModelError(f"its tokenizer has whole words, which llama.cpp does not know without merges: {REMEDY}")
    return longer


def _add_tokens(writer: Any, tokenizer: Any, size: int, marks: set[str] | None = None) -> None:
    from gguf import TokenType

    names, added = {index: token for token, index in tokenizer.get_vocab().items()}, tokenizer.added_tokens_decoder
    tokens, types = [], []
    for index in range(size):
        name, kind = names.get(index, f"[PAD{index}]"), TokenType.NORMAL
        if index not in names:
            kind = TokenType.UNUSED  # a hole in the vocabulary
        elif index == tokenizer.unk_token_id and marks is not None:
            kind = TokenType.UNKNOWN
        elif index in added:
            kind = TokenType.CONTROL if added[index].special else TokenType.USER_DEFINED
        elif marks is not None:
            kind = TokenType.USER_DEFINED if name in marks else kind
            name = name.replace(" ", _SPACE)
        tokens.append(name)
        types.append(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(types)


def _add_special_ids(writer: Any, tokenizer: Any, ends: Sequence[int]) -> None:
    """llama.cpp stops at up to three ids that a file names, and at tokens whose names it knows."""
    named = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, token in zip(named, ends, strict=False):
        add(token)
    optional = {writer.add_bos_token_id: tokenizer.bos_token_id, writer.add_pad_token_id: tokenizer.pad_token_id}
    optional[writer.add_unk_token_id] = tokenizer.unk_token_id
    for add, token in optional.items():
        if token is not None:
            add(token)
    writer.add_add_bos_token(begin_of(tokenizer) != "")
    writer.add_add_eos_token(False)


def lower_case_map() -> bytes:
    """The letters A to Z as a, to z in sentencepiece's format: a trie over bytes (a double array), then the texts.

    A node holds its byte, the bit 8 if a text ends there, and from bit 10 the offset to its children.
    """
    root, children, values = 0, 256, 512  # where the nodes of each level begin
    nodes = [0] * (values + 128)
    nodes[root] = children << 10
    texts = b""
    for letter in range(ord("A"), ord("Z") + 1):
        offset = (children + letter) ^ (values + letter)  # from the child, whose index is xored with it
        nodes[children + letter] = offset << 10 | 1 << 8 | letter
        nodes[values + letter] = len(texts)
        texts += bytes([letter]).lower() + b"\0"
    trie = struct.pack(f"<{len(nodes)}I", *nodes)
    return struct.pack("<I", len(trie)) + trie + texts
