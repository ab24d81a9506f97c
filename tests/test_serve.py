"""The OpenAI-compatible server, asked by OpenAI's client over a socket: it answers what the engine answers directly."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
openai = pytest.importorskip("openai", reason="the client needs its extra: pip install 'r1kit[openai]'")
pytest.importorskip("uvicorn", reason="the server needs its extra: pip install 'r1kit[web]'")

import tokenizers  # noqa: E402
import transformers  # noqa: E402
from starlette.requests import ClientDisconnect  # noqa: E402

from r1kit import cli  # noqa: E402
from r1kit.chat import ChatFormat, saved  # noqa: E402
from r1kit.commands.eval_command import evaluate  # noqa: E402
from r1kit.data.jsonl import read_rows  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.engines.openai import OpenAIEngine, OpenAIEngineSettings  # noqa: E402
from r1kit.models.known import resolve  # noqa: E402
from r1kit.models.load import Policy, load  # noqa: E402
from r1kit.serve import event_stream  # noqa: E402
from r1kit.serve.text import BROKEN, ReasoningSplit, TextStream  # noqa: E402
from r1kit.types import Completion, Message, Problem, SamplingParams  # noqa: E402
from serving import PATIENCE_S, Gate, Served, served  # noqa: E402

torch.set_num_threads(1)
QUESTIONS = ("What is 3+4?", "tom has 5 apples and eats 2", "count down from 9", "7-2=")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load("tiny", device="cpu")


@pytest.fixture(scope="module")
def chat(policy: Policy) -> ChatFormat:
    return saved.choose(None, resolve("tiny"), policy.tokenizer)[0]


@pytest.fixture(scope="module")
def tiny(policy: Policy, chat: ChatFormat) -> Iterator[Served]:
    with served(LocalEngine(policy), chat) as running:
        yield running


@pytest.fixture(scope="module")
def client(tiny: Served) -> Any:
    with tiny.client() as opened:
        yield opened


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def direct(policy: Policy, chat: ChatFormat, question: str, **params: Any) -> list[Completion]:
    """The engine's own completions of a question, with the server's greedy settings."""
    problem = Problem(id=question, prompt=question, answer="")
    settings = {"temperature": 0.0, "max_tokens": 60} | params
    [completions] = LocalEngine(policy).generate([chat.render(problem, policy.tokenizer)], SamplingParams(**settings))
    return completions


def whole(message: Any) -> str:
    """Reasoning and answer of a message or of joined deltas, as the model wrote them."""
    reasoning = getattr(message, "reasoning_content", None)
    if message.content is None:  # it never ended its reasoning
        return f"<think>{reasoning}"
    return f"<think>{reasoning}</think>{message.content}" if reasoning else message.content


def test_the_model_is_listed_under_its_name(tiny: Served, client: Any) -> None:
    [model] = client.models.list().data
    assert (model.id, model.owned_by, model.max_model_len) == ("tested", "r1kit", tiny.engine.context)
    assert model.chat_format["template"] == "plain"
    assert client.models.retrieve("tested").id == "tested"
    health = client.with_options(base_url=tiny.url.removesuffix("/v1")).get("/health", cast_to=object)
    assert health["status"] == "ok"


def test_a_greedy_answer_is_the_engines_own_with_its_ids_and_log_probs(
    client: Any, policy: Policy, chat: ChatFormat
) -> None:
    for question in QUESTIONS:
        [expected] = direct(policy, chat, question)
        reply = client.chat.completions.create(
            model="tested",
            messages=user(question),
            temperature=0,
            max_completion_tokens=60,
            logprobs=True,
            top_logprobs=3,
            extra_body={"return_token_ids": True},
        )
        [choice] = reply.choices
        assert whole(choice.message) == expected.text and choice.finish_reason == expected.finish_reason
        assert choice.token_ids == list(expected.token_ids)
        prompt = chat.render(Problem(id="", prompt=question, answer=""), policy.tokenizer)
        assert reply.prompt_token_ids == list(prompt.token_ids)
        assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (
            len(prompt.token_ids),
            len(expected.token_ids),
        )
        assert [token.logprob for token in choice.logprobs.content] == pytest.approx(expected.logprobs, abs=1e-4)
        for token in choice.logprobs.content:  # greedy: each is the likeliest, with the same number in both places
            assert len(token.top_logprobs) == 3 and token.top_logprobs[0].logprob == token.logprob
        text = b"".join(bytes(token.bytes) for token in choice.logprobs.content).decode()
        assert text.startswith(expected.text)


SAMPLED = {"temperature": 1.0, "top_p": 0.95, "n": 3, "seed": 7, "max_tokens": 40}


def ask(client: Any, question: str, **options: Any) -> list[str]:
    reply = client.chat.completions.create(model="tested", messages=user(question), **{**SAMPLED, **options})
    assert [choice.index for choice in reply.choices] == list(range(len(reply.choices)))
    return [whole(choice.message) for choice in reply.choices]


def test_a_stream_adds_up_to_the_whole_answer(client: Any) -> None:
    for options in ({}, {"stop": ["7", "answer is"]}, {"temperature": 0, "n": 1}):
        settings = {**SAMPLED, "extra_body": {"return_token_ids": True}, "logprobs": True, **options}
        for question in QUESTIONS[:2]:
            expected = client.chat.completions.create(model="tested", messages=user(question), **settings)
            parts: dict[int, dict[str, Any]] = {}
            usage = None
            for chunk in client.chat.completions.create(
                model="tested", messages=user(question), stream=True, stream_options={"include_usage": True}, **settings
            ):
                usage = chunk.usage
                for choice in chunk.choices:
                    part = parts.setdefault(
                        choice.index, {"content": "", "reasoning_content": "", "ids": [], "logs": []}
                    )
                    assert not part.get("finish"), "nothing follows the reason"
                    delta = choice.delta
                    part["role"] = delta.role or part.get("role")
                    part["content"] += delta.content or ""
                    part["reasoning_content"] += getattr(delta, "reasoning_content", None) or ""
                    part["ids"] += getattr(choice, "token_ids", [])
                    part["logs"] += [token.logprob for token in (choice.logprobs.content if choice.logprobs else [])]
                    part["finish"] = choice.finish_reason
            assert usage == expected.usage
            assert len(parts) == settings["n"]
            for choice in expected.choices:
                part = parts[choice.index]
                assert part["content"] == (choice.message.content or "")
                assert part["reasoning_content"] == (getattr(choice.message, "reasoning_content", None) or "")
                assert part["role"] == "assistant" and part["finish"] == choice.finish_reason
                assert part["ids"] == choice.token_ids
                assert part["logs"] == pytest.approx([token.logprob for token in choice.logprobs.content], abs=1e-4)


def test_a_seed_gives_the_same_answers_whatever_else_runs(client: Any) -> None:
    alone = [ask(client, question) for question in QUESTIONS]
    assert len({text for texts in alone for text in texts}) > 6
    with ThreadPoolExecutor(12) as threads:
        others = [threads.submit(ask, client, question, seed=n) for n in range(2) for question in QUESTIONS]
        together = list(threads.map(lambda question: ask(client, question), QUESTIONS))
        assert all(other.result() for other in others)
    assert together == alone
    assert [ask(client, question, n=2) for question in QUESTIONS] == [texts[:2] for texts in alone]
    assert len({tuple(ask(client, QUESTIONS[0], seed=None)) for _ in range(2)}) > 1


def test_a_stop_string_cuts_exactly_also_across_tokens(client: Any, policy: Policy, chat: ChatFormat) -> None:
    [expected] = direct(policy, chat, QUESTIONS[0])
    for stop in (expected.text[9:12], expected.text[-3:]):
        cut = ask(client, QUESTIONS[0], temperature=0, n=1, max_tokens=60, stop=[stop, "never"])[0]
        assert cut.removesuffix("</think>") == expected.text[: expected.text.index(stop)]


def test_the_requests_own_system_message_replaces_that_of_the_format(
    client: Any, policy: Policy, chat: ChatFormat
) -> None:
    def prompt_ids(messages: list[dict[str, Any]]) -> list[int]:
        body = {"return_token_ids": True}
        reply = client.chat.completions.create(model="tested", messages=messages, max_tokens=1, extra_body=body)
        return list(reply.prompt_token_ids)

    own = Message(role="system", content="be short")
    question = Message(role="user", content="1+1=")
    parts = [{"type": "text", "text": "1+"}, {"type": "text", "text": "1="}]
    assert chat.system
    opening = Message(role="system", content=chat.system)
    assert prompt_ids(user("1+1=")) == list(chat.prompt((opening, question), policy.tokenizer).token_ids)
    asked = [{"role": "developer", "content": "be short"}, {"role": "user", "content": parts}]
    assert prompt_ids(asked) == list(chat.prompt((own, question), policy.tokenizer).token_ids)


def test_completions_continue_text_lists_and_token_ids(client: Any, policy: Policy) -> None:
    ids = [policy.tokenizer.encode(text) for text in QUESTIONS[:2]]
    greedy = {"model": "tested", "temperature": 0, "max_tokens": 12}
    texts = [client.completions.create(prompt=text, **greedy).choices[0].text for text in QUESTIONS[:2]]
    for prompt in (list(QUESTIONS[:2]), ids):
        reply = client.completions.create(prompt=prompt, **greedy)
        assert [choice.text for choice in reply.choices] == texts
        assert reply.usage.prompt_tokens == sum(map(len, ids))
    assert client.completions.create(prompt=ids[1], **greedy).choices[0].text == texts[1]
    stream = client.completions.create(prompt=list(QUESTIONS[:2]), stream=True, echo=True, logprobs=0, **greedy)
    parts, logprobs = ["", ""], list[list[Any]]([[], []])
    for chunk in stream:
        for choice in chunk.choices:
            parts[choice.index] += choice.text
            logprobs[choice.index] += choice.logprobs.token_logprobs
    assert parts == [question + text for question, text in zip(QUESTIONS[:2], texts, strict=True)]
    assert [len(each) for each in logprobs] == [len(own) + 12 for own in ids]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_prompts_are_scored_with_the_log_probs_of_a_plain_pass(client: Any, policy: Policy, max_tokens: int) -> None:
    prompts = [policy.tokenizer.encode(text) for text in QUESTIONS]
    reply = client.completions.create(
        model="tested", prompt=prompts, max_tokens=max_tokens, echo=True, logprobs=2, temperature=0
    )
    plain = transformers.AutoModelForCausalLM.from_pretrained(resolve("tiny"), dtype=torch.float32)
    for ids, choice, text in zip(prompts, reply.choices, QUESTIONS, strict=True):
        with torch.no_grad():
            logits = plain(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
        expected = logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        scores = choice.logprobs
        assert scores.token_logprobs[0] is None and scores.top_logprobs[0] is None
        assert scores.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
        assert len(scores.tokens) == len(ids) + max_tokens == len(scores.top_logprobs)
        assert "".join(scores.tokens) == choice.text and choice.text.startswith(text.lower())  # the tokenizer's case
        for place, row in enumerate(logits, 1):
            top = scores.top_logprobs[place]
            # the harness compares these two numbers to see whether a continuation is the greedy one
            assert (max(top.values()) == scores.token_logprobs[place]) == (int(row.argmax()) == ids[place])
    assert reply.usage.completion_tokens == max_tokens * len(prompts)


CHAT: dict[str, Any] = {"model": "tested", "messages": user("1+1=")}
WRONG: list[tuple[str, Any, int, str]] = [
    ("chat/completions", CHAT | {"model": "gpt-4"}, 404, "there is no model 'gpt-4': this server has 'tested'"),
    ("chat/completions", CHAT | {"temprature": 1}, 400, "there is no field temprature: did you mean temperature"),
    ("chat/completions", CHAT | {"presence_penalty": 0.5}, 400, "presence_penalty is not supported: "),
    ("chat/completions", CHAT | {"tools": [{"type": "function"}]}, 400, "tools is not supported: the model calls no"),
    ("chat/completions", CHAT | {"response_format": {"type": "json_object"}}, 400, "response_format is not supported"),
    ("chat/completions", CHAT | {"temperature": -1}, 400, "temperature"),
    ("chat/completions", CHAT | {"temperature": 1e-9}, 400, "temperature.*it must be 0 .greedy. or at least 0.01"),
    ("chat/completions", CHAT | {"top_p": 0}, 400, "top_p"),
    ("chat/completions", CHAT | {"n": 0}, 400, "n is 0"),
    ("chat/completions", CHAT | {"n": 1000}, 400, "asks for 1000 completions, and at most 600 fit"),
    ("chat/completions", CHAT | {"top_logprobs": 50}, 400, "top_logprobs"),
    ("chat/completions", CHAT | {"stop": ["x" * 500]}, 400, "stop.*a stop has 1 to 200 characters"),
    ("chat/completions", CHAT | {"max_tokens": 5000}, 400, "max_tokens is 5000, and the model's context is 1024"),
    ("chat/completions", CHAT | {"max_tokens": 1000}, 400, r"has \d+ tokens; with max_tokens 1000 that is \d+, and"),
    ("chat/completions", CHAT | {"messages": user("1 " * 900)}, 400, r"has \d+ tokens and the model's context is 1024"),
    ("chat/completions", CHAT | {"messages": user("1" * 900_000)}, 400, "has 9.* characters, and a context of 1024"),
    ("chat/completions", CHAT | {"messages": []}, 400, "messages"),
    ("chat/completions", CHAT | {"messages": [{"role": "tool", "content": "4"}]}, 400, "has the role 'tool'"),
    ("chat/completions", CHAT | {"messages": [{"role": ["user"], "content": "4"}]}, 400, r"has the role \['user'\]"),
    ("chat/completions", CHAT | {"messages": [{"role": "user"}]}, 400, "a message of role user has no text"),
    ("chat/completions", CHAT | {"messages": [{"role": "assistant", "content": "4"}]}, 400, "end with the user's"),
    ("chat/completions", CHAT | {"chat_template_kwargs": {"tokenize": 1}}, 400, "chat_template_kwargs: .*tokenize"),
    ("chat/completions", {"model": "tested"}, 400, "messages is missing"),
    ("chat/completions", [1], 400, "expected a JSON object"),
    ("chat/completions", "{", 400, "the body is not JSON"),
    ("completions", {"prompt": ""}, 400, "the prompt is empty"),
    ("completions", {"prompt": [999_999]}, 400, "there is no token 999999: ids are below"),
    ("completions", {"prompt": [True]}, 400, "it must be text, token ids, or a list of either"),
    ("completions", {"prompt": "1", "suffix": "2"}, 400, "suffix is not supported"),
    ("completions", {"prompt": "1", "best_of": 3}, 400, "best_of is not supported"),
    ("completions", "x" * (9 * 2**20), 413, "the body has 9437184 bytes, and at most 8388608 are read"),
    ("chat/completions", CHAT | {"\ud800": 1}, 400, r"there is no field .ud800"),
    ("nowhere", {}, 404, "there is no /v1/nowhere"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"), WRONG, ids=[str(number) for number in range(len(WRONG))]
)
def test_what_cannot_be_answered_is_refused_with_the_reason(
    client: Any, path: str, body: Any, status: int, message: str
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(openai.APIStatusError) as refused:
        client.post(f"/{path}", cast_to=object, content=content.encode())
    assert refused.value.status_code == status
    assert refused.match(message)
    error = refused.value.body
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert ask(client, QUESTIONS[0], n=1, max_tokens=2)  # it goes on


def test_half_a_surrogate_pair_is_read_as_a_question_mark(client: Any) -> None:
    texts = [client.completions.create(model="tested", prompt=[t], temperature=0).choices[0].text for t in ("1?", "2")]
    body = {"model": "tested", "temperature": 0, "prompt": ["1\ud800", "2"]}
    reply = client.post("/completions", cast_to=object, content=json.dumps(body).encode())
    assert [choice["text"] for choice in reply["choices"]] == texts


def test_fields_that_change_nothing_are_accepted(client: Any) -> None:
    neutral = {"frequency_penalty": 0, "presence_penalty": None, "tools": [], "response_format": {"type": "text"}}
    ignored = {"user": "me", "metadata": {"a": "b"}, "store": False, "logit_bias": {}, "parallel_tool_calls": True}
    plain = ask(client, QUESTIONS[0])
    assert ask(client, QUESTIONS[0], extra_body={**neutral, **ignored, "top_k": -1}) == plain


def test_a_client_that_reads_nothing_is_given_up_so_that_the_server_can_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "WRITE_S", 0.01)
    finished: list[bool] = []

    async def events() -> Any:
        yield "{}"

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def answer() -> None:
        await event_stream.EventStream(events(), lambda: finished.append(True))({}, never, never)

    with pytest.raises(ClientDisconnect):
        asyncio.run(answer())
    assert finished == [True]


def test_too_many_prompts_are_refused_before_they_are_split_into_tokens(
    tiny: Served, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny.service.renderer), "completion_work", lambda *_: pytest.fail("it was split"))
    with pytest.raises(openai.BadRequestError, match="2000 completions, and at most 600 fit"):
        client.completions.create(model="", prompt=["a"] * 1000, n=2)


def test_pages_of_other_sites_and_visitors_without_the_key_are_refused(policy: Policy, chat: ChatFormat) -> None:
    with served(LocalEngine(policy), chat, key="secret") as running, running.client() as keyed:
        assert keyed.models.list().data
        root = running.url.removesuffix("/v1")
        assert keyed.with_options(api_key="other", base_url=root).get("/health", cast_to=object)
        for key in ("secre", "secret2"):
            with pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong"):
                keyed.with_options(api_key=key).models.list()
        headers = {"origin": "https://elsewhere.example"}
        with pytest.raises(openai.PermissionDeniedError, match="from another site"):
            keyed.get("/models", cast_to=object, options={"headers": headers})
        named = {"host": "proxy.example"}  # behind a proxy with a name of its own, the key is enough
        assert keyed.get("/models", cast_to=object, options={"headers": named})


def test_a_name_that_somebody_pointed_at_this_machine_is_refused(client: Any) -> None:
    with pytest.raises(openai.APIStatusError, match=r"does not answer to the name 'rebound.example'") as refused:
        client.get("/models", cast_to=object, options={"headers": {"host": "rebound.example"}})
    assert refused.value.status_code == 421


def test_a_full_queue_asks_to_come_back_and_a_client_that_leaves_frees_its_rows(
    policy: Policy, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch.setattr)
    with served(LocalEngine(policy, max_rows=2), chat, limit=3) as running, running.client() as client:
        stream = client.chat.completions.create(**CHAT, n=2, seed=1, stream=True, max_tokens=200)
        gate.open(3)
        first = next(stream)
        with pytest.raises(openai.RateLimitError, match="2 completions run or wait, and 3 may") as refused:
            client.chat.completions.create(**CHAT, n=2)
        assert int(refused.value.response.headers["retry-after"]) >= 1
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(ask, client, QUESTIONS[1], n=1)  # fits into the queue, not into a row
            assert first.choices
            stream.close()
            assert gate.open_until_cancelled() and gate.left == 0
            gate.open()
            alone = waiting.result()
        assert alone == ask(client, QUESTIONS[1], n=1)
        assert running.service.batch.size == 0


def test_a_request_that_is_abandoned_without_a_stream_leaves_the_batch(
    policy: Policy, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch.setattr)
    with served(LocalEngine(policy), chat) as running, running.client() as client:
        with ThreadPoolExecutor(1) as threads:
            impatient = threads.submit(client.with_options(timeout=0.2).chat.completions.create, **CHAT, n=4)
            assert isinstance(impatient.exception(), openai.APITimeoutError)
        assert gate.open_until_cancelled()
        gate.open()
        assert running.service.batch.size == 0


def test_a_server_that_drains_completes_what_it_has_begun(
    policy: Policy, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch.setattr)
    with served(LocalEngine(policy), chat) as running, running.client() as client:
        stream = client.chat.completions.create(**CHAT, temperature=0, stream=True, max_tokens=60)
        gate.open(2)
        next(stream)
        running.server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(openai.InternalServerError, match="the server is shutting down") as refused:
            client.chat.completions.create(**CHAT)
        assert refused.value.status_code == 503
        gate.open()
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    [expected] = direct(policy, chat, "1+1=")
    assert text == expected.text.partition("</think>")[2]


def test_a_second_signal_ends_at_once(policy: Policy, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch.setattr)
    with served(LocalEngine(policy), chat) as running, running.client() as client:
        stream = client.chat.completions.create(**CHAT, stream=True, max_tokens=60)
        gate.open(2)
        next(stream)
        running.server.handle_exit(signal.SIGTERM, None)
        running.server.handle_exit(signal.SIGTERM, None)
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    assert running.server.stopped_by == signal.SIGTERM
    gate.open()  # the thread of a process that ends would end with it
    running.service.close()


def test_a_model_that_fails_says_so_and_answers_again(
    policy: Policy, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(LocalEngine(policy), chat) as running, running.client() as client:
        with monkeypatch.context() as broken:
            broken.setattr("r1kit.engines.local.engine.sample_rows", lambda *_: 1 / 0)
            with pytest.raises(openai.InternalServerError, match="the model failed: ZeroDivisionError"):
                client.chat.completions.create(**CHAT)
            with pytest.raises(openai.APIError, match="the model failed: ZeroDivisionError"):
                list(client.chat.completions.create(**CHAT, stream=True))
        assert ask(client, QUESTIONS[0], n=1)
        assert running.service.batch.size == 0
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_our_own_engine_gets_ids_and_log_probs_and_asks_nothing_twice(
    tiny: Served, policy: Policy, chat: ChatFormat, tmp_path: Path
) -> None:
    extra = {"return_token_ids": True, "logprobs": True}
    settings = OpenAIEngineSettings(
        model="tested", base_url=tiny.url, cache=str(tmp_path / "replies.sqlite"), extra_body=extra
    )
    prompts = [chat.render(Problem(id=q, prompt=q, answer=""), policy.tokenizer) for q in QUESTIONS]
    greedy = SamplingParams(temperature=0.0, max_tokens=60)
    expected = LocalEngine(policy).generate(prompts, greedy)
    for requests in (len(prompts), 0):
        engine = OpenAIEngine(settings)
        answers = engine.generate(prompts, greedy)
        assert [row[0].token_ids for row in answers] == [row[0].token_ids for row in expected]
        assert [row[0].text for row in answers] == [row[0].text for row in expected]
        for [ours], [theirs] in zip(answers, expected, strict=True):
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert engine.usage.requests == requests


def test_eval_measures_a_served_model_as_it_measures_its_folder(tiny: Served, tmp_path: Path) -> None:
    task = tmp_path / "sums.jsonl"
    rows = [{"prompt": f"what is {a} + {b}?", "answer": str(a + b)} for a in range(2, 8) for b in (3, 5)]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sampling = SamplingParams(temperature=0.0, max_tokens=80)
    engine = {"kind": "openai", "base_url": tiny.url, "cache": str(tmp_path / "replies.sqlite")}
    ours = evaluate("tiny", task=task, sampling=sampling, out=tmp_path / "here")
    theirs = evaluate("tested", task=task, sampling=sampling, out=tmp_path / "there", engine=engine)
    texts = [
        [row["completion"] for row in read_rows(tmp_path / place / "completions.jsonl")] for place in ("here", "there")
    ]
    assert texts[0] == texts[1]
    [here], [there] = ours["columns"].values(), theirs["columns"].values()
    measured = here["overall"].keys() & there["overall"].keys()  # all but lengths in tokens
    assert measured and all(here["overall"][name] == there["overall"][name] for name in measured)


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n", "<", "think>", "</", "<answer>4</answer>"])))
def test_reasoning_is_split_in_the_same_way_piece_by_piece(pieces: list[str]) -> None:
    def joined(parts: list[tuple[str, str]]) -> dict[str, str]:
        texts: dict[str, str] = {}
        for name, text in parts:
            texts[name] = texts.get(name, "") + text
        return texts

    text, split = "".join(pieces), ReasoningSplit()
    parts = [part for piece in pieces for part in split.add(piece)] + split.add("", last=True)
    together = joined(ReasoningSplit().add(text, last=True))
    assert joined(parts) == together
    if text.lstrip().startswith("<think>"):
        reasoning, _, answer = text.lstrip().removeprefix("<think>").partition("</think>")
        assert together.get("reasoning_content", "") == (reasoning if reasoning.strip() else "")
        assert together.get("content", "") == answer
    else:
        assert together.get("content", "") == text


def bytes_tokenizer() -> Any:
    """Each byte is a token, so most characters take several."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    core = tokenizers.Tokenizer(tokenizers.models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core)


