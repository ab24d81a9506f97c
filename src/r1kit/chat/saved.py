"""The prompt format beside a model's weights: stages write it, and commands prompt the model as it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.settings import SettingsError
from r1kit.store import read_object, write_json

FILE = "chat_format.json"


def save(chat: ChatFormat, folder: Path) -> None:
    """Write a format into a model's folder; transformers ignores the file."""
    write_json(folder / FILE, chat)


def read(path: Path) -> ChatFormat:
    """Read a format from its file or the model's folder. Raises `SettingsError` that names the file."""
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise SettingsError(f"there is no prompt format {path}: expected plain, chat, or the path of a {FILE}")
    if not (content := read_object(path)):
        raise SettingsError(f"{path} holds no format: it was damaged or edited; restore it, or delete it")
    try:
        return ChatFormat.parse(content)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def own(folder: Path, tokenizer: Any) -> tuple[ChatFormat, str]:
    """The format for training on conversations, and its source: as `choose`, without a system prompt of ours.

    Conversations bring their own, and a chat template is used as it is.
    """
    chat, source = choose(None, folder, tokenizer)
    if chat.template == "plain" or (folder / FILE).is_file():
        return chat, source
    return chat.replace(system=""), "the chat template"


def choose(name: str | None, folder: Path, tokenizer: Any) -> tuple[ChatFormat, str]:
    """The format for the model in `folder`, and its source as text for people.

    `name` is "plain", "chat" or a path for `read`. None picks the format beside the weights; without one, the
    tokenizer's chat template; without one, plain text. Raises ValueError for "chat" without a template.
    """
    template = name or ("chat" if tokenizer.chat_template else "plain")
    if name is None and (folder / FILE).is_file():
        chat, source = read(folder), f"{FILE} of the model"
    elif template not in ("plain", "chat"):
        chat, source = read(Path(template).expanduser()), template
    else:
        chat = ChatFormat.parse({"template": template})
        source = "the R1-Zero prompt " + ("through the chat template" if template == "chat" else "as plain text")
    if chat.template == "chat" and not tokenizer.chat_template:
        raise ValueError(f"the tokenizer in {folder} has no chat template: use the format plain")
    return chat, source
