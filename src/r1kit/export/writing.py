"""`export`: write a model in one of four forms under a temporary name, prove it, and give it its name."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from r1kit.chat import ChatFormat, saved
from r1kit.export import ollama, proof
from r1kit.export.card import model_card, warnings_of
from r1kit.export.folder_files import write_adapter, write_model
from r1kit.export.gguf_file import Quant, write_gguf
from r1kit.export.lineage import Lineage, lineage_of
from r1kit.export.proof import LIMITS, Check, ExportError, Limits
from r1kit.export.questions import questions_for
from r1kit.export.reference import reference_of, trained_policy
from r1kit.export.template import trained_template
from r1kit.models import adapters
from r1kit.models.known import KNOWN, ModelError, located, resolve
from r1kit.pipeline.guards import stop_on_signals
from r1kit.pipeline.manifest import require_as_written
from r1kit.pipeline.provenance import versions
from r1kit.settings import nearest
from r1kit.store import atomic_folder, files_in, read_json, read_object, sha256, write_json, write_text

if TYPE_CHECKING:
    from r1kit.models.load import Policy

Target = Literal["hub-folder", "gguf", "ollama", "adapter"]
RECORD = "export.json"
RUNNERS: dict[str, str] = {"hub-folder": "transformers", "gguf": "xllamacpp", "ollama": "xllamacpp", "adapter": "peft"}
PROMPTS, MAX_TOKENS = 16, 32


@dataclass(frozen=True)
class Exported:
    """A written export; `checks` are empty if no proof was wanted. `warnings` are about the licences of its data."""

    folder: Path
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The proof as a table for people, and the folder."""
        return "\n".join(filter(None, [proof.table(self.checks) if self.checks else "NOT PROVED", str(self.folder)]))


@dataclass(frozen=True)
class Draft:
    """A model on its way to an export. `title` is its name in texts for people; `folder` is an adapter's own."""

    model: str
    title: str
    folder: Path
    policy: Policy
    chat: ChatFormat
    to: Target
    quant: Quant

    def write(self, part: Path) -> str:
        """Write the files. Returns the precision of the weights, a key of `LIMITS`."""
        template = trained_template(self.chat, self.policy.tokenizer)
        if self.to == "hub-folder":
            whole = resolve(self.model)
            write_model(self.policy, whole, self.chat, template, part)
            is_merged = whole != self.folder
            return "bf16" if is_merged and read_object(whole / "config.json").get("dtype") != "float32" else "fp32"
        if self.to == "adapter":
            write_adapter(self.policy, self.folder, self.chat, template, part)
            return "fp32"
        write_gguf(self.policy, template, self.title, self.quant, part / ollama.GGUF)
        if self.to == "ollama":
            write_text(part / "Modelfile", ollama.modelfile(self.policy, self.chat))
        return self.quant

    def prove(self, part: Path, limits: Limits, prompts: int, say: Callable[[str], None]) -> list[Check]:
        """Run the written files and compare. Raises `ExportError` if a check fails."""
        policy, is_gguf = self.policy, self.to in ("gguf", "ollama")
        say(f"the trained model answers {prompts} prompts")
        questions = questions_for(self.chat, policy.tokenizer, policy.end_ids, prompts, MAX_TOKENS)
        reference = reference_of(policy, self.chat, questions)
        say(f"{RUNNERS[self.to]} answers them from the export, in a process of its own")
        program = Path(__file__).with_name("run_gguf.py" if is_gguf else "run_folder.py")
        answers = proof.run(program, part / ollama.GGUF if is_gguf else part, questions)
        checks = proof.compare(reference, answers, limits)
        if self.to == "ollama":
            stops = [*policy.tokenizer.convert_ids_to_tokens(list(policy.end_ids)), *policy.end_texts]
            modelfile = (part / "Modelfile").read_text(encoding="utf-8")
            checks += ollama.check_modelfile(modelfile, questions, reference.answers, stops)
        proof.require(checks)
        return checks

    def describe(self, part: Path, lineage: Lineage, precision: str, checks: Sequence[Check]) -> None:
        """Write the model card, for folders that go to the hub, and the record of the export."""
        if self.to in ("hub-folder", "adapter"):
            base = read_json(part / adapters.CONFIG)["base_model_name_or_path"] if self.to == "adapter" else ""
            card = model_card(self.title, lineage, self.chat, self.policy.tokenizer, checks, base)
            write_text(part / "README.md", card)
        record = {
            "model": self.title,
            "to": self.to,
            "precision": precision,
            "proof": [asdict(check) for check in checks] or "none: exported with --no-proof",
            "files": {str(file.relative_to(part)): sha256(file) for file in files_in(part)},
            "versions": versions(),
        }
        write_json(part / RECORD, record)


def export(
    model: str,
    to: Target,
    out: Path | None = None,
    *,
    quant: Quant = "f16",
    template: str | None = None,
    title: str = "",
    prompts: int = PROMPTS,
    prove: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write `model` for other programs into the folder `out`, run it there, and compare it with the trained model.

    `template` is that of `saved.choose`, `title` the model's name in its card, and `prompts` how many the proof
    answers. Raises `ExportError` if the export is not the trained model, and then leaves nothing; `ModelError` for a
    model that cannot be exported so, and for a runner that is not installed.
    """
    if to not in RUNNERS:
        raise ModelError(f"there is no target {to!r}: {nearest(to, RUNNERS)}")
    if prompts < 1:
        raise ModelError(f"prompts is {prompts}: give at least 1, or export with --no-proof")
    if prove and importlib.util.find_spec(RUNNERS[to]) is None:
        remedy = "or export with --no-proof, which the export says"
        raise ExportError(f"the proof needs {RUNNERS[to]}: pip install 'r1kit[export]', {remedy}")
    folder = located(model)
    require_as_written(folder)
    if to == "adapter" and not adapters.is_adapter(folder):
        raise ModelError(f"{model} is a whole model, not an adapter: export it as hub-folder")
    out = Path(f"{short_name(model, folder)}-{to}") if out is None else out
    if out.exists() and not (out / RECORD).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists and is not an export of r1kit: give a new folder with --out")
    policy = trained_policy(model)
    own = saved.own(folder, policy.tokenizer)
    chat, source = own if template is None else saved.choose(template, folder, policy.tokenizer)
    say(f"prompt format: {source}; {policy.turn(chat)}")
    draft = Draft(model, title or short_name(model, folder), folder, policy, chat, to, quant)
    lineage = lineage_of(model, folder)
    # removed if anything fails; SIGTERM is an error, so that the process of the proof ends with this one
    with stop_on_signals(signal.SIGTERM), atomic_folder(out) as part:
        say(f"writing {to}")
        precision = draft.write(part)
        checks = draft.prove(part, LIMITS[precision], prompts, say) if prove else []
        draft.describe(part, lineage, precision, checks)
    return Exported(out, tuple(checks), tuple(warnings_of(lineage.data)))


def short_name(name: str, folder: Path) -> str:
    """A model's name without paths: a stage's folder, or the last part of a folder or hub id."""
    if name in KNOWN:
        return name
    if not Path(name).expanduser().is_dir():
        return name.rpartition("/")[2]
    return folder.parent.name if folder.name in ("model", "adapter") else folder.name
