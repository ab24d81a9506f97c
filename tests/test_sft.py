"""SFT: the mask is what sampling would have sampled, rows do not see each other, a killed run resumes."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from r1kit.chat import ChatFormat, end_ids, to_samples  # noqa: E402
from r1kit.data import conversations as data  # noqa: E402
from r1kit.data.mask_excerpt import excerpt  # noqa: E402
from r1kit.data.tokens import TokenFile, Tokenised, write_tokens  # noqa: E402
from r1kit.models import attention  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.known import resolve  # noqa: E402
from r1kit.models.load import fresh_llama, load  # noqa: E402
from r1kit.pipeline import Display, External, Progress, Recipe, Stage, execute, plan  # noqa: E402
from r1kit.pipeline.context import Context  # noqa: E402
from r1kit.report.folders import StageFolder  # noqa: E402
from r1kit.report.mask_pictures import mask_pictures  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.stages.sft import SFT, SFT_PRESETS, SFTSettings, run  # noqa: E402
from r1kit.tasks.base import DataError  # noqa: E402
from r1kit.tiny.frame import TINY_CHAT, TINY_SYSTEM  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.next_token import next_token  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.types import Conversation, Message, Problem, Sample  # noqa: E402
from shapes import SHAPES  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
END = TOKENIZER.eos_token_id
RESPONSE = "<think> 2+2=4 </think> <answer> 4 </answer>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# the kind that drops the reasoning of earlier turns (R1's distilled models, Qwen3)
FORGETFUL = CHATML.replace("m.content", "m.content.split('</think>')[-1]")


def talk(*texts: str, system: str = "") -> Conversation:
    roles = ("user", "assistant")
    turns = [Message(role=roles[index % 2], content=text) for index, text in enumerate(texts)]  # type: ignore[arg-type]
    return Conversation(messages=(*([Message(role="system", content=system)] if system else []), *turns))


def chatml(template: str = CHATML) -> Any:
    """The tiny tokenizer with a chat template and its tokens."""
    tokenizer = make()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def trained(sample: Sample) -> list[int]:
    return [token for token, is_trained in zip(sample.token_ids, sample.loss_mask, strict=True) if is_trained]


def test_the_prompt_is_what_an_engine_gets_and_the_loss_falls_on_what_it_would_have_sampled() -> None:
    (sample,) = to_samples(talk("2+2?", RESPONSE, system=TINY_SYSTEM), TINY_CHAT, TOKENIZER)
    prompt = TINY_CHAT.render(Problem(id="p", prompt="2+2?", answer="4"), TOKENIZER).token_ids
    reply = TOKENIZER.encode(RESPONSE, add_special_tokens=False)
    assert tuple(sample.token_ids) == (*prompt, *reply, END)
    assert list(sample.loss_mask) == [False] * len(prompt) + [True] * (len(reply) + 1)


def test_the_prefill_is_prompt_in_training_as_in_sampling() -> None:
    chat = ChatFormat(system=TINY_SYSTEM, prefill="<think>")
    (sample,) = to_samples(talk("2+2?", RESPONSE, system=TINY_SYSTEM), chat, TOKENIZER)
    prompt = chat.render(Problem(id="p", prompt="2+2?", answer="4"), TOKENIZER).token_ids
    assert tuple(sample.token_ids[: len(prompt)]) == prompt
    assert not any(sample.loss_mask[: len(prompt)]) and all(sample.loss_mask[len(prompt) :])
    with pytest.raises(ValueError, match="turn 1 does not begin with the format's prefill '<think>'"):
        to_samples(talk("2+2?", "4"), chat, TOKENIZER)


def test_what_is_trained_to_end_a_turn_is_what_sampling_stops_at() -> None:
    tokenizer = chatml()
    chat = ChatFormat(template="chat", system="")
    (sample,) = to_samples(talk("hi", "yo", "and?", "no"), chat, tokenizer)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_ids(tokenizer)[0] == stop
    assert tokenizer.decode(trained(sample)) == "yo<|im_end|>no<|im_end|>"
    assert (
        tokenizer.decode(sample.token_ids) == chat.text(talk("hi", "yo", "and?").messages, tokenizer) + "no<|im_end|>"
    )


@pytest.mark.parametrize(
    ("template", "chat"),
    [
        (FORGETFUL, ChatFormat(template="chat", system="")),
        (None, ChatFormat(system="", plain="{history}User: {question}\nAssistant: ")),
    ],
)
def test_turns_that_cannot_share_a_row_become_rows_of_their_own(template: str | None, chat: ChatFormat) -> None:
    tokenizer = chatml(template) if template else TOKENIZER
    conversation = talk("hi", "<think> greet </think>yo", "and?", "<think> no </think>so")
    samples = to_samples(conversation, chat, tokenizer)
    assert len(samples) == 2
    for index, sample in zip((1, 3), samples, strict=True):
        prompt = chat.prompt(conversation.messages[:index], tokenizer).token_ids
        reply = tokenizer.encode(conversation.messages[index].content, add_special_tokens=False)
        assert list(sample.token_ids) == [*prompt, *reply, end_ids(tokenizer)[0]]
        assert trained(sample) == [*reply, end_ids(tokenizer)[0]]


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        (talk("a"), "no assistant turn"),
        (talk("a", ""), "turn 1 is empty"),
        (talk("a", "b<|end|>c"), "turn 1 has an end token inside"),
        (Conversation(messages=(Message(role="assistant", content="a"),)), "turn 0 .* does not follow a user's turn"),
    ],
)
def test_a_conversation_that_would_teach_nonsense_is_refused(conversation: Conversation, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_samples(conversation, ChatFormat(system=""), TOKENIZER)


THINKING = CHATML.replace("assistant\n{%", "assistant\n<think>\n{%")  # as R1's distilled models open it
SILENT = CHATML.replace("assistant\n{%", "assistant\n<think>\n\n</think>\n\n{%")  # as Qwen3 without thinking


@pytest.mark.parametrize(
    ("template", "content", "trained_text"),
    [
        (THINKING, "<think>\nadd</think>4", "add</think>4"),
        (THINKING, "<think> add </think> <answer>4</answer>", "add </think> <answer>4</answer>"),
        (THINKING, "add</think>4", "add</think>4"),  # a teacher's reply that begins behind the tag
        (SILENT, "4", "4"),
        (SILENT, "<think>\n\n</think>\n\n4", "4"),
        (SILENT, "<think></think>4", "4"),
        (CHATML, "<think>add</think>4", "<think>add</think>4"),
        (CHATML, "add</think>4", "add</think>4"),
    ],
)
def test_a_row_continues_what_its_prompt_has_opened(template: str, content: str, trained_text: str) -> None:
    (sample,) = to_samples(talk("2+2?", content), ChatFormat(template="chat", system=""), chatml(template))
    assert chatml(template).decode(trained(sample)) == f"{trained_text}<|im_end|>"


@pytest.mark.parametrize(
    ("template", "content", "message"),
    [
        (THINKING, "4", "turn 1 has no reasoning, but its prompt opens <think>"),
        (THINKING, "<think>add it all up", "turn 1 never ends the reasoning"),
        (THINKING, "well <think>add", "turn 1 has text before <think>"),
        (SILENT, "<think>add</think>4", "turn 1 has reasoning, but its prompt has closed an empty block"),
        (SILENT, "add</think>4", "turn 1 has reasoning"),
    ],
)
def test_a_row_that_does_not_is_refused_with_the_reason(template: str, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_samples(talk("2+2?", content), ChatFormat(template="chat", system=""), chatml(template))


def test_a_row_without_reasoning_can_close_it_first() -> None:
    tokenizer = chatml(THINKING)
    (sample,) = to_samples(talk("2+2?", "4"), ChatFormat(template="chat", system=""), tokenizer, close_reasoning=True)
    assert tokenizer.decode(sample.token_ids).endswith("<think>\n\n</think>\n\n4<|im_end|>")
    assert tokenizer.decode(trained(sample)) == "\n</think>\n\n4<|im_end|>"


def test_a_system_message_late_in_a_conversation_stands_where_sampling_would_have_it() -> None:
    late = Conversation(
        messages=(*talk("hi", "yo").messages, Message(role="system", content="be brief"), *talk("and?", "no").messages)
    )
    first, second = to_samples(late, ChatFormat(system=""), TOKENIZER)  # plain text has one system part, at the top
    assert TOKENIZER.decode(trained(first)) == "yo<|end|>" and TOKENIZER.decode(trained(second)) == "no<|end|>"
    prompt = ChatFormat(system="").prompt(late.messages[:4], TOKENIZER)
    assert second.token_ids[: len(second.token_ids) - 3] == prompt.token_ids


words = st.text(alphabet="ab1+ 几\n", min_size=1, max_size=12)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), st.booleans())
def test_loss_falls_on_all_of_each_reply_and_on_nothing_else(turns: list[tuple[str, str]], forgets: bool) -> None:
    tokenizer = chatml(FORGETFUL if forgets else CHATML)
    flat = [text for turn in turns for text in turn]
    samples = to_samples(talk(*flat), ChatFormat(template="chat", system=""), tokenizer)
    expected = [[*tokenizer.encode(reply, add_special_tokens=False), end_ids(tokenizer)[0]] for _, reply in turns]
    assert [token for sample in samples for token in trained(sample)] == [
        token for reply in expected for token in reply
    ]


# ------------------------------------------------------------------ packing


def conversations(seed: int = 0) -> list[Sample]:
    """Chats of one to three turns and very different lengths, as SFT sees them."""
    rng = random.Random(seed)
    chat = ChatFormat(template="chat", system="")
    made = []
    for _ in range(9):
        texts = [
            "".join(rng.choice("abc123+= ") for _ in range(rng.randint(1, 40))) for _ in range(2 * rng.randint(1, 3))
        ]
        made += to_samples(talk(*texts), chat, chatml())
    return made


def padded(model: Any, samples: Sequence[Sample]) -> tuple[float, dict[str, Any]]:
    """transformers' own loss and gradient on a right-padded batch."""
    longest = max(len(one.token_ids) for one in samples)
    ids = torch.tensor([[*one.token_ids] + [0] * (longest - len(one.token_ids)) for one in samples])
    there = torch.tensor([[1] * len(one.token_ids) + [0] * (longest - len(one.token_ids)) for one in samples])
    labels = torch.full_like(ids, -100)
    for row, one in enumerate(samples):
        mask = torch.tensor([*one.loss_mask] + [False] * (longest - len(one.loss_mask)))
        labels[row][mask] = ids[row][mask]
    model.zero_grad()
    loss = model(input_ids=ids, attention_mask=there, labels=labels).loss
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("budget", [64, 200, 5000])
def test_packed_rows_have_the_loss_and_gradient_of_padded_ones(budget: int) -> None:
    samples = conversations()
    model = fresh_llama(chatml(), layers=2, width=32, heads=4, context=512, seed=0)
    learner = Learner(model, OptimizerSettings(), steps=1)
    found = learner.forward_backward(pack(samples, budget), next_token, Totals.of(samples))
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.set_attn_implementation("eager")
    loss, theirs = padded(model, samples)
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-4)


