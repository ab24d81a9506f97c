"""`export` and `push`: a model for other programs, with proof."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from r1kit.cli.options import add_allow_code, add_command, add_format, add_json
from r1kit.cli.printing import print_json

MODEL_HELP = "a known model's name, a model folder, an adapter's folder, or a hub id"


def add_exporting(commands: Any) -> None:
    text = "convert a model for other programs, run it there, and compare its answers"
    files = add_command(commands, "export", export, text)
    files.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    text = "a folder for transformers and the hub, a GGUF file, GGUF with a Modelfile for Ollama, or a LoRA adapter"
    files.add_argument("--to", required=True, choices=("hub-folder", "gguf", "ollama", "adapter"), help=text)
    files.add_argument("--quant", choices=("f16", "q8_0"), default="f16", help="precision of a GGUF file (f16)")
    _add_proof(files)

    text = "export a model with a model card and upload it, private by default"
    upload = add_command(commands, "push", push, text)
    upload.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    upload.add_argument("repository", metavar="OWNER/NAME", help="the repository on the hub; created if needed")
    text = "what is uploaded (hub-folder)"
    upload.add_argument("--to", choices=("hub-folder", "adapter"), default="hub-folder", help=text)
    upload.add_argument("--public", action="store_true", help="make a new repository public")
    upload.add_argument("--dry-run", action="store_true", help="write the folder, but upload nothing")
    _add_proof(upload)


def _add_proof(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, metavar="FOLDER", help="the export's folder (default: MODEL-TARGET)")
    add_format(command)
    text = "how many prompts the check asks of both the model and its export (16)"
    command.add_argument("--prompts", type=int, default=16, metavar="N", help=text)
    add_allow_code(command)
    text = "skip the check; export.json records that"
    command.add_argument("--no-proof", dest="proof", action="store_false", help=text)
    add_json(command)


def export(options: argparse.Namespace) -> None:
    """Write a model for other programs. Prints the table of the proof and, as the last line, the folder."""
    from r1kit.export import export as export_model

    exported = export_model(
        options.model,
        options.to,
        options.out,
        quant=options.quant,
        template=options.format,
        prompts=options.prompts,
        prove=options.proof,
        say=lambda line: print(line, file=sys.stderr),
    )
    if options.json:
        print_json({"folder": str(exported.folder), "proof": exported.checks, "warnings": exported.warnings})
    else:
        print(exported.text)


def push(options: argparse.Namespace) -> None:
    """Upload a model with its card. Prints the proof, the folder, and the address unless it is a dry run."""
    from r1kit.export import push as push_model

    exported, address = push_model(
        options.model,
        options.repository,
        public=options.public,
        dry_run=options.dry_run,
        to=options.to,
        out=options.out,
        template=options.format,
        prompts=options.prompts,
        prove=options.proof,
        say=lambda line: print(line, file=sys.stderr),
    )
    if options.json:
        facts = {"folder": str(exported.folder), "address": address}
        print_json(facts | {"proof": exported.checks, "warnings": exported.warnings})
    else:
        print("\n".join(filter(None, [exported.text, address])))
