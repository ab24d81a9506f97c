"""An export is run where it will be used, and counts only if it answers like the trained model."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from conftest import small

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")

from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.export import ExportError, export, gguf_file, gguf_tokenizer, ollama, proof, writing  # noqa: E402
from r1kit.export.gguf_network import shape_of  # noqa: E402
from r1kit.export.questions import TEXTS, Answers  # noqa: E402
from r1kit.export.template import trained_template  # noqa: E402
from r1kit.models.known import ModelError  # noqa: E402
from r1kit.models.load import load  # noqa: E402
from r1kit.store import read_json, write_json  # noqa: E402

needs_runner = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def by_name(checks: Any) -> dict[str, Any]:
    return {check.name: check for check in checks}


def bpe_folder(folder: Path, config: Any, steps: list[Any], begin: str = "", end: str = "<|im_end|>") -> Path:
    """A model with random weights and a byte-level BPE tokenizer that cuts texts by `steps`, and adds `begin`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<|endoftext|>", "<|im_start|>", end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "the name of the answer is 12345 and it's what we've written"], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token="<|endoftext|>")
    fast.chat_template = CHATML.replace("<|im_end|>", end)
    if begin:
        fast.bos_token, fast.chat_template = begin, "{{ bos_token }}" + fast.chat_template
        pair = (begin, fast.bos_token_id)
        fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[pair]
        )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zeros at the start, so a lost one would not be seen
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def llama3_split(pattern: str) -> list[Any]:
    from tokenizers import Regex, pre_tokenizers

    return [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, False, False)]


def byte_level() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def digits() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Digits(individual_digits=True)


SIZES: dict[str, Any] = {"vocab_size": 384, "initializer_range": 0.2, "max_position_embeddings": 512}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PATTERNS = {name: pattern for pattern, name in gguf_tokenizer.SPLITS.items()}
SHAPES: dict[str, tuple[Callable[[], Any], Callable[[], list[Any]]]] = {
    "llama-gpt2": (lambda: transformers.LlamaConfig(**small(**SIZES)), lambda: [byte_level()]),
    "llama-biases-smollm": (
        lambda: transformers.LlamaConfig(
            **small(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
        ),
        lambda: [digits(), byte_level()],
    ),
    "llama3": (
        lambda: transformers.LlamaConfig(**small(**SIZES, rope_parameters=LLAMA3_ROPE)),
        lambda: llama3_split(PATTERNS["llama-bpe"]),
    ),
    "llama-linear": (
        lambda: transformers.LlamaConfig(
            **small(**SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0})
        ),
        lambda: [byte_level()],
    ),
    "qwen2": (lambda: transformers.Qwen2Config(**small(**SIZES)), lambda: llama3_split(PATTERNS["qwen2"])),
    "qwen3": (lambda: transformers.Qwen3Config(**small(**SIZES), head_dim=32), lambda: llama3_split(PATTERNS["qwen2"])),
}


@needs_runner
@pytest.mark.parametrize("shape", SHAPES)
def test_llama_and_qwen_shapes_answer_in_llama_cpp_as_trained(shape: str, tmp_path: Path) -> None:
    config, steps = SHAPES[shape]
    begin = "<|endoftext|>" if shape == "llama3" else ""
    folder = bpe_folder(tmp_path / shape, config(), steps(), begin)
    checks = by_name(export(str(folder), "gguf", tmp_path / "out", prompts=4).checks)
    assert checks["token ids of texts"].measured == "6 of 6"


@needs_runner
@pytest.mark.parametrize("quant", ["f16", "q8_0"])
def test_the_tiny_model_with_its_own_format(quant: Any, tmp_path: Path) -> None:
    exported = export("tiny", "gguf", tmp_path / "out", quant=quant, prompts=8)
    record = read_json(tmp_path / "out" / "export.json")
    assert record["model"] == "tiny" and record["precision"] == quant
    assert [row["ok"] for row in record["proof"]] == [True] * len(exported.checks)
    assert set(record["files"]) == {"model.gguf"}
    assert "6 of 6" in by_name(exported.checks)["prompts by the chat template"].measured


def lose_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "permuted", lambda weight, heads: weight)


def swap_two_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gguf_file.permuted
    calls: list[int] = []

    def wrong(weight: Any, heads: int) -> Any:
        calls.append(heads)
        rows = right(weight, heads)
        return rows.unflatten(0, (heads, -1)).flip(0).flatten(0, 1) if len(calls) == 1 else rows  # one layer's queries

    monkeypatch.setattr(gguf_file, "permuted", wrong)


def change_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "trained_template", lambda *_: CHATML)


def change_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_tokenizer, "lower_case_map", lambda: b"")


