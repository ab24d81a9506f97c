"""Facts that a model's configuration and tokenizer give before its weights are here: size, context, prompt format."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from r1kit.chat import ChatFormat, saved
from r1kit.models.adapters import OUTLINE
from r1kit.models.hub import config_of, context_of, tokenizer_of, tokens_hash
from r1kit.models.known import KNOWN, ModelError, cache, find, first_line, resolve
from r1kit.models.size import shapes_of_config, size_of_shapes
from r1kit.pipeline import ModelSize
from r1kit.store import atomic_folder


class NotFetched(ModelError):
    """A model that is not on this machine, and that the hub does not give now."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The size, the longest sequence, a hash of the tokens by id, and the format of prompts: the one saved with the
    model, its chat template, or plain text. `keeps_reasoning`: its prompts hold the reasoning of earlier answers."""

    size: ModelSize
    context: int
    tokens: str
    chat: ChatFormat
    keeps_reasoning: bool


def outline_folder(name: str) -> Path:
    """A folder with a model's configuration and tokenizer; of a model on the hub, only these are fetched.

    Raises `NotFetched` if they are not on this machine and cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if (folder := find(name)) is not None:
        return folder
    if name in KNOWN:
        return resolve(name)
    folder = cache() / "outlines" / name.replace("/", "--")
    if (folder / "config.json").is_file():
        return folder
    try:
        with atomic_folder(folder) as part:  # a kill must not leave a configuration without its tokenizer
            snapshot_download(name, local_dir=part, allow_patterns=list(OUTLINE), ignore_patterns="*.index.json")
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = f"the configuration of {name} could not be fetched from the hub ({first_line(error)})"
        raise NotFetched(f"{reason}: sizes are chosen by it, so give a folder that holds it, or connect") from error


def facts_of(name: str) -> ModelFacts:
    """The facts of a model by known name, folder or hub id. The same before and after its weights are fetched."""
    folder = outline_folder(name)
    return _facts(folder, name, (folder / "config.json").stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _facts(folder: Path, name: str, changed: int) -> ModelFacts:
    config, tokenizer = config_of(folder, name), tokenizer_of(folder, name)
    chat = saved.choose(None, folder, tokenizer)[0]
    return ModelFacts(
        size=size_of_shapes(shapes_of_config(folder), config.to_dict()),
        context=context_of(config),
        tokens=tokens_hash(tokenizer),
        chat=chat,
        keeps_reasoning=chat.keeps_reasoning(tokenizer),
    )
