"""A program of its own: llama.cpp runs a GGUF file and answers the questions of a proof.

`python run_gguf.py FILE QUESTIONS.json ANSWERS.json THREADS`. Only xllamacpp is imported, and if llama.cpp crashes,
this process ends alone.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

FORCED = 1e6  # added to a logit: the token is sampled, and its reported log-prob is the one before


class Server:
    """llama.cpp's server inside this process, with sums in fp32 where it has the choice."""

    def __init__(self, file: str, context: int, threads: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = file
        params.n_ctx = -(-context // 256) * 256
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_ram_mib = params.n_ctx_checkpoints = params.verbosity = 0
        params.warmup = params.fit_params = params.ui = False
        self.server = xllamacpp.Server(params)

    def post(self, path: str, **body: Any) -> Any:
        address = f"{self.server.listening_address}/{path}"
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return json.loads(reply.read())

    def complete(self, prompt: list[int], count: int, forced: int | None = None) -> Any:
        """The most probable continuation, or one that begins with `forced`, with log-probs of its tokens."""
        bias = [] if forced is None else [[forced, FORCED]]
        options = {"temperature": 0, "n_probs": 1, "return_tokens": True, "cache_prompt": True, "logit_bias": bias}
        return self.post("completion", prompt=prompt, n_predict=count, **options)


def logprobs(reply: Any) -> list[float | None]:
    """The log-prob of each token; None for all if one ends inside a character, of which llama.cpp reports nothing."""
    reports = reply.get("completion_probabilities", [])
    is_whole = [report["id"] for report in reports] == reply["tokens"]
    return [report["logprob"] for report in reports] if is_whole else [None] * len(reply["tokens"])


def main(file: str, questions_file: str, answers_file: str, threads: str) -> None:
    """Write the answers as JSON with the fields of `questions.Answers`."""
    with open(questions_file, encoding="utf-8") as opened:
        questions = json.load(opened)
    longest = max(map(len, [*questions["prompts"], *questions["passages"]]))
    server = Server(file, longest + questions["max_tokens"] + 8, int(threads))
    answers: dict[str, list[Any]] = {"answers": [], "logprobs": [], "stopped": [], "passages": []}
    options = {"add_special": False, "parse_special": True}
    answers["texts"] = [server.post("tokenize", content=text, **options)["tokens"] for text in questions["texts"]]
    chats = [server.post("apply-template", messages=turns)["prompt"] for turns in questions["chats"]]
    answers["chats"] = [questions["begin"] + chat.removeprefix(questions["begin"]) for chat in chats]
    for prompt in questions["prompts"]:
        reply = server.complete(prompt, questions["max_tokens"])
        size = next(
            (at for at, token in enumerate(reply["tokens"]) if token in questions["marks"]), len(reply["tokens"])
        )
        answers["answers"].append(reply["tokens"][:size])
        answers["logprobs"].append(logprobs(reply)[:size])
        answers["stopped"].append(size < len(reply["tokens"]))
    for ids in questions["passages"]:
        # one request for each token: the server keeps the text so far, and reads one token
        replies = [server.complete(ids[:place], 1, forced=ids[place]) for place in range(1, len(ids))]
        answers["passages"].append([logprobs(reply)[0] for reply in replies])
    ends = [server.complete(questions["prompts"][0], 2, forced=end) for end in questions["ends"]]
    answers["ended"] = [reply["stop_type"] == "eos" for reply in ends]
    with open(answers_file, "w", encoding="utf-8") as opened:
        json.dump(answers, opened)


if __name__ == "__main__":
    main(*sys.argv[1:])
