"""The learner continues bit for bit from a checkpoint, refuses gradients that are not finite, and wastes no pass."""

from __future__ import annotations

import math
import random
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from conftest import deepseek, llama  # noqa: E402
from r1kit.models import attention, head  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.bf16_weights import stochastic_round  # noqa: E402
from r1kit.models.compute import has_bf16_kernels  # noqa: E402
from r1kit.models.known import ModelError  # noqa: E402
from r1kit.models.load import Policy, add_lora, fresh_llama, place  # noqa: E402
from r1kit.store import StoreError  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train import checkpoints  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.next_token import next_token  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.train.rl.loop import even_runs  # noqa: E402
from r1kit.train.rl.reference import Reference  # noqa: E402
from r1kit.types import Sample  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
SETTINGS = OptimizerSettings(learning_rate=1e-2, schedule="cosine", warmup_steps=2, weight_decay=0.1)


def samples(step: int = 0, zero: int = 0) -> list[Sample]:
    """Three groups of three with their own advantages, the first `zero` samples with none."""
    rng = random.Random(step)
    found = []
    for index in range(9):
        prompt = [20 + index // 3, 21, 22]
        completion = [rng.randrange(3, 60) for _ in range(rng.randrange(2, 8))]
        advantage = 0.0 if index < zero else rng.gauss(0, 1)
        found.append(
            Sample(
                token_ids=[*prompt, *completion],
                loss_mask=[False] * 3 + [True] * len(completion),
                logprobs=[0.0] * 3 + [rng.gauss(-4.8, 0.1) for _ in completion],
                advantages=[0.0] * 3 + [advantage] * len(completion),
            )
        )
    return found


def update(learner: Learner, step: int) -> dict[str, float]:
    given = samples(step)
    sums = learner.forward_backward(pack(given, 60), grpo(PRESETS["dapo"]), Totals.of(given))
    return sums | learner.step()


def state(model: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_identical(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), f"{name} differs"


@pytest.mark.parametrize("make_model", [llama, deepseek])
def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(
    make_model: Callable[..., Any], tmp_path: Path
) -> None:
    straight = Learner(make_model(), SETTINGS, steps=6)
    rows = [update(straight, step) for step in range(6)]

    first = Learner(make_model(), SETTINGS, steps=6)
    for step in range(3):
        update(first, step)
    first.save(tmp_path / "saved", {"position": 17})

    second = Learner(make_model(seed=1), SETTINGS, steps=6)  # other weights, which the checkpoint replaces
    assert second.load(tmp_path / "saved") == {"updates": 3, "position": 17}
    assert [update(second, step) for step in range(3, 6)] == rows[3:]
    assert_identical(state(second.model), state(straight.model))


@pytest.mark.parametrize("name", ["policy.safetensors", "optimizer.pt", "state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    learner = Learner(llama(), SETTINGS, steps=2)
    update(learner, 0)
    learner.save(tmp_path / "saved", {})
    for damaged in (b"", (tmp_path / "saved" / name).read_bytes()[:9]):
        (tmp_path / "saved" / name).write_bytes(damaged)
        with pytest.raises(StoreError, match=r"saved is damaged \("):
            learner.load(tmp_path / "saved")


def test_a_reference_is_saved_and_restored_beside_the_policy(tmp_path: Path) -> None:
    learner = Learner(llama(), SETTINGS, steps=4)
    update(learner, 0)
    reference = Reference(learner)
    update(learner, 1)
    learner.save(tmp_path / "saved", {}, reference.tensors)
    other = Learner(llama(), SETTINGS, steps=4)
    restored = Reference(other)
    other.load(tmp_path / "saved", restored.tensors)
    assert_identical(restored.tensors, reference.tensors)
    assert_identical(state(other.model), state(learner.model))


def test_a_reference_under_lora_is_the_model_without_its_adapters_and_no_second_one(tmp_path: Path) -> None:
    pytest.importorskip("peft")

    def fresh() -> Learner:
        return Learner(add_lora(Policy(llama(), TOKENIZER, (1,)), 4, 8, ()).model, SETTINGS, steps=4)

    learner, batches = fresh(), pack(samples(), 1000)
    start = Reference(learner)
    update(learner, 0)
    later, logprobs = Reference(learner), learner.logprobs(batches[0])
    update(learner, 1)
    trained = state(learner.model)
    base = Learner(llama(), SETTINGS, steps=1)
    torch.testing.assert_close(start.logprobs(batches), [base.logprobs(batch) for batch in batches])
    assert torch.equal(later.logprobs(batches)[0], logprobs)
    assert_identical(state(learner.model), trained)  # the swapped adapters are back
    assert start.model is None and set(start.tensors) == set(learner.parameters)

    learner.save(tmp_path / "saved", {}, later.tensors)
    other = fresh()
    restored = Reference(other)
    other.load(tmp_path / "saved", restored.tensors)
    assert_identical(restored.tensors, later.tensors)


def test_a_reference_waits_in_main_memory_and_visits_the_device_for_its_passes(monkeypatch: Any) -> None:
    """The device is a stand-in: no second one is on every machine, so the moves are recorded and not made."""
    learner, batches = Learner(llama(), SETTINGS, steps=2), pack(samples(), 30)
    events: list[str] = []
    device, logprobs = torch.device("cuda:0"), learner.logprobs

    def record(batch: Any, model: Any) -> Any:
        events.append("pass")
        return logprobs(batch, model)

    reference = Reference(learner)
    monkeypatch.setattr(reference.model, "to", lambda target: events.append(str(target)))
    monkeypatch.setattr(learner, "device", device)
    monkeypatch.setattr(learner, "logprobs", record)
    assert len(reference.logprobs(batches)) == len(batches) > 1
    assert events == ["cuda:0", *["pass"] * len(batches), "cpu"]
    with pytest.raises(RuntimeError, match="no memory"):
        monkeypatch.setattr(learner, "logprobs", lambda *_: (_ for _ in ()).throw(RuntimeError("no memory")))
        reference.logprobs(batches)
    assert events[-2:] == ["cuda:0", "cpu"]  # after an error too


def test_a_gradient_that_is_not_finite_raises_and_leaves_the_weights_alone() -> None:
    learner = Learner(llama(), SETTINGS, steps=2)
    before = state(learner.model)
    bad = [replace(one, advantages=[math.nan] * len(one.advantages)) for one in samples()]
    learner.forward_backward(pack(bad, 100), grpo(PRESETS["grpo"]), Totals.of(bad))
    with pytest.raises(FloatingPointError, match="norm is nan at update 1: lower the learning rate"):
        learner.step()
    assert_identical(state(learner.model), before)


def test_samples_without_advantage_can_be_left_out_of_the_computation() -> None:
    given = samples(zero=4)
    for name in ("grpo", "dr_grpo", "dapo", "cispo", "rloo"):
        totals = Totals.of(given, max_tokens=10)
        gradients = []
        for kept in (given, given[4:]):
            learner = Learner(llama(), SETTINGS, steps=1)
            learner.forward_backward(pack(kept, 60), grpo(PRESETS[name]), totals)
            gradients.append([p.grad for p in learner.parameters.values()])
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-7, rtol=1e-5)


def test_the_gradient_is_clipped_to_its_norm_and_the_norm_before_is_reported() -> None:
    # with plain SGD-like first steps of Adam the size of the gradient cancels, so look at the gradient itself
    learner = Learner(llama(), OptimizerSettings(grad_clip=1e-3), steps=1)
    given = samples()
    learner.forward_backward(pack(given, 100), grpo(PRESETS["grpo"]), Totals.of(given))
    raw = math.sqrt(sum(float(p.grad.square().sum()) for p in learner.parameters.values()))
    seen: list[float] = []

    def look(*_: Any) -> None:
        seen.append(math.sqrt(sum(float(p.grad.square().sum()) for p in learner.parameters.values())))

    learner.optimizer.register_step_pre_hook(look)
    assert learner.step()["optim/grad_norm"] == pytest.approx(raw, rel=1e-5)
    assert seen == [pytest.approx(1e-3, rel=1e-3)]


@pytest.mark.parametrize("skip", [True, False])
def test_an_update_without_any_gradient_leaves_the_weights_unless_momentum_may_move_them(skip: bool) -> None:
    settings = SETTINGS.replace(skip_empty_updates=skip, schedule="linear", warmup_steps=0)
    learner = Learner(llama(), settings, steps=3)
    update(learner, 0)
    before = state(learner.model)
    assert learner.forward_backward([], next_token, Totals(0, 0)) == {}
    row = learner.step(1)
    assert row == {"optim/grad_norm": 0.0, "optim/learning_rate": pytest.approx(settings.learning_rate / 2)}
    moved = any(not torch.equal(before[name], tensor) for name, tensor in state(learner.model).items())
    assert moved is not skip and learner.updates == (1 if skip else 2)
    assert all(torch.isfinite(tensor).all() for tensor in learner.model.state_dict().values())
    assert learner.step(2)["optim/learning_rate"] == 0.0  # the schedule advances by position


@pytest.mark.parametrize("make_model", [llama, deepseek])
def test_a_gradient_of_zeros_is_no_gradient(make_model: Callable[[], Any]) -> None:
    learner = Learner(make_model(), SETTINGS, steps=3)
    update(learner, 0)
    before = state(learner.model)
    equal = samples(1, zero=9)
    learner.forward_backward(pack(equal, 1000), grpo(PRESETS["grpo"]), Totals.of(equal))
    assert learner.step(1)["optim/grad_norm"] == 0.0
    assert_identical(before, state(learner.model))
    assert learner.updates == 1 and not any(load.any() for load in learner.router.loads)


def test_a_batch_that_is_only_measured_forms_no_gradient_and_has_the_same_means(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner, group = Learner(llama(), SETTINGS, steps=1), samples(1)
    batches, totals, loss = pack(group, 1000), Totals.of(group), grpo(PRESETS["grpo"])
    trained = learner.forward_backward(batches, loss, totals)
    learner.optimizer.zero_grad()
    products: list[object] = []
    monkeypatch.setattr(head, "_add_product", lambda *parts: products.append(parts))
    measured = learner.forward_backward([], loss, totals, batches)
    assert not products and all(parameter.grad is None for parameter in learner.parameters.values())
    assert {**trained, "loss": 0.0} == {**measured, "loss": 0.0}


def test_dropout_in_a_models_config_does_not_reach_the_ratio() -> None:
    config = transformers.GPT2Config(vocab_size=len(TOKENIZER), n_embd=32, n_layer=2, n_head=4, n_positions=64)
    assert config.resid_pdrop > 0
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    learner = Learner(model, SETTINGS, steps=1)
    (batch,) = pack(samples(), 1000)
    own = learner.logprobs(batch)
    batch = replace(batch, targets=replace(batch.targets, old_logprobs=own, sampler_logprobs=own))
    sums = learner.forward_backward([batch], grpo(PRESETS["grpo"]), Totals.of(samples()))
    assert sums["ratio"] == pytest.approx(1.0, abs=1e-6) and sums["logprob_gap"] < 1e-6


@pytest.mark.parametrize("make_model", [llama, deepseek])
def test_under_autocast_the_gradient_points_the_same_way(
    make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradient() -> Any:
        learner = Learner(make_model(), SETTINGS, steps=1)
        learner.forward_backward(pack(samples(), 100), next_token, Totals.of(samples()))
        assert all(p.grad.dtype == torch.float32 for p in learner.parameters.values() if p.grad is not None)
        return torch.cat([p.grad.flatten() for p in learner.parameters.values()])

    exact = gradient()
    monkeypatch.setattr("r1kit.train.learner.autocast", lambda _: torch.autocast("cpu", torch.bfloat16))
    assert float(torch.cosine_similarity(exact, gradient(), dim=0)) > 0.98


def test_the_learning_rate_warms_up_and_falls_as_its_schedule_says() -> None:
    def rates(**settings: Any) -> list[float]:
        return [OptimizerSettings(learning_rate=1.0, **settings).rate(step, 5) for step in range(5)]

    assert rates() == [1.0] * 5
    assert rates(schedule="linear") == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert rates(schedule="linear", final_ratio=0.5) == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5])
    assert rates(schedule="cosine", warmup_steps=2)[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates(schedule="cosine", warmup_steps=2)[-1] == pytest.approx(0.0)


def test_lora_trains_adapters_only_and_the_first_forward_is_the_base_models() -> None:
    pytest.importorskip("peft")
    policy = add_lora(Policy(llama(), TOKENIZER, (1,)), 4, 8, ())
    learner = Learner(policy.model, SETTINGS, steps=3)
    assert learner.parameters and all("lora_" in name for name in learner.parameters)
    before = state(policy.model)
    (batch,) = pack(samples(), 1000)
    torch.testing.assert_close(learner.logprobs(batch), Learner(llama(), SETTINGS, steps=1).logprobs(batch))
    for step in range(3):
        update(learner, step)
    changed = {name for name, tensor in state(policy.model).items() if not torch.equal(tensor, before[name])}
    assert changed == set(learner.parameters)


@pytest.mark.parametrize(("layer", "name"), [("lm_head", "language-model head"), ("embed_tokens", "token embeddings")])
def test_an_adapter_on_the_head_or_the_embeddings_is_refused(layer: str, name: str) -> None:
    pytest.importorskip("peft")
    config = transformers.LlamaConfig(
        vocab_size=132, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match=f"lora_targets names the {name}"):
        add_lora(Policy(model, TOKENIZER, (1,)), 4, 8, ("q_proj", layer))


def test_a_lora_run_goes_on_from_its_checkpoint_and_saves_one_merged_model(tmp_path: Path) -> None:
    pytest.importorskip("peft")

    def fresh(seed: int = 0) -> tuple[Policy, Learner]:
        torch.manual_seed(seed)
        policy = add_lora(Policy(llama(), TOKENIZER, (1,)), 4, 8, ("q_proj", "v_proj"))
        return policy, Learner(policy.model, SETTINGS, steps=4)

    policy, straight = fresh()
    for step in range(2):
        update(straight, step)
    straight.save(tmp_path / "checkpoint", {})
    other, resumed = fresh(seed=5)
    resumed.load(tmp_path / "checkpoint")
    for step in range(2, 4):
        assert update(straight, step) == update(resumed, step)
    assert_identical(state(policy.model), state(other.model))

    policy.save(tmp_path / "model")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager")
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]
    (batch,) = pack(samples()[:1], 100)
    ids = torch.tensor([samples()[0].token_ids])
    with torch.no_grad():
        logprobs = plain(ids).logits[0, 2:-1].log_softmax(-1).gather(1, ids[0, 3:, None])[:, 0]
    torch.testing.assert_close(straight.logprobs(batch), logprobs, atol=1e-5, rtol=1e-5)
    update(straight, 9)  # saving must not have changed what trains


def test_the_routers_bias_moves_against_the_load_by_gamma() -> None:
    model = deepseek()
    learner = Learner(model, OptimizerSettings(router_gamma=0.01), steps=2)
    (router,) = learner.router.routers
    given = samples()
    learner.forward_backward(pack(given, 100), next_token, Totals.of(given))
    load = learner.router.loads[0].clone()
    batches = pack(given, 100)
    assert load.sum() == 2 * sum(len(one.token_ids) for one in given)  # two experts a token
    metrics = learner.step()
    expected = 0.01 * torch.sign(load.mean() - load).float()
    assert torch.equal(router.e_score_correction_bias, expected) and bool((expected != 0).any())
    assert metrics["router/worst_load"] == pytest.approx(float(load.max() / load.mean()))
    learner.logprobs(batches[0])
    assert float(learner.router.loads[0].sum()) == 0.0  # neither sampling nor a reference counts


def test_loads_are_those_of_every_sample_by_itself_whatever_the_packing() -> None:
    learner, given = Learner(deepseek(), SETTINGS, steps=1), samples()
    loads = []
    for batches in (pack(given, 4096), pack(given, 16), [pack([one], 100)[0] for one in given]):
        learner.forward_backward(batches, next_token, Totals.of(given))
        loads.append(learner.router.loads[0].tolist())
        learner.router.update()
        learner.router.routers[0].e_score_correction_bias.zero_()
    assert loads[0] == loads[1] == loads[2] and len(pack(given, 16)) > 3


def test_balancing_evens_out_the_load() -> None:
    learner = Learner(deepseek(), OptimizerSettings(learning_rate=1e-9, router_gamma=0.02), steps=40)
    learner.router.routers[0].e_score_correction_bias[:2] = 0.5  # every token goes to the first two experts
    worst = []
    for _ in range(40):
        given = samples()
        learner.forward_backward(pack(given, 100), next_token, Totals.of(given))
        worst.append(learner.step()["router/worst_load"])
    assert worst[0] == pytest.approx(4.0) and max(worst[-5:]) < 3.0


def test_a_disk_that_fills_up_anywhere_leaves_earlier_checkpoints_whole(tmp_path: Path) -> None:
    learner = Learner(llama(), SETTINGS, steps=3)
    update(learner, 0)
    learner.save(checkpoints.folder_of(tmp_path, 1), {"step": 1})
    whole = (checkpoints.folder_of(tmp_path, 1) / "optimizer.pt").stat().st_size
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in range(whole // 40, whole, whole // 20):  # the kernel ends a write there, as a full disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
        try:
            with pytest.raises(StoreError, match=r"cannot write .* make room"):
                learner.save(checkpoints.folder_of(tmp_path, 2), {"step": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        newest = checkpoints.latest(tmp_path)
        assert newest == checkpoints.folder_of(tmp_path, 1)
        assert [path.name for path in newest.parent.iterdir()] == ["step-000001"]
    assert Learner(llama(), SETTINGS, steps=3).load(newest) == {"updates": 1, "step": 1}


def saved(folder: Path, *steps: int) -> list[Path]:
    learner = Learner(llama(), SETTINGS, steps=max(steps) + 1)
    for step in steps:
        learner.save(checkpoints.folder_of(folder, step), {"step": step})
    return [checkpoints.folder_of(folder, step) for step in steps]


def restored(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    notes = list[str]()
    return checkpoints.restore(folder, Learner(llama(), SETTINGS, steps=9).load, notes.append), notes


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    **{
        name: lambda folder, name=name: flip(folder / name)  # type: ignore[misc]
        for name in ("policy.safetensors", "optimizer.pt", "state.json", "checksums.json")
    },
    "no checksums": lambda folder: (folder / "checksums.json").unlink(),
    "empty checksums": lambda folder: (folder / "checksums.json").write_text("{}"),
    "a file more": lambda folder: (folder / "reference.safetensors").write_text("x"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_last_good_checkpoint_is_used_if_a_newer_one_is_damaged(tmp_path: Path, name: str) -> None:
    _, newest = saved(tmp_path, 2, 4)
    DAMAGES[name](newest)
    state, notes = restored(tmp_path)
    assert state is not None and state["step"] == 2
    assert str(newest) in notes[0] and "damaged" in notes[0] and "an older checkpoint is used" in notes[0]
    assert notes[1] == "resumes after step 2"


def test_a_stage_whose_checkpoints_are_all_damaged_is_refused(tmp_path: Path) -> None:
    first, second = saved(tmp_path, 2, 4)
    (second / "optimizer.pt").unlink()
    (first / "checksums.json").unlink()
    with pytest.raises(
        StoreError, match=r"optimizer.pt is damaged: missing(.|\n)*no other checkpoint is left: .*delete"
    ):
        restored(tmp_path)
    assert restored(tmp_path / "nowhere") == (None, [])


def test_checkpoints_are_in_the_order_of_their_steps_after_a_million(tmp_path: Path) -> None:
    for step in (999_990, 1_000_000, 1_000_010):
        checkpoints.folder_of(tmp_path, step).mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-by-hand").mkdir()
    assert checkpoints.latest(tmp_path) == checkpoints.folder_of(tmp_path, 1_000_010)
    checkpoints.prune(tmp_path, keep=2)
    assert [checkpoints.step_of(path) for path in checkpoints.by_step(tmp_path)] == [1_000_000, 1_000_010]


def test_a_kill_while_a_checkpoint_is_pruned_leaves_no_part_of_it_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 2, 4)

    def kill(path: Path, **options: Any) -> None:
        if Path(path).exists():
            (Path(path) / "policy.safetensors").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", kill)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.prune(tmp_path, keep=1)
    assert [checkpoints.step_of(path) for path in checkpoints.by_step(tmp_path)] == [4]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoints.folder_of(tmp_path, step).mkdir(parents=True)
    checkpoints.prune(tmp_path, keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000002", "step-000010"]
    assert checkpoints.latest(tmp_path) == checkpoints.folder_of(tmp_path, 10)
    assert checkpoints.latest(tmp_path / "nowhere") is None


def test_even_runs_are_of_nearly_equal_size_and_never_empty() -> None:
    assert even_runs([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4, 5]]
    assert even_runs([1, 2], 4) == [[1], [2]]
    assert even_runs([], 3) == []


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature above 0"):
        Learner(llama(), SETTINGS, steps=1, temperature=0.0)


def wide(seed: int = 0) -> Any:
    """A model whose matrices are large enough for moments in 8 bits (4096 weights)."""
    return fresh_llama(TOKENIZER, layers=1, width=64, heads=2, context=64, seed=seed)


def rounded(seed: int = 0) -> Any:
    """A model with the weights of its linear layers in bf16."""
    model = llama(seed=seed)
    place(model, "cpu", "auto", "bf16")
    return model


@pytest.mark.skipif(not has_bf16_kernels(), reason="this processor does not multiply in bf16")
def test_bf16_weights_take_small_steps_on_average_and_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    rate = SETTINGS.replace(learning_rate=1e-5)  # less than the gap between two bf16 numbers
    straight, exact = (Learner(model, rate, steps=4) for model in (rounded(), llama()))
    low = {name for name, weight in straight.parameters.items() if weight.dtype == torch.bfloat16}
    assert low == {name for name in straight.parameters if "proj" in name}  # not embeddings, head and norms
    before = state(straight.model)
    for step in range(2):
        update(straight, step)
        update(exact, step)
    straight.save(tmp_path / "checkpoint", {})
    start, after, other = state(llama()), state(straight.model), state(exact.model)
    moved = torch.cat([(after[name].float() - before[name].float()).flatten() for name in sorted(low)])
    wanted = torch.cat([(other[name] - start[name]).flatten() for name in sorted(low)])
    assert 0 < int((moved != 0).sum()) < moved.numel() / 2  # most stay, some move by a whole gap
    direction = float((moved * wanted.sign()).mean())
    assert direction == pytest.approx(float(wanted.abs().mean()), rel=0.5)
    resumed = Learner(rounded(seed=5), rate, steps=4)
    resumed.load(tmp_path / "checkpoint")
    for step in range(2, 4):
        assert update(straight, step) == update(resumed, step)
    assert_identical(state(straight.model), state(resumed.model))
    assert {moment.dtype for moment in resumed.optimizer.state[resumed.parameters[min(low)]].values()} == {
        torch.float32
    }


def test_rounding_at_random_is_right_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([1.0, 1.001, -3.3e-5, 0.0, 65504.0])
    draws = torch.stack([stochastic_round(values, generator).float() for _ in range(4000)])
    torch.testing.assert_close(draws.mean(0), values, rtol=2e-4, atol=0)
    assert {float(x) for x in draws[:, 1]} == {1.0, 1.0078125} and {float(x) for x in draws[:, 0]} == {1.0}


def test_moments_in_8_bits_train_and_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    settings = SETTINGS.replace(kind="adamw-8bit")
    straight = Learner(wide(), settings, steps=4)
    losses = [update(straight, step)["loss"] for step in range(2)]
    exact = Learner(wide(), SETTINGS, steps=4)
    assert losses == pytest.approx([update(exact, step)["loss"] for step in range(2)], rel=0.05)
    assert any(
        moment.dtype == torch.uint8
        for moments in straight.optimizer.state.values()
        for moment in moments.values()
        if isinstance(moment, torch.Tensor)
    )
    straight.save(tmp_path / "checkpoint", {})
    resumed = Learner(wide(seed=3), settings, steps=4)
    resumed.load(tmp_path / "checkpoint")
    for step in range(2, 4):
        assert update(straight, step) == update(resumed, step)
    assert_identical(state(straight.model), state(resumed.model))


def test_moments_in_8_bits_without_their_package_are_an_error_that_says_so(monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes: pip install 'r1kit\[8bit\]'"):
        Learner(llama(), SETTINGS.replace(kind="adamw-8bit"), steps=1)
