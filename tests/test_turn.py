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
    "qwen-2.5": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    "¦<think>a</think>b<|im_end|>",
    "qwen-3": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n¦<think>a</think>b<|im_end|>",
    "qwen-3.5": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n¦a</think>b<|im_end|>",
    "qwen-3.8": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n¦a</think>b<|im_end|>",
    "llama-3": "<|begin_of_text|><|head|>system<|tail|>\n\nToday: 26 Jul 2024\n\n<|eot_id|>"
    "<|head|>user<|tail|>\n\nhi<|eot_id|><|head|>assistant<|tail|>\n\n¦<think>a</think>b<|eot_id|>",
    "gemma-2": "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n¦<think>a</think>b<end_of_turn>",
    "mistral-3": "<s>[INST] hi[/INST]¦<think>a</think>b</s>",
    "smollm-3": "<|im_start|>system\nToday: 26 July 2024\nMode: /think\n\nBe of help.<|im_end|>\n"
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n¦<think>a</think>b<|im_end|>",
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


IM = "<|im_start|>"
TALKS = {  # the rows of two questions with a system message, each with its answers; between bars they are trained
    "qwen-2.5": [
        f"{IM}system\nS<|im_end|>\n{IM}user\nq<|im_end|>\n{IM}assistant\n¦<think>a</think>b<|im_end|>¦\n"
        f"{IM}user\nr<|im_end|>\n{IM}assistant\n¦<think>c</think>d<|im_end|>"
    ],
    "qwen-3": [  # drops earlier reasoning, so each answer has a row of its own
        f"{IM}system\nS<|im_end|>\n{IM}user\nq<|im_end|>\n{IM}assistant\n¦<think>a</think>b<|im_end|>",
        f"{IM}system\nS<|im_end|>\n{IM}user\nq<|im_end|>\n{IM}assistant\nb<|im_end|>\n"
        f"{IM}user\nr<|im_end|>\n{IM}assistant\n¦<think>c</think>d<|im_end|>",
    ],
    "qwen-3.8": [  # keeps it, in its own layout
        f"{IM}system\nS<|im_end|>\n{IM}user\nq<|im_end|>\n{IM}assistant\n<think>\n¦a</think>b<|im_end|>",
        f"{IM}system\nS<|im_end|>\n{IM}user\nq<|im_end|>\n{IM}assistant\n<think>\na\n</think>\n\nb<|im_end|>\n"
        f"{IM}user\nr<|im_end|>\n{IM}assistant\n<think>\n¦c</think>d<|im_end|>",
    ],
    "gemma-2": [  # takes no system message: it begins the first question
        "<bos><start_of_turn>user\nS\n\nq<end_of_turn>\n<start_of_turn>model\n¦<think>a</think>b<end_of_turn>¦\n"
        "<start_of_turn>user\nr<end_of_turn>\n<start_of_turn>model\n¦<think>c</think>d<end_of_turn>"
    ],
    "mistral-3": [  # the system message moves to the last question
        "<s>[INST] S\n\nq[/INST]¦<think>a</think>b</s>",
        "<s>[INST] q[/INST] <think>a</think>b</s>[INST] S\n\nr[/INST]¦<think>c</think>d</s>",
    ],
    "deepseek-r1": [
        "<｜begin▁of▁sentence｜>S<｜User｜>q<｜Assistant｜><think>\n¦a</think>b<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>S<｜User｜>q<｜Assistant｜>b<｜end▁of▁sentence｜><｜User｜>r<｜Assistant｜><think>\n"
        "¦c</think>d<｜end▁of▁sentence｜>",
    ],
}
TALK = tuple(
    Message(role=role, content=content)  # type: ignore[arg-type]
    for role, content in (
        ("system", "S"),
        ("user", "q"),
        ("assistant", "<think>a</think>b"),
        ("user", "r"),
        ("assistant", "<think>c</think>d"),
    )
)


@pytest.mark.parametrize("name", TALKS)
def test_each_answer_of_a_conversation_is_trained_behind_the_prompt_that_sampling_would_have(name: str) -> None:
    tokenizer, chat = SHAPES[name].tokenizer(), ChatFormat(template="chat")
    samples = to_samples(Conversation(messages=TALK), chat, tokenizer)
    assert len(samples) == len(TALKS[name])
    for sample, row in zip(samples, TALKS[name], strict=True):
        parts = [tokenizer.encode(part) for part in row.split("¦")]
        assert list(sample.token_ids) == [token for part in parts for token in part]
        assert list(sample.loss_mask) == [index % 2 == 1 for index, part in enumerate(parts) for _ in part]
    for end in (2, 4):  # the same prompts in sampling, for evaluation and for RL
        prompt = chat.prompt(TALK[:end], tokenizer).token_ids
        assert any(tuple(sample.token_ids[: len(prompt)]) == prompt for sample in samples)