def test_no_row_sees_another_in_its_pack() -> None:
    samples = conversations()
    model = fresh_llama(chatml(), layers=2, width=32, heads=4, context=512, seed=0)
    learner = Learner(model, OptimizerSettings(), steps=1)
    changed = [samples[0], *conversations(seed=5)]
    found = []
    for rows in (samples, changed):
        (batch,) = pack(rows, 100_000)
        place = batch.order.index(0)
        found.append(torch.split(learner.logprobs(batch), list(batch.targets.lengths))[place])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_packing_wastes_little_of_its_budget() -> None:
    rng = random.Random(0)
    lengths = [min(2000, round(rng.lognormvariate(5, 0.8)) + 2) for _ in range(300)]
    samples = [Sample(token_ids=[5] * n, loss_mask=[False] + [True] * (n - 1)) for n in lengths]
    batches = pack(samples, 4096)
    assert len(batches) <= sum(lengths) / 4096 * 1.03 + 1


# ------------------------------------------------------------------ rows


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"from": "gpt", "value": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"prompt": "q", "completion": "a"},
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
        {"question": "q", "response": "a"},
        {"instruction": "q", "input": "", "output": "a"},
    ],
)
def test_rows_in_the_forms_of_common_data_sets_are_one_conversation(row: dict[str, Any]) -> None:
    found = data.conversation(row | {"source": "here", "metadata": {"id": 3}})
    assert [(turn.role, turn.content) for turn in found.messages] == [("user", "q"), ("assistant", "a")]
    assert found.source == "here" and found.metadata == {"id": 3}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "the row's fields are text: expected messages, or one of prompt \\+ completion"),
        ({"messages": []}, "field messages: the value is .*expected a list"),
        ({"messages": "hi"}, "field messages: the value is 'hi': expected a list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "field messages.0.role: the role is 'tool'"),
        ({"messages": [{"role": "user", "content": 3}]}, "field messages.0.content: the content is 3: expected text"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
        ({"messages": [3]}, "field messages.0: the turn is 3"),
        (
            {"prompt": "q", "completion": [{"role": "assistant", "content": "a", "reasoning_content": "b"}]},
            "field completion.0: the turn has reasoning_content beside its text",
        ),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]}, "the turn has tool_calls"),
    ],
)
def test_a_row_that_is_no_conversation_says_why(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.conversation(row)


def test_columns_of_another_name_can_be_given() -> None:
    read = data.renamed(data.conversation, {"prompt": "q", "completion": "a"})
    assert read({"q": "x", "a": "y", "prompt": "other"}).messages[0].content == "x"
    with pytest.raises(DataError, match="field completion: there is no column 'a': the row has q"):
        read({"q": "x"})


def test_tokens_on_disk_are_the_samples_that_were_written(tmp_path: Path) -> None:
    samples = conversations()
    made = write_tokens(tmp_path / "tokens", [Tokenised(one, "a.jsonl", n, "s") for n, one in enumerate(samples)])
    again = TokenFile(tmp_path / "tokens")
    for file in (made, again):
        assert [(list(o.token_ids), list(o.loss_mask)) for o in file] == [
            (list(o.token_ids), list(o.loss_mask)) for o in samples
        ]
    assert len(again[2:5]) == 3 and again.lengths() == [len(one.token_ids) for one in samples]
    assert [row["row"] for row in again.rows()] == list(range(len(samples)))
    assert again.facts["sources"]["s"]["trained"] == sum(sum(one.loss_mask) for one in samples)
    with pytest.raises(IndexError):
        again[len(samples)]


# ------------------------------------------------------------------ the stage

CHAT = {"system": TINY_SYSTEM}
SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "max_tokens": 256,
    "chat": CHAT,
    "checkpoint_every": 2,
    "optimizer": {"learning_rate": 1e-3, "schedule": "cosine", "final_ratio": 0.1, "warmup_steps": 2},
}


