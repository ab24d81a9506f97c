"""`r1kit eval`, lm-eval and inspect-ai measure a model on the same problems, the last two through `r1kit serve`.

Each tool gets the model's greedy answers in its own way: lm-eval by chat completions, by text completions of the
rendered prompt, and by log-likelihoods of two choices; inspect-ai by chat completions. All answers are compared with
those of `r1kit eval` on the model's folder, and the log-likelihoods with a pass of transformers. Needs lm-eval[api] and
inspect-ai.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from _results import keep
from _servers import free_port, r1kit_command, running

from r1kit.chat import saved
from r1kit.commands.eval_command import evaluate
from r1kit.data.jsonl import read_rows
from r1kit.evaluate.table import align
from r1kit.models.known import resolve
from r1kit.models.load import load
from r1kit.serve.text import ReasoningSplit
from r1kit.tasks import load_task
from r1kit.tasks.task_spec import TaskSpec
from r1kit.types import Problem, SamplingParams
from r1kit.verifiers import verify_all

TASKS = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
doc_to_text: "{{{{{prompt}}}}}"
doc_to_target: {target}
output_type: {kind}
{more}
"""
GENERATE = """generation_kwargs:
  until: []
  temperature: 0
  max_gen_toks: {max_tokens}
metric_list:
  - metric: bypass
    aggregation: bypass
    higher_is_better: true
"""
CHOOSE = """doc_to_choice: choices
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def content(text: str) -> str:
    """The part of a whole response that a server returns as `content`."""
    return dict(ReasoningSplit().add(text, last=True)).get("content", "")


def completion(text: str) -> str:
    """What inspect-ai makes of `content`: it takes the first <think> block out, wherever that stands in the answer."""
    return re.sub(r"<think[^>]*>.*?</think>", "", text, count=1, flags=re.DOTALL).strip()


def right(problem: Problem, text: str) -> bool:
    return verify_all(problem.verifier, [text], [problem.answer])[0].outcome == "right"


def rows_of(problems: list[Problem], model: str, policy: Any) -> list[dict[str, Any]]:
    """What lm-eval reads: the question, the prompt as the model sees it, and two choices for an answer."""
    chat, _ = saved.choose(None, resolve(model), policy.tokenizer)
    rows = []
    for problem in problems:
        rendered = policy.tokenizer.decode(chat.render(problem, policy.tokenizer).token_ids, skip_special_tokens=False)
        choices = [f"{problem.answer}", f"{problem.answer}0"]
        rows.append({"question": problem.prompt, "rendered": rendered, "choices": choices, "answer": problem.answer})
    return rows


def with_lm_eval(folder: Path, url: str, model: str, max_tokens: int) -> dict[str, list[Any]]:
    """The responses of each task, in the order of the rows."""
    import lm_eval
    from lm_eval.models.api_models import LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER as NO_CONTENT
    from lm_eval.tasks import TaskManager

    more = GENERATE.format(max_tokens=max_tokens)
    file = folder / "rows.jsonl"
    tasks = {
        "chat": TASKS.format(
            name="chat", file=file, prompt="question", target="answer", kind="generate_until", more=more
        ),
        "text": TASKS.format(
            name="text", file=file, prompt="rendered", target="answer", kind="generate_until", more=more
        ),
        "choice": TASKS.format(
            name="choice", file=file, prompt="rendered", target=0, kind="multiple_choice", more=CHOOSE
        ),
    }
    for name, text in tasks.items():
        (folder / f"{name}.yaml").write_text(text)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    responses: dict[str, list[Any]] = {}
    for name in tasks:
        kind, path = (
            ("local-chat-completions", "chat/completions") if name == "chat" else ("local-completions", "completions")
        )
        arguments = {
            "model": model,
            "base_url": f"{url}/{path}",
            "num_concurrent": 8,
            "max_length": 8192,
            "max_retries": 1,
        }
        arguments |= {} if name == "chat" else {"tokenizer": str(resolve(model)), "tokenizer_backend": "huggingface"}
        results = lm_eval.simple_evaluate(
            model=kind,
            model_args=arguments,
            tasks=[name],
            task_manager=manager,
            apply_chat_template=name == "chat",
            log_samples=True,
            bootstrap_iters=0,
        )
        samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
        responses[name] = [sample["resps"] for sample in samples]
    for response in responses["chat"]:  # an answer without content: the model never closed its reasoning
        response[0][0] = "" if response[0][0] == NO_CONTENT else response[0][0]
    return responses


def with_inspect(rows: list[dict[str, Any]], url: str, model: str, max_tokens: int, folder: Path) -> list[str]:
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import get_model
    from inspect_ai.solver import generate

    samples = [Sample(id=n + 1, input=row["question"], target=row["answer"]) for n, row in enumerate(rows)]
    served = get_model(f"openai-api/r1kit/{model}", base_url=url, api_key="none")
    task = Task(dataset=MemoryDataset(samples), solver=generate())
    logs = eval(task, model=served, temperature=0.0, max_tokens=max_tokens, log_dir=str(folder), display="none")
    done = sorted(logs[0].samples or [], key=lambda sample: int(sample.id))
    return [sample.output.completion for sample in done]


def likelihood_gap(policy: Any, rows: list[dict[str, Any]], responses: list[Any], model: str) -> float:
    """The largest difference of a choice's log-likelihood from that of transformers' own pass in fp32."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=torch.float32).eval()
    gap = 0.0
    for row, own in zip(rows, responses, strict=True):
        for choice, response in zip(row["choices"], own, strict=True):
            prompt = policy.tokenizer.encode(row["rendered"], add_special_tokens=False)
            ids = policy.tokenizer.encode(row["rendered"] + choice, add_special_tokens=False)
            with torch.inference_mode():
                logprobs = plain(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            targets = torch.tensor(ids[1:])[:, None]
            total = float(logprobs.gather(1, targets)[len(prompt) - 1 :].sum())
            gap = max(gap, abs(total - float(response[0][0])))
    return gap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="may be repeated (tiny and smollm2-135m)")
    parser.add_argument("--task", default="tiny/reasoning", help="a task's name or a file of problems")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.pop("OPENAI_API_KEY", None)
    torch.set_num_threads(options.threads)
    spec = TaskSpec.parse({"name": options.task, "limit": options.limit})
    problems = list(load_task(spec, "test"))[: options.limit]
    table, agrees = [["model", "tool", "accuracy", "answers equal", "largest gap"]], True
    for model in options.model or ["tiny", "smollm2-135m"]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            sampling = SamplingParams(temperature=0.0, max_tokens=options.max_tokens)
            # in fp32: the batches of the tools differ, and in bf16 that moves more answers
            fp32 = {"compute_dtype": "fp32", "device": "cpu"}
            local = {"task": options.task, "limit": options.limit, "sampling": sampling}
            evaluate(model, **local, engine=fp32, out=folder / "eval")
            ours = [row["completion"] for row in read_rows(folder / "eval" / "completions.jsonl")]
            policy = load(model, device="cpu", compute_dtype="fp32")
            rows = rows_of(problems, model, policy)
            (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            port = free_port()
            command = r1kit_command(model, port, "--engine", json.dumps(fp32))
            with running(command, port, model, options.threads) as server:
                served = {"kind": "openai", "base_url": server.url, "cache": str(folder / "replies.sqlite")}
                evaluate(model, **local, engine=served, out=folder / "served")
                again = [row["completion"] for row in read_rows(folder / "served" / "completions.jsonl")]
                responses = with_lm_eval(folder, server.url, model, options.max_tokens)
                inspected = with_inspect(rows, server.url, model, options.max_tokens, folder / "logs")
            answers = [content(text) for text in ours]
            sides = {
                "r1kit eval, folder": (ours, ours),
                "r1kit eval, served": (again, ours),
                "lm-eval, local-chat-completions": ([each[0][0] for each in responses["chat"]], answers),
                "lm-eval, local-completions": ([each[0][0] for each in responses["text"]], ours),
                "inspect-ai": ([text.strip() for text in inspected], [completion(answer) for answer in answers]),
            }
            for name, (texts, expected) in sides.items():
                score = sum(right(problem, text) for problem, text in zip(problems, texts, strict=True))
                equal = sum(a == b for a, b in zip(texts, expected, strict=True))
                agrees &= equal == len(expected)
                for text, other in ((a, b) for a, b in zip(texts, expected, strict=True) if a != b):
                    print(f"{model}, {name}: {text!r} is not {other!r}", file=sys.stderr)
                table.append([model, name, f"{score}/{len(problems)}", f"{equal}/{len(expected)}", ""])
            gap = likelihood_gap(policy, rows, responses["choice"], model)
            agrees &= gap < 1e-2
            table.append([model, "lm-eval, log-likelihoods", "", "", f"{gap:.1e}"])
    print(align(table))
    keep("serving", "agreement", [dict(zip(table[0], row, strict=True)) for row in table[1:]])
    raise SystemExit(not agrees)


if __name__ == "__main__":
    main()
