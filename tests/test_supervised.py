"""The loop on given data: order of rows, resume bit for bit, validation and early stopping, long rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from conftest import deepseek, llama  # noqa: E402
from r1kit.models import attention, head  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.load import frozen_copy  # noqa: E402
from r1kit.models.recompute import recompute_activations  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.store import StoreError  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train import checkpoints  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.next_token import next_token  # noqa: E402
from r1kit.train.packing import pack, pack_together  # noqa: E402
from r1kit.train.supervised import RowsByUpdate, TrainingSettings, Update, train_supervised, validation_loss  # noqa: E402
from r1kit.train.validation import Best, Validation  # noqa: E402
from r1kit.types import Sample  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
SETTINGS = OptimizerSettings(learning_rate=1e-2, schedule="cosine", warmup_steps=2, weight_decay=0.1)
TEXTS = ["1+2=3", "2+3=5", "tom has 4", "a b c"]


def documents(texts: Sequence[str]) -> list[Sample]:
    return [Sample(token_ids=ids, loss_mask=[True] * len(ids)) for ids in TOKENIZER(list(texts))["input_ids"]]


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def assert_identical(one: Any, other: Any) -> None:
    left, right = one.state_dict(), other.state_dict()
    for name in left.keys() | right.keys():
        assert torch.equal(left[name], right[name]), f"{name} differs"


def update_of(learner: Learner, step: int) -> Update:
    return Update.of(documents([TEXTS[step % 4], TEXTS[(step + 1) % 4]]), 64, learner)


def train(folder: Path, *, stop: int | None = None, scores: Sequence[float] = (), patience: int = 0) -> Any:
    """Twelve updates with a checkpoint every five; validations see 9 at first and then `scores`, every two updates."""
    learner = Learner(llama(), SETTINGS, steps=12)

    def measure() -> dict[str, float]:
        return {"validation/loss": [9.0, *scores][learner.updates // 2]}

    def log(step: int, row: dict[str, float]) -> None:
        if step == stop:
            raise KeyboardInterrupt

    validation = Validation(measure, every=2, patience=patience) if scores else None
    best = train_supervised(
        learner,
        lambda step: update_of(learner, step),
        folder,
        checkpoint_every=5,
        log=log,
        note=[].append,
        validation=validation,
    )
    return learner, best


def test_training_learns_and_a_stopped_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight, _ = train(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "torn", stop=8)
    resumed, _ = train(tmp_path / "torn")
    assert_identical(resumed.model, straight.model)
    found = rows(tmp_path / "straight")
    assert rows(tmp_path / "torn") == found and [row["step"] for row in found] == list(range(1, 13))
    assert found[-1]["optim/loss"] < found[0]["optim/loss"] - 1


@pytest.mark.parametrize("name", checkpoints.LOGS)
def test_a_changed_row_of_a_stopped_stage_is_refused_and_without_the_log_it_goes_on(tmp_path: Path, name: str) -> None:
    straight, _ = train(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "torn", stop=8)
    log = tmp_path / "torn" / name
    damaged = log.read_text().replace('"step": 4,', '"step": 4, "note": 1,')
    log.write_text(damaged)
    with pytest.raises(StoreError, match=rf"{name} is damaged: its rows up to step 5 .*delete it to go on without"):
        train(tmp_path / "torn")
    assert log.read_text() == damaged
    log.unlink()
    resumed, _ = train(tmp_path / "torn")
    assert_identical(resumed.model, straight.model)


def test_early_stopping_ends_with_the_best_weights_and_resumes_with_its_memory(tmp_path: Path) -> None:
    scores = [3.0, 2.0, 2.5, 2.6, 0.0, 0.0]
    learner, best = train(tmp_path / "straight", scores=scores, patience=2)
    assert best == Best(step=4, value=2.0, since=2)
    assert [row["step"] for row in rows(tmp_path / "straight")] == list(range(9))  # 4 + two validations
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "torn", stop=7, scores=scores, patience=2)
    resumed, again = train(tmp_path / "torn", scores=scores, patience=2)
    assert again == best and rows(tmp_path / "torn") == rows(tmp_path / "straight")
    assert_identical(resumed.model, learner.model)
    four = Learner(llama(), SETTINGS, steps=12)
    for step in range(4):
        update = update_of(four, step)
        four.forward_backward(update.batches, update.loss, update.totals)
        four.step()
    assert_identical(four.model, learner.model)


def test_best_weights_that_are_damaged_or_missing_are_named_with_the_remedy(tmp_path: Path) -> None:
    learner = Learner(llama(), SETTINGS, steps=1)
    with pytest.raises(StoreError, match=r"best are damaged or missing .*: delete best/ and checkpoints/"):
        learner.load_weights(tmp_path / "best")
    learner.save_weights(tmp_path / "best")
    weights = tmp_path / "best" / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StoreError, match="damaged or missing"):
        learner.load_weights(tmp_path / "best")


def test_a_resumed_run_never_takes_the_best_weights_of_an_abandoned_attempt(tmp_path: Path) -> None:
    """Killed after a better score, then continued on a machine where that score is worse."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop=6, scores=[3.0, 2.0, 1.0, 2.6, 2.7, 2.8], patience=9)  # checkpoint after 5, best at 6
    assert {folder.name for folder in (tmp_path / "best").iterdir()} == {"step-000004", "step-000006"}
    learner, best = train(tmp_path, scores=[3.0, 2.0, 2.5, 2.6, 2.7, 2.8], patience=9)
    assert best == Best(step=4, value=2.0, since=4)
    four = Learner(llama(), SETTINGS, steps=12)
    for step in range(4):
        update = update_of(four, step)
        four.forward_backward(update.batches, update.loss, update.totals)
        four.step()
    assert_identical(four.model, learner.model)


