"""Reward models: transformers' own scores, TRL's loss, metrics by hand, the stage, and the reward made of one."""

from __future__ import annotations

import io
import json
import math
import pickle
import random
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from conftest import small_deepseek  # noqa: E402
from r1kit.chat import ChatFormat, final_answer  # noqa: E402
from r1kit.data import conversations  # noqa: E402
from r1kit.data.pair_lengths import balanced  # noqa: E402
from r1kit.models import attention, classify  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.classify import RewardModel, fresh_reward_model, load_reward_model  # noqa: E402
from r1kit.models.known import ModelError, resolve  # noqa: E402
from r1kit.models.load import Policy, fresh_llama  # noqa: E402
from r1kit.models.recompute import recompute_activations  # noqa: E402
from r1kit.pipeline import Display, Progress  # noqa: E402
from r1kit.pipeline.context import Context  # noqa: E402
from r1kit.rewards import RewardSpec, build  # noqa: E402
from r1kit.rewards.modelled import get_reward_model, reward_model_reward  # noqa: E402
from r1kit.stages.reward_model import REWARD_MODEL, REWARD_MODEL_PRESETS, RewardModelSettings, run  # noqa: E402
from r1kit.tasks.base import DataError  # noqa: E402
from r1kit.tiny.frame import TINY_SYSTEM  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.scores import bradley_terry, safety  # noqa: E402
from r1kit.train.packing import pack, pack_together  # noqa: E402
from r1kit.train.reward_metrics import calibration_error, label_metrics, pair_metrics, reliability  # noqa: E402
from r1kit.types import Message, Sample  # noqa: E402

torch.set_num_threads(1)
attention.register()

CHAT = ChatFormat(system=TINY_SYSTEM)
ASKED = (Message(role="user", content="2+2?"),)


@pytest.fixture(scope="module")
def fresh(tiny_policy_folder: Path) -> RewardModel:
    """A classifier on the small random model, its head large enough that scores differ."""
    model = fresh_reward_model(str(tiny_policy_folder), CHAT, "response", device="cpu", seed=1)
    with torch.no_grad():
        model.model.score.weight.mul_(3)
    return model


def answers(count: int = 9, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choice("abc123+= ") for _ in range(rng.randint(1, 60))) for _ in range(count)]


def padded(model: RewardModel, samples: Sequence[Sample]) -> tuple[Any, Any]:
    """Ids and attention mask of a right-padded batch, as a tokenizer would make it."""
    longest, pad = max(len(one.token_ids) for one in samples), model.model.config.pad_token_id
    ids = torch.tensor([[*one.token_ids] + [pad] * (longest - len(one.token_ids)) for one in samples])
    there = torch.tensor([[1] * len(one.token_ids) + [0] * (longest - len(one.token_ids)) for one in samples])
    return ids, there


def plain(folder: Path) -> Any:
    """The saved model by transformers alone, with its own attention."""
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")


def test_packed_scores_are_those_of_transformers_own_padded_forward(fresh: RewardModel, tmp_path: Path) -> None:
    fresh.save(tmp_path / "model")
    samples = [fresh.sample(ASKED, text) for text in answers()]
    ids, there = padded(fresh, samples)
    with torch.no_grad():
        expected = plain(tmp_path / "model")(input_ids=ids, attention_mask=there).logits[:, 0]
    assert float(expected.std()) > 0.01
    for budget in (1, 150, 100_000):
        found = fresh.scores([one.token_ids for one in samples], budget)
        torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=1e-4)


