"""Models come in checked and go out as plain Hugging Face folders; what cannot work is refused before any work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from conftest import deepseek, llama, small  # noqa: E402
from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.models import attention  # noqa: E402
from r1kit.models.classify import fresh_reward_model  # noqa: E402
from r1kit.models.facts import facts_of  # noqa: E402
from r1kit.models.hub import context_of  # noqa: E402
from r1kit.models.known import KNOWN, ModelError, find, resolve  # noqa: E402
from r1kit.models.load import Policy, load, outline  # noqa: E402
from r1kit.models.plain import plain_path  # noqa: E402
from r1kit.models.preflight import choose_path  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.types import Prompt, SamplingParams  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
BASE = small()


def biased_deepseek() -> Any:
    """A DeepSeek-V3 whose router has biases."""
    model = deepseek()
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.linspace(-0.1, 0.1, len(buffer)))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    Policy(llama(context=64), TOKENIZER, (1,)).save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of a sound model folder, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


READ = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
out = []
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode("1+2=", add_special_tokens=False)])).logits[0, -1]
    out.append({"logits": logits.tolist(), "text": tokenizer.decode([20, 21]), "eos": tokenizer.eos_token_id})
assert not [name for name in sys.modules if name.startswith("r1kit")]
print(json.dumps(out))
"""


def test_what_is_saved_loads_with_transformers_alone(tmp_path: Path) -> None:
    models = {"llama": llama(context=64), "deepseek": biased_deepseek()}
    for name, model in models.items():
        Policy(model, TOKENIZER, (1,)).save(tmp_path / name)
        config = (tmp_path / name / "config.json").read_text()
        assert attention.NAME not in config
        assert json.loads(config)["architectures"] == [type(model).__name__]
    result = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", READ, *(str(tmp_path / name) for name in models)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    ids = torch.tensor([TOKENIZER.encode("1+2=", add_special_tokens=False)])
    for model, found in zip(models.values(), json.loads(result.stdout), strict=True):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            assert found["logits"] == pytest.approx(model(ids).logits[0, -1].tolist(), abs=1e-5)
        assert found["eos"] == 1 and found["text"] == TOKENIZER.decode([20, 21])


def test_a_router_bias_survives_saving_and_loading(tmp_path: Path) -> None:
    Policy(biased_deepseek(), TOKENIZER, (1,)).save(tmp_path / "model")
    again = load(str(tmp_path / "model"), device="cpu")
    biases = [b for name, b in again.model.named_buffers() if name.endswith("e_score_correction_bias")]
    assert biases and all(torch.allclose(bias, torch.linspace(-0.1, 0.1, 8)) for bias in biases)


def test_a_loaded_policy_generates_and_knows_its_end_and_its_context(folder: Path) -> None:
    policy = load(str(folder), device="cpu")
    assert policy.end_ids == (TOKENIZER.eos_token_id,) and policy.context == 64
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}
    prompt = Prompt(problem_id="p", messages=(), token_ids=(20, 21, 22))
    (group,) = LocalEngine(policy).generate([prompt], SamplingParams(n=2, max_tokens=4))
    assert len(group) == 2


def test_longrope_is_limited_to_the_length_up_to_which_neighbours_do_not_matter() -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 24, **factors}
    shape = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 60, "pad_token_id": 0}
    lengths = {"max_position_embeddings": 96, "original_max_position_embeddings": 24}
    config = transformers.Phi3Config(**shape, **lengths, rope_parameters=rope)
    assert context_of(config) == 24
    assert context_of(transformers.Phi3Config(**shape, max_position_embeddings=96)) == 96


def test_a_sliding_window_shorter_than_the_context_does_not_bound_it() -> None:
    model = transformers.AutoModelForCausalLM.from_config(transformers.MistralConfig(**BASE, sliding_window=50))
    choose_path(model, "mistral")
    assert plain_path(model) is None and model.config.sliding_window == 50
    assert Policy(model, TOKENIZER, (1,)).context == BASE["max_position_embeddings"]


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"model has no usable tokenizer .*save one beside the weights"):
        load(str(folder))


def test_no_tokenizer_is_made_up_for_a_configuration(tmp_path: Path) -> None:
    transformers.Qwen3Config(vocab_size=8).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no usable tokenizer .no tokenizer file is in the folder.: save one"):
        facts_of(str(tmp_path))


