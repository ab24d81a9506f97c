"""Logit distillation: the plain formula with autograd, exact tails, teachers on disk, the two stages."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from conftest import llama  # noqa: E402
from r1kit.data.tokens import key_of  # noqa: E402
from r1kit.models import attention, head  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.known import ModelError, resolve  # noqa: E402
from r1kit.models.load import Policy, fresh_llama, load  # noqa: E402
from r1kit.pipeline import Display, Progress  # noqa: E402
from r1kit.pipeline.context import Context  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.stages.distill import DISTILL, TEACHER_LOGITS, DistillSettings, TeacherLogitsSettings  # noqa: E402
from r1kit.store import StoreError  # noqa: E402
from r1kit.tiny.frame import TINY_SYSTEM  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.distillation import Distillation, DistillationSettings  # noqa: E402
from r1kit.train.losses.divergence import Dense, TopK, divergence  # noqa: E402
from r1kit.train.losses.next_token import next_token  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.train.teacher import (  # noqa: E402
    ModelTeacher,
    StoredTeacher,
    TeacherStore,
    require_same_tokens,
    store_logits,
    tokenizer_facts,
    top_k,
)
from r1kit.types import Sample  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
SIZE = len(TOKENIZER)
PAPER = DistillationSettings()


def spread_llama(seed: int, width: int = 32, extra: int = 0) -> Any:
    """A Llama with weights large enough that its distributions differ; `extra` rows of padding in its embeddings."""
    model = llama(seed, width, context=256)
    if extra:
        torch.manual_seed(seed)
        model.resize_token_embeddings(SIZE + extra, mean_resizing=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def samples(seed: int = 0) -> list[Sample]:
    """Chats with untrained tokens at the start and in the middle, of unlike lengths, two of them with one prompt."""
    rng = random.Random(seed)
    found = []
    for index in range(6):
        mask = [False] * rng.randint(1, 5) + [True] * rng.randint(1, 9) + [False] * rng.randint(0, 3) + [True] * 3
        ids = [rng.randrange(3, SIZE) for _ in mask]
        if index == 3:
            first = found[-1].loss_mask.index(True)
            ids, mask = [*found[-1].token_ids[:first], *ids], [False] * first + [True] * len(ids)
        found.append(Sample(token_ids=ids, loss_mask=mask))
    return found


def soft(logits: Any, temperature: float) -> Any:
    return torch.softmax(logits[..., :SIZE] / temperature, -1)


def dense_formula(
    student: Any, teacher: Any, given: Sequence[Sample], settings: DistillationSettings, keep: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """The loss as the books have it, sample by sample with full logits and autograd; `keep`: the rest in one bucket."""
    t, total, count = settings.temperature, torch.zeros(()), 0
    for one in given:
        ids = torch.tensor([one.token_ids])
        at = torch.tensor(one.loss_mask[1:]).nonzero()[:, 0]
        with torch.no_grad():
            p = torch.nn.functional.pad(soft(teacher(ids).logits[0, at], t), (0, 0))
        z = student(ids).logits[0, at]
        q = torch.softmax(z / t, -1)
        if keep is not None:
            chosen = p.topk(keep, -1).indices
            tail = [(1 - x.double().gather(1, chosen).sum(-1, keepdim=True)).clamp(min=0).float() for x in (p, q)]
            p, q = (torch.cat([x.gather(1, chosen), rest], 1) for x, rest in zip((p, q), tail, strict=True))
        kl = (torch.xlogy(p, p) - p * q[:, : p.shape[1]].log().nan_to_num(neginf=0.0)).sum(-1)
        hard = torch.nn.functional.cross_entropy(z, ids[0, at + 1], reduction="none")
        total = total + (settings.soft_weight * t * t * kl + settings.hard_weight * hard).sum()
        count += len(at)
    student.zero_grad()
    (total / count).backward()
    return float((total / count).detach()), {n: p.grad.clone() for n, p in student.named_parameters()}


def ours(
    student: Any, teacher_of: Any, given: Sequence[Sample], settings: DistillationSettings, budget: int = 1000
) -> Any:
    student.zero_grad()
    learner = Learner(student, OptimizerSettings(), steps=1)
    objective = Distillation(settings, teacher_of(given))
    found = learner.forward_backward(pack(given, budget), objective, Totals.of(given))
    return found, {name: p.grad.clone() for name, p in student.named_parameters()}


def eager(model: Any) -> Any:
    model.set_attn_implementation("eager")
    return model.eval()


def assert_same(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-5) -> None:
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=tolerance, rtol=1e-3, msg=f"{name} differs")


@pytest.mark.parametrize("settings", [PAPER, DistillationSettings(temperature=1, soft_weight=1, hard_weight=0)])
@pytest.mark.parametrize("budget", [1, 40, 1000])
@pytest.mark.parametrize("extra", [(0, 0), (7, 0), (0, 12), (3, 5)])
def test_the_loss_and_gradient_are_the_plain_formulas(
    settings: DistillationSettings, budget: int, extra: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the packing, the chunks of the head, and the padding of either vocabulary."""
    student, teacher = spread_llama(0, extra=extra[0]), spread_llama(1, width=64, extra=extra[1])
    monkeypatch.setattr(head.Head, "chunk_size", lambda self: 5)
    found, gradients = ours(student, lambda _: ModelTeacher(teacher, SIZE), samples(), settings, budget)
    loss, expected = dense_formula(eager(student), eager(teacher), samples(), settings)
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    assert_same(gradients, expected)