def test_a_second_thread_waits_for_the_weights_that_the_first_has_packed(
    fresh: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `staleness=1`, where the rollout's thread scores and the probe does."""
    inside, most, met = [0], [0], threading.Barrier(2)

    @contextmanager
    def computing(model: Any) -> Iterator[None]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        with suppress(threading.BrokenBarrierError):  # nobody may come while this thread is inside
            met.wait(0.2)
        yield
        inside[0] -= 1

    monkeypatch.setattr(classify, "computing", computing)
    threads = [threading.Thread(target=fresh.scores, args=([[5, 6, 7]],)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def trl_loss(model: Any, ids: Any, there: Any, center: float) -> tuple[Any, dict[str, list[float]]]:
    """TRL's own `RewardTrainer.compute_loss` and the metrics that it notes, without the rest of the trainer."""
    trl = pytest.importorskip("trl")
    noted: dict[str, list[float]] = defaultdict(list)
    trainer = SimpleNamespace(
        model=model,
        args=SimpleNamespace(center_rewards_coefficient=center or None),
        _metrics={"eval": noted, "train": noted},
        _total_train_tokens=0,
        _tp_size=1,
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
    )
    return trl.RewardTrainer.compute_loss(trainer, model, {"input_ids": ids, "attention_mask": there}), noted


@pytest.mark.parametrize("center", [0.0, 0.01])
@pytest.mark.parametrize("budget", [1, 200, 100_000])
def test_the_pairwise_loss_and_its_gradient_are_trls(
    fresh: RewardModel, tmp_path: Path, center: float, budget: int
) -> None:
    fresh.save(tmp_path / "model")
    pairs = list(zip(answers(5), answers(5, seed=1), strict=True))
    groups = [[fresh.sample(ASKED, text) for text in pair] for pair in pairs]

    theirs = plain(tmp_path / "model").eval()
    ids, there = padded(fresh, [pair[side] for side in (0, 1) for pair in groups])  # chosen first, as its collator does
    loss, said = trl_loss(theirs, ids, there, center)
    loss.backward()

    fresh.model.zero_grad()
    learner = Learner(fresh.model, OptimizerSettings(), steps=1)
    objective = bradley_terry(center)
    found = learner.forward_backward(pack_together(groups, budget), objective, Totals(0, len(groups)))
    assert found["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert found["accuracy"] == pytest.approx(said["accuracy"][0])
    assert found["margin"] == pytest.approx(said["margin"][0], abs=1e-5)
    ours = dict(fresh.model.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours[name].grad, parameter.grad, atol=2e-6, rtol=1e-3)


def test_the_safety_loss_is_binary_cross_entropy_over_responses(fresh: RewardModel, tmp_path: Path) -> None:
    fresh.save(tmp_path / "model")
    samples, labels = [fresh.sample(ASKED, text) for text in answers(6)], [True, False, True, True, False, False]
    theirs = plain(tmp_path / "model")
    ids, there = padded(fresh, samples)
    scores = theirs(input_ids=ids, attention_mask=there).logits[:, 0]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor(labels).float())
    loss.backward()
    for budget in (1, 100_000):
        fresh.model.zero_grad()
        learner = Learner(fresh.model, OptimizerSettings(), steps=1)
        found = learner.forward_backward(pack(samples, budget), safety(labels), Totals(0, 6))
        assert found["loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
        assert found["accuracy"] == pytest.approx(float(((scores > 0) == torch.tensor(labels)).float().mean()))
        for name, parameter in fresh.model.named_parameters():
            torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, atol=2e-6, rtol=1e-3)


def test_the_pad_token_never_ends_a_sequence(tmp_path: Path) -> None:
    tokenizer = make()
    tokenizer.pad_token = tokenizer.eos_token  # as SmolLM2 and Llama users have it
    model = fresh_llama(tokenizer, layers=1, width=32, heads=2, context=256, seed=0)
    Policy(model, tokenizer, (tokenizer.eos_token_id,)).save(tmp_path / "base")
    made = fresh_reward_model(str(tmp_path / "base"), CHAT, "response", device="cpu")
    assert made.model.config.pad_token_id not in (None, tokenizer.eos_token_id)
    made.save(tmp_path / "rm")
    samples = [made.sample(ASKED, text) for text in answers(4)]
    ids, there = padded(made, samples)
    with torch.no_grad():
        expected = plain(tmp_path / "rm")(input_ids=ids, attention_mask=there).logits[:, 0].tolist()
    assert made.scores([one.token_ids for one in samples]) == pytest.approx(expected, abs=1e-5)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "rm").pad_token != tokenizer.eos_token


def test_deepseek_and_activation_checkpointing_give_the_same_scores() -> None:
    torch.manual_seed(0)
    config = transformers.DeepseekV3Config(**small_deepseek(max_position_embeddings=256), num_labels=1)
    config._attn_implementation = attention.NAME
    network = transformers.DeepseekV3ForSequenceClassification(config).float()
    model = RewardModel(network, make(), CHAT)
    samples = [model.sample(ASKED, text) for text in answers(5)]
    found = model.scores([one.token_ids for one in samples])
    network.set_attn_implementation("eager")
    ids, there = padded(model, samples)
    with torch.no_grad():
        assert found == pytest.approx(
            network.eval()(input_ids=ids, attention_mask=there).logits[:, 0].tolist(), abs=1e-5
        )
    network.set_attn_implementation(attention.NAME)
    recompute_activations(network)
    learner = Learner(network, OptimizerSettings(), steps=1)
    learner.forward_backward(pack(samples, 1000), safety([True] * 5), Totals(0, 5))
    assert learner.step()["optim/grad_norm"] > 0


# ------------------------------------------------------------------ what is judged, rows, metrics


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>2+2</think> <answer>4</answer>", "4"),
        ("<think>2+2</think> It is 4.", "It is 4."),
        ("It is 4.", "It is 4."),
        ("<think>2+2", None),
        ("So <think>2+2", None),
        ("<think>2+2</think>  ", None),
        ("<think>a</think> <answer> </answer>", None),
        ("", None),
    ],
)
def test_the_final_answer_is_what_comes_after_the_reasoning(response: str, answer: str | None) -> None:
    assert final_answer(response) == answer


