"""A program of its own: plain transformers loads an exported folder and answers the questions of a proof.

`python run_folder.py FOLDER QUESTIONS.json ANSWERS.json THREADS`. Nothing of r1kit is imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FORCED = 1e6  # added to a logit: the token is generated


def load(folder: Path) -> tuple[Any, Any]:
    """The model in fp32 and the tokenizer; an adapter goes onto the base that its configuration names."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = folder / "adapter_config.json"
    base = folder
    if adapter.is_file():
        name = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        base = folder / name if (folder / name).is_dir() else name
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    if adapter.is_file():
        from peft import PeftModel
        from transformers import GenerationConfig

        model = PeftModel.from_pretrained(model, str(folder)).get_base_model()
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval(), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def logprobs(model: Any, ids: list[int], start: int = 1) -> list[float]:
    """The log-probs of a text's tokens from `start` on."""
    import torch

    if start >= len(ids):
        return []
    with torch.inference_mode():
        scores = model(torch.tensor([ids])).logits[0, start - 1 : -1].float().log_softmax(dim=-1)  # [T - start, V]
    targets = torch.tensor(ids[start:])[:, None]  # [T - start, 1]
    return list(scores.gather(1, targets)[:, 0].tolist())


def generate(model: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    """The greedy continuation, ended as the folder's generation config says."""
    import torch

    plain = {"do_sample": False, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    ids = model.generate(ids, attention_mask=mask, max_new_tokens=count, **plain, **options)
    return list(ids[0, len(prompt) :].tolist())


def main(folder: str, questions_file: str, answers_file: str, threads: str) -> None:
    """Write the answers as JSON with the fields of `questions.Answers`."""
    import torch

    torch.set_num_threads(int(threads))
    with open(questions_file, encoding="utf-8") as opened:
        questions = json.load(opened)
    model, tokenizer = load(Path(folder))
    answers = [generate(model, prompt, questions["max_tokens"]) for prompt in questions["prompts"]]
    marks = set(questions["marks"])
    sizes = [next((at for at, token in enumerate(ids) if token in marks), len(ids)) for ids in answers]
    stopped = [size < len(ids) for size, ids in zip(sizes, answers, strict=True)]
    answers = [ids[:size] for size, ids in zip(sizes, answers, strict=True)]
    pairs = zip(questions["prompts"], answers, strict=True)
    everything = {
        "texts": [tokenizer.encode(text, add_special_tokens=False) for text in questions["texts"]],
        "chats": [
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            for turns in questions["chats"]
        ],
        "answers": answers,
        "logprobs": [logprobs(model, [*prompt, *ids], len(prompt)) for prompt, ids in pairs],
        "stopped": stopped,
        "passages": [logprobs(model, ids) for ids in questions["passages"]],
        "ended": [
            len(generate(model, questions["prompts"][0], 2, sequence_bias={(end,): FORCED})) == 1
            for end in questions["ends"]
        ],
    }
    with open(answers_file, "w", encoding="utf-8") as opened:
        json.dump(everything, opened)


if __name__ == "__main__":
    main(*sys.argv[1:])