def test_with_soft_targets_alone_at_temperature_one_it_is_their_cross_entropy() -> None:
    student, teacher = spread_llama(0), spread_llama(1)
    settings = DistillationSettings(temperature=1, soft_weight=1, hard_weight=0)
    found, gradients = ours(student, lambda _: ModelTeacher(teacher, SIZE), samples(), settings)
    eager(student), eager(teacher)
    total, entropy, count = torch.zeros(()), 0.0, 0
    for one in samples():
        ids, at = torch.tensor([one.token_ids]), torch.tensor(one.loss_mask[1:]).nonzero()[:, 0]
        with torch.no_grad():
            p = torch.softmax(teacher(ids).logits[0, at], -1)
        total = total + torch.nn.functional.cross_entropy(student(ids).logits[0, at], p, reduction="sum")
        entropy += float(torch.distributions.Categorical(p).entropy().sum())
        count += len(at)
    student.zero_grad()
    (total / count).backward()
    assert found["loss"] == pytest.approx((float(total.detach()) - entropy) / count, abs=1e-5)
    assert_same(gradients, {name: p.grad for name, p in student.named_parameters()})


def test_without_soft_targets_it_is_sft() -> None:
    student = spread_llama(0)
    settings = DistillationSettings(soft_weight=0, hard_weight=1)
    found, gradients = ours(student, lambda _: ModelTeacher(spread_llama(1), SIZE), samples(), settings)
    student.zero_grad()
    learner = Learner(student, OptimizerSettings(), steps=1)
    expected = learner.forward_backward(pack(samples(), 1000), next_token, Totals.of(samples()))
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert_same(gradients, {name: p.grad for name, p in student.named_parameters()}, tolerance=1e-6)


def test_a_student_that_is_its_teacher_has_no_soft_loss_and_no_gradient() -> None:
    student = spread_llama(0)
    settings = DistillationSettings(hard_weight=0)
    found, gradients = ours(student, lambda _: ModelTeacher(spread_llama(0), SIZE), samples(), settings)
    assert abs(found["kl"]) < 1e-6 and max(float(g.abs().max()) for g in gradients.values()) < 1e-6


def test_a_soft_cap_on_logits_bends_the_gradient_too() -> None:
    base = {
        "vocab_size": SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": 2.0,
        "max_position_embeddings": 128,
    }
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made = transformers.AutoModelForCausalLM.from_config(
            transformers.Gemma2Config(**base), attn_implementation=attention.NAME
        )
        models.append(made.float().eval())
    found, gradients = ours(models[0], lambda _: ModelTeacher(models[1], SIZE), samples(), PAPER)
    loss, expected = dense_formula(eager(models[0]), eager(models[1]), samples(), PAPER)
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    assert_same(gradients, expected)


