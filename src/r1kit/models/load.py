"""Loading and saving models: Hugging Face folders in, Hugging Face folders out, checked before any work starts."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from r1kit.chat import ChatFormat, describe_turn, end_ids, end_texts
from r1kit.models import attention, compute
from r1kit.models.bf16_weights import round_weights
from r1kit.models.devices import device_of
from r1kit.models.folder_code import code_options
from r1kit.models.head import WITHOUT_TOKEN
from r1kit.models.hub import config_of, context_of, listed_ends, reading, tokenizer_of
from r1kit.models.known import ModelError, resolve
from r1kit.models.plain import describe_path
from r1kit.models.preflight import bf16_obstacle, choose_path
from r1kit.store import atomic_folder, read_object
from r1kit.types import ComputeDtype, SamplingParams, WeightsDtype

_LAYER = re.compile(r"\blayers\.(\d+)\.")  # of a weight's name


@dataclass(frozen=True)
class Policy:
    """A causal LM, its tokenizer, and what ends a completion in training and in sampling alike: ids, and texts for chat
    templates that have no token for it."""

    model: Any
    tokenizer: Any
    end_ids: tuple[int, ...]
    end_texts: tuple[str, ...] = ()

    @property
    def context(self) -> int:
        """The longest sequence that the model takes, in tokens."""
        return context_of(self.model.config.get_text_config())

    @property
    def path(self) -> str:
        """One line for people if the model runs on the plain path, with the reason and the cost; otherwise empty."""
        return describe_path(self.model)

    def with_ends(self, params: SamplingParams) -> SamplingParams:
        """The settings with the ids and texts that end the policy's turn among the stops."""
        stop, ids = (*params.stop, *self.end_texts), (*self.end_ids, *params.stop_token_ids)
        return replace(params, stop=stop, stop_token_ids=ids)

    def turn(self, chat: ChatFormat) -> str:
        """One line for people: what prompts in a format open, and what ends a completion.

        Raises `ModelError` for a format that the model's chat template cannot follow.
        """
        try:
            line = describe_turn(chat.opened(self.tokenizer), self.end_ids, self.end_texts, self.tokenizer)
            folded = "; the template takes no system message as it is: it begins the first question"
            return line + folded if chat.folds_system(self.tokenizer) else line
        except ValueError as error:
            raise ModelError(str(error)) from None

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), config, tokenizer and template, as `AutoModelForCausalLM` loads them.

        The generation config gets the end ids, at which transformers and vLLM stop.
        """
        model = merged(self.model)
        set_ends(model, self.end_ids)
        with atomic_folder(folder) as part:
            model.save_pretrained(part)
            self.tokenizer.save_pretrained(part)


def set_ends(model: Any, ids: tuple[int, ...]) -> None:
    """Let transformers and vLLM stop at the ids. Drops sampling defaults that transformers would refuse to save."""
    from transformers import GenerationConfig

    config = model.generation_config
    config.eos_token_id = ids[0] if len(ids) == 1 else list(ids)
    try:
        config.validate(strict=True)
    except ValueError:  # such as a temperature without do_sample, which many published models have
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(config, name) for name in names})


def load(
    name: str,
    *,
    device: str = "auto",
    compute_dtype: ComputeDtype = "auto",
    weights_dtype: WeightsDtype = "fp32",
    seed: int = 0,
) -> Policy:
    """Load a model and its tokenizer, with linear layers that compute in `compute_dtype`, and choose its path.

    Raises `ModelError` for a model without a tokenizer, an end token or some of its weights, for weights that are not
    finite, for a vocabulary smaller than the tokenizer's, and for an architecture that neither path computes.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    folder = resolve(name)
    read_object(folder / "config.json")  # of another shape, it would be reported as a tokenizer's fault
    transformers_logging.disable_progress_bar()  # r1kit reports progress itself
    attention.register()
    torch.manual_seed(seed)  # transformers draws missing weights at random; they are refused below
    tokenizer = tokenizer_of(folder, name)
    ids, texts = _ends(tokenizer, folder, name)
    with reading(name, "could not be loaded"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **code_options(folder)
        )
    model, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ModelError(
            f"{name} lacks {len(missing)} weights ({', '.join(missing[:3])}{', ...' if missing[3:] else ''}): its "
            "checkpoint is incomplete, so give a complete one"
        )
    _require_all_layers(model.config, info["unexpected_keys"], name)
    check_weights(model, name)
    choose_path(model, name)  # on the CPU, in fp32, before the weights move
    check_vocabulary(model, tokenizer, name)
    hide_ids_without_token(model, tokenizer)
    place(model, device, compute_dtype, weights_dtype)
    return Policy(model, tokenizer, ids, texts)


def place(model: Any, device: str, compute_dtype: ComputeDtype, weights_dtype: WeightsDtype = "fp32") -> None:
    """Move a model from the CPU to a device, in the precisions of its settings.

    Raises `ModelError` for bf16 on a CPU if the model's code does not run in it; `auto` then means fp32.
    """
    target = device_of(device)
    if weights_dtype == "bf16":  # before the move: weights in fp32 may not fit there
        round_weights(model, target)
    model.to(target)
    compute.choose(model, compute_dtype)
    if target.type == "cpu" and compute.compute_dtype_of(model) == torch.bfloat16 and (reason := bf16_obstacle(model)):
        if "bf16" in (compute_dtype, weights_dtype):
            problem = f"{model.config.model_type} does not run on a CPU with linear layers in bf16 ({reason})"
            raise ModelError(f"{problem}: set compute_dtype and weights_dtype to fp32")
        model.compute_dtype, model.rounding_obstacle = torch.float32, reason