def test_a_kill_while_best_weights_are_replaced_costs_nothing(tmp_path: Path) -> None:
    scores = [3.0, 2.0, 1.0, 2.6, 2.7, 2.8]
    straight, _ = train(tmp_path / "straight", scores=scores, patience=9)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "torn", stop=6, scores=scores, patience=9)
    best = tmp_path / "torn" / "best"
    (best / "step-000006").rename(best / ".step-000006.old")  # between the two renames of `atomic_folder`
    resumed, again = train(tmp_path / "torn", scores=scores, patience=9)
    assert again.step == 6
    assert_identical(resumed.model, straight.model)


def test_without_patience_validation_is_only_measured(tmp_path: Path) -> None:
    _, best = train(tmp_path, scores=[3.0, 2.0, 2.5, 2.6, 2.7, 2.8])
    found = rows(tmp_path)
    assert best.step == 4 and [row["step"] for row in found if "validation/loss" in row] == list(range(0, 13, 2))
    assert not (tmp_path / "best").exists()


def test_a_score_that_is_no_number_is_never_the_best_and_neither_is_the_one_before_training(tmp_path: Path) -> None:
    nan = float("nan")
    _, best = train(tmp_path / "nan", scores=[nan, 3.0, nan, nan, nan, nan], patience=3)
    assert best == Best(step=4, value=3.0, since=3)
    _, best = train(tmp_path / "worse", scores=[10.0, 11.0, 12.0, 13.0, 14.0, 15.0], patience=2)
    assert (best.step, best.value) == (2, 10.0) and rows(tmp_path / "worse")[0] == {"step": 0, "validation/loss": 9.0}


def test_every_epoch_goes_through_all_rows_in_another_order_of_the_seed() -> None:
    settings = TrainingSettings(epochs=3, batch_size=4)
    epochs = RowsByUpdate(10, settings)
    taken = [index for update in range(settings.updates(10)) for index in epochs[update]]
    assert settings.updates(10) == 8 and [len(epochs[update]) for update in range(8)] == [4] * 7 + [2]
    passes = [taken[:10], taken[10:20], taken[20:]]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    assert RowsByUpdate(10, settings)[5] == epochs[5]  # whatever was asked before
    assert RowsByUpdate(10, TrainingSettings(epochs=3, batch_size=4, seed=1))[0] != epochs[0]


def test_the_learning_rate_warms_up_over_a_share_and_falls_along_a_cosine_to_its_floor() -> None:
    settings = OptimizerSettings(learning_rate=5e-5, schedule="cosine", final_ratio=0.1, warmup_ratio=0.1)
    rates = [settings.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(5e-6) and rates[9] == rates[10] == pytest.approx(5e-5)
    assert rates[-1] == pytest.approx(5e-6)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx((5e-5 + 5e-6) / 2, rel=0.02)


def gradients(model: Any) -> dict[str, Any]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def backward(model: Any, samples: Sequence[Sample], loss: Any, budget: int = 1000) -> tuple[float, dict[str, Any]]:
    model.zero_grad()
    learner = Learner(model, SETTINGS, steps=1)
    sums = learner.forward_backward(pack(samples, budget), loss, Totals.of(samples))
    return sums["loss"], gradients(model)


def test_a_long_row_is_cut_into_chunks_of_the_head_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = llama(), documents(["1+2=3, 3+4=7, 7+5=12", "ab", "c"])
    whole, expected = backward(model, samples, next_token)
    monkeypatch.setattr(head.Head, "chunk_size", lambda self: 3)
    sizes = [len(chunk.token_ids) for chunk in pack(samples, 1000)[0].targets.chunks(3, whole=False)]
    assert set(sizes[:-1]) == {3} and sizes[-1] <= 3  # also where a sequence ends
    loss, found = backward(model, samples, next_token)
    assert loss == pytest.approx(whole, rel=1e-5)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-4)
    assert next_token.per_token