# ------------------------------------------------------------------ stored logits


def stored(folder: Path, teacher: Any, given: Sequence[Sample], k: int, **options: Any) -> TeacherStore:
    about = {**tokenizer_facts(TOKENIZER), "top_k": k, "temperatures": [1.0, 3.0]}
    values: dict[str, Any] = {"tokens_per_batch": 60, "targets_per_shard": 15, "report": lambda done, total: None}
    return store_logits(teacher, SIZE, given, folder, about, **{**values, **options})


@pytest.mark.parametrize("k", [1, 4, 30, SIZE])
@pytest.mark.parametrize("extra", [0, 9])
def test_stored_logits_give_the_loss_and_gradient_of_the_formula_with_one_bucket_for_the_rest(
    k: int, extra: int, tmp_path: Path
) -> None:
    student, teacher = spread_llama(0, extra=extra), spread_llama(1, width=64)
    stored(tmp_path / "logits", teacher, samples(), k)
    store = TeacherStore.open(tmp_path / "logits")
    assert store.shards > 1
    shuffled = random.Random(3).sample(samples(), 6)
    for budget in (30, 1000):
        found, gradients = ours(student, lambda given: StoredTeacher(store, given), shuffled, PAPER, budget)
        keep = None if k == SIZE else k
        model = spread_llama(0, extra=extra)
        loss, expected = dense_formula(eager(model), eager(spread_llama(1, width=64)), samples(), PAPER, keep)
        assert found["loss"] == pytest.approx(loss, abs=2e-5)
        assert_same(gradients, expected, tolerance=2e-5)


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.5, 1.0, 3.0]))
def test_the_tail_holds_exactly_the_mass_that_the_k_do_not(seed: int, k: int, temperature: float) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(3, 12) * 6
    found = top_k(logits, k, [temperature])
    p = torch.softmax(logits.double() / temperature, -1)
    expected = 1 - p.topk(k).values.sum(-1) if k < 12 else torch.zeros(3).double()
    torch.testing.assert_close(found["log_tail"][:, 0].exp().double(), expected.clamp(min=0), atol=1e-6, rtol=1e-4)
    kept = (found["logits"] / temperature - found["logsumexp"]).exp()
    torch.testing.assert_close(kept.sum(-1) + found["log_tail"][:, 0].exp(), torch.ones(3), atol=1e-5, rtol=1e-5)


def test_a_tail_too_small_to_see_in_a_sum_is_still_exact() -> None:
    logits = torch.tensor([[40.0, 0.0, 0.0, -5.0]])
    found = top_k(logits, 1, [1.0])
    expected = torch.log(torch.tensor(2.0 + torch.e**-5)) - 40
    assert float(found["log_tail"]) == pytest.approx(float(expected), abs=1e-4)  # 1 - p is 0 in fp32


