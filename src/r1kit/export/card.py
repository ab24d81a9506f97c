"""The model card: what a model is, where it comes from, how it was measured, and how to use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import r1kit
from r1kit.chat import ChatFormat
from r1kit.evaluate.table import text_table
from r1kit.export.lineage import DataSet, Lineage, settings_of_interest
from r1kit.export.proof import Check, table
from r1kit.models.known import KNOWN as KNOWN_MODELS
from r1kit.types import Problem

WARNING = "The licence of training data limits the release of these weights"


def warnings_of(data: Sequence[DataSet]) -> list[str]:
    """One line for each data set whose licence stands against a release, or is unknown."""
    return [
        f"{WARNING}: {item.name} ({item.licence})" if item.forbids_release else f"{item.name}: {item.licence}"
        for item in data
        if item.forbids_release or item.licence.startswith("not known")
    ]


def model_card(
    name: str, lineage: Lineage, chat: ChatFormat, tokenizer: Any, checks: Sequence[Check], adapter_base: str = ""
) -> str:
    """README.md of an exported folder. It names no path, user or secret: only what is listed here gets into it.

    `adapter_base` is the base of an adapter: its hub id, or "base" if it comes along in that folder.
    """
    base, data = lineage.base, lineage.data
    if base.count("/") == 1:
        base = f"[{base}](https://huggingface.co/{base})"
    rows = [f"| {item.name}{f' ({item.hub})' if item.hub else ''} | {item.licence} |" for item in data]
    parts = [
        front_matter(lineage),
        f"# {name}",
        f"A language model that was trained with r1kit {r1kit.__version__}, the "
        f"recipe of DeepSeek-R1. Base model: {base}.",
        "## Training",
        _stages(lineage),
        "## Evaluation",
        _tables(lineage),
        "## Data",
        "\n".join(["| data | licence |", "|---|---|", *rows]) if data else "There is no record of its training data.",
        *(f"**{line}**" for line in warnings_of(data)),
        "## Use",
        _use(name, chat, tokenizer, adapter_base),
        "## Limits",
        "The model answers as its data taught it and can be wrong with a confident chain of thought: check what "
        "matters. It was measured on the problems above only, not for safety or bias, unless a table says so.",
    ]
    if checks:
        parts += ["## Proof", "These files were run and compared with the trained model before they were published:"]
        parts += [_block(table(checks))]
    return "\n\n".join(filter(None, parts)) + "\n"


def front_matter(lineage: Lineage) -> str:
    """The metadata that the hub reads."""
    from huggingface_hub import ModelCardData

    known = KNOWN_MODELS.get(lineage.base)
    is_hub_id = lineage.base.count("/") == 1
    is_free = not warnings_of(lineage.data)
    data = ModelCardData(
        license=known.licence.lower() if known and is_free else "other",
        base_model=lineage.base if is_hub_id else None,
        datasets=sorted({item.hub for item in lineage.data if item.hub}) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["r1kit", "reasoning", *([] if not lineage.stages else sorted({stage.kind for stage in lineage.stages}))],
    )
    return f"---\n{data.to_yaml()}\n---"


def _stages(lineage: Lineage) -> str:
    if not lineage.stages:
        return "There is no record of its training: the model was not exported from the folder of a run."
    rows = ["| stage | kind | settings | hours |", "|---|---|---|---|"]
    for stage in lineage.stages:
        settings = ", ".join(f"{name} {value}" for name, value in settings_of_interest(stage).items())
        hours = stage.manifest.get("seconds")
        rows.append(f"| {stage.name} | {stage.kind} | {settings} | {'' if hours is None else f'{hours / 3600:.2f}'} |")
    return "\n".join(rows)


def _tables(lineage: Lineage) -> str:
    if not lineage.measured:
        return "There is no evaluation of this model in its run's folder."
    order = ["base", *(stage.name for stage in lineage.stages), "this model"]
    tables = []
    for problems, summaries in lineage.measured.items():
        columns = {title: summaries[title] for title in order if title in summaries}
        tables.append(f"On {problems}:\n\n{_block(text_table(columns))}")
    return "\n\n".join(tables)


def _use(name: str, chat: ChatFormat, tokenizer: Any, adapter_base: str) -> str:
    question = "What is 12 + 30?"
    load = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    load += [f'tokenizer = AutoTokenizer.from_pretrained("{name}")']
    if adapter_base:
        base = f'"{name}", subfolder="base"' if adapter_base == "base" else f'"{adapter_base}"'
        load.insert(0, "from peft import PeftModel")
        load += [f"base = AutoModelForCausalLM.from_pretrained({base})"]
        load += [f'model = PeftModel.from_pretrained(base, "{name}")']
    else:
        load += [f'model = AutoModelForCausalLM.from_pretrained("{name}")']
    load += [f'messages = [{{"role": "user", "content": "{question}"}}]']
    load += ["inputs = tokenizer.apply_chat_template("]  # return_dict is the default from transformers 5 on only
    load += ['    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True', ")"]
    load += ["print(tokenizer.decode(model.generate(**inputs, max_new_tokens=512)[0]))"]
    prompt = chat.text(chat.messages(Problem(id="", prompt=question, answer="")), tokenizer) + chat.prefill
    parts = ["```python", *load, "```", "", "```", f"r1kit chat {name}", f"r1kit serve {name}", "```", ""]
    parts += ["The chat template writes the prompts that the model was trained on, its system message included:", ""]
    return "\n".join([*parts, _block(prompt)])


def _block(text: str) -> str:
    fence = "````" if "```" in text else "```"
    return f"{fence}\n{text}\n{fence}"