def write_rows(path: Path, count: int = 24) -> Path:
    """Sums with their answers in the format, some rows in each of several forms."""
    rows: list[dict[str, Any]] = []
    for index in range(count):
        question, answer = f"{index}+3?", f"<think> {index}+3={index + 3} </think> <answer> {index + 3} </answer>"
        if index % 2:
            rows.append({"prompt": question, "completion": answer, "source": "odd"})
        else:
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            rows.append({"messages": turns, "source": "even"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def context(folder: Path, settings: dict[str, Any], **paths: Path) -> Context:
    named = {name.replace("__", "/"): path for name, path in paths.items()}
    return Context(
        stage="sft",
        settings=SFTSettings.parse({**SMALL, **settings}),
        folder=folder,
        paths=named,
        progress=Progress(display=Display(io.StringIO())),
    )


def train(folder: Path, data_file: Path, model: Path, **settings: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    made = context(folder, settings, model=model, data=data_file)
    SFT.check(made)  # type: ignore[misc]
    return dict(run(made))


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def test_the_tiny_base_model_learns_the_format_and_is_loadable_by_transformers_alone(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 48)
    settings = {"epochs": 4, "validation_share": 0.2, "patience": 9}
    found = train(tmp_path / "sft", rows, resolve("tiny"), **settings)
    first, *_, last = [row for row in metrics(tmp_path / "sft") if "validation/loss" in row]
    assert last["validation/loss"] < 0.7 * first["validation/loss"]
    assert found["samples"] + sum(1 for _ in TokenFile(tmp_path / "sft" / "tokens" / "validation").rows()) == 48
    assert found["sources"].keys() == {"odd", "even"} and found["best_validation"] <= last["validation/loss"]

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "sft" / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "sft" / "model")
    prompt = TINY_CHAT.render(Problem(id="p", prompt="50+3?", answer="53"), tokenizer).token_ids
    out = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=60, do_sample=False
    )
    text = tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=False)
    assert text.startswith("<think>") and text.rstrip().endswith("</answer><|end|>")  # it stops where it was taught to
    assert json.loads((tmp_path / "sft" / "model" / "chat_format.json").read_text())["system"] == TINY_SYSTEM


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_sft
from r1kit.pipeline import Progress