def ids_without_token(tokenizer: Any, size: int) -> list[int]:
    """The ids below `size`, the number of a model's embeddings, that the tokenizer does not know."""
    return sorted(set(range(size)) - set(tokenizer.get_vocab().values()))


def hide_ids_without_token(model: Any, tokenizer: Any) -> None:
    """Give ids that the tokenizer does not know no probability, in sampling, training and distillation alike.

    Many models pad their embeddings to a round number. Such an id has no text, and nothing ever trained it.
    """
    without = ids_without_token(tokenizer, model.get_output_embeddings().weight.shape[0])
    if without:  # a buffer moves with the model; not persistent, so it is in no checkpoint
        model.register_buffer(WITHOUT_TOKEN, torch.tensor(without), persistent=False)


def outline(name: str) -> Policy:
    """A model's tokenizer, end ids and context without its weights: enough to refuse prompts before any work.

    Its `model` has only a `config`. Raises `ModelError` if the tokenizer or the configuration cannot be read.
    """
    folder = resolve(name)
    config, tokenizer = config_of(folder, name), tokenizer_of(folder, name)
    return Policy(SimpleNamespace(config=config), tokenizer, *_ends(tokenizer, folder, name))


def _ends(tokenizer: Any, folder: Path, name: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The ids and texts that end a completion."""
    try:
        return end_ids(tokenizer, listed_ends(folder)), end_texts(tokenizer)
    except ValueError as error:
        raise ModelError(f"{name}: {error}") from None


def fresh_llama(tokenizer: Any, *, layers: int, width: int, heads: int, context: int, seed: int) -> Any:
    """A Llama with random weights, tied embeddings and a SwiGLU of 8/3 the width, for pre-training."""
    from transformers import LlamaConfig, LlamaForCausalLM

    attention.register()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._attn_implementation = attention.NAME
    return LlamaForCausalLM(config)


def _require_all_layers(config: Any, unexpected: Iterable[str], name: str) -> None:
    """Refuse weights of more layers than the configuration has: transformers leaves the others out without a word."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    numbers = [int(match[1]) for key in unexpected if (match := _LAYER.search(key))]
    if layers is not None and numbers and max(numbers) >= layers:
        raise ModelError(
            f"{name} has weights of {max(numbers) + 1} layers, and its config.json has num_hidden_layers {layers}: the "
            "configuration was cut or belongs to another model; correct it"
        )


def check_weights(model: nn.Module, name: str) -> None:
    """Refuse weights that are not finite, a router's bias among them: training would only spread them."""
    for key, tensor in model.state_dict().items():  # parameters, and the buffers that a checkpoint holds
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{name} has NaN or infinite values in {key}: the checkpoint is damaged")


def check_vocabulary(model: Any, tokenizer: Any, name: str) -> None:
    """Refuse a tokenizer with more tokens than the model has embeddings."""
    size = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise ModelError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens but the model only {size} embeddings: they do not "
            "belong together"
        )


def add_lora(policy: Policy, rank: int, alpha: int, targets: tuple[str, ...]) -> Policy:
    """Freeze the weights and put low-rank adapters on the linear layers named in `targets` (peft)."""
    from peft import LoraConfig, get_peft_model

    # peft draws A at random and sets B to 0: the policy starts as the base model
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets) or "all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(policy.model, config).get_base_model()
    if hasattr(model.get_output_embeddings(), "lora_A"):
        raise ModelError("lora_targets names the language-model head, which r1kit computes itself: leave it out")
    if hasattr(model.get_input_embeddings(), "lora_A"):  # merged, it would change a tied head too
        raise ModelError("lora_targets names the token embeddings: give names of linear layers")
    return replace(policy, model=model)


def merged(model: Any) -> Any:
    """The model itself, or a copy with its adapters merged into the weights, in fp32 and in main memory.

    In bf16 the sum would lose what a small update adds.
    """
    if not has_adapters(model):
        return model
    plain = copy.deepcopy(model)
    # a list first: the loop replaces modules that it would walk over
    for name, layer in [named for named in plain.named_modules() if hasattr(named[1], "get_base_layer")]:
        layer.to("cpu", torch.float32).merge()
        plain.set_submodule(name, layer.get_base_layer())
    return plain


def has_adapters(model: nn.Module) -> bool:
    """Whether peft put adapters on layers of the model."""
    return any(hasattr(module, "get_base_layer") for module in model.modules())


def named_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights by their names in a saved model, adapters merged in; without adapters, the model's own tensors.

    Nothing is copied or merged before the first tensor is read: an engine that shares the model never reads one.
    """
    yield from merged(model).state_dict().items()


def frozen_copy(model: Any) -> Any:
    """A reference model: the same weights, without gradients."""
    assert not has_adapters(model), "the reference of adapters is the model without them"
    reference = copy.deepcopy(model)
    for parameter in reference.parameters():
        parameter.requires_grad_(False)
    return reference.eval()  # without dropout, as the policy is trained