@needs_runner
@pytest.mark.parametrize(
    ("sabotage", "quant", "failed"),
    [
        (lose_permutation, "f16", "log-prob gap"),
        (swap_two_heads, "q8_0", "log-prob gap"),  # the smaller fault against the wider limits
        (change_template, "f16", "prompts by the chat template"),
        (change_splits, "f16", "token ids of texts"),
    ],
)
def test_a_sabotaged_gguf_is_refused_and_nothing_is_left(
    sabotage: Any, quant: Any, failed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    with pytest.raises(ExportError, match=f"the export is not the trained model .*{failed}"):
        export("tiny", "gguf", tmp_path / "out", quant=quant, prompts=4)
    assert list(tmp_path.iterdir()) == []


@needs_runner
def test_a_lost_end_token_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # by its name llama.cpp would know <|im_end|> without being told
    folder = bpe_folder(tmp_path / "model", SHAPES["llama-gpt2"][0](), [byte_level()], end="<|done|>")
    export(str(folder), "gguf", tmp_path / "out", prompts=2)
    right = gguf_tokenizer.add_tokenizer
    monkeypatch.setattr(
        gguf_file, "add_tokenizer", lambda writer, tokenizer, _, size: right(writer, tokenizer, [0], size)
    )
    with pytest.raises(ExportError, match="end tokens end an answer"):
        export(str(folder), "gguf", tmp_path / "lost", prompts=2)
    assert not (tmp_path / "lost").exists()


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_nothing_that_looks_done(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\nfrom r1kit.export import proof, export\n"
        "proof.run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "export('tiny', 'hub-folder', pathlib.Path(sys.argv[1]), prompts=1)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists() and all(path.name.startswith(".") for path in tmp_path.iterdir())


@needs_runner
def test_ollama_gets_the_same_prompts_stops_and_parameters(tmp_path: Path) -> None:
    checks = by_name(export("tiny", "ollama", tmp_path / "out", prompts=2).checks)
    assert checks["prompts by the Modelfile"].measured == "6 of 6"
    values = ollama.read_modelfile((tmp_path / "out" / "Modelfile").read_text())
    assert values["FROM"] == ["./model.gguf"] and (tmp_path / "out" / "model.gguf").is_file()
    assert values["PARAMETER stop"] == ["<|end|>", "\nUser:"] and values["PARAMETER repeat_penalty"] == ["1.0"]
    assert values["SYSTEM"][0].startswith("think, then answer")


@needs_runner
@pytest.mark.parametrize(("part", "failed"), [("Assistant", "prompts by the Modelfile"), ("<|end|>", "stop texts")])
def test_a_wrong_modelfile_is_refused(part: str, failed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ollama.modelfile
    monkeypatch.setattr(ollama, "modelfile", lambda policy, chat: right(policy, chat).replace(part, "Bot"))
    with pytest.raises(ExportError, match=failed):
        export("tiny", "ollama", tmp_path / "out", prompts=2)
    assert list(tmp_path.iterdir()) == []


FORMATS = [
    ChatFormat(),
    ChatFormat(system="", prefill="<think>\n"),
    ChatFormat(system='say "so"', exemplars=(("e\n'q'", "r\\"),)),
    ChatFormat(plain="\n\n{question} -> {system}|{history}"),
    ChatFormat(template="chat"),
    ChatFormat(template="chat", system="", prefill="<think>", options={"enable_thinking": False}),
    ChatFormat(template="chat", exemplars=(("e", "r"),)),
]


@pytest.mark.parametrize("chat", FORMATS)
def test_the_exported_template_and_the_go_template_write_the_prompts_of_the_format(chat: ChatFormat) -> None:
    from r1kit.tiny.tokenizer import make
    from r1kit.types import Message, Problem

    tokenizer = make()
    tokenizer.chat_template = CHATML
    template = trained_template(chat, tokenizer)
    opening = chat.messages(Problem(id="", prompt="", answer=""))[:-1]
    question, answer = Message(role="user", content="q {x} {{ y }}"), Message(role="assistant", content="a")
    system = Message(role="system", content="be brief")
    for turns in ((question,), (question, answer, question), (system, question), (system, question, answer, question)):
        whole = turns if turns[0].role == "system" else (*opening, *turns)
        expected = chat.text(whole, tokenizer) + chat.prefill
        rows = [{"role": turn.role, "content": turn.content} for turn in turns]
        written = tokenizer.apply_chat_template(
            rows, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert written == expected
        whole_rows = [{"role": turn.role, "content": turn.content} for turn in whole]
        if "|{history}" not in chat.plain:  # Ollama fills turns in order
            assert ollama.render_go(ollama.go_template(chat, tokenizer), whole_rows) == expected
    again = tokenizer.apply_chat_template(  # r1kit brings system message and exemplars itself
        [{"role": turn.role, "content": turn.content} for turn in (*opening, question)],
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
    )
    assert again == chat.text((*opening, question), tokenizer) + chat.prefill


def test_without_the_runner_no_proof_must_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else find_spec(name))
    with pytest.raises(ExportError, match=r"pip install 'r1kit\[export\]'.*--no-proof"):
        export("tiny", "gguf", tmp_path / "out")
    assert "NOT PROVED" in export("tiny", "gguf", tmp_path / "out", prove=False).text
    assert "--no-proof" in read_json(tmp_path / "out" / "export.json")["proof"]


YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("Qwen3", {"rope_parameters": YARN}, "its positions are scaled by yarn"),
        ("Qwen3", {"rope_parameters": LLAMA3_ROPE}, "its positions are scaled by llama3"),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 64}, "its attention has a sliding window"),
        ("Llama", {"hidden_act": "gelu"}, "its activation is gelu, not silu"),
        ("Qwen3Moe", {"num_experts": 4, "moe_intermediate_size": 16}, "the model is a qwen3_moe"),
        ("Mistral", {}, "the model is a mistral"),
    ],
)
def test_what_a_gguf_file_cannot_say_is_refused_with_the_reason(kind: str, changes: Any, reason: str) -> None:
    config = getattr(transformers, f"{kind}Config")(**small(**SIZES, **changes))
    with pytest.raises(ModelError, match=f"{reason}.*: export the model as hub-folder, or use llama.cpp's own"):
        shape_of(config)