@pytest.mark.parametrize("make_model", [llama, deepseek])
def test_activation_checkpointing_changes_no_gradient_and_keeps_fewer_activations(make_model: Any) -> None:
    samples = documents(TEXTS)

    def saved(model: Any) -> tuple[int, dict[str, Any]]:
        held = 0

        def pack_hook(tensor: Any) -> Any:
            nonlocal held
            held += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
            _, found = backward(model, samples, next_token)
        return held, found

    plain, model = make_model(), make_model()
    recompute_activations(model)
    everything, expected = saved(plain)
    little, found = saved(model)
    assert little < everything / 2
    for name in expected:
        assert torch.equal(found[name], expected[name])


def test_experts_are_counted_once_where_activations_are_computed_again() -> None:
    loads = []
    for recompute in (False, True):
        model = deepseek()
        if recompute:
            recompute_activations(model)
        learner = Learner(model, SETTINGS, steps=1)
        learner.forward_backward(pack(documents(TEXTS), 1000), next_token, Totals.of(documents(TEXTS)))
        loads.append(learner.router.loads[0].tolist())
    assert loads[0] == loads[1] and sum(loads[0]) > 0


def test_a_frozen_copy_of_a_checkpointed_model_runs_its_own_layers() -> None:
    model = llama()
    recompute_activations(model)
    copied = frozen_copy(model)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    learner = Learner(model, SETTINGS, steps=1)
    (batch,) = pack(documents(TEXTS), 1000)
    assert bool(torch.isfinite(learner.logprobs(batch, copied)).all())


def test_a_model_without_layers_to_checkpoint_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear has no layers .* set activation_checkpointing off"):
        recompute_activations(torch.nn.Linear(2, 2))


def test_groups_that_are_packed_together_stay_whole_and_in_order() -> None:
    texts = [("1+2=3", "1+2=4"), ("ab", "ab cd ef"), ("x", "y")]
    groups = [documents(pair) for pair in texts]
    flat = [sample for group in groups for sample in group]
    for budget in (1, 14, 1000):
        seen: list[int] = []
        for batch in pack_together(groups, budget):
            seen += batch.order
            for chosen, rejected in zip(batch.order[::2], batch.order[1::2], strict=True):
                assert chosen % 2 == 0 and rejected == chosen + 1
            for index, end in zip(batch.order, batch.ends.tolist(), strict=True):
                assert int(batch.token_ids[0, end]) == flat[index].token_ids[-1]
        assert sorted(seen) == list(range(6))
    (batch,) = pack_together(groups, 1000)
    assert batch.num_tokens < sum(len(one.token_ids) for one in flat)  # what a pair has in common is there once


def test_validation_loss_is_the_mean_over_trained_tokens_however_it_is_packed() -> None:
    learner = Learner(llama(), SETTINGS, steps=1)
    samples = documents(TEXTS)
    found = validation_loss(learner, samples, 8)
    (batch,) = pack(samples, 1000)
    assert found["validation/loss"] == pytest.approx(-float(learner.logprobs(batch).mean()), abs=1e-6)
    assert found == {k: pytest.approx(v, abs=1e-5) for k, v in validation_loss(learner, samples, 1000).items()}


def test_settings_that_cannot_be_meant_are_refused_by_name() -> None:
    for values, field in (({"epochs": 0}, "epochs"), ({"validation_share": 1.0}, "validation_share")):
        with pytest.raises(SettingsError, match=field):
            TrainingSettings.parse(values)


def test_the_loss_of_each_source_is_its_own_mean() -> None:
    learner = Learner(llama(), SETTINGS, steps=1)
    samples = documents(TEXTS)
    found = validation_loss(learner, samples, 20, ["sums", "sums", "words", ""])
    assert found["validation/loss/sums"] == pytest.approx(validation_loss(learner, samples[:2], 99)["validation/loss"])
    assert found["validation/loss/unnamed"] == pytest.approx(
        validation_loss(learner, samples[3:], 99)["validation/loss"]
    )
    assert validation_loss(learner, samples, 20, ["one"] * 4).keys() == {"validation/loss", "validation/perplexity"}