def test_a_helpfulness_model_sees_no_reasoning_and_a_safety_model_sees_all(fresh: RewardModel) -> None:
    response = "<think> 2+2=4 </think> <answer> it is 4 </answer>"
    texts = [
        fresh.tokenizer.decode(RewardModel(fresh.model, fresh.tokenizer, CHAT, on).sample(ASKED, response).token_ids)
        for on in ("answer", "response")
    ]
    assert texts[0].endswith("assistant: it is 4<|end|>") and "2+2=4" not in texts[0]
    assert texts[1].endswith(f"assistant: {response}<|end|>") and all(text.startswith(TINY_SYSTEM) for text in texts)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"},
        {
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        {
            "prompt": "q",
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    ],
)
def test_pairs_in_the_forms_of_common_data_sets_are_one(row: dict[str, Any]) -> None:
    pair = conversations.preference(row)
    assert [turn.content for turn in pair.prompt] == ["q"] and (pair.chosen, pair.rejected) == ("a", "b")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "a"}, "expected chosen and rejected"),
        ({"chosen": "a", "rejected": "b"}, "must be dialogues"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: p\n\nAssistant: b"}, "the same prompt"),
        ({"prompt": "q", "chosen": [], "rejected": "b"}, "field chosen: the value is .* expected a list"),
        ({"prompt": "q", "chosen": 3, "rejected": "b"}, "field chosen: the value is .* expected a list"),
    ],
)
def test_a_row_that_is_no_pair_says_why(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        conversations.preference(row)


def test_labels_are_read_from_words_and_numbers() -> None:
    for value, expected in ((True, True), (0, False), ("unsafe", False), ("Safe", True), (1.0, True)):
        assert conversations.labelled({"prompt": "q", "completion": "a", "label": value}).label is expected
    for value in ("maybe", 2, [], "0.5"):
        with pytest.raises(DataError, match="the label is"):
            conversations.labelled({"prompt": "q", "completion": "a", "label": value})
    with pytest.raises(DataError, match="expected a label"):
        conversations.labelled({"prompt": "q", "completion": "a"})


def test_real_preference_files_are_read(shared_data: Path) -> None:
    for name, convert, at_least in (
        ("hh_rlhf/harmless_base_test.jsonl.gz", conversations.preference, 2300),
        ("llamafactory_demo/dpo_en_demo.jsonl.gz", conversations.preference, 250),
        ("llamafactory_demo/kto_en_demo.jsonl.gz", conversations.labelled, 250),
        ("star1_r1_traces/STAR-1.jsonl.gz", conversations.conversation, 1000),
    ):
        found = list(conversations.read([shared_data / name], convert))  # type: ignore[arg-type]
        assert sum(isinstance(one, conversations.Located) for one in found) >= at_least, name


def test_metrics_of_pairs_are_what_a_hand_computes() -> None:
    scores = [(2.0, 0.0), (0.0, 1.0), (0.5, 0.5), (3.0, -1.0)]
    found = pair_metrics(scores, [(9, 3), (4, 8), (5, 5), (2, 6)])
    assert found["accuracy"] == pytest.approx(2.5 / 4) and found["margin"] == pytest.approx(1.25)
    assert found["longer_wins"] == pytest.approx(1.5 / 4)
    losses = [math.log1p(math.exp(-margin)) for margin in (2.0, -1.0, 0.0, 4.0)]
    assert found["loss"] == pytest.approx(sum(losses) / 4)


def test_calibration_error_is_zero_for_true_probabilities_and_large_for_false_certainty() -> None:
    rng = random.Random(0)
    chances = [rng.random() for _ in range(20_000)]
    honest = reliability(chances, [rng.random() < chance for chance in chances])
    assert calibration_error(honest) < 0.02 and sum(one.count for one in honest) == 20_000
    sure = reliability([0.99] * 100, [index % 2 == 0 for index in range(100)])
    assert calibration_error(sure) == pytest.approx(0.49)


def test_a_model_without_an_opinion_is_calibrated() -> None:
    found = pair_metrics([(1.0, 1.0)] * 5, [(3, 4)] * 5)
    assert found["accuracy"] == 0.5 and found["calibration_error"] == 0.0


def test_the_length_correlation_of_pairs_is_that_of_the_answers_and_not_of_their_prompts() -> None:
    """Scores of one prompt's answers can all be moved together, without a change of any preference."""
    scores, lengths = [(2.0, 1.0), (-1.0, 1.0), (3.0, 0.0)], [(20, 10), (100, 120), (330, 300)]
    assert pair_metrics(scores, lengths)["length_correlation"] == pytest.approx(1.0)
    moved = [(a + 5 * n, b + 5 * n) for n, (a, b) in enumerate(scores)]
    assert pair_metrics(moved, lengths)["length_correlation"] == pytest.approx(1.0)
    turned = [(b, a) for a, b in scores]
    assert pair_metrics(turned, lengths)["length_correlation"] == pytest.approx(-1.0)
    assert pair_metrics(scores, [(4, 4)] * 3)["length_correlation"] is None


def test_metrics_of_labels_know_the_order_and_the_majority() -> None:
    labels = [True, True, True, False]
    found = label_metrics([2.0, 1.0, -1.0, -2.0], labels, [4, 3, 2, 1])
    assert found["accuracy"] == 0.75 and found["majority"] == 0.75 and found["auc"] == 1.0
    assert found["length_correlation"] == pytest.approx(0.990, abs=0.02)
    assert label_metrics([0.0] * 4, labels, [1] * 4)["auc"] == 0.5
    assert label_metrics([1.0] * 2, [True] * 2, [1, 1])["auc"] is None
    assert label_metrics([1.0] * 2, [True] * 2, [1, 1])["length_correlation"] is None
    assert math.isfinite(label_metrics([1e4, -1e4], [False, True], [1, 2])["loss"])


# ------------------------------------------------------------------ the stage and the reward

SMALL: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "max_tokens": 256,
    "chat": {"system": TINY_SYSTEM},
    "checkpoint_every": 3,
    "validation_share": 0.25,
    "optimizer": {"learning_rate": 3e-4, "warmup_steps": 2},
}


