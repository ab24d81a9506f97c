"""On-policy distillation: equal to TRL's loss, one gradient for any packing, several teachers, resume and refusals."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from conftest import llama  # noqa: E402
from r1kit.data.tokens import Tokenised, write_tokens  # noqa: E402
from r1kit.models import attention, head  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.known import ModelError, resolve  # noqa: E402
from r1kit.models.load import Policy, fresh_llama, load  # noqa: E402
from r1kit.models.size import size_of_shapes  # noqa: E402
from r1kit.pipeline import Display, Progress  # noqa: E402
from r1kit.pipeline.context import Context  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.stages.on_policy import ON_POLICY, OnPolicyStageSettings, work_of  # noqa: E402
from r1kit.tiny.frame import TINY_SYSTEM  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.on_policy import OnPolicyDivergence, OnPolicySettings, sampled_divergence  # noqa: E402
from r1kit.train.memory import training_parts  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.train.rl.metrics import merge_parts  # noqa: E402
from r1kit.train.rl.teachers import DistillObjective, GivenRows, Teachers, teacher_for  # noqa: E402
from r1kit.train.teacher import ModelTeacher, vocabulary_of  # noqa: E402
from r1kit.types import Sample  # noqa: E402

torch.set_num_threads(1)
attention.register()

SIZE = len(make())
TEMPERATURE = 0.7
SMALL: dict[str, Any] = {
    "tasks": [{"name": "tiny/sums", "split": "train", "limit": 20}],
    "chat": {"system": TINY_SYSTEM},
    "steps": 4,
    "prompts_per_step": 4,
    "group_size": 2,
    "max_tokens": 12,
    "optimizer": {"learning_rate": 1e-3},
    "checkpoint_every": 1,
    "device": "cpu",
}


def spread_llama(seed: int, width: int = 32) -> Any:
    model = llama(seed, width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def sampled(seed: int = 0, sources: Sequence[str] = ("a",)) -> list[Sample]:
    """Three prompts with completions of unlike lengths, as an engine returns them."""
    random = torch.Generator().manual_seed(seed)
    samples = []
    for prompt in range(3):
        ids = torch.randint(3, SIZE, (4 + prompt,), generator=random).tolist()
        for length in (2, 7, 5):
            own = torch.randint(3, SIZE, (length,), generator=random).tolist()
            samples.append(
                Sample(
                    token_ids=(*ids, *own),
                    loss_mask=(False,) * len(ids) + (True,) * length,
                    logprobs=(0.0,) * len(ids) + (-2.0,) * length,
                    advantages=(0.0,) * (len(ids) + length),
                    source=sources[prompt % len(sources)],
                )
            )
    return samples


def trls_loss(student: Any, teacher: Any, samples: Sequence[Sample], beta: float) -> tuple[float, dict[str, Any]]:
    """The loss of TRL's trainer on padded rows, with its gradient."""
    trainer = pytest.importorskip("trl.trainer.distillation_trainer")
    longest = max(len(sample.token_ids) for sample in samples)
    ids = torch.tensor([[*sample.token_ids, *[0] * (longest - len(sample.token_ids))] for sample in samples])
    padding = torch.tensor([[1] * len(s.token_ids) + [0] * (longest - len(s.token_ids)) for s in samples])
    mask = torch.tensor([[*sample.loss_mask, *[False] * (longest - len(sample.token_ids))] for sample in samples])
    student.set_attn_implementation("eager")
    teacher.set_attn_implementation("eager")
    states = student.model(ids, attention_mask=padding).last_hidden_state[:, :-1]
    with torch.no_grad():
        theirs = teacher.model(ids, attention_mask=padding).last_hidden_state[:, :-1]
    loss, _, _ = trainer._chunked_divergence_loss(
        states, theirs, student.lm_head.weight, teacher.lm_head.weight, mask[:, 1:], beta, temperature=TEMPERATURE
    )
    student.zero_grad()
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in student.named_parameters()}


def ours(student: Any, loss: Any, samples: Sequence[Sample], budget: int) -> tuple[dict[str, float], dict[str, Any]]:
    student.zero_grad()
    learner = Learner(student, OptimizerSettings(), steps=1, temperature=TEMPERATURE)
    means = learner.forward_backward(pack(samples, budget), loss, Totals.of(samples))
    return means, {name: p.grad.clone() for name, p in student.named_parameters()}