def test_a_model_of_another_shape_and_a_foreign_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="deepseek_v3, and GGUF files are written for llama, qwen2, qwen3"):
        export("tiny-deepseek-v3", "gguf", tmp_path / "out", prove=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(ModelError, match="is not an export of r1kit"):
        export("tiny", "gguf", tmp_path / "mine", prove=False)
    with pytest.raises(ModelError, match="is a whole model, not an adapter"):
        export("tiny", "adapter", tmp_path / "out")


def run_here(program: Path, exported: Path, questions: Any) -> Any:
    """`proof.run` in this process, which has loaded transformers already."""
    with TemporaryDirectory() as folder:
        files = Path(folder) / "questions.json", Path(folder) / "answers.json"
        write_json(files[0], questions)
        runpy.run_path(str(program))["main"](str(exported), *map(str, files), "1")
        return Answers(**read_json(files[1]))


@pytest.fixture
def adapter(tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An adapter with random weights and a base beside it, in a cache of the test's own."""
    peft = pytest.importorskip("peft")
    monkeypatch.setenv("R1KIT_CACHE", str(tmp_path / "cache"))
    base = shutil.copytree(tiny_policy_folder, tmp_path / "base")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@needs_runner
@pytest.mark.parametrize("quant", ["f16", "q8_0"])
def test_a_lost_adapter_is_refused(adapter: Path, quant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = by_name(export(str(adapter), "gguf", tmp_path / "out", quant=quant, prompts=2).checks)
    assert 0.9 < float(share["adapter's effect"].measured.split()[0]) < 1.1
    base = load(str(adapter.parent / "base"), device="cpu").model
    monkeypatch.setattr("r1kit.models.load.named_weights", lambda model: iter(base.state_dict().items()))
    with pytest.raises(ExportError, match="adapter's effect"):
        export(str(adapter), "gguf", tmp_path / "lost", quant=quant, prompts=2)
    assert not (tmp_path / "lost").exists()


def changed(base: list[float], by: Callable[[int], float]) -> list[list[float | None]]:
    return [[value + by(place) for place, value in enumerate(base)]]


def test_an_adapter_is_seen_through_rounding_that_is_larger_and_not_through_any() -> None:
    base = [-1.0 - 0.01 * place for place in range(200)]
    adapted = changed(base, lambda place: 0.02 * (-1) ** place)

    def check(adapter: float, rounding: float) -> proof.Check:
        exported = changed(base, lambda place: adapter * (-1) ** place + rounding * (-1) ** (place // 2))
        return proof._adapter([base], adapted, exported)

    assert check(0.02, 0.0).measured.startswith("1 of it") and check(0.02, 0.0).ok
    assert check(0.02, 0.05).ok and not check(0.0, 0.05).ok
    assert not check(0.005, 0.0).ok and not check(-0.02, 0.0).ok
    assert not check(0.02, 0.08).ok  # what is there cannot be told from what the rounding does
    assert proof._adapter([base], [base], changed(base, lambda place: 1e-6)).ok  # before its first update


@pytest.mark.slow
def test_folders_load_in_plain_transformers(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = export(str(adapter), "adapter", tmp_path / "alone", prompts=2)
    monkeypatch.setattr(proof, "run", run_here)  # the second process would prove nothing new
    assert {"adapter_model.safetensors", "base", "chat_template.jinja"} <= {
        path.name for path in alone.folder.iterdir()
    }
    assert read_json(alone.folder / "adapter_config.json")["base_model_name_or_path"] == "base"
    merged = export(str(adapter), "hub-folder", tmp_path / "merged", prompts=2)
    assert "adapter_config.json" not in {path.name for path in merged.folder.iterdir()}
    for exported in (alone, merged):
        assert str(tmp_path) not in "".join(path.read_text() for path in exported.folder.glob("*.[jm][sd]*"))
    monkeypatch.setattr(writing, "resolve", lambda name: adapter.parent / "base")
    with pytest.raises(ExportError, match="adapter's effect"):
        export(str(adapter), "hub-folder", tmp_path / "lost", prompts=2)
