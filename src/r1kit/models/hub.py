"""Configurations, tokenizers and networks read from Hugging Face folders.

Left to itself, transformers asks on the terminal whether to run code in such a folder. Everything here passes
`NO_CODE`, or `code_options`, which allows the code of models that the user named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import PickleError
from typing import Any

from r1kit.models.folder_code import code_options
from r1kit.models.known import ModelError, first_line
from r1kit.store import StoreError, read_bounded, read_object

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
NO_CODE: dict[str, Any] = {"trust_remote_code": False}
# what transformers raises for folders that it cannot use, also for JSON of another shape
UNUSABLE = (
    ImportError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    PickleError,
)


@contextmanager
def reading(name: str, problem: str, remedy: str = "") -> Iterator[None]:
    """Turn the errors of transformers into a `ModelError` that says what the problem with `name` is."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except StoreError:  # it names the file and the remedy
        raise
    except (*UNUSABLE, SafetensorError, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{name} needs Python code that is in its folder, and r1kit does not run code from model folders: "
                "use a model whose architecture and tokenizer transformers has, or if you have read the code, allow it "
                "with --allow-code NAME"
            ) from None
        if isinstance(error, SafetensorError):
            raise ModelError(f"{name} has a damaged weights file ({first_line(error)}): fetch it again") from error
        if isinstance(error, PickleError):
            remedy = "its weights must be safetensors, or a pickle of tensors alone; nothing in it was run"
            raise ModelError(
                f"{name} has a pickle that could run code ({first_line(error)[:120]}): {remedy}"
            ) from error
        wrong_field = isinstance(error, StrictDataclassError)
        line = " ".join(str(error).split())[:200] if wrong_field else first_line(error)
        reason = "" if line.endswith(":") else f" ({line})"  # transformers lists what it tried on more lines
        raise ModelError(f"{name} {problem}{reason}{remedy}") from error


def config_of(folder: Path, name: str) -> Any:
    """The configuration of the language model in a folder."""
    from transformers import AutoConfig

    with reading(name, "has no usable configuration", ": correct or replace its config.json"):
        return AutoConfig.from_pretrained(folder, **code_options(folder)).get_text_config()


def tokenizer_of(folder: Path, name: str) -> Any:
    """The tokenizer in a folder, with its chat template.

    Raises `StoreError` for a damaged file, and `ModelError` if there is no tokenizer: for some families transformers
    then builds one that has special tokens only.
    """
    from transformers import AutoTokenizer

    for template in folder.glob("*.jinja"):
        try:
            is_empty = not read_bounded(template).strip()
        except UnicodeDecodeError as error:
            raise StoreError(f"{template} is not text ({error}): it was damaged or edited; restore it") from None
        if is_empty:  # transformers takes it for none, and prompts would be plain text
            raise StoreError(f"{template} is empty: it was damaged or edited; restore it, or delete it to have none")
    with reading(name, "has no usable tokenizer", ": save one beside the weights"):
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **code_options(folder))
        except UNUSABLE:
            for file in TOKENIZER:
                if (folder / file).is_file():
                    read_object(folder / file)  # names the file that is damaged
            raise
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("no tokenizer file is in the folder")
        return tokenizer


def tokens_hash(tokenizer: Any) -> str:
    """A hash of the tokens by id: equal for tokenizers that share token ids."""
    # by id: the order of `get_vocab` differs between runs
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]


def context_of(config: Any) -> int:
    """The longest sequence that a language model takes, in tokens; about a million if it sets no limit.

    LongRoPE (Phi-3, Phi-4-mini) turns all sequences of a forward pass in another way once one of them is longer than
    those of its pre-training. Then log-probs would depend on a sequence's neighbours, so that length is the limit.
    """
    longest = int(getattr(config, "max_position_embeddings", None) or 1 << 20)
    rope = getattr(config, "rope_parameters", None) or {}
    layers = [rope, *(each for each in rope.values() if isinstance(each, dict))]  # some have one for each kind of layer
    originals = [each["original_max_position_embeddings"] for each in layers if each.get("rope_type") == "longrope"]
    return min(longest, *originals) if originals else longest


def listed_ends(folder: Path) -> list[int]:
    """The end ids that a folder's `generation_config.json` lists, or `config.json` if there is no such file.

    A single id that comes from `config.json` may be a default of its class, which says nothing about the tokenizer.
    """
    file = folder / "generation_config.json"
    config = read_object(file if file.is_file() else folder / "config.json")
    ends = config.get("eos_token_id")
    if isinstance(ends, int) and file.is_file() and not config.get("_from_model_config"):
        return [ends]
    return [token for token in ends if isinstance(token, int)] if isinstance(ends, list) else []