def targets(kind: str, teacher: Any, k: int) -> Any:
    if kind == "dense":
        return Dense(teacher, teacher.shape[1], 2.0)
    found = top_k(teacher, k, [2.0])
    logprobs = found["logits"] / 2.0 - found["logsumexp"]
    return TopK(found["token_ids"].long(), logprobs, found["log_tail"][:, 0])


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("kind", "k"), [("dense", 0), ("top", 1), ("top", 3), ("top", 6)])
def test_the_gradient_of_a_divergence_is_that_of_autograd(kind: str, k: int, beta: float) -> None:
    torch.manual_seed(0)
    teacher, z = torch.randn(4, 6).double() * 2, torch.randn(4, 6).double().requires_grad_()
    soft = targets(kind, teacher, k)

    def value(values: Any) -> Any:
        return divergence(soft, (values / 2.0).log_softmax(-1), beta)[0].sum()

    assert torch.autograd.gradcheck(value, (z,))
    (expected,) = torch.autograd.grad(value(z), z)
    with torch.no_grad():
        _, gradient = divergence(soft, (z / 2.0).log_softmax(-1), beta)
    torch.testing.assert_close(gradient / 2.0, expected)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(4).double())


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_divergences_equal_those_of_trl(beta: float) -> None:
    trl = pytest.importorskip("trl.kernels.chunked_divergence")
    torch.manual_seed(0)
    student, teacher = torch.randn(7, 5), torch.randn(7, 6)
    head, heads = torch.randn(11, 5).requires_grad_(), torch.randn(11, 6)
    arguments = (student, head, None, teacher, heads, None, beta, 0.7, 1.0, None, 1.0, None)
    expected, entropy = trl.ChunkedDivergenceFunction.apply(*arguments)
    (expected_gradient,) = torch.autograd.grad(expected.mean(), head)
    log_q = (student @ head.detach().T / 0.7).log_softmax(-1)
    value, gradient = divergence(Dense(teacher @ heads.T, 11, 0.7), log_q, beta)
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient.T @ student / 0.7 / 7, expected_gradient, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(-(log_q.exp() * log_q).sum(-1), entropy, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_bucket_for_the_rest_never_exceeds_the_full_divergence(beta: float) -> None:
    torch.manual_seed(0)
    teacher, log_q = torch.randn(50, 6) * 3, (torch.randn(50, 6)).log_softmax(-1)
    values = [divergence(targets("top", teacher, k), log_q, beta)[0] for k in range(1, 7)]
    full = divergence(targets("dense", teacher, 0), log_q, beta)[0]
    for less, more in zip(values, [*values[1:], full], strict=True):
        assert bool((less <= more + 1e-5).all())
    torch.testing.assert_close(values[-1], full, atol=1e-5, rtol=1e-5)


def test_storing_goes_on_after_the_last_whole_shard_and_serves_any_order(tmp_path: Path) -> None:
    teacher, calls = spread_llama(1), []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path / "logits", teacher, samples(), 5, report=stop)
    assert TeacherStore.open(tmp_path / "logits").shards == 2
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "logits").glob("*.safetensors")}
    resumed = stored(tmp_path / "logits", teacher, samples(), 5)
    straight = stored(tmp_path / "straight", teacher, samples(), 5)
    assert {name: (tmp_path / "logits" / name).stat().st_mtime_ns for name in before} == before
    for one in samples():
        for left, right in zip(resumed.lookup(one, 3.0), straight.lookup(one, 3.0), strict=True):
            torch.testing.assert_close(left, right)
    again = stored(tmp_path / "logits", teacher, [*samples(), *samples()], 5)
    assert again.shards == resumed.shards and len(again.places) == 6


def test_a_store_refuses_what_it_cannot_answer(tmp_path: Path) -> None:
    store = stored(tmp_path / "logits", spread_llama(1), samples(), 5)
    with pytest.raises(ValueError, match=r"stored for temperatures \[1.0, 3.0\], not 2.0"):
        store.lookup(samples()[0], 2.0)
    assert key_of(samples(seed=9)[0]) not in store.places
    with pytest.raises(StoreError, match=r"holds logits of another kind .*: give another folder"):
        stored(tmp_path / "logits", spread_llama(1), samples(), 6)
    with pytest.raises(StoreError, match="holds no teacher's logits"):
        TeacherStore.open(tmp_path)
    (tmp_path / "logits" / "shard-000001.safetensors").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"shard-000001.safetensors is damaged .*: delete it, all later shards"):
        TeacherStore.open(tmp_path / "logits")


def test_other_tokens_are_refused_with_the_first_difference() -> None:
    other = make()
    other.add_tokens(["new"])
    with pytest.raises(
        ModelError, match=rf"first difference is id {SIZE}, 'new' for the teacher and no token for the student"
    ):
        require_same_tokens(TOKENIZER, other)
    require_same_tokens(TOKENIZER, make())
    assert tokenizer_facts(other) != tokenizer_facts(TOKENIZER) == tokenizer_facts(make())