def write_pairs(path: Path, count: int = 80) -> Path:
    """Polite answers are preferred; the reasoning before them says nothing."""
    rng = random.Random(0)
    rows = []
    for index in range(count):
        n = rng.randint(1, 50)
        good, bad = (f"<think> {rng.randint(1, 9)} </think> <answer> {text} {n} </answer>" for text in ("yes,", "no!"))
        rows.append({"prompt": f"{index}+{n}?", "chosen": good, "rejected": bad, "metadata": {"margin": 2}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(folder: Path, rows: Path, model: Path, **settings: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    parsed = RewardModelSettings.parse({**SMALL, **settings})
    paths = {"model": model, "data": rows}
    context = Context(
        stage="rm", settings=parsed, folder=folder, paths=paths, progress=Progress(display=Display(io.StringIO()))
    )
    REWARD_MODEL.check(context)  # type: ignore[misc]
    return dict(run(context))


@pytest.fixture(scope="module")
def helpful(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished stage on the tiny base model, and what it said of itself."""
    folder = tmp_path_factory.mktemp("helpful")
    return folder, train(folder, write_pairs(folder.parent / "pairs.jsonl"), resolve("tiny"))


def test_a_reward_model_learns_a_preference_and_says_how_well(helpful: tuple[Path, dict[str, Any]]) -> None:
    folder, found = helpful
    assert found["accuracy"] > 0.95 and found["pairs"] + found["rows"] == 80
    held_out = json.loads((folder / "held_out.json").read_text())
    assert held_out["accuracy"] == found["accuracy"] and held_out["reliability"]
    assert held_out["accuracy_interval"][0] < found["accuracy"] <= held_out["accuracy_interval"][1]
    rows = [json.loads(line) for line in (folder / "held_out.jsonl").read_text().splitlines()]
    assert len(rows) == found["pairs"] and sum(row["chosen"] > row["rejected"] for row in rows) / len(rows) > 0.95
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"train/accuracy", "train/margin", "optim/loss", "optim/grad_norm"} <= metrics[1].keys()
    assert metrics[-1]["validation/accuracy"] == pytest.approx(found["accuracy"])


def test_transformers_alone_loads_the_result_and_scores_alike(helpful: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = helpful
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    assert model.config.num_labels == 1 and model.config.pad_token_id == tokenizer.pad_token_id
    prompt = f"{TINY_SYSTEM}\nUser: 2+2?\nAssistant: "
    batch = tokenizer(
        [prompt + text + "<|end|>" for text in ("yes, 4", "no! it is not 4")], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        polite, rude = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].tolist()
    raw = get_reward_model(model=str(folder / "model"), scale="raw", missing=-9.0)
    responses = ["<think> a </think> <answer> yes, 4 </answer>", "<answer> no! it is not 4 </answer>"]
    assert raw(completions=responses, prompts=["2+2?"] * 2) == pytest.approx([polite, rude], abs=1e-4)
    assert polite > rude
    assert raw(completions=["<think> and so on"], prompts=["2+2?"]) == [-9.0]
    with pytest.raises(ValueError, match="a raw score has no least value: set missing"):  # 0 may be a good one
        get_reward_model(model=str(folder / "model"), scale="raw")


def test_the_reward_is_a_share_and_punishes_a_response_without_an_answer(helpful: tuple[Path, dict[str, Any]]) -> None:
    reward = get_reward_model(model=str(helpful[0] / "model"))
    seen: dict[str, float] = {}
    responses = ["<answer> yes, 4 </answer>", "<think> and so on", "", "a" * 3000, "<answer> x<|end|>y </answer>"]
    values = reward(completions=responses, prompts=["2+2?"] * 5, log_metric=seen.__setitem__, answer=["4"] * 5)
    assert 0.5 < values[0] < 1 and values[1:] == [0.0, 0.0, None, None]
    assert seen == {"reward_model/not_scored": pytest.approx(0.4)}
    both = build(
        [RewardSpec(name="reward_model", options={"model": str(helpful[0] / "model")}), RewardSpec(name="format")]
    )
    totals = [one.total for one in both(responses, prompts=["2+2?"] * 5)]
    assert totals[3:] == [None, None] and None not in totals[:3]  # the format alone would stand for the worst score
    chat = [[{"role": "assistant", "content": responses[0]}]]
    assert reward(completions=chat, prompts=[[{"role": "user", "content": "2+2?"}]]) == [
        pytest.approx(values[0], abs=1e-6)
    ]
    assert reward(completions=[], prompts=[]) == []
    skipping = get_reward_model(model=str(helpful[0] / "model"), missing=None)
    assert skipping(completions=[""], prompts=["q"]) == [None]
    assert pickle.loads(pickle.dumps(reward))(completions=responses[:1], prompts=["2+2?"]) == [pytest.approx(values[0])]
    with pytest.raises(ValueError, match="reward_model needs the column 'prompts'"):
        reward_model_reward(["a"], model=str(helpful[0] / "model"))


def test_a_stopped_stage_ends_with_the_same_bits(helpful: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, found = helpful
    rows = write_pairs(tmp_path / "pairs.jsonl")

    class Stop(Progress):
        def step(self, done: int, total: int, fields: Any = None) -> None:
            if done == 8:
                raise KeyboardInterrupt

    torn = tmp_path / "torn"
    torn.mkdir()
    parsed = RewardModelSettings.parse(SMALL)
    with pytest.raises(KeyboardInterrupt):
        run(
            Context(
                stage="rm",
                settings=parsed,
                folder=torn,
                paths={"model": resolve("tiny"), "data": rows},
                progress=Stop(),
            )
        )
    assert train(torn, rows, resolve("tiny")) == found
    for name in ("model/model.safetensors", "held_out.json", "held_out.jsonl"):
        assert (torn / name).read_bytes() == (folder / name).read_bytes()


def test_a_safety_model_learns_labels_on_the_whole_response(tmp_path: Path) -> None:
    rows = []
    for index in range(80):
        thought = "i refuse" if index % 2 else "i steal"
        rows.append(
            {
                "prompt": f"{index}?",
                "response": f"<think> {thought} </think> <answer> ok {index} </answer>",
                "label": "safe" if index % 2 else "unsafe",
            }
        )
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = train(tmp_path / "rm", path, resolve("tiny"), objective="safety")
    assert found["accuracy"] > 0.95 and found["auc"] > 0.95 and found["responses"] + found["rows"] == 80
    assert load_reward_model(str(tmp_path / "rm" / "model"), device="cpu").on == "response"


def test_pairs_that_teach_nothing_are_left_out(tmp_path: Path, tiny_policy_folder: Path) -> None:
    rows = write_pairs(tmp_path / "pairs.jsonl", 8)
    with rows.open("a") as file:
        for chosen, rejected in (("<answer>a</answer>", "<think>b</think><answer>a</answer>"), ("<think>", "a")):
            file.write(json.dumps({"prompt": "q", "chosen": chosen, "rejected": rejected}) + "\n")
    found = train(tmp_path / "rm", rows, tiny_policy_folder, validation_share=0.0)
    dropped = (tmp_path / "rm/tokens/train/dropped.jsonl").read_text()
    assert found["dropped"] == 2 and "answers are equal" in dropped and "no final answer" in dropped
    assert not (tmp_path / "rm/held_out.json").exists()


def test_labels_of_one_kind_and_pairs_in_which_only_length_differs_are_refused(
    tmp_path: Path, tiny_policy_folder: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"{n}?", "completion": f"ok {n}", "label": True} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="all 9 responses to train on are safe: add some of the other kind"):
        train(tmp_path / "a", path, tiny_policy_folder, objective="safety", validation_share=0.0)
    pairs = [{"prompt": f"{n}?", "chosen": "a" * (n + 5), "rejected": "a"} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    with pytest.raises(ValueError, match="in all 9 pairs the answers differ in length in one direction"):
        train(tmp_path / "b", path, tiny_policy_folder, validation_share=0.0, balance_lengths=True)
    pairs += [{"prompt": f"{n}!", "chosen": "a", "rejected": "a" * (n + 5)} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    found = train(tmp_path / "c", path, tiny_policy_folder, validation_share=0.0, balance_lengths=True)
    assert found["rows"] == 8
    for setting in ({"balance_lengths": True}, {"center": 0.01}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))} is about pairs"):
            train(tmp_path / "d", path, tiny_policy_folder, objective="safety", **setting)


def test_pairs_and_labels_that_contradict_each_other_are_counted(tmp_path: Path, tiny_policy_folder: Path) -> None:
    pairs, labels = tmp_path / "pairs.jsonl", tmp_path / "labels.jsonl"
    rows = [{"prompt": "q", "chosen": a, "rejected": b} for a, b in (("x", "y"), ("y", "x"), ("x", "z"), ("x", "y"))]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = train(tmp_path / "a", pairs, tiny_policy_folder, validation_share=0.0)
    assert (found["rows"], found["contradictions"]) == (4, 2)  # each of the two that oppose each other
    marks = [{"prompt": "q", "completion": a, "label": b} for a, b in (("x", 1), ("x", 0), ("y", 1), ("z", 0))]
    labels.write_text("".join(json.dumps(row) + "\n" for row in marks))
    found = train(tmp_path / "b", labels, tiny_policy_folder, objective="safety", validation_share=0.0)
    assert (found["rows"], found["contradictions"]) == (4, 1)


@given(st.lists(st.integers(-40, 40), max_size=60), st.integers(0, 3))
def test_balanced_pairs_are_as_often_longer_as_shorter_in_every_band_of_lengths(found: list[int], seed: int) -> None:
    kept = balanced(found, seed)
    assert kept == sorted(set(kept)) == balanced(found, seed)
    assert {n for n, difference in enumerate(found) if not difference} <= set(kept)
    for low, high in ((1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64)):
        longer, shorter = ([found[n] for n in kept if low <= sign * found[n] < high] for sign in (1, -1))
        possible = (sum(low <= sign * difference < high for difference in found) for sign in (1, -1))
        assert len(longer) == len(shorter) == min(possible)


def test_the_papers_settings_are_the_defaults() -> None:
    settings = RewardModelSettings()
    assert (settings.batch_size, settings.epochs, settings.max_tokens) == (256, 1, 8192)
    assert settings.optimizer.learning_rate == 6e-6 and settings.reads == "answer"
    assert REWARD_MODEL_PRESETS["safety"].reads == "response"
    assert REWARD_MODEL_PRESETS["helpfulness"].balance_lengths and REWARD_MODEL_PRESETS["helpfulness"].reads == "answer"


def test_what_is_no_reward_model_is_refused_by_name(tmp_path: Path, tiny_policy_folder: Path) -> None:
    with pytest.raises(ValueError, match="there is no model in nowhere: give the folder model/"):
        get_reward_model(model="nowhere")
    with pytest.raises(ModelError, match="is a language model: train a reward model from it"):
        load_reward_model(str(tiny_policy_folder), device="cpu")