def damage(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_not_finite_are_refused_by_name(folder: Path) -> None:
    for value in (float("nan"), float("inf")):
        damage(folder, lambda tensors, value=value: tensors["model.norm.weight"][3:4].fill_(value))
        with pytest.raises(ModelError, match=r"NaN or infinite values in model.norm.weight"):
            load(str(folder))


def test_a_router_bias_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    Policy(biased_deepseek(), TOKENIZER, (1,)).save(tmp_path / "model")
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    damage(tmp_path / "model", lambda tensors: tensors[name][3:4].fill_(float("nan")))
    with pytest.raises(ModelError, match=rf"NaN or infinite values in {name}"):
        load(str(tmp_path / "model"))


def test_a_checkpoint_that_lacks_weights_is_refused(folder: Path) -> None:
    damage(folder, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(ModelError, match=r"lacks 1 weights \(model.norm.weight"):
        load(str(folder))


def test_a_truncated_weight_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="has a damaged weights file"):
        load(str(folder))


def test_a_quantized_model_that_needs_a_package_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"could not be loaded \(Loading a GPTQ quantized model requires"):
        load(str(folder))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(folder: Path) -> None:
    tokenizer = make()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="do not belong together"):
        load(str(folder))


def test_the_folder_of_a_stage_is_answered_with_that_of_its_model(folder: Path) -> None:
    with pytest.raises(ModelError, match=re.escape(f"{folder.parent} has no config.json: give {folder}")):
        resolve(str(folder.parent))


def test_a_folder_that_is_called_like_a_known_model_is_still_the_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert resolve(str(resolve("./tiny"))) == tmp_path / "tiny"


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{% if %}", "{{ messages[5].content }}"])
def test_a_chat_template_that_fails_is_refused(folder: Path, template: str) -> None:
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": template}))
    with pytest.raises(ModelError, match="chat template refuses these messages"):
        load(str(folder))


def test_a_device_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="there is no device 'gpu'"):
        load(str(folder), device="gpu")


def test_a_tokenizer_without_an_end_token_is_refused(folder: Path) -> None:
    tokenizer = make()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="no end token"):
        load(str(folder))


def test_names_that_lead_nowhere_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean smollm2-135m"):
        resolve("smollm2-135")
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(str(tmp_path))
    for name in ("./nowhere", "models/my model", "models/modèle", "a/b/c"):  # a renamed folder is no hub id
        with pytest.raises(ModelError, match="there is no model"):
            resolve(name)
    assert set(KNOWN) >= {"tiny", "smollm2-135m", "tiny-deepseek-v3"}


def test_models_that_are_not_here_are_found_to_be_missing_without_fetching_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R1KIT_CACHE", str(tmp_path / "cache"))
    assert find("smollm2-135m") is None and find("tiny-deepseek-v3") is None and find("owner/never-fetched") is None
    assert not (tmp_path / "cache").exists()
    assert find(str(folder)) == folder
    assert resolve("tiny-deepseek-v3") == find("tiny-deepseek-v3") == tmp_path / "cache" / "tiny-deepseek-v3"
    with pytest.raises(ModelError, match="there is no model"):
        find("./nowhere")


def test_an_outline_has_tokenizer_ends_and_context_and_needs_no_weights(folder: Path) -> None:
    whole = load(str(folder))
    (folder / "model.safetensors").unlink()
    known = outline(str(folder))
    assert (known.context, known.end_ids) == (whole.context, whole.end_ids)
    assert known.tokenizer.encode("2 + 2?") == whole.tokenizer.encode("2 + 2?")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="no usable configuration"):
        outline(str(folder))


SOUND = {
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "gemma2": lambda **base: transformers.Gemma2Config(**base, head_dim=8),
    "gemma3": lambda **base: transformers.Gemma3TextConfig(**base, sliding_window=128),
    "gpt-oss": lambda **base: transformers.GptOssConfig(**base, head_dim=8, num_local_experts=4, num_experts_per_tok=2),
    "granite": lambda **base: transformers.GraniteConfig(**base, logits_scaling=8.0),
    "hyperclova-x": lambda **base: transformers.HyperCLOVAXConfig(**base, logits_scaling=0.5),
    "cohere": transformers.CohereConfig,
    "gpt2": lambda **_: transformers.GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4),
}
LEAKY = {
    "position bias": lambda: transformers.BloomConfig(vocab_size=90, hidden_size=32, n_layer=2, n_head=4),
    "chunks": lambda: transformers.Llama4TextConfig(
        **BASE, head_dim=8, intermediate_size_mlp=48, num_local_experts=2, attention_chunk_size=32
    ),
    "compressed keys": lambda: transformers.DeepseekV4Config(
        **BASE | {"num_key_value_heads": 1},
        head_dim=16,
        q_lora_rank=16,
        o_lora_rank=16,
        o_groups=2,
        index_n_heads=2,
        index_head_dim=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        layer_types=["compressed_sparse_attention", "sliding_attention"],
    ),
}