@pytest.mark.parametrize("budget", [1, 30, 1000])
@pytest.mark.parametrize(
    ("settings", "beta"), [({"divergence": "forward"}, 0.0), ({}, 1.0), ({"divergence": "jsd", "beta": 0.3}, 0.3)]
)
def test_loss_and_gradient_equal_those_of_trl(
    settings: dict[str, Any], beta: float, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With shared prompts, whatever the packing and the chunks of the head."""
    monkeypatch.setattr(head.Head, "chunk_size", lambda self: 5)
    student, teacher = spread_llama(0), spread_llama(1, width=64)
    loss = OnPolicyDivergence(OnPolicySettings.parse(settings), ModelTeacher(teacher, SIZE))
    means, gradient = ours(student, loss, sampled(), budget)
    expected, theirs = trls_loss(student, teacher, sampled(), beta)
    assert means["loss"] == pytest.approx(expected, abs=1e-6) == means["divergence"]
    for name, tensor in theirs.items():
        torch.testing.assert_close(gradient[name], tensor, atol=1e-6, rtol=1e-5, msg=f"{name} differs")


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jsd"])
def test_the_whole_vocabulary_as_top_k_is_the_dense_teacher(divergence: str) -> None:
    student, teacher = spread_llama(0), spread_llama(1)
    settings = OnPolicySettings.parse({"divergence": divergence})
    _, dense = ours(student, OnPolicyDivergence(settings, ModelTeacher(teacher, SIZE)), sampled(), 100)
    _, whole = ours(student, OnPolicyDivergence(settings, ModelTeacher(teacher, SIZE, top_k=SIZE + 5)), sampled(), 100)
    means, _ = ours(student, OnPolicyDivergence(settings, ModelTeacher(teacher, SIZE, top_k=5)), sampled(), 100)
    for name, tensor in dense.items():
        torch.testing.assert_close(whole[name], tensor, atol=1e-6, rtol=1e-4)
    assert means["divergence"] > 0


def test_the_gradient_on_sampled_tokens_is_that_of_reverse_kl_on_average() -> None:
    """Over all tokens that the student can sample, each with its probability."""
    torch.manual_seed(0)
    logits, teacher = torch.randn(6, dtype=torch.float64).requires_grad_(), torch.randn(6, dtype=torch.float64)
    log_q, log_p = logits.log_softmax(-1), teacher.log_softmax(-1)
    (expected,) = torch.autograd.grad((log_q.exp() * (log_q - log_p)).sum(), logits, retain_graph=True)
    total = torch.zeros_like(logits)
    for token in range(6):
        own = log_q.detach()[token : token + 1]
        targets = type("Targets", (), {"old_logprobs": own, "ref_logprobs": log_p[token : token + 1]})()
        targets.sampler_logprobs = own
        output = sampled_divergence()(log_q[token : token + 1], targets, Totals(num_tokens=1, num_sequences=1))
        (gradient,) = torch.autograd.grad(output.loss, logits, retain_graph=True)
        total += float(own.exp()) * gradient
    torch.testing.assert_close(total, expected)


def test_each_prompt_has_the_teacher_of_its_domain() -> None:
    """Two teachers in one update: the gradient is the sum of both, each over all tokens of the update."""
    samples = sampled(sources=("tiny/sums", "tiny/general"))
    student, teachers = spread_llama(0), {name: spread_llama(seed) for seed, name in enumerate(("reason", "talk"), 1)}
    learner = Learner(student, OptimizerSettings(), steps=1, temperature=TEMPERATURE)
    domains = {"reason": ["tiny/sums"], "talk": ["*/general"]}
    both = Teachers({name: ModelTeacher(model, SIZE) for name, model in teachers.items()}, domains)
    objective = DistillObjective(learner, OnPolicySettings(), both, tokens_per_batch=100)
    totals, parts = Totals.of(samples), objective.prepare(samples)
    means = [learner.forward_backward(part.batches, part.loss, totals) for part in parts]
    gradient = {name: p.grad.clone() for name, p in student.named_parameters()}
    merged = merge_parts(means, [sum(len(batch.targets) for batch in part.batches) for part in parts])

    losses, sums = [], {name: torch.zeros_like(p) for name, p in student.named_parameters()}
    for source, name in (("tiny/sums", "reason"), ("tiny/general", "talk")):
        own = [sample for sample in samples if sample.source == source]
        means_of_one, part = ours(
            student, OnPolicyDivergence(OnPolicySettings(), ModelTeacher(teachers[name], SIZE)), own, 100
        )
        share = Totals.of(own).num_tokens / totals.num_tokens
        losses.append(means_of_one["loss"] * share)
        assert merged[f"distill/divergence/{name}"] == pytest.approx(means_of_one["divergence"], abs=1e-5)
        for key, tensor in part.items():
            sums[key] += share * tensor
    assert merged["loss"] == pytest.approx(sum(losses), abs=1e-5) == merged["divergence"]
    for key, tensor in sums.items():
        torch.testing.assert_close(gradient[key], tensor, atol=1e-6, rtol=1e-4)


def test_a_source_needs_exactly_one_teacher() -> None:
    domains = {"reason": ["tiny/sums"], "talk": ["tiny/*"]}
    assert teacher_for("anything", [""], {}) == ""
    assert teacher_for("tiny/general", ["reason", "talk"], domains) == "talk"
    with pytest.raises(ValueError, match=r"problems of tiny/sums have 2 teachers \(reason, talk\): set domains"):
        teacher_for("tiny/sums", ["reason", "talk"], domains)
    with pytest.raises(ValueError, match="problems of gsm8k have no teacher: set domains, which are now reason"):
        teacher_for("gsm8k", ["reason", "talk"], domains)


def test_given_rows_without_a_teacher_are_refused_before_the_first_step(tmp_path: Path) -> None:
    samples = sampled()[:3]
    given = GivenRows(write_tokens(tmp_path / "tokens", [Tokenised(s, source="web") for s in samples]), count=1, seed=0)
    student = spread_llama(0)
    learner, teacher = Learner(student, OptimizerSettings(), steps=1), ModelTeacher(spread_llama(1), SIZE)
    teachers = Teachers({"a": teacher, "b": teacher}, {"a": ["tiny/sums"], "b": ["tiny/general"]})
    with pytest.raises(ValueError, match="problems of web have no teacher: set domains"):
        DistillObjective(learner, OnPolicySettings(), teachers, 100, given)
    objective = DistillObjective(learner, OnPolicySettings(), Teachers({"": teacher}, {}), 100, given)
    assert objective.longest_given == max(len(sample.token_ids) for sample in samples)


def test_tokens_behind_skipped_ids_are_compared_too() -> None:
    """Some tokenizers have fewer tokens than their last id says; the last ones are often the end tokens."""
    tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 0, "b": 1, "<end>": 4})
    assert vocabulary_of(tokenizer) == 5


def test_the_plan_counts_given_rows_and_every_teacher() -> None:
    """Adapters save no teacher, unlike a reference."""
    settings = OnPolicyStageSettings.parse({**SMALL, "lora_rank": 4})
    plain, work = work_of(settings, 1), work_of(settings.replace(given_share=0.5), 2)
    assert (plain.update, work.update, plain.passes, work.passes) == (8, 16, 8, 16)
    size = size_of_shapes(
        {name: tuple(p.shape) for name, p in llama(0, 32).named_parameters()}, llama(0, 32).config.to_dict()
    )
    one, two = (training_parts(size, each, 100, device="cuda", low=False)["reference"] for each in (plain, work))
    assert two == 2 * one == 2 * 4 * size.parameters


# ------------------------------------------------------------------ the stage


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [{"prompt": f"{n}+2?", "completion": f"<answer> {n + 2} </answer>"} for n in range(16)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(changes: dict[str, Any], folder: Path, progress: Progress | None = None, **paths: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    context = Context(
        stage="on-policy",
        settings=OnPolicyStageSettings.parse({**SMALL, **changes}),
        folder=folder,
        paths={name.replace("__", "/"): path for name, path in paths.items()},
        progress=progress or Progress(display=Display(io.StringIO())),
    )
    ON_POLICY.check(context)
    return dict(ON_POLICY.run(context))


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student's base with noise on its weights: it has forgotten half of what it knew."""
    folder = tmp_path_factory.mktemp("noisy") / "model"
    policy = load("tiny-half", device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(1 + 0.15 * torch.randn_like(weight))
    policy.save(folder)
    return folder


@pytest.mark.parametrize("changes", [{}, {"divergence": "sampled"}, {"divergence": "forward", "top_k_tokens": 8}])
def test_a_student_comes_closer_to_its_teacher(changes: dict[str, Any], noisy: Path, tmp_path: Path) -> None:
    many = {"steps": 12, "prompts_per_step": 8, "optimizer": {"learning_rate": 1e-4}, "rewards": "accuracy", **changes}
    facts = run(many, tmp_path / "stage", model=noisy, teacher=resolve("tiny"))
    found = metrics(tmp_path / "stage")
    assert facts["updates"] == 12 and len(found) == 12
    divergences = [row["distill/divergence"] for row in found]
    assert sum(divergences[-4:]) < 0.7 * sum(divergences[:4])
    # the first update of a rollout is on-policy, and there is no group to compare
    assert found[0]["sampler/logprob_gap_mean"] < 1e-4
    assert "reward/accuracy" in found[0] and "groups/zero_variance" not in found[0]
    assert (tmp_path / "stage" / "model" / "model.safetensors").is_file()


def test_killed_and_run_again_it_ends_with_the_same_bits(rows: Path, tiny_policy_folder: Path, tmp_path: Path) -> None:
    """With two teachers, given rows and several updates for a rollout."""
    changes = {
        "tasks": [{"name": "tiny/sums", "limit": 20}, {"name": "tiny/general", "limit": 20}],
        "domains": {"one": ["tiny/sums", ""], "two": ["*/general"]},
        "given_share": 0.25,
        "minibatches": 2,
    }
    paths = {"model": tiny_policy_folder, "teacher__one": resolve("tiny"), "teacher__two": tiny_policy_folder}
    straight = run(changes, tmp_path / "straight", **paths, data=rows)

    class Stop(Progress):
        def step(self, done: int, total: int, fields: Any = None) -> None:
            if done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(changes, tmp_path / "torn", Stop(), **paths, data=rows)
    assert run(changes, tmp_path / "torn", **paths, data=rows) == straight
    assert metrics(tmp_path / "torn") == metrics(tmp_path / "straight")
    name = "model/model.safetensors"
    assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_what_cannot_be_distilled_is_refused_before_training(
    rows: Path, tiny_policy_folder: Path, tmp_path: Path
) -> None:
    student = {"model": tiny_policy_folder}
    with pytest.raises(ValueError, match="has no teacher: give the input 'teacher', or several as teacher/NAME"):
        run({}, tmp_path / "a", **student)
    with pytest.raises(ValueError, match=r"problems of tiny/sums have no teacher"):
        run({}, tmp_path / "a", **student, teacher__one=resolve("tiny"), teacher__two=resolve("tiny"))
    with pytest.raises(ValueError, match="domains names 'three', and the teachers are one"):
        run({"domains": {"three": ["*"]}}, tmp_path / "a", **student, teacher__one=resolve("tiny"))
    with pytest.raises(ValueError, match="has data and given_share = 0: give both"):
        run({}, tmp_path / "a", **student, teacher=resolve("tiny"), data=rows)
    with pytest.raises(ValueError, match="has no data: give both an input 'data'"):
        run({"given_share": 0.5}, tmp_path / "a", **student, teacher=resolve("tiny"))
    tokenizer = make()
    tokenizer.add_tokens(["new"])
    other = Policy(fresh_llama(tokenizer, layers=1, width=32, heads=2, context=256, seed=0), tokenizer, (1,))
    other.save(tmp_path / "other")
    with pytest.raises(ModelError, match="teacher and student have different tokens"):
        run({}, tmp_path / "a", **student, teacher=tmp_path / "other")
    short = Policy(fresh_llama(make(), layers=1, width=32, heads=2, context=SMALL["max_tokens"], seed=0), make(), (1,))
    short.save(tmp_path / "short")
    with pytest.raises(ValueError, match=r"the teacher short takes \d+ tokens, .* lower max_tokens"):
        run({}, tmp_path / "a", **student, teacher__short=tmp_path / "short")
    for changes, message in (
        ({"divergence": "sampled", "given_share": 0.5}, "for tokens that the student sampled"),
        ({"divergence": "sampled", "top_k_tokens": 4}, "compares one token"),
        ({"top_p": 0.9}, "leave top_p at 1, top_k at 0"),
    ):
        with pytest.raises(SettingsError, match=message):
            OnPolicyStageSettings.parse({**SMALL, **changes})
