"""What prompts open and what ends a completion, and whether all kinds of work agree on it: a table of model folders.

    python benchmarks/templates.py --out docs/templates.md MODEL_FOLDER ...

Each model goes one full round: a row of SFT, one update of SFT, one step of RL on the result, `eval` and `generate`
with greedy sampling, and the same reply as a server would send it, with and without the opened tag. `agrees` is "yes"
or the names of the parts that do not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1kit.chat import ChatFormat, parse, saved, whole_response
from r1kit.commands.eval_command import GREEDY, evaluate
from r1kit.commands.generate_command import generate
from r1kit.commands.turns_command import DIRECT, QUESTION, REASONED, example, model_turns
from r1kit.data.jsonl import read_rows
from r1kit.engines.openai.responses import read_reply
from r1kit.models.known import ModelError, resolve
from r1kit.models.load import outline
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.stages.rl import RL, RLSettings
from r1kit.stages.sft import SFT, SFTSettings
from r1kit.types import Message, Prompt

HEAD = """# Chat templates

This page shows, for known model families, how a prompt begins the model's reply and which tokens end a completion.
r1kit reads both from the model's folder: from the chat template, the tokenizer and `generation_config.json`.
`r1kit models MODEL` prints the same for your own model. `chat.options` sets variables of its template, such as
`--set 'rl.chat.options.enable_thinking=false'`. For `eval`, `generate` and `chat`, `--format FILE` names a file with a
format, such as `{"template": "chat", "options": {"enable_thinking": false}}`.

- **Templates that take no system message** (Gemma 2's refuses it, others drop it, SmolLM3's cuts `/think` out of
  `</think>`): the system message is put at the beginning of the first question, as in Gemma 3's template. The line that
  r1kit prints about turns says so.