@pytest.mark.parametrize("name", ["gemma-2", "smollm-3"])
def test_a_system_message_that_the_template_does_not_take_begins_the_first_question(name: str, tmp_path: Path) -> None:
    policy, chat = outline(str(SHAPES[name].save(tmp_path))), ChatFormat(template="chat")
    text = chat.text(chat.messages(PROBLEM), policy.tokenizer)
    assert f"user\n{chat.system}\n\n2+3?<" in text
    assert policy.turn(chat).endswith("; the template takes no system message as it is: it begins the first question")
    assert "system" not in policy.turn(ChatFormat(template="chat", system=""))
    two_questions = (*chat.messages(PROBLEM)[:1], *[Message(role="user", content="q")] * 2)
    if name == "gemma-2":
        with pytest.raises(ValueError, match="questions and answers must alternate"):
            chat.text(two_questions, policy.tokenizer)
        with pytest.raises(ValueError, match="no question follows that it could go into"):
            chat.text((two_questions[0], Message(role="assistant", content="a")), policy.tokenizer)


@pytest.mark.parametrize("name", ["qwen-3", "deepseek-r1"])
def test_exemplars_whose_reasoning_the_template_drops_are_refused(name: str) -> None:
    tokenizer = SHAPES[name].tokenizer()
    with pytest.raises(ValueError, match="drops 'two' from an exemplar"):
        ChatFormat(template="chat", exemplars=(("1+1?", "<think>two</think>2"),)).opened(tokenizer)
    assert ChatFormat(template="chat", exemplars=(("1+1?", "two, so 2"),)).opened(tokenizer) == SHAPES[name].opened
    kept = ChatFormat(template="chat", exemplars=(("1+1?", "<think>two</think>2"),))
    assert kept.opened(SHAPES["qwen-3.8"].tokenizer()) == "<think>\n"


def test_a_prefill_is_part_of_the_prompt_in_training_too() -> None:
    tokenizer, chat = SHAPES["qwen-3"].tokenizer(), ChatFormat(template="chat", system="", prefill="<think>")
    (sample,) = to_samples(Conversation(messages=TALK[1:3]), chat, tokenizer)
    prompt = chat.prompt(TALK[1:2], tokenizer)
    assert tokenizer.decode(prompt.token_ids).endswith("assistant\n<think>") and prompt.opened == "<think>"
    assert tuple(sample.token_ids) == (*prompt.token_ids, *tokenizer.encode("a</think>b<|im_end|>"))
    assert sum(sample.loss_mask) == len(sample.token_ids) - len(prompt.token_ids)


@pytest.mark.parametrize(
    ("template", "row"),
    [  # a template with a space before an answer, as Mistral's, and one with a line, as Phi-3's
        (
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
            "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
            ["<s>", "[INST]", "▁hi", "[/INST]", "▁a", "</s>", "[INST]", "▁hi", "[/INST]", "▁a", "</s>"],
        ),
        (
            "{{ bos_token }}{% for m in messages %}[INST]{{ m.content }}{{ '[/INST]' if m.role == 'user' else '</s>' }}"
            "{% endfor %}{% if add_generation_prompt %}[INST]{% endif %}",
            ["<s>", *("[INST]", "h", "i", "[/INST]", "[INST]", "a", "</s>") * 2],
        ),
    ],
)
def test_a_tokenizer_that_begins_texts_with_a_space_and_adds_bos_and_eos(template: str, row: list[str]) -> None:
    tokenizer = sentencepiece(template)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("hi")) == ["<s>", "▁hi", "</s>"]
    turns = [Message(role=role, content=text) for role, text in (("user", "hi"), ("assistant", "a"))]  # type: ignore[arg-type]
    chat = ChatFormat(template="chat", system="")
    (sample,) = to_samples(Conversation(messages=(*turns, *turns)), chat, tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(sample.token_ids)) == row
    assert [token for token, on in zip(row, sample.loss_mask, strict=True) if on] == [row[-2], "</s>"] * 2
    assert chat.prompt(tuple(turns[:1]), tokenizer).token_ids == tuple(sample.token_ids[: row.index("</s>") - 1])
    plain = ChatFormat(system="", plain="{question}").prompt(tuple(turns[:1]), tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(plain.token_ids)) == ["<s>", "h", "i"], "one BOS, no EOS"


def sentencepiece(template: str) -> Any:
    """A tokenizer in the manner of SentencePiece: a space before each text, BOS and EOS around it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁ahiA", "▁h", "▁hi", "▁a"]
    merges = [("▁", "h"), ("▁h", "i"), ("▁", "a")]
    vocabulary = {word: index for index, word in enumerate(words)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("[INST]", "[/INST]")])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer


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