def step(self, done, total, fields=None):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

Progress.step = step
test_sft.train(Path({folder!r}), Path({rows!r}), Path({model!r}), validation_share=0.2, validation_every=2, patience=8)
"""


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_bits(
    tmp_path: Path, tiny_policy_folder: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    settings = {"validation_share": 0.2, "validation_every": 2, "patience": 8}
    straight = train(tmp_path / "straight", rows, tiny_policy_folder, **settings)
    code = SCRIPT.format(
        tests=str(Path(__file__).parent), folder=str(tmp_path / "torn"), rows=str(rows), model=str(tiny_policy_folder)
    )
    died = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [row["step"] for row in metrics(tmp_path / "torn")] == [0, 1, 2, 3, 4, 5]
    assert train(tmp_path / "torn", rows, tiny_policy_folder, **settings) == straight
    assert metrics(tmp_path / "torn") == metrics(tmp_path / "straight")
    for name in ("model/model.safetensors", "mask.json"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_settings_of_memory_change_no_result(tmp_path: Path, tiny_policy_folder: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    train(tmp_path / "one", rows, tiny_policy_folder)
    other = {"activation_checkpointing": True, "checkpoint_every": 0, "tokens_per_batch": 150}
    train(tmp_path / "other", rows, tiny_policy_folder, **other)
    for row, again in zip(metrics(tmp_path / "one"), metrics(tmp_path / "other"), strict=True):
        assert row["optim/loss"] == pytest.approx(again["optim/loss"], abs=1e-4)


def test_rows_that_cannot_be_trained_on_are_left_out_with_the_reason(tmp_path: Path, tiny_policy_folder: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 6)
    with rows.open("a") as file:
        for answer in ("x" * 500, "a<|end|>b", ""):
            file.write(json.dumps({"prompt": "q", "completion": answer}) + "\n")
    found = train(tmp_path / "sft", rows, tiny_policy_folder, epochs=1)
    assert found["samples"] == 6 and found["dropped"] == 3
    dropped = [json.loads(line) for line in (tmp_path / "sft/tokens/train/dropped.jsonl").read_text().splitlines()]
    assert [row["row"] for row in dropped] == [7, 8, 9]
    assert "more than 256 tokens" in dropped[0]["reason"] and "end token inside" in dropped[1]["reason"]


def test_of_a_mixed_file_the_rows_that_continue_the_prompt_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, line: said.append(line))
    model, rows = SHAPES["deepseek-r1"].save(tmp_path / "model"), tmp_path / "rows.jsonl"
    answers = ["<think>\nadd</think>4", "4", "add</think>4", "<think>cut off", "<think>add</think>5"]
    rows.write_text("".join(json.dumps({"prompt": "2+2?", "completion": answer}) + "\n" for answer in answers))
    chat = {"template": "chat", "system": ""}
    kept = train(tmp_path / "sft", rows, model, epochs=1, chat=chat)
    assert (kept["samples"], kept["dropped"]) == (3, 2)
    assert said[0].startswith("the prompt opens '<think>\\n'")
    assert said[1].startswith("2 rows left out, 1 of them because: turn 1 ")
    pictures = json.loads((tmp_path / "sft/mask.json").read_text())
    texts = ["".join(piece for piece, is_trained in one["pieces"] if is_trained) for one in pictures]
    assert texts == [f"add</think>{answer}<｜end▁of▁sentence｜>" for answer in (4, 4, 5)]
    closed = train(tmp_path / "closed", rows, model, epochs=1, chat=chat, plain_rows="close")
    assert (closed["samples"], closed["dropped"]) == (4, 1)


def test_bad_data_stops_before_training_and_says_how_to_mend_it(tmp_path: Path, tiny_policy_folder: Path) -> None:
    broken = write_rows(tmp_path / "broken.jsonl", 4)
    with broken.open("a") as file:
        file.write('{"text": "no conversation"}\n')
    with pytest.raises(DataError, match=r"broken.jsonl, row 5: the row's fields are text: expected messages"):
        train(tmp_path / "a", broken, tiny_policy_folder)
    assert train(tmp_path / "b", broken, tiny_policy_folder, skip_invalid=True)["dropped"] == 1
    nothing = tmp_path / "nothing.jsonl"
    nothing.write_text(json.dumps({"prompt": "q", "completion": "x" * 900}) + "\n")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty.jsonl: the file has no rows"):
        train(tmp_path / "e", tmp_path / "empty.jsonl", tiny_policy_folder)
    for _ in range(2):  # the second attempt finds what the first left
        with pytest.raises(
            ValueError,
            match=r"no row of nothing.jsonl is usable for train: the most common reason: .* more than 256 tokens",
        ):
            train(tmp_path / "c", nothing, tiny_policy_folder)
    with pytest.raises(ValueError, match="patience needs held-out rows"):
        train(tmp_path / "d", write_rows(tmp_path / "rows.jsonl"), tiny_policy_folder, patience=1)
    with pytest.raises(ValueError, match="stage sft has no data: give an input named 'data'"):
        SFT.check(context(tmp_path, {}, model=tiny_policy_folder))  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"is the folder .*: name one file in it"):
        SFT.check(context(tmp_path, {}, model=tiny_policy_folder, data=tmp_path))  # type: ignore[misc]


def test_validations_of_nothing_are_refused(tmp_path: Path, tiny_policy_folder: Path) -> None:
    for setting in ("patience", "validation_every"):
        context = Context(
            stage="sft",
            settings=SFTSettings.parse({setting: 2}),
            folder=tmp_path,
            paths={"model": tiny_policy_folder, "data": tmp_path / "rows.jsonl"},
        )
        with pytest.raises(ValueError, match=f"{setting} needs held-out rows: set validation_share"):
            SFT.check(context)  # type: ignore[misc]


def test_one_question_is_never_on_both_sides(tmp_path: Path, tiny_policy_folder: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"{n % 10}+1?", "completion": f"{n} is it"}) + "\n" for n in range(60))
    )
    train(tmp_path / "sft", path, tiny_policy_folder, epochs=1, validation_share=0.4)
    sides = []
    for side in ("train", "validation"):
        tokens = TokenFile(tmp_path / "sft" / "tokens" / side)
        sides.append({TOKENIZER.decode(one.token_ids).split("user: ")[1].split("\n")[0] for one in tokens})
    assert sides[0] and sides[1] and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 10


def test_held_out_rows_can_be_files_of_their_own_and_data_several(tmp_path: Path, tiny_policy_folder: Path) -> None:
    one, two = write_rows(tmp_path / "one.jsonl", 8), write_rows(tmp_path / "two.jsonl", 4)
    (tmp_path / "sft").mkdir()
    paths = {"model": tiny_policy_folder, "data__cold": one, "data__more": two, "validation": two}
    found = run(context(tmp_path / "sft", {"epochs": 1}, **paths))
    assert found["samples"] == 12 and "best_validation" in found


def test_held_out_problems_are_answered_on_the_way_and_can_stop_it_early(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 16)
    settings = {
        "epochs": 3,
        "validation_every": 2,
        "patience": 1,
        "validation_share": 0.4,
        "batch_size": 4,
        "optimizer": {"learning_rate": 1e-9},
        "probe": {"tasks": [{"name": "tiny/sums", "limit": 12}], "max_tokens": 40, "watch": "accuracy"},
    }
    found = train(tmp_path / "sft", rows, resolve("tiny"), **settings)
    probed = [row for row in metrics(tmp_path / "sft") if "probe/accuracy" in row]
    assert [row["step"] for row in probed] == [0, 2, 4] and found["updates"] == 4  # nothing changed or got better
    assert {"probe/format", "probe/truncated", "validation/loss", "validation/loss/odd"} <= probed[0].keys()
    assert found["best_update"] == 2 and found["best_validation"] == probed[0]["probe/accuracy"]
    with pytest.raises(SettingsError, match=r"judge the answers to the probe's tasks: set probe.tasks"):
        train(tmp_path / "none", rows, resolve("tiny"), probe={"watch": "accuracy"})


def test_adapters_are_trained_alone_and_merged_into_a_plain_model(tmp_path: Path, tiny_policy_folder: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 16)
    adapters = {"lora_rank": 2, "lora_targets": ["q_proj", "v_proj"], "activation_checkpointing": True}
    train(tmp_path / "lora", rows, tiny_policy_folder, **adapters)
    found = metrics(tmp_path / "lora")
    assert found[-1]["optim/loss"] < found[0]["optim/loss"]
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (tiny_policy_folder, tmp_path / "lora" / "model")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)

    # peft alone reads the adapter, and r1kit makes the same model of it, to train a new adapter on
    peft = pytest.importorskip("peft")
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_policy_folder)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "lora" / "adapter").merge_and_unload().state_dict()
    for name in after:
        torch.testing.assert_close(theirs[name], after[name])
    config = json.loads((tmp_path / "lora" / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["inference_mode"]) == (str(tiny_policy_folder), True)
    train(tmp_path / "second", rows, resolve(str(tmp_path / "lora" / "adapter")), **adapters)
    assert metrics(tmp_path / "second")[0]["optim/loss"] < found[0]["optim/loss"]


def test_exemplars_that_no_conversation_has_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"chat.exemplars would be in every prompt, and the conversations have"):
        SFTSettings.parse({"chat": {"exemplars": [["q", "a"]]}})


def test_loss_can_fall_on_the_last_turn_only(tmp_path: Path, tiny_policy_folder: Path) -> None:
    path = tmp_path / "rows.jsonl"
    turns = [{"role": r, "content": c} for r, c in zip(["user", "assistant"] * 2, ["a", "bb", "c", "dd"], strict=True)]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    train(tmp_path / "all", path, tiny_policy_folder, epochs=1)
    train(tmp_path / "last", path, tiny_policy_folder, epochs=1, loss_on="last")
    trained_on = [
        [TOKENIZER.decode(trained(one)) for one in TokenFile(tmp_path / name / "tokens" / "train")]
        for name in ("all", "last")
    ]
    assert trained_on == [["bb<|end|>", "dd<|end|>"], ["dd<|end|>"]]


def test_as_a_stage_it_runs_once_and_a_changed_setting_redoes_it(tmp_path: Path, tiny_policy_folder: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    inputs = {"model": External(tiny_policy_folder), "data": External(rows)}
    stage = Stage("sft", SFT, SFTSettings.parse({**SMALL, "epochs": 1}), inputs)
    recipe = Recipe("r", (stage,), "r")
    execute(recipe, tmp_path / "runs")
    assert [row.status for row in plan(recipe, tmp_path / "runs")] == ["done"]
    for changes, status in (({"activation_checkpointing": True}, "done"), ({"seed": 1}, "run")):
        changed = Stage("sft", SFT, SFTSettings.parse({**SMALL, "epochs": 1, **changes}), inputs)
        assert [row.status for row in plan(Recipe("r", (changed,), "r"), tmp_path / "runs")] == [status]


def test_the_papers_settings_are_presets() -> None:
    cold, second, v3 = (SFT_PRESETS[name] for name in ("cold-start", "sft-2", "v3"))
    for preset, first, last in ((cold, 5e-5, 5e-6), (second, 5e-5, 5e-6), (v3, 5e-6, 1e-6)):
        assert preset.epochs == 2 and preset.batch_size == 128 and preset.max_tokens == 32_768
        steps = preset.updates(804_745)
        rates = [preset.optimizer.rate(step, steps) for step in range(0, steps)]
        assert max(rates) == pytest.approx(first) and rates[-1] == pytest.approx(last)
    assert second.updates(804_745) == 12_575  # 6,287 an epoch
    student = SFT_PRESETS["distill-qwen-1.5b"]
    assert student.batch_size == 64 and student.optimizer.learning_rate == 1e-4 and student.optimizer.final_ratio == 0.1


def test_settings_by_a_wrong_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean batch_size"):
        SFTSettings.parse({"batchsize": 3})


# ------------------------------------------------------------------ the picture of the mask


def test_the_picture_shows_each_token_once_and_colours_what_is_trained(tmp_path: Path) -> None:
    (sample,) = to_samples(talk("2+2?", RESPONSE), ChatFormat(system=""), TOKENIZER)
    (shown,) = excerpt([sample], TOKENIZER)
    assert "".join(text for text, _ in shown["pieces"]) == TOKENIZER.decode(sample.token_ids)
    assert "".join(text for text, is_trained in shown["pieces"] if is_trained) == RESPONSE + "<|end|>"
    (tmp_path / "mask.json").write_text(json.dumps([shown]))
    (picture,) = mask_pictures(StageFolder("sft", tmp_path))
    assert picture["facts"].startswith(f"{len(sample.token_ids)} tokens, {sum(sample.loss_mask)} of them trained on")
    assert [piece["trained"] for piece in picture["pieces"]] == [bool(flag) for _, flag in shown["pieces"]]
    assert mask_pictures(StageFolder("none", tmp_path / "none")) == []


def test_a_long_sample_is_shown_by_its_start_and_its_end() -> None:
    sample = Sample(token_ids=[20] * 3000, loss_mask=[False] * 100 + [True] * 2900)
    (shown,) = excerpt([sample], TOKENIZER)
    at, skipped = shown["skipped"]
    assert len(shown["pieces"]) + skipped == 3000 and at == 320 and shown["trained"] == 2900


def test_characters_that_several_tokens_spell_are_shown_whole() -> None:
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core = Tokenizer(BPE({mark: index for index, mark in enumerate(sorted(alphabet))}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core)
    ids = tokenizer.encode("a几b")
    assert len(ids) == 5
    (shown,) = excerpt([Sample(token_ids=ids, loss_mask=[False, True, True, True, True])], tokenizer)
    assert shown["pieces"] == [["a", False], ["几", True], ["b", True]]


def test_the_loaded_model_of_the_tests_is_the_tiny_one() -> None:
    assert load(str(resolve("tiny")), device="cpu").end_ids == (END,)
