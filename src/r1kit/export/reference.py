"""The trained model's own answers to the questions of a proof."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from r1kit.chat import ChatFormat
from r1kit.export.questions import Answers, Questions
from r1kit.models import adapters
from r1kit.models.known import located, resolve
from r1kit.types import Message, Problem, Prompt, SamplingParams

if TYPE_CHECKING:
    from torch import Tensor

    from r1kit.models.load import Policy


@dataclass(frozen=True)
class Reference:
    """`margins[i][t]`: by how much the token t of answer i is ahead of the second best, in log-prob.

    `base_passages` are those of the base model if the trained model is an adapter, otherwise None.
    """

    answers: Answers
    margins: list[list[float]]
    base_passages: list[list[float | None]] | None = None


def trained_policy(name: str) -> Policy:
    """A model as it was trained: an adapter beside its base, not merged into it."""
    from r1kit.models.load import load, outline

    folder = located(name)
    if not adapters.is_adapter(folder):
        return load(name, device="cpu", compute_dtype="fp32")
    whole = outline(name)  # refused here if peft is missing, or if adapter and base do not fit
    from peft import PeftModel

    policy = load(str(resolve(adapters.base_name(folder))), device="cpu", compute_dtype="fp32")
    model = PeftModel.from_pretrained(policy.model, str(folder)).get_base_model()
    return replace(whole, model=model.eval())


def reference_of(policy: Policy, chat: ChatFormat, questions: Questions) -> Reference:
    """Answer the questions with r1kit's own engine and forward pass."""
    from r1kit.engines.local import LocalEngine
    from r1kit.models.load import has_adapters

    tokenizer = policy.tokenizer
    prompts = [
        Prompt(problem_id=str(number), messages=(), token_ids=tuple(ids))
        for number, ids in enumerate(questions.prompts)
    ]
    sampling = SamplingParams(temperature=0.0, max_tokens=questions.max_tokens, stop_token_ids=tuple(questions.marks))
    completions = [group[0] for group in LocalEngine(replace(policy, end_texts=())).generate(prompts, sampling)]
    sizes = [len(item.token_ids) - (item.token_ids[-1] in questions.marks) for item in completions]
    answers = [list(item.token_ids[:size]) for item, size in zip(completions, sizes, strict=True)]
    margins = []
    for prompt, answer in zip(questions.prompts, answers, strict=True):
        best = distributions(policy, [*prompt, *answer]).topk(2, dim=-1).values  # [T, 2]
        margins.append((best[:, 0] - best[:, 1])[len(prompt) - 1 :].tolist())
    ours = Answers(
        texts=[tokenizer.encode(text, add_special_tokens=False) for text in questions.texts],
        chats=[_rendered(chat, turns, tokenizer) for turns in questions.chats],
        answers=answers,
        logprobs=[list(item.logprobs[:size]) for item, size in zip(completions, sizes, strict=True)],
        stopped=[size < len(item.token_ids) for item, size in zip(completions, sizes, strict=True)],
        passages=_passages(policy, questions),
        ended=[True] * len(questions.ends),
    )
    base = None
    if has_adapters(policy.model):
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [layer for layer in policy.model.modules() if isinstance(layer, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        base = _passages(policy, questions)
        for layer in layers:
            layer.enable_adapters(True)
    return Reference(ours, margins, base)


def distributions(policy: Policy, ids: list[int]) -> Tensor:
    """[T, V], the log-probs of all next tokens at each place of a text."""
    import torch

    from r1kit.models.compute import computing
    from r1kit.models.head import Head
    from r1kit.models.packed import PackedLayout, Span
    from r1kit.models.policy_net import hidden_states

    with torch.inference_mode(), computing(policy.model):
        hidden = hidden_states(policy.model, torch.tensor([ids]), PackedLayout([Span(0, (len(ids),))]))  # [T, d]
        return Head.of(policy.model).logits(hidden).log_softmax(dim=-1)


def _passages(policy: Policy, questions: Questions) -> list[list[float | None]]:
    import torch

    logprobs: list[list[float | None]] = []
    for ids in questions.passages:
        targets = torch.tensor(ids[1:])[:, None]  # [T - 1, 1]
        logprobs.append(distributions(policy, ids)[:-1].gather(1, targets)[:, 0].tolist())
    return logprobs


def _rendered(chat: ChatFormat, turns: list[dict[str, str]], tokenizer: object) -> str:
    """A prompt; conversations without a system message get the format's own opening."""
    messages = tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)  # type: ignore[arg-type]
    opening = chat.messages(Problem(id="", prompt="", answer=""))[:-1]
    whole = messages if messages[0].role == "system" else (*opening, *messages)
    return chat.text(whole, tokenizer) + chat.prefill
