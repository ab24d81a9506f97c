"""What prompts open and what ends a completion, for models in the shape of real families, in every kind of work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from r1kit.chat import ChatFormat, end_ids, parse, to_samples, whole_response  # noqa: E402
from r1kit.engines.engine_settings import LocalEngineSettings  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.engines.opening import open_engine  # noqa: E402
from r1kit.models.known import ModelError  # noqa: E402
from r1kit.models.load import Policy, load, outline  # noqa: E402
from r1kit.types import Completion, Conversation, Message, Problem, Prompt, SamplingParams  # noqa: E402
from shapes import SAID, SHAPES, Shape  # noqa: E402

torch.set_num_threads(1)
PROBLEM = Problem(id="p", prompt="2+3?", answer="5")


def chat_of(shape: Shape) -> ChatFormat:
    return ChatFormat(template="chat", system="", options=shape.options or {})


@pytest.fixture(scope="module")
def puppets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Policy]:
    """A loaded puppet of each shape, which says SAID, ends its turn, and would go on."""
    policies = {}
    for name, shape in SHAPES.items():
        says = SAID.removeprefix("<think>") if shape.opened == "<think>\n" else SAID
        end = (*shape.texts, *shape.ends)[0]
        folder = shape.save(tmp_path_factory.mktemp(name), f"{says}{end}7")
        policies[name] = load(str(folder), device="cpu")
    return policies


@pytest.mark.parametrize("name", SHAPES)
def test_the_turn_of_a_family_is_recognised(name: str, puppets: dict[str, Policy]) -> None:
    shape, policy = SHAPES[name], puppets[name]
    assert policy.tokenizer.convert_ids_to_tokens(list(policy.end_ids)) == list(shape.ends)
    assert policy.end_texts == shape.texts
    assert chat_of(shape).opened(policy.tokenizer) == shape.opened
    assert chat_of(shape).render(PROBLEM, policy.tokenizer).opened == shape.opened


@pytest.mark.parametrize("name", SHAPES)
def test_sampling_stops_where_the_turn_ends_and_the_response_is_whole(name: str, puppets: dict[str, Policy]) -> None:
    shape, policy = SHAPES[name], puppets[name]
    prompt = chat_of(shape).render(PROBLEM, policy.tokenizer)
    [[completion]] = LocalEngine(policy).generate([prompt], SamplingParams(temperature=0.0, max_tokens=60))
    response = whole_response(prompt, completion)
    assert completion.finish_reason == "stop"
    assert response.startswith(shape.opened)
    assert response.replace("\n", "").removeprefix("<think></think>") == SAID
    assert parse(response).well_formed == ("</think>" not in shape.opened)


@pytest.mark.parametrize("name", [name for name in SHAPES if "</think>" not in SHAPES[name].opened])
def test_a_row_teaches_the_ids_that_are_sampled(name: str, puppets: dict[str, Policy]) -> None:
    shape, policy = SHAPES[name], puppets[name]
    prompt = chat_of(shape).render(PROBLEM, policy.tokenizer)
    [[completion]] = LocalEngine(policy).generate([prompt], SamplingParams(temperature=0.0, max_tokens=60))
    row = Conversation(
        messages=(*prompt.messages, Message(role="assistant", content=whole_response(prompt, completion)))
    )
    (sample,) = to_samples(row, chat_of(shape), policy.tokenizer, policy.end_ids)
    if not shape.texts:  # a text that ends a turn is no token: SFT teaches the tokenizer's end in its place
        assert tuple(sample.token_ids) == (*prompt.token_ids, *completion.token_ids)
    assert sample.token_ids[-1] == policy.end_ids[0]
    assert sum(sample.loss_mask) == len(sample.token_ids) - len(prompt.token_ids)


ROWS = {  # the whole text of a row of SFT; the part behind the bar is trained
    "mistral": "<s>[INST] hi [/INST]¦<think>a</think>b</s>",
    "gemma-3": "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n¦<think>a</think>b<end_of_turn>",
    "chatml-base": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n¦<think>a</think>b<|im_end|>",
    "qwen-3-silent": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n¦b<|im_end|>",
    "phi-4": "<|im_start|>user<|im_sep|>hi<|im_end|><|im_start|>assistant<|im_sep|>¦<think>a</think>b<|im_end|>",
    "deepseek-r1": "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜><think>\n¦a</think>b<｜end▁of▁sentence｜>",
    "command-r": "<BOS><|START|><|USER|>hi<|END|><|START|><|CHATBOT|>¦<think>a</think>b<|END|>",
    "glm-4": "<|user|>\nhi<|assistant|>\n¦<think>a</think>b<|user|>",
    "vicuna": "\nUser: hi\nAssistant: ¦<think>a</think>b</s>",
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_ids_of_a_row_are_golden(name: str) -> None:
    tokenizer, content = SHAPES[name].tokenizer(), "b" if name == "qwen-3-silent" else "<think>a</think>b"
    row = Conversation(messages=(Message(role="user", content="hi"), Message(role="assistant", content=content)))
    (sample,) = to_samples(row, chat_of(SHAPES[name]), tokenizer)
    prompt, _, reply = ROWS[name].partition("¦")
    ids = [tokenizer.encode(text) for text in (prompt, reply)]
    assert list(sample.token_ids) == ids[0] + ids[1]
    assert list(sample.loss_mask) == [False] * len(ids[0]) + [True] * len(ids[1])


def test_a_served_models_reply_is_whole_with_or_without_the_opened_tag() -> None:
    asked = Prompt(problem_id="p", messages=(Message(role="user", content="2+3?"),), token_ids=())
    for text in (SAID, SAID.removeprefix("<think>")):
        reply = Completion(token_ids=(), logprobs=(), text=text, finish_reason="stop")
        assert whole_response(asked, reply) == SAID
    plain = Completion(token_ids=(), logprobs=(), text="5", finish_reason="stop")
    assert whole_response(asked, plain) == "5"


def test_a_saved_model_stops_at_the_taught_end_with_transformers_alone(
    puppets: dict[str, Policy], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    for name in ("chatml-base", "glm-4", "mistral"):
        policy, folder = puppets[name], tmp_path / name
        replace(policy).save(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        prompt = chat_of(SHAPES[name]).render(PROBLEM, policy.tokenizer).token_ids
        bad = getattr(policy.model, "ids_without_token", torch.tensor([], dtype=torch.long)).tolist()
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=60, do_sample=False, suppress_tokens=bad or None)[
            0
        ].tolist()
        assert ids[-1] == policy.end_ids[0] and len(ids) < len(prompt) + 60
        assert load(str(folder), device="cpu").end_ids == policy.end_ids == outline(str(folder)).end_ids


def test_sampling_defaults_that_transformers_refuses_to_save_do_not_lose_a_trained_model(tmp_path: Path) -> None:
    folder = SHAPES["glm-4"].save(tmp_path / "model")
    listed = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(listed | {"temperature": 0.6}))  # and no do_sample
    policy = load(str(folder), device="cpu")
    policy.save(tmp_path / "saved")
    assert load(str(tmp_path / "saved"), device="cpu").end_ids == policy.end_ids


def test_a_tokenizer_with_several_templates_uses_its_default() -> None:
    tokenizer = SHAPES["deepseek-r1"].tokenizer()
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "{{ messages }}"}
    assert chat_of(SHAPES["deepseek-r1"]).opened(tokenizer) == "<think>\n"


def test_a_local_model_that_is_asked_by_messages_answers_like_a_server(tmp_path: Path) -> None:
    folder = SHAPES["deepseek-r1"].save(
        tmp_path / "thinks", SAID.removeprefix("<think>") + SHAPES["deepseek-r1"].ends[0]
    )
    asked = Prompt(problem_id="p", messages=(Message(role="user", content="2+3?"),), token_ids=())
    greedy = SamplingParams(temperature=0.0, max_tokens=60)
    [[reply]] = open_engine(LocalEngineSettings(model=str(folder), device="cpu")).generate([asked], greedy)
    assert reply.text.replace("\n", "") == whole_response(asked, reply).replace("\n", "") == SAID
    silent = SHAPES["qwen-3-silent"].save(tmp_path / "silent")
    for options, opens in ((None, True), ({"enable_thinking": True}, False)):  # those saved with the model, or others
        settings = LocalEngineSettings(model=str(silent), device="cpu", template_options=options)
        [[reply]] = open_engine(settings).generate([asked], greedy)
        assert reply.text.startswith("<think>\n\n</think>") == opens


def test_the_day_is_a_setting_and_not_today() -> None:
    tokenizer = SHAPES["phi-4"].tokenizer()
    turns = tokenizer.chat_template
    tokenizer.chat_template = "Today Date: {{ strftime_now('%d %b %Y') }}\n" + turns
    chat = ChatFormat(template="chat", system="")
    assert chat.text(chat.messages(PROBLEM), tokenizer).startswith("Today Date: 26 Jul 2024\n")
    later = ChatFormat.parse({"template": "chat", "system": "", "date": "2025-01-20"})
    assert later.text(later.messages(PROBLEM), tokenizer).startswith("Today Date: 20 Jan 2025\n")
    tokenizer.chat_template = "{{ strftime_now('%B %-d, %Y|%e|%F|%-m|%j') }}\n" + turns
    early = ChatFormat.parse({"template": "chat", "system": "", "date": "2025-01-02"})
    assert early.text(early.messages(PROBLEM), tokenizer).startswith("January 2, 2025| 2|2025-01-02|1|002\n")


def test_an_option_that_is_no_variable_of_the_template_is_refused() -> None:
    with pytest.raises(ValueError, match="tokenize is set by r1kit itself"):
        ChatFormat.parse({"template": "chat", "options": {"tokenize": True}})


def test_a_template_that_never_begins_the_answer_is_refused(tmp_path: Path) -> None:
    shape = replace(
        SHAPES["chatml-base"],
        template="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    )
    policy = outline(str(shape.save(tmp_path)))
    with pytest.raises(
        ModelError, match=r"ignores add_generation_prompt: a prompt would lack '<\|im_start\|>assistant"
    ):
        policy.turn(chat_of(shape))
    assert "the prompt opens nothing" in policy.turn(ChatFormat(system=""))  # plain text needs no template


def test_a_template_that_moves_the_system_message_into_the_last_question_is_taken() -> None:
    tokenizer = SHAPES["mistral"].tokenizer()  # as Mistral's do: once an answer follows, the system message is gone
    tokenizer.chat_template = (
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST] "
        "{% if loop.last %}{{ messages[0].content }} {% endif %}{{ m.content }} [/INST]"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    )
    chat = ChatFormat(template="chat", system="be brief")
    assert chat.opened(tokenizer) == ""
    assert chat.text(chat.messages(PROBLEM), tokenizer) == "[INST] be brief 2+3? [/INST]"


def test_the_next_turns_bos_ends_a_completion_and_is_not_taught() -> None:
    tokenizer = SHAPES["mistral"].tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}{% endif %}{% endfor %}"
    )
    assert tokenizer.convert_ids_to_tokens(list(end_ids(tokenizer))) == ["</s>", "<s>"]


def test_a_prefill_that_repeats_the_template_is_refused() -> None:
    chat = ChatFormat(template="chat", system="", prefill="<think>")
    with pytest.raises(ValueError, match="leave the prefill '<think>' out"):
        chat.opened(SHAPES["deepseek-r1"].tokenizer())
    assert chat.opened(SHAPES["phi-4"].tokenizer()) == "<think>"


def test_an_ordinary_word_in_the_generation_config_ends_nothing(tmp_path: Path) -> None:
    folder = SHAPES["mistral"].save(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))  # a default of LlamaConfig
    policy = outline(str(folder))
    assert policy.tokenizer.convert_ids_to_tokens(list(policy.end_ids)) == ["</s>"]


def test_one_line_says_what_the_turn_is(puppets: dict[str, Policy]) -> None:
    assert puppets["deepseek-r1"].turn(chat_of(SHAPES["deepseek-r1"])) == (
        "the prompt opens '<think>\\n'; a completion ends at <｜end▁of▁sentence｜>; SFT teaches <｜end▁of▁sentence｜>"
    )
    assert puppets["glm-4"].turn(chat_of(SHAPES["glm-4"])) == (
        "the prompt opens nothing; a completion ends at <|user|>, <|endoftext|>, <|observation|>; SFT teaches <|user|>"
    )