- **Templates that drop earlier reasoning** (Qwen3, R1's distilled models): each answer of a conversation becomes a
  training row of its own, after the prompt that the model would see at that point. Exemplars would lose their
  reasoning, so they are refused.
- **Templates that read `reasoning_content`** (Qwen3.8) get the reasoning of earlier answers in that field.
- **Tokenizers that add tokens automatically**: prompts and rows contain the template's BOS once, and no EOS except the
  one that is taught. If the tokenizer also begins each text with a space (SentencePiece), rows are tokenised together
  with their prompts, so that no space is added.

The models below are tiny, with random weights, and imitate known families (`tests/shapes.py`, and others that are not
in this repository). Each goes through the token ids of an SFT row, an SFT update, an RL step, `eval`, `generate`, and a
reply as a server sends it. The last column says whether all of these agree. The page is written by
`python benchmarks/templates.py --out docs/templates.md MODEL_FOLDER ...`.

"""
FACTS = ("system message", "earlier reasoning", "ids without a token")
COLUMNS = ("model", "opens", "ends at", "SFT teaches", *FACTS, "a row of SFT, **trained**", "agrees")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="model folders")
    parser.add_argument("--out", type=Path, help="also write the table here, as Markdown")
    options = parser.parse_args()
    rows = [table_row(model) for model in options.models]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(row[name] for name in COLUMNS) + " |" for row in rows]
    print("\n".join(lines))
    if options.out is not None:
        options.out.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


def table_row(model: str) -> dict[str, str]:
    """The cells of one model; a model that cannot be used has the reason in the last one."""
    name = Path(model).name
    try:
        [turns] = model_turns([model])
        with tempfile.TemporaryDirectory() as folder:
            faults = round_of(model, Path(folder))
    except (ModelError, ValueError) as error:
        reason = _cell(str(error).replace(model, name))
        return dict.fromkeys(COLUMNS, "") | {"model": name, "agrees": f"refused: {reason}"}
    tokenizer = outline(model).tokenizer
    row = f"{_code(tokenizer.decode(turns['prompt_ids'])[-24:])} **{_code(tokenizer.decode(turns['reply_ids']))}**"
    cells = {key: _code(turns[key]) for key in ("ends at", "SFT teaches")}
    cells["opens"] = turns["opens"] if turns["opens"] == "nothing" else _code(turns["opens"])
    facts = {fact: str(turns[fact]) for fact in FACTS}
    return {"model": name, **cells, **facts, COLUMNS[-2]: row, "agrees": ", ".join(faults) or "yes"}


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("\n", "⏎").replace("|", "\\|")


def round_of(model: str, work: Path) -> list[str]:
    """The names of the parts of a full round that disagree; none if all is well."""
    policy = outline(model)
    chat, _ = saved.choose(None, resolve(model), policy.tokenizer)
    answer = DIRECT if "</think>" in chat.opened(policy.tokenizer) else REASONED
    write(work / "rows.jsonl", [{"prompt": QUESTION, "completion": answer}] * 2)
    write(work / "problems.jsonl", [{"question": QUESTION, "answer": "3"}])
    trained = train(model, chat, work)
    faults = []
    if not sft_agrees(trained["sft"], chat, policy):
        faults.append("SFT")
    if not rl_agrees(trained["rl"], chat, policy):
        faults.append("RL")
    own = str(trained["rl"] / "model")
    problems, greedy = work / "problems.jsonl", replace(GREEDY, max_tokens=16)
    evaluate(own, task=problems, sampling=greedy, out=work / "eval")
    [measured] = read_rows(work / "eval" / "completions.jsonl")
    [generated] = generate(own, task=problems, sampling=greedy)
    if measured["well_formed"] != parse(measured["completion"]).well_formed:
        faults.append("eval")
    if generated["completion"] != measured["completion"]:
        faults.append("generate")
    if not served_agrees():
        faults.append("remote reply")
    return faults


def write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(model: str, chat: ChatFormat, work: Path) -> dict[str, Path]:
    """One update of SFT, then one step of RL; the folders of the two stages."""
    settings = SFTSettings.parse({"chat": chat, "epochs": 1, "batch_size": 2, "max_tokens": None})
    inputs = {"model": External(Path(model)), "data": External(work / "rows.jsonl")}
    sft = Stage("sft", SFT, settings, inputs)
    rl_settings = RLSettings.parse(
        {
            "tasks": [str(work / "problems.jsonl")],
            "rewards": "format",
            "chat": chat,
            "steps": 1,
            "prompts_per_step": 1,
            "group_size": 4,
            "max_tokens": 16,
            "rollouts_every": 1,
        }
    )
    rl = Stage("rl", RL, rl_settings, {"model": sft / "model"})
    folder = execute(Recipe("round", (sft, rl)), work / "runs")
    return {"rl": folder, "sft": next(folder.parent.glob("sft-*"))}


def sft_agrees(folder: Path, chat: ChatFormat, policy: Any) -> bool:
    """Whether SFT trained what the policy would sample behind its prompt, up to the taught end."""
    sample = example(chat, policy)
    [shown, _] = json.loads((folder / "mask.json").read_text())
    text = "".join(piece for piece, is_trained in shown["pieces"] if is_trained)
    ids = [token for token, is_trained in zip(sample.token_ids, sample.loss_mask, strict=True) if is_trained]
    return text == policy.tokenizer.decode(ids) and ids[-1] == policy.end_ids[0]


def rl_agrees(folder: Path, chat: ChatFormat, policy: Any) -> bool:
    """Whether rollouts hold whole responses, and the learner gives sampled tokens the sampler's log-probs."""
    [metrics] = [row for row in read_rows(folder / "metrics.jsonl") if row["step"] == 1]
    rollouts = list(read_rows(next((folder / "rollouts").iterdir())))
    opened = chat.opened(policy.tokenizer)
    whole = all(row["completion"].startswith(opened) for row in rollouts)
    formats = all(row["parts"]["format"] == parse(row["completion"]).well_formed for row in rollouts)
    return whole and formats and metrics["sampler/logprob_gap_mean"] < 1e-4


def served_agrees() -> bool:
    """Whether a reply is the same response with the opened tag, without it, and with the reasoning in its own field."""
    behind = REASONED.removeprefix("<think>")
    messages = [{"content": REASONED}, {"content": behind}, {"content": "3", "reasoning_content": "1+2=3"}]
    asked = Prompt(problem_id="p", messages=(Message(role="user", content=QUESTION),), token_ids=())
    bodies = [json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}) for message in messages]
    return {whole_response(asked, read_reply(body).completion()) for body in bodies} == {REASONED}


if __name__ == "__main__":
    main()
