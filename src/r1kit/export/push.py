"""`push`: a model on the Hugging Face hub, as a proven folder with a model card."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1kit.export.proof import ExportError
from r1kit.export.writing import Exported, Target, export
from r1kit.models.known import first_line

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
TEXTS = ("*.json", "*.md", "*.jinja")
SKIPPED = "tokenizer.json"  # a vocabulary holds words of all kinds


def push(
    model: str,
    repository: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    to: Target = "hub-folder",
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> tuple[Exported, str]:
    """Export a model (see `export` for `options`) and upload the folder, or with `dry_run` only write it.

    Returns the export and the address. A call that was interrupted is repeated: files that are there already are not
    sent again. Raises `ExportError` for a folder that names paths of this machine, and if the hub refuses.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ExportError(f"{repository!r} is not a repository's name: give OWNER/NAME, such as ann/r1-small")
    if to not in ("hub-folder", "adapter"):
        raise ExportError(f"{to} is not pushed with a model card: push hub-folder or adapter")
    out = Path(f"{repository.rpartition('/')[2]}-{to}") if out is None else out
    exported = export(model, to, out, title=repository, say=say, **options)
    refuse_private(exported.folder)
    for line in exported.warnings:
        say(f"warning: {line}")
    if dry_run:
        return exported, ""
    return exported, _upload(exported.folder, repository, public, say)


def refuse_private(folder: Path) -> None:
    """Raise `ExportError` if a text in a folder names the home or the working folder of this machine."""
    private = {str(path) for path in (Path.home(), Path.cwd()) if len(path.parts) > 1}
    for file in (file for pattern in TEXTS for file in folder.rglob(pattern) if file.name != SKIPPED):
        text = file.read_text(encoding="utf-8")
        if named := [path for path in private if path + "/" in text]:
            raise ExportError(
                f"{file} names {named[0]}, a folder of this machine: remove it from the model's own files"
            )


def _upload(folder: Path, repository: str, public: bool, say: Callable[[str], None]) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi(library_name="r1kit")
    try:
        url = str(api.create_repo(repository, private=not public, exist_ok=True))
        say(f"uploading to {url}")
        # resumes by itself: what an interrupted call has uploaded is not sent again
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload with r1kit")
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise ExportError(
            f"the hub did not take {repository} ({_reason(error)}); the folder {folder} is kept"
        ) from error
    return url


def _reason(error: Exception) -> str:
    """What to do about an error of the hub, in one line."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 or type(error).__name__ == "LocalTokenNotFoundError":
        return "it knows no valid token: run `hf auth login` with a token that may write, or set HF_TOKEN"
    if status == 403:
        return "the token may not write there: use one with write access, and a repository of your own"
    return first_line(error)
