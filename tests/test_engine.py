"""The engine samples what transformers samples, whatever else is in the batch, and wastes no work on finished rows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from conftest import small, small_deepseek  # noqa: E402
from r1kit.engines.local import LocalEngine, decoders  # noqa: E402
from r1kit.engines.local.engine import Generation  # noqa: E402
from r1kit.engines.local.sampling import sample, uniforms  # noqa: E402
from r1kit.engines.local.scheduler import Request  # noqa: E402
from r1kit.engines.local.scheduler import Sequence as Row  # noqa: E402
from r1kit.models import attention  # noqa: E402
from r1kit.models.cached import KVCache  # noqa: E402
from r1kit.models.load import Policy, add_lora, named_weights  # noqa: E402
from r1kit.models.packed import common_prefix  # noqa: E402
from r1kit.models.plain import PlainPath  # noqa: E402
from r1kit.models.recurrent import fork_states  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.types import Completion, Prompt, SamplingParams  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
BASE = small()
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**BASE),
    "qwen2": lambda: transformers.Qwen2Config(**BASE),
    "deepseek-v3": lambda: transformers.DeepseekV3Config(**small_deepseek(n_routed_experts=4)),
    "gemma2": lambda: transformers.Gemma2Config(
        **BASE, head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=None, final_logit_softcapping=3.0
    ),
    "gpt-oss": lambda: transformers.GptOssConfig(
        **BASE, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=9
    ),
    "qwen3.5": lambda: transformers.Qwen3_5TextConfig(
        **BASE,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    ),
}
QUESTIONS = ("1+2=", "tom has 3 apples", "a", "which is largest: 4, 9, 2?", "0", "count the 7s")


def build(name: str = "llama", ends: tuple[int, ...] = (1,)) -> Policy:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention.NAME)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    fork_states(model)
    return Policy(model.float(), TOKENIZER, ends)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return build(ends=())


def prompts(texts: Sequence[str] = QUESTIONS) -> list[Prompt]:
    return [
        Prompt(problem_id=text, messages=(), token_ids=tuple(TOKENIZER.encode(text, add_special_tokens=False)))
        for text in texts
    ]


def generate(policy: Policy, asked: Sequence[Prompt], *, max_rows: int = 128, **params: Any) -> list[list[Completion]]:
    return LocalEngine(policy, max_rows=max_rows).generate(asked, SamplingParams(**params))


def recomputed(policy: Policy, prompt: Prompt, completion: Completion, temperature: float = 1.0) -> list[float]:
    """Log-probs of a completion from one plain forward pass."""
    policy.model.set_attn_implementation("eager")
    ids = torch.tensor([[*prompt.token_ids, *completion.token_ids]])
    with torch.no_grad():
        logits = policy.model(ids).logits[0, len(prompt.token_ids) - 1 : -1].float() / temperature
    policy.model.set_attn_implementation(attention.NAME)
    return logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_is_transformers_greedy_token_for_token(name: str) -> None:
    policy = build(name)
    free = generate(policy, prompts(), temperature=0.0, max_tokens=40)
    end = free[0][0].token_ids[7]  # a token that comes up early, so that some rows end and others do not
    policy = Policy(policy.model, policy.tokenizer, (end,))
    ours = [group[0] for group in generate(policy, prompts(), temperature=0.0, max_tokens=40, max_rows=4)]
    policy.model.set_attn_implementation("eager")
    for prompt, completion in zip(prompts(), ours, strict=True):
        ids = torch.tensor([prompt.token_ids])
        theirs = policy.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40, eos_token_id=end
        )
        assert list(completion.token_ids) == theirs[0, len(prompt.token_ids) :].tolist()
        assert completion.finish_reason == ("stop" if completion.token_ids[-1] == end else "length")
    assert {completion.finish_reason for completion in ours} >= {"stop"}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_log_probs_equal_recomputed_ones(name: str, temperature: float) -> None:
    policy = build(name)
    found = generate(policy, prompts(), n=3, temperature=temperature, top_p=0.9, max_tokens=20, max_rows=7)
    for prompt, group in zip(prompts(), found, strict=True):
        for completion in group:
            expected = recomputed(policy, prompt, completion, temperature)
            assert completion.logprobs == pytest.approx(expected, abs=1e-4)


def test_the_same_seed_gives_the_same_tokens_whatever_else_is_in_the_batch(policy: Policy) -> None:
    asked = prompts()
    together = generate(policy, asked, n=4, max_tokens=24, seed=5)
    for rows in (1, 3, 10):
        assert tokens(generate(policy, asked, n=4, max_tokens=24, seed=5, max_rows=rows)) == tokens(together)
    for prompt, group in zip(asked, together, strict=True):
        assert tokens(generate(policy, [prompt], n=4, max_tokens=24, seed=5)) == tokens([group])
        assert tokens(generate(policy, [prompt], n=2, max_tokens=24, seed=5)) == tokens([group[:2]])
    assert tokens(generate(policy, list(reversed(asked)), n=4, max_tokens=24, seed=5))[::-1] == tokens(together)


def test_samples_of_one_prompt_differ_and_so_do_seeds(policy: Policy) -> None:
    (group,) = generate(policy, prompts()[:1], n=8, max_tokens=10)
    (other,) = generate(policy, prompts()[:1], n=8, max_tokens=10, seed=1)
    assert len({one.token_ids for one in group} | {one.token_ids for one in other}) == 16


def test_a_problem_that_is_asked_twice_is_sampled_anew(policy: Policy) -> None:
    first, second = generate(policy, prompts()[:1] * 2, n=2, max_tokens=10)
    assert not {one.token_ids for one in first} & {one.token_ids for one in second}


def test_finished_rows_leave_and_prompts_are_computed_once(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    prefilled: list[int] = []

    class CountedDecode(decoders.DecodeLayout):
        def __init__(self, cache: Any, places: Any) -> None:
            decoded.append(len(places))
            super().__init__(cache, places)

    class CountedPrefill(decoders.PrefillLayout):
        def __init__(self, cache: Any, lengths: Sequence[int], slots: Any, device: Any) -> None:
            prefilled.append(cache.shared * len(lengths) + sum(lengths))
            super().__init__(cache, lengths, slots, device)

    monkeypatch.setattr(decoders, "DecodeLayout", CountedDecode)
    monkeypatch.setattr(decoders, "PrefillLayout", CountedPrefill)
    many = Policy(policy.model, policy.tokenizer, tuple(range(30)))  # a likely end, so that lengths differ
    found = generate(many, prompts(), n=4, max_tokens=30, max_rows=8)
    lengths = [len(one.token_ids) for group in found for one in group]
    assert len(set(lengths)) > 3
    assert max(decoded) <= 8
    assert sum(decoded) == sum(lengths) - len(lengths)  # the first token comes from the prompt's pass
    assert sum(prefilled) == sum(len(prompt.token_ids) for prompt in prompts())


def test_what_all_prompts_begin_with_is_computed_once_and_changes_nothing(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    class CountedPrefill(decoders.PrefillLayout):
        def __init__(self, cache: Any, lengths: Sequence[int], slots: Any, device: Any) -> None:
            rows.append(cache.shared + sum(lengths))
            super().__init__(cache, lengths, slots, device)

    system = tuple(range(40, 60))
    asked = [Prompt(problem_id=str(n), messages=(), token_ids=(*system, *range(30 + n, 33 + 2 * n))) for n in range(5)]
    alone = [tokens(generate(policy, [prompt], n=2, max_tokens=12))[0] for prompt in asked]
    monkeypatch.setattr(decoders, "PrefillLayout", CountedPrefill)
    assert tokens(generate(policy, asked, n=2, max_tokens=12)) == alone
    assert rows == [len(system) + sum(len(prompt.token_ids) - len(system) for prompt in asked)]


@pytest.mark.parametrize(
    ("runs", "shared"),
    [([(7, 8), (7, 9)], 1), ([(7, 8)], 1), ([(7,), (7, 8)], 0), ([(1, 2), (1, 2)], 1), ([(1, 2, 3), (2, 2, 3)], 0)],
)
def test_the_common_prefix_leaves_a_token_of_each(runs: list[tuple[int, ...]], shared: int) -> None:
    assert common_prefix(runs) == shared


def test_the_cache_grows_and_shrinks_with_the_longest_row_and_keeps_what_rows_hold() -> None:
    cache = KVCache(3)
    cache.lengths[:] = torch.tensor([40, 5, 9])
    cache.fit(3)
    keys, values = cache.layer(0, torch.ones(3, 2, 1, 8), torch.ones(3, 2, 1, 4))
    assert keys.shape == (3, 2, 64, 8) and values.shape == (3, 2, 64, 4)
    filled = torch.randn(keys.shape)
    keys.copy_(filled)
    cache.lengths[0] = 64  # the next token needs a position more
    cache.fit(3)
    grown = cache.layers[0][0]
    assert grown.shape == (3, 2, 96, 8) and torch.equal(grown[:, :, :64], filled) and not bool(grown[:, :, 64:].any())
    cache.lengths[0] = 20  # another, shorter row took the slot
    cache.fit(2)
    assert torch.equal(cache.layers[0][0], filled[:2, :, :32])


def test_a_group_larger_than_the_cache_comes_in_parts(policy: Policy) -> None:
    assert tokens(generate(policy, prompts(), n=7, max_tokens=12, max_rows=3)) == tokens(
        generate(policy, prompts(), n=7, max_tokens=12)
    )


def test_progress_counts_every_completion_once(policy: Policy) -> None:
    seen: list[tuple[int, int]] = []
    engine = LocalEngine(policy, max_rows=4)
    engine.generate(prompts(), SamplingParams(n=3, max_tokens=5), lambda done, total: seen.append((done, total)))
    assert seen == [(count, 18) for count in range(1, 19)]


def test_greedy_gives_n_equal_completions(policy: Policy) -> None:
    (group,) = generate(policy, prompts()[:1], n=3, temperature=0.0, max_tokens=6)
    assert len(group) == 3 and len({one.token_ids for one in group}) == 1


def test_max_tokens_bounds_every_completion_and_one_is_enough(policy: Policy) -> None:
    for limit in (1, 2, 33):
        for group in generate(policy, prompts(), n=2, max_tokens=limit):
            assert all(len(one.token_ids) == limit and one.finish_reason == "length" for one in group)


def test_end_and_stop_ids_end_a_completion_and_are_kept_in_its_ids_but_not_in_its_text(policy: Policy) -> None:
    ends, stops = (20, 21), (22, 23)
    limited = Policy(policy.model, policy.tokenizer, ends)
    found = generate(limited, prompts(), n=6, max_tokens=100, stop_token_ids=stops)
    stopped = [one for group in found for one in group if one.finish_reason == "stop"]
    assert {one.token_ids[-1] for one in stopped} & set(ends) and {one.token_ids[-1] for one in stopped} & set(stops)
    for one in stopped:
        assert not set(one.token_ids[:-1]) & {*ends, *stops}
        assert one.text == TOKENIZER.decode(one.token_ids[:-1])


def test_a_stop_string_cuts_the_text_at_its_first_place(policy: Policy) -> None:
    free = generate(policy, prompts(), n=4, max_tokens=60)
    for group, again in zip(free, generate(policy, prompts(), n=4, max_tokens=60, stop=("7", "ab")), strict=True):
        for whole, cut in zip(group, again, strict=True):
            places = [place for place in (whole.text.find("7"), whole.text.find("ab")) if place >= 0]
            assert cut.text == (whole.text[: min(places)] if places else whole.text)
            assert cut.finish_reason == ("stop" if places else "length")
            assert whole.token_ids[: len(cut.token_ids)] == cut.token_ids


def test_no_prompts_give_no_completions(policy: Policy) -> None:
    assert generate(policy, [], n=4) == []


def test_what_cannot_fit_is_refused_before_any_work(policy: Policy) -> None:
    (long,) = prompts(["1" * 100])
    assert len(generate(policy, [long], max_tokens=28)[0]) == 1
    with pytest.raises(ValueError, match=r"has 100 tokens; with max_tokens 29 .* context is 128: lower max_tokens"):
        generate(policy, [*prompts(), long], max_tokens=29)
    with pytest.raises(ValueError, match="is empty"):
        generate(policy, prompts([""]), max_tokens=2)
    with pytest.raises(ValueError, match="max_rows is 0"):
        LocalEngine(policy, max_rows=0)


def test_completions_carry_the_version_of_the_weights(policy: Policy) -> None:
    engine = LocalEngine(policy)
    engine.version = 7
    assert engine.generate(prompts()[:1], SamplingParams(max_tokens=2))[0][0].policy_version == 7


WARPED = [
    {"top_k": 5},
    {"top_p": 0.8},
    {"top_k": 20, "top_p": 0.7},
    {"temperature": 0.5},
    {"temperature": 1.7, "top_p": 0.3, "top_k": 3},
    {"top_k": 10_000},
    {"top_p": 1e-6},
]


@pytest.mark.parametrize("settings", WARPED, ids=str)
@pytest.mark.parametrize("vocabulary", [50, 1200])
def test_frequencies_are_those_of_transformers_warpers(settings: dict[str, Any], vocabulary: int) -> None:
    params = SamplingParams(**settings)
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(3)) * 2
    expected = logits / params.temperature
    if params.top_k:
        expected = transformers.TopKLogitsWarper(min(params.top_k, vocabulary))(None, expected)
    if params.top_p < 1:
        expected = transformers.TopPLogitsWarper(params.top_p)(None, expected)
    expected = expected[0].double().softmax(-1)
    count = 8_000
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count  # evenly spread numbers: frequencies without noise
    found = torch.zeros(vocabulary, dtype=torch.float64)
    for part in grid.split(2_000):
        tokens, _ = sample(logits.repeat(len(part), 1), part, params)
        found += torch.bincount(tokens, minlength=vocabulary) / count
    torch.testing.assert_close(found, expected, atol=2 / count + 1e-6, rtol=0)
    assert not bool((found[expected == 0] > 0).any())


def test_the_rows_own_random_numbers_are_uniform_and_independent_of_how_many_are_asked() -> None:
    numbers = torch.stack([uniforms(0, f"problem#{index}/0", 200) for index in range(200)])
    assert torch.equal(uniforms(0, "problem#3/0", 50), numbers[3, :50])
    assert bool(((numbers >= 0) & (numbers < 1)).all())
    counts = torch.histc(numbers.flatten().float(), bins=20, min=0, max=1)
    chi = float(((counts - 2000).square() / 2000).sum())
    assert chi < 19 + 5 * math.sqrt(2 * 19)
    assert abs(float(torch.corrcoef(numbers[:2])[0, 1])) < 0.3


def test_the_extremes_of_the_uniform_numbers_give_tokens_that_can_be_drawn() -> None:
    logits = torch.full((2, 600), -1e9)
    logits[:, [5, 300]] = 0.0
    for params in (SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(top_k=4)):
        tokens, logprobs = sample(logits.clone(), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), params)
        assert set(tokens.tolist()) <= {5, 300}
        assert logprobs.tolist() == pytest.approx([math.log(0.5)] * 2)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 5}], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_distribution_are_refused(params: dict[str, Any], bad: float) -> None:
    logits = torch.zeros(2, 600)
    logits[1, 3] = bad
    _, logprobs = sample(logits, torch.tensor([0.5, 0.5], dtype=torch.float64), SamplingParams(**params))
    assert logprobs.isnan().tolist() == [False, True]
    policy = build(ends=())
    policy.model.lm_head.weight.data[3] = bad
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        generate(policy, prompts(), max_tokens=3, **params)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.0}, {"top_p": 0.9}, {"stop": ("3",)}], ids=str)
def test_tokens_that_are_read_back_late_are_the_same(params: dict[str, Any]) -> None:
    policy = build(ends=tuple(range(20)))  # a likely end, so that rows end inside a run of steps
    params = {"n": 3, "max_tokens": 23, **params}
    if params.get("temperature") == 0.0:
        params["n"] = 1
    expected = generate(policy, prompts(), max_rows=7, **params)
    late = LocalEngine(policy, max_rows=7, read_every=5).generate(prompts(), SamplingParams(**params))
    assert tokens(late) == tokens(expected)
    for group, other in zip(late, expected, strict=True):
        for one, two in zip(group, other, strict=True):
            assert (one.text, one.finish_reason) == (two.text, two.finish_reason)
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-5)
    assert len({len(one.token_ids) for group in expected for one in group}) > 3


@pytest.mark.parametrize("params", [{}, {"temperature": 0.0}, {"top_k": 5}], ids=str)
def test_no_step_between_two_reads_needs_a_value(params: dict[str, Any]) -> None:
    policy = build()
    policy.model.to("meta")  # tensors without values: reading one raises an error
    engine = LocalEngine(policy, read_every=4)
    with torch.inference_mode():
        generation = Generation(engine, engine.requests(prompts(), SamplingParams(n=2, max_tokens=9, **params)))
        shapes = []
        generation.read = lambda first, tokens, logprobs: shapes.append((first, *tokens.shape))  # type: ignore[assignment]
        generation.prefill(generation.scheduler.admit(), 0)
        generation.decode()
    assert shapes == [(0, 12, 1), (0, 12, 4)]


def test_a_recorded_step_replays_the_next_ones() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    policy, params = build(ends=()), SamplingParams(n=2, max_tokens=9)
    expected = [one.token_ids for group in generate(policy, prompts(), n=2, max_tokens=9) for one in group]
    with torch.no_grad():
        engine = LocalEngine(policy)
        requests = engine.requests(prompts(), params)
        generation = Generation(engine, requests)
        generation.prefill(generation.scheduler.admit(), 0)
        uniform = generation.next_uniforms(0, 8)  # [rows, steps]
        generation.decoder.reserve(8)
        # recorded as a CUDA graph would be: operations on tensors, and no Python
        recorded = make_fx(lambda draws: generation.step(draws))(uniform[:, 0])
        sampled = [generation.last_tokens.clone(), *(recorded(uniform[:, step])[0] for step in range(1, 8))]
    for row, sequence in enumerate(generation.scheduler.running):
        ids = (*sequence.token_ids, *(int(each[row]) for each in sampled))
        assert ids == expected[requests.index(sequence.request) * 2 + sequence.sample]


def tokens(groups: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[one.token_ids for one in group] for group in groups]


MIXED: list[dict[str, Any]] = [
    {"n": 3, "max_tokens": 40},
    {"temperature": 0.0, "max_tokens": 9},
    {"n": 2, "temperature": 0.6, "top_k": 5, "max_tokens": 20, "seed": 4},
    {"temperature": 1.4, "top_p": 0.8, "max_tokens": 12, "stop": ("1",)},
]


@pytest.mark.parametrize("read_every", [1, 3])
def test_requests_that_join_and_leave_a_running_batch_get_what_they_get_alone(policy: Policy, read_every: int) -> None:
    engine = LocalEngine(policy, max_rows=5, read_every=read_every)
    asked = list(zip(prompts(), MIXED, strict=False))
    requests = [engine.requests([prompt], SamplingParams(**params))[0] for prompt, params in asked]
    ended: list[Row] = []
    with engine.session():
        generation = Generation(engine)
        for number, request in enumerate(requests):  # each joins two steps after the one before
            generation.add([request])
            ended += generation.advance() + generation.advance()
            if number == 2:
                generation.cancel(requests[0])
                assert all(row.request is not requests[0] for row in generation.scheduler.running)
        while generation.busy:
            ended += generation.advance()
    assert not generation.scheduler.running and generation.decoder.rows == 0  # type: ignore[attr-defined]
    assert all(row.request is not requests[0] for row in ended)
    for request, (prompt, params) in zip(requests[1:], asked[1:], strict=True):
        rows = sorted((row for row in ended if row.request is request), key=lambda row: row.sample)
        (alone,) = generate(policy, [prompt], **params)
        assert [row.completion and row.completion.token_ids for row in rows] == [one.token_ids for one in alone]
        assert [row.completion and row.completion.text for row in rows] == [one.text for one in alone]


def test_a_request_that_waits_can_be_cancelled_and_prompts_are_prefilled_in_portions(policy: Policy) -> None:
    engine = LocalEngine(policy)
    requests = engine.requests(prompts(), SamplingParams(n=2, max_tokens=4))
    with engine.session():
        generation = Generation(engine, prefill_tokens=20)
        generation.add(requests)
        generation.cancel(requests[2])
        generation.advance()
        begun = {row.request for row in generation.scheduler.running}
        assert 1 <= len(begun) < len(requests) - 1 and sum(len(each.token_ids) for each in begun) <= 26
        ended = []
        while generation.busy:
            ended += generation.advance()
    assert len(ended) == 2 * (len(requests) - 1)


@pytest.mark.parametrize("path", [None, PlainPath("test"), PlainPath("test", forks=False, pads_left=False)], ids=str)
def test_prompts_are_scored_and_the_likeliest_tokens_are_kept_for_those_who_ask(path: PlainPath | None) -> None:
    policy = build(ends=())
    if path:
        policy.model.plain_path = path
        policy.model.set_attn_implementation("eager")
    engine = LocalEngine(policy)
    params = engine.policy.with_ends(SamplingParams(n=2, max_tokens=5, temperature=0.7))
    ids = [prompt.token_ids for prompt in prompts()[:4]]
    scored = Request("a", ids[1], params, top=3, scores_prompt=True)
    others = [Request("b", ids[0], params, top=1), Request("c", ids[2], params), Request("d", ids[3], params)]
    ended = []
    with engine.session():
        generation = Generation(engine, [scored, *others])
        while generation.busy:
            ended += generation.advance()
    policy.model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = policy.model(torch.tensor([scored.token_ids])).logits[0, :-1].float().log_softmax(-1)
    own = expected.gather(1, torch.tensor(scored.token_ids[1:])[:, None])[:, 0]
    assert scored.prompt_logprobs == pytest.approx(own.tolist(), abs=1e-4)
    for top, row in zip(scored.prompt_top, expected, strict=True):
        assert [token for token, _ in top] == row.topk(3).indices.tolist()
        assert [logprob for _, logprob in top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
    assert not others[0].prompt_logprobs
    assert len(ended) == 8
    for row in ended:
        assert [len(top) for top in row.top] == [row.request.top] * len(row.token_ids) * bool(row.request.top)
        for token, logprob, top in zip(row.token_ids, row.logprobs, row.top, strict=False):
            assert dict(top).get(token, logprob) == pytest.approx(logprob, abs=1e-5) and top[0][1] >= logprob - 1e-5


# digests of the token ids of all QUESTIONS, recorded before the scheduler became a class of its own
FROZEN: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"temperature": 0.0}, "dc802574bb71ba8d"),
    ("llama", {"n": 3}, "92bf421dc33bd5dc"),
    ("llama", {"n": 3, "temperature": 0.6, "seed": 5}, "3da225221a3b457a"),
    ("llama", {"n": 5, "temperature": 1.3, "top_p": 0.9, "seed": 7}, "edae80fee896734b"),
    ("llama", {"n": 2, "temperature": 0.8, "top_k": 7, "seed": 1}, "12eef749d05a9ecc"),
    ("llama", {"n": 2, "temperature": 0.8, "top_k": 20, "top_p": 0.7, "seed": 2}, "696ba1d170a1f182"),
    ("deepseek-v3", {"temperature": 0.0}, "eebdb2153c824854"),
    ("deepseek-v3", {"n": 3}, "e037aedcf94885e3"),
    ("deepseek-v3", {"n": 3, "temperature": 0.6, "seed": 5}, "df710640177ec4fc"),
    ("deepseek-v3", {"n": 5, "temperature": 1.3, "top_p": 0.9, "seed": 7}, "aa72fefb572380f2"),
    ("deepseek-v3", {"n": 2, "temperature": 0.8, "top_k": 7, "seed": 1}, "6bcbc5b491a1030e"),
    ("deepseek-v3", {"n": 2, "temperature": 0.8, "top_k": 20, "top_p": 0.7, "seed": 2}, "c671b9f5eed5ff74"),
]


@pytest.mark.parametrize(("name", "params", "digest"), FROZEN)
def test_samples_stay_what_they_were(name: str, params: dict[str, Any], digest: str) -> None:
    for max_rows in (128, 4):
        groups = generate(build(name), prompts(), max_rows=max_rows, max_tokens=12, **params)
        token_ids = [[list(completion.token_ids) for completion in group] for group in groups]
        assert hashlib.sha256(json.dumps(token_ids).encode()).hexdigest()[:16] == digest


def test_load_weights_copies_what_is_not_the_policys_own() -> None:
    policy, other = build(), build()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.5)
    engine, greedy = LocalEngine(policy), SamplingParams(temperature=0.0, max_tokens=12)
    pointers = [tensor.data_ptr() for _, tensor in named_weights(policy.model)]
    before = engine.generate(prompts(), greedy)
    engine.load_weights(named_weights(policy.model), version=3)
    same = engine.generate(prompts(), greedy)
    assert [[c.token_ids for c in group] for group in same] == [[c.token_ids for c in group] for group in before]
    assert {completion.policy_version for group in same for completion in group} == {3}
    engine.load_weights(named_weights(other.model), version=4)
    assert [tensor.data_ptr() for _, tensor in named_weights(policy.model)] == pointers
    theirs = LocalEngine(other).generate(prompts(), greedy)
    ours = engine.generate(prompts(), greedy)
    assert [[c.token_ids for c in group] for group in ours] == [[c.token_ids for c in group] for group in theirs]
    assert ours != before
    with pytest.raises(ValueError, match=r"weights came for nowhere with shape .* the policy has no such tensor"):
        engine.load_weights([("nowhere", torch.zeros(2))], version=5)


def test_weights_of_a_policy_with_adapters_have_merged_names() -> None:
    names = [name for name, _ in named_weights(build().model)]
    policy = add_lora(build(), 4, 8, ())
    assert [name for name, _ in named_weights(policy.model)] == names
    engine = LocalEngine(policy)
    engine.load_weights(named_weights(policy.model), version=2)
    assert engine.generate(prompts(), SamplingParams(max_tokens=2))[0][0].policy_version == 2