BYTES = bytes_tokenizer()


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), max_size=2), st.integers(1, 4))
def test_a_stream_of_text_holds_whole_characters_and_nothing_of_a_stop(text: str, stops: list[str], step: int) -> None:
    text = text.encode("utf-8", "replace").decode() + "\N{GRINNING FACE}"
    ids = BYTES.encode(text)
    cuts = [place for place in map(text.find, stops) if place >= 0]
    final = text[: min(cuts)] if cuts else text
    stream, pieces = TextStream(BYTES.decode, stops), []
    for start in range(0, len(ids), step):
        if any(stop in BYTES.decode(ids[: start + step]) for stop in stops):
            break  # the engine ends the sequence
        pieces.append(stream.add(ids[start : start + step]))
        assert BROKEN not in pieces[-1] or BROKEN in text
    assert final.startswith("".join(pieces))
    assert "".join(pieces) + stream.end(final) == final


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    environment = os.environ | {"R1KIT_API_KEY": "k"}
    command = [sys.executable, "-m", "r1kit", "serve", "tiny", "--port", "0", "--name", "small"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        name, _, url = child.stdout.readline().split()  # type: ignore[union-attr]
        assert name == "small"
        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            reply = client.chat.completions.create(model="small", messages=user("1+1="), max_tokens=3)
            assert reply.usage.completion_tokens <= 3
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0
    assert "only this machine reaches it" in err
    assert re.search(r"stopping after [01] open requests", err)  # the answered one may still be closing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "other machines can reach 0.0.0.0: set R1KIT_API_KEY or --api-key"),
        (["--engine", '{"kind": "openai", "base_url": "http://x/v1"}'], "only a model that runs here can be served"),
        (["--api-key", "gehe\u00efm"], "characters that are not ASCII"),
        (["--host", "203.0.113.7", "--api-key", "k"], "cannot listen on 203.0.113.7:8000"),
    ],
)
def test_the_command_says_what_is_in_its_way(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("R1KIT_API_KEY", raising=False)
    assert cli.main(["serve", "tiny", *options]) == 1
    assert message in capsys.readouterr().err
