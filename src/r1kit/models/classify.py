"""Reward models: standard sequence classifiers with one output, read at the last token of packed sequences.

`AutoModelForSequenceClassification` loads a folder that `RewardModel.save` wrote and gives the same scores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from r1kit.chat import ChatFormat, final_answer, saved, to_samples
from r1kit.models import attention
from r1kit.models.compute import computing
from r1kit.models.hub import NO_CODE, context_of, reading, tokenizer_of
from r1kit.models.idle import HOME, visiting
from r1kit.models.known import ModelError, resolve
from r1kit.models.load import check_vocabulary, check_weights, outline, place
from r1kit.models.packed import PackedLayout, Span, bucket, split_by_budget
from r1kit.models.policy_net import ScoreNet
from r1kit.models.preflight import choose_path
from r1kit.store import atomic_folder, read_object, write_json
from r1kit.types import ComputeDtype, Conversation, Message, Sample, WeightsDtype

On = Literal["answer", "response"]
FACTS = "reward_model.json"


@dataclass(frozen=True)
class RewardModel:
    """A classifier, its tokenizer, the prompt format of its training, and the part of a response that it reads."""

    model: Any
    tokenizer: Any
    chat: ChatFormat
    on: On = "response"
    device: torch.device | None = None  # the model goes there to score; None: it is there already
    # rewards and the probe can score in different threads (staleness=1)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def context(self) -> int:
        """The longest sequence that the model takes, in tokens."""
        return context_of(self.model.config.get_text_config())

    def judged(self, response: str) -> str | None:
        """The part of a response that is scored: all of it, or its final answer; None if that is empty."""
        if self.on == "answer":
            return final_answer(response)
        return response if response.strip() else None

    def sample(self, prompt: Sequence[Message], response: str) -> Sample:
        """The sequence that is scored: the prompt as the policy saw it, the judged part of the response, the end.

        Raises ValueError if the prompt or response cannot be rendered, or if there is nothing to judge.
        """
        part = self.judged(response)
        if part is None:
            raise ValueError("the response has no final answer to judge")
        # an answer without its prefill would be a sequence that the policy never writes
        if self.on == "response" and not part.startswith(self.chat.prefill):
            part = self.chat.prefill + part
        chat = self.chat if self.on == "response" else self.chat.replace(prefill="")
        turns = tuple(prompt)
        if chat.system and not (turns and turns[0].role == "system"):
            turns = (Message(role="system", content=chat.system), *turns)
        conversation = Conversation(messages=(*turns, Message(role="assistant", content=part)))
        return to_samples(conversation, chat, self.tokenizer, close_reasoning=True)[-1]

    def scores(self, rows: Sequence[Sequence[int]], tokens_per_batch: int = 8192) -> list[float]:
        """The score of each sequence of token ids, in order."""
        assert all(len(row) for row in rows), "an empty sequence has no last token to read a score at"
        scores = [0.0] * len(rows)
        net = ScoreNet.of(self.model.eval())  # no dropout: a score depends on its sequence alone
        device = self.device or next(self.model.parameters()).device
        with self.lock, visiting(self.model, device), torch.no_grad(), computing(self.model):
            for indices in bucket([len(row) for row in rows]):  # of similar length, so attention pads little
                for run in split_by_budget([len(rows[index]) for index in indices], tokens_per_batch):
                    part = [rows[index] for index in indices[run.start : run.stop]]
                    lengths = [len(row) for row in part]
                    ids = torch.tensor([[token for row in part for token in row]], device=device)  # [1, T]
                    ends = torch.tensor(lengths, device=device).cumsum(0) - 1  # [sequences]
                    values = net.scores(ids, PackedLayout([Span(0, tuple(lengths))], device), ends)
                    for index, value in zip(indices[run.start : run.stop], values.tolist(), strict=True):
                        scores[index] = value
        return scores

    def save(self, folder: Path) -> None:
        """Write weights, config, tokenizer and the part of a response that is read; the stage adds the chat format."""
        with atomic_folder(folder) as part:
            self.model.save_pretrained(part)
            self.tokenizer.save_pretrained(part)
            write_json(part / FACTS, {"on": self.on})


def fresh_reward_model(
    name: str,
    chat: ChatFormat,
    on: On,
    *,
    device: str = "auto",
    compute_dtype: ComputeDtype = "auto",
    weights_dtype: WeightsDtype = "fp32",
    seed: int = 0,
) -> RewardModel:
    """The body of a language model under a new head with small random weights; raises `ModelError` like `load`."""
    policy = outline(name)
    tokenizer = policy.tokenizer
    candidates = [tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *tokenizer.all_special_tokens]
    tokens = [str(token) for token in candidates if token is not None]
    # transformers reads a score at the last token that is not padding: no scored sequence may end with the pad token
    pad = next((token for token in tokens if tokenizer.convert_tokens_to_ids(token) not in policy.end_ids), None)
    if pad is None:
        remedy = "add a pad token to its tokenizer"
        raise ModelError(f"{name}: every special token ends an answer, so none can pad: {remedy}")
    torch.manual_seed(seed)  # transformers draws the head, which is drawn again below
    model = _classifier(resolve(name), name)
    check_vocabulary(model, tokenizer, name)
    width = model.score.weight.shape[1]  # the weight is [1, d]
    with torch.no_grad():
        # std 1 / sqrt(d + 1), so scores begin within a few units of 0; drawn on the CPU, the same for every device
        drawn = torch.randn(model.score.weight.shape, generator=torch.Generator().manual_seed(seed))
        model.score.weight.copy_(drawn / (width + 1) ** 0.5)
    tokenizer.pad_token = pad
    model.config.pad_token_id = tokenizer.convert_tokens_to_ids(pad)
    place(model, device, compute_dtype, weights_dtype)
    return RewardModel(model, tokenizer, chat, on)


def load_reward_model(name: str, *, device: str = "auto", offload_idle: bool = False) -> RewardModel:
    """A folder that the stage `reward-model` wrote; any other classifier with one output that has a chat template.

    With `offload_idle`, the model waits in main memory and visits the device only to score.
    """
    folder = resolve(name)
    if read_object(folder / "config.json").get("architectures", [""])[0].endswith("ForCausalLM"):
        raise ModelError(f"{name} is a language model: train a reward model from it, or give one's folder")
    model = _classifier(folder, name, missing=())
    tokenizer = tokenizer_of(folder, name)
    on: Any = read_object(folder / FACTS).get("on") if (folder / FACTS).is_file() else "response"
    if on not in get_args(On):
        raise ModelError(f"{folder / FACTS} says on={on!r}, expected one of {', '.join(get_args(On))}: restore it")
    is_written = (folder / saved.FILE).is_file()
    chat = saved.read(folder) if is_written else ChatFormat(template="chat", system="")
    place(model, device, "auto")
    place_of_work = next(model.parameters()).device
    if offload_idle:
        model.to(HOME)
    return RewardModel(model, tokenizer, chat, on, place_of_work)


def _classifier(folder: Path, name: str, missing: Sequence[str] = ("score.weight",)) -> Any:
    """A checked classifier in fp32 with r1kit's attention; only the weights in `missing` may be absent."""
    from transformers import AutoModelForSequenceClassification

    attention.register()
    options = {"dtype": torch.float32, "output_loading_info": True, **NO_CODE}
    with reading(name, "could not be loaded as a sequence classifier"), _quiet():
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, **options)
    model, info = loaded
    # transformers fills absent weights with random numbers and only logs a warning
    absent = sorted(set(info["missing_keys"]) - set(missing))
    if absent or not hasattr(model, "score"):
        what = ", ".join(absent[:3]) or "the head `score`"
        raise ModelError(
            f"{name} lacks {what} as a sequence classifier: give a complete model that transformers can use as one"
        )
    check_weights(model, name)
    choose_path(model, name)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' warning about newly drawn weights: the head's are meant to be, all others are checked."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # r1kit reports progress itself
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