def architecture(config: Any) -> Any:
    """Weights as large as those of a trained model: an untrained one can hide a leak."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


@pytest.mark.parametrize("name", SOUND)
def test_architectures_whose_attention_is_computed_take_packed_rows(name: str) -> None:
    model = architecture(SOUND[name](**BASE))
    choose_path(model, name)
    assert plain_path(model) is None and model.config._attn_implementation == attention.NAME


def test_deepseek_takes_packed_rows() -> None:
    model = biased_deepseek()
    choose_path(model, "deepseek-v3")
    assert plain_path(model) is None


@pytest.mark.parametrize("name", LEAKY)
def test_architectures_that_packed_rows_do_not_compute_take_the_plain_path(name: str) -> None:
    model = architecture(LEAKY[name]())
    choose_path(model, name)
    path = plain_path(model)
    assert path and path.reason and model.config._attn_implementation != attention.NAME
    choose_path(model, name)
    assert plain_path(model) == path


def test_loading_chooses_the_path_and_says_why(tmp_path: Path) -> None:
    Policy(
        architecture(transformers.BloomConfig(vocab_size=132, hidden_size=32, n_layer=2, n_head=4)), TOKENIZER, (1,)
    ).save(tmp_path / "bloom")
    assert re.match(
        "bloom takes the plain path .* with padded rows.*: slower.*: packed rows do not compute it, its attention",
        load(str(tmp_path / "bloom")).path,
    )


def spoil(model: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a model's own passes disagree: rows see each other, tokens see later ones, or only the cache is wrong."""
    own = model.transformer.forward

    def forward(*args: Any, **inputs: Any) -> Any:
        output = own(*args, **inputs)
        states = output.last_hidden_state  # [N, L, d]
        if how == "batch" or (how == "cache" and states.shape[1] == 1):
            output.last_hidden_state = states + (states.mean(0, keepdim=True) if len(states) > 1 else 0)
        elif how == "future":
            output.last_hidden_state = states + states.mean(1, keepdim=True)
        return output

    monkeypatch.setattr(model.transformer, "forward", forward)
    if how == "head":
        model.config.logits_scaling = 2.0  # which bloom's own code does not know


REASONS = {"batch": "a batch differs", "future": "token by token it differs", "head": "its head is not"}


@pytest.mark.parametrize("how", REASONS)
def test_an_architecture_whose_own_passes_disagree_is_refused(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = architecture(LEAKY["position bias"]())
    spoil(model, how, monkeypatch)
    with pytest.raises(ModelError, match=f"nor with its own code.*{REASONS[how]}"):
        choose_path(model, "spoiled")


def test_a_model_whose_cache_is_wrong_reads_all_tokens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = architecture(LEAKY["position bias"]())
    spoil(model, "cache", monkeypatch)
    choose_path(model, "spoiled")
    path = plain_path(model)
    assert path and not path.caches and path.pads_right


CODE = """
from pathlib import Path

Path(__file__).with_name("marker").write_text("ran")
"""

LOAD_ALL = """
import json, sys
from r1kit.models import classify, load
from r1kit.models.known import ModelError

messages = []
for module, function, folder in json.loads(sys.argv[1]):
    try:
        getattr(globals()[module], function)(folder)
    except ModelError as error:
        messages.append(str(error))
print(json.dumps(messages))
"""


def test_code_in_a_model_folder_is_refused_whatever_stands_on_standard_input(tmp_path: Path) -> None:
    cases: list[tuple[str, str, str]] = []
    for module, function in (("load", "load"), ("load", "outline"), ("classify", "load_reward_model")):
        for part in ("config", "tokenizer"):
            cases.append((module, function, str(tmp_path / f"{function}-{part}")))
            save_with_code(Path(cases[-1][2]), part, classifier=module == "classify")
    done = subprocess.run(  # one process for all of them: it takes some seconds to start
        [sys.executable, "-c", LOAD_ALL, json.dumps(cases)],
        input="y\n" * 30,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    messages = json.loads(done.stdout.splitlines()[-1])
    assert len(messages) == len(cases)
    assert all("r1kit does not run code from model folders" in message for message in messages), messages
    assert not list(tmp_path.rglob("marker"))


def save_with_code(folder: Path, part: str, *, classifier: bool) -> None:
    """A model whose `part` (config or tokenizer) is of a class in the folder; the rest of it is sound."""
    Policy(llama(context=64), TOKENIZER, (1,)).save(folder)
    (folder / "own.py").write_text(CODE)
    for name, changes in {
        "config.json": {
            "model_type": "own",
            "architectures": ["Own"],
            "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
        },
        "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}},
    }.items():
        if name.startswith(part):
            written = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(written | changes))
    if part == "tokenizer" and classifier:
        fresh_reward_model(
            "tiny", ChatFormat(template="chat", system=""), "response", device="cpu"
        ).model.save_pretrained(folder)