def test_a_learner_with_a_temperature_of_its_own_is_refused() -> None:
    learner = Learner(spread_llama(0), OptimizerSettings(), steps=1, temperature=0.7)
    objective = Distillation(PAPER, ModelTeacher(spread_llama(1), SIZE))
    with pytest.raises(ValueError, match="distillation has its own"):
        learner.forward_backward(pack(samples(), 1000), objective, Totals.of(samples()))


# ------------------------------------------------------------------ the stages

SMALL: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "max_tokens": 200,
    "chat": {"system": TINY_SYSTEM},
    "checkpoint_every": 2,
    "optimizer": {"learning_rate": 3e-3, "schedule": "cosine", "final_ratio": 0.1},
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [
        {"prompt": f"{n}+2?", "completion": f"<think> {n}+2={n + 2} </think> <answer> {n + 2} </answer>"}
        for n in range(16)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(kind: Any, settings: Any, folder: Path, progress: Progress | None = None, **paths: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    context = Context(
        stage=kind.name,
        settings=settings,
        folder=folder,
        paths=paths,
        progress=progress or Progress(display=Display(io.StringIO())),
    )
    kind.check(context)
    return dict(kind.run(context))


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def test_a_student_learns_from_a_teacher_in_memory_and_from_stored_logits_alike(
    rows: Path, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    settings = DistillSettings.parse({**SMALL, "epochs": 8, "validation_share": 0.2})
    student = {"model": tiny_policy_folder, "data": rows}
    run(DISTILL, settings, tmp_path / "memory", **student, teacher=resolve("tiny"))
    _, first, *_, last = metrics(tmp_path / "memory")
    assert last["train/kl"] < 0.9 * first["train/kl"] and {"train/cross_entropy", "policy/entropy"} <= first.keys()

    keeping = TeacherLogitsSettings.parse(
        {"chat": SMALL["chat"], "max_tokens": 200, "top_k": 500, "temperatures": [3.0]}
    )
    found = run(TEACHER_LOGITS, keeping, tmp_path / "said", model=resolve("tiny"), data=rows)
    assert found["rows"] == 16 and found["top_k"] == SIZE
    run(DISTILL, settings, tmp_path / "stored", **student, logits=tmp_path / "said" / "logits")
    for one, other in zip(metrics(tmp_path / "memory"), metrics(tmp_path / "stored"), strict=True):
        assert one == {name: pytest.approx(value, abs=1e-3) for name, value in other.items()}
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "stored" / "model")
    assert model.config.hidden_size == 32
    assert (tmp_path / "stored" / "model" / "chat_format.json").is_file() and (
        tmp_path / "stored" / "mask.json"
    ).is_file()


def test_a_teacher_whose_embeddings_are_padded_otherwise_teaches_the_same(
    rows: Path, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    """One tokenizer, three sizes of vocabulary: teacher and student of a family are often padded to unlike numbers."""
    wide, student = tmp_path / "wide", tmp_path / "student"
    for source, folder, size in ((resolve("tiny"), wide, SIZE + 28), (tiny_policy_folder, student, SIZE + 4)):
        policy = load(str(source), device="cpu")
        policy.model.resize_token_embeddings(size, mean_resizing=False)
        with torch.no_grad():
            policy.model.get_input_embeddings().weight[SIZE:] = 0.0
        policy.save(folder)
    keeping = TeacherLogitsSettings.parse({"chat": SMALL["chat"], "max_tokens": 200, "top_k": 6})
    losses = []
    for name, teacher in (("plain", resolve("tiny")), ("padded", wide)):
        run(TEACHER_LOGITS, keeping, tmp_path / f"{name}-said", model=teacher, data=rows)
        for kind, source in (("teacher", teacher), ("logits", tmp_path / f"{name}-said" / "logits")):
            settings = DistillSettings.parse({**SMALL, "epochs": 1})
            run(DISTILL, settings, tmp_path / f"{name}-{kind}", model=student, data=rows, **{kind: source})
            losses.append([row["optim/loss"] for row in metrics(tmp_path / f"{name}-{kind}")])
    assert losses[0] == pytest.approx(losses[2], abs=1e-5) and losses[1] == pytest.approx(losses[3], abs=1e-5)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "padded-teacher" / "model")
    assert model.config.vocab_size == SIZE + 4


def test_a_stopped_distillation_ends_with_the_same_bits(rows: Path, tiny_policy_folder: Path, tmp_path: Path) -> None:
    keeping = TeacherLogitsSettings.parse({"chat": SMALL["chat"], "max_tokens": 200, "top_k": 8})
    run(TEACHER_LOGITS, keeping, tmp_path / "said", model=resolve("tiny"), data=rows)
    paths = {"model": tiny_policy_folder, "data": rows, "logits": tmp_path / "said" / "logits"}
    settings = DistillSettings.parse(SMALL)
    straight = run(DISTILL, settings, tmp_path / "straight", **paths)

    class Stop(Progress):
        def step(self, done: int, total: int, fields: Any = None) -> None:
            if done == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(DISTILL, settings, tmp_path / "torn", Stop(), **paths)
    assert run(DISTILL, settings, tmp_path / "torn", **paths) == straight
    assert metrics(tmp_path / "torn") == metrics(tmp_path / "straight")
    name = "model/model.safetensors"
    assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_what_cannot_be_distilled_is_refused_before_training(
    rows: Path, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    settings = DistillSettings.parse(SMALL)
    student = {"model": tiny_policy_folder, "data": rows}
    with pytest.raises(ValueError, match="has no teacher: give one of the inputs 'teacher'"):
        run(DISTILL, settings, tmp_path / "a", **student)
    with pytest.raises(ValueError, match="has both teacher and logits: give one of the inputs"):
        run(DISTILL, settings, tmp_path / "a", **student, teacher=resolve("tiny"), logits=tmp_path)
    keeping = TeacherLogitsSettings.parse({"chat": SMALL["chat"], "max_tokens": 95, "top_k": 4, "temperatures": [1.0]})
    run(TEACHER_LOGITS, keeping, tmp_path / "said", model=resolve("tiny"), data=rows)
    logits = tmp_path / "said" / "logits"
    with pytest.raises(ValueError, match=r"stored for temperatures \[1.0\], not 3.0"):
        run(DISTILL, settings, tmp_path / "b", **student, logits=logits)
    at_one = DistillSettings.parse({**SMALL, "temperature": 1.0, "chat": {"system": "another"}})
    with pytest.raises(ValueError, match="16 of 16 rows have no stored logits: make them from the same data"):
        run(DISTILL, at_one, tmp_path / "c", **student, logits=logits)

    tokenizer = make()
    tokenizer.add_tokens(["new"])
    Policy(fresh_llama(tokenizer, layers=1, width=32, heads=2, context=256, seed=0), tokenizer, (1,)).save(
        tmp_path / "x"
    )
    with pytest.raises(ModelError, match="teacher and student have different tokens"):
        run(DISTILL, settings, tmp_path / "d", **student, teacher=tmp_path / "x")
    with pytest.raises(ModelError, match="the stored logits are of a tokenizer"):
        run(DISTILL, at_one, tmp_path / "e", model=tmp_path / "x", data=rows, logits=logits)


def test_the_papers_weights_are_the_defaults_and_one_number_can_stand_for_a_list() -> None:
    settings = DistillSettings()
    assert (settings.temperature, settings.soft_weight, settings.hard_weight) == (3.0, 0.7, 0.3)
    assert TeacherLogitsSettings.parse({"temperatures": "1,2.5"}).temperatures == (1.0, 2.5)
    assert DistillSettings.parse({"temperature": 20}).temperature == 20  # as in Hinton et al.
    with pytest.raises(SettingsError, match="temperatures"):
        TeacherLogitsSettings.parse({"temperatures": "0,1"})
    for wrong, field in (({"temperature": 0}, "temperature"), ({"soft_weight": 0, "hard_weight": 0}, "both 0")):
        with pytest.raises(SettingsError, match=field):
            DistillSettings.parse(wrong)


def test_the_tiny_model_is_a_teacher_of_its_own_tokenizer() -> None:
    require_same_tokens(load(str(resolve("tiny")), device="cpu").tokenizer, TOKENIZER)
