"""The engine for OpenAI-compatible servers, against a real HTTP server that fails as real ones do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_server import FAULTS, ChatServer, completion, serving
from r1kit.chat import ChatFormat
from r1kit.engines import EngineError, PromptError
from r1kit.engines.engine_settings import EngineSettings, LocalEngineSettings, parse_engine
from r1kit.engines.openai import OpenAIEngine, OpenAIEngineSettings
from r1kit.engines.openai.cache import ReplyCache
from r1kit.engines.openai.client import UNREACHED_TRIES
from r1kit.engines.openai.pace import Pace, backoff, retry_after
from r1kit.engines.openai.responses import Malformed, Reply, read_reply
from r1kit.engines.opening import open_engine
from r1kit.rewards import RewardSpec, build
from r1kit.rollout import roll_out
from r1kit.settings import Settings, SettingsError
from r1kit.store import StoreError
from r1kit.tiny.tokenizer import make
from r1kit.types import Completion, Message, Problem, Prompt, SamplingParams


def prompts(count: int) -> list[Prompt]:
    return [
        Prompt(problem_id=f"p/{i}", messages=(Message(role="user", content=f"question {i}"),), token_ids=())
        for i in range(count)
    ]


def echo(body: dict[str, Any]) -> str:
    """An answer that names its question and its seed, so that a mix-up or a repetition shows."""
    return f"{body['messages'][-1]['content']} seed {body['seed']}"


def engine(server: ChatServer, tmp_path: Path, **settings: Any) -> OpenAIEngine:
    quick = {"first_delay_s": 0.001, "max_delay_s": 0.01, "timeout_s": 5.0, "cache": str(tmp_path / "replies.sqlite")}
    return OpenAIEngine(
        OpenAIEngineSettings(model="teacher", base_url=server.url, **(quick | settings)), say=lambda line: None
    )


def every(share: float) -> Any:
    """A share of all requests fails, in all the ways there are."""

    def fault(number: int, body: dict[str, Any]) -> str | None:
        chance = random.Random(number)
        return chance.choice(FAULTS) if chance.random() < share else None

    return fault


def check(asked: Sequence[Prompt], answers: list[list[Completion]], n: int) -> None:
    """All samples are there, each under its own prompt, none twice."""
    assert [len(row) for row in answers] == [n] * len(asked)
    for prompt, row in zip(asked, answers, strict=True):
        assert all(one.text.startswith(prompt.messages[-1].content + " seed") for one in row)
        assert len({one.text for one in row}) == n


def test_all_samples_arrive_once_from_a_server_that_fails_in_a_fifth_of_requests(tmp_path: Path) -> None:
    told: list[int] = []
    with serving(echo, every(0.2)) as server:
        teacher = engine(server, tmp_path, timeout_s=1.0, concurrency=16, attempts=100)
        asked = prompts(50)
        answers = teacher.generate(asked, SamplingParams(n=4), lambda done, total: told.append(done))
    check(asked, answers, 4)
    assert told == list(range(1, 201))
    assert len({echo(body) for body in server.answered}) == 200
    assert teacher.usage.requests - teacher.usage.failures == 200
    assert teacher.usage.failures > 20


def test_replies_of_a_server_whose_template_opens_the_reasoning_begin_with_the_tag(tmp_path: Path) -> None:
    replies = {"a": "2+2</think>4", "b": "<think>2+2</think>4", "c": "2+2 is, if"}  # the last is cut off
    asked = [Prompt(problem_id=name, messages=(Message(role="user", content=name),), token_ids=()) for name in replies]
    with serving(lambda body: replies[body["messages"][-1]["content"]]) as server:
        teacher = engine(server, tmp_path, opens_reasoning=True)
        texts = [row[0].text for row in teacher.generate(asked, SamplingParams())]
    assert texts == ["<think>2+2</think>4", "<think>2+2</think>4", "<think>2+2 is, if"]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_mended_by_asking_again(fault: str, tmp_path: Path) -> None:
    with serving(echo, lambda number, _: fault if number < 2 else None) as server:
        teacher = engine(server, tmp_path, timeout_s=0.5, attempts=100)
        check(prompts(1), teacher.generate(prompts(1), SamplingParams()), 1)
    assert teacher.usage.failures >= 2


KILLED = """
import sys
from r1kit.engines.openai import OpenAIEngine, OpenAIEngineSettings
from r1kit.types import Message, Prompt, SamplingParams
settings = OpenAIEngineSettings(
    model="teacher", base_url=sys.argv[1], cache=sys.argv[2], first_delay_s=0.001, max_delay_s=0.01, concurrency=4
)
asked = [Prompt(problem_id=f"p/{i}", messages=(Message(role="user", content=f"question {i}"),), token_ids=())
         for i in range(60)]
OpenAIEngine(settings).generate(asked, SamplingParams(n=2))
"""


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_a_kill_in_the_middle_loses_nothing_that_arrived_and_asks_for_nothing_twice(tmp_path: Path) -> None:
    cache = tmp_path / "replies.sqlite"
    quick = tuple(fault for fault in FAULTS if fault not in ("silent", "trickle"))

    def fault(number: int, body: dict[str, Any]) -> str | None:
        time.sleep(0.005)
        return quick[number % len(quick)] if number % 5 == 0 else None

    with serving(echo, fault) as server:
        child = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(cache)], stderr=subprocess.DEVNULL)
        wait_for(lambda: len(server.answered) >= 40)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        wait_for(lambda: _quiet(server))
        with sqlite3.connect(cache) as db:
            kept = db.execute("SELECT count(*) FROM replies").fetchone()[0]
        before = len(server.answered)
        assert before - 4 <= kept <= before < 120  # at most the requests under way are lost
        teacher = engine(server, tmp_path, concurrency=4)
        check(prompts(60), teacher.generate(prompts(60), SamplingParams(n=2)), 2)
        assert teacher.usage.cached == kept
        assert len(server.answered) - before == 120 - kept
        again = engine(server, tmp_path)
        check(prompts(60), again.generate(prompts(60), SamplingParams(n=2)), 2)
        assert (again.usage.requests, again.usage.cached) == (0, 120)


def _quiet(server: ChatServer) -> bool:
    count = len(server.asked)
    time.sleep(0.05)
    return len(server.asked) == count


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "valid key into the environment variable OPENAI_API_KEY"),
        (404, "check model and base_url"),
        (403, "may not use this model"),
        (402, "no credit"),
    ],
)
def test_a_permanent_error_ends_at_once_and_what_was_made_is_kept(status: int, message: str, tmp_path: Path) -> None:
    refused = (status, {}, {"error": {"message": "sorry"}})
    with serving(echo, lambda number, _: refused if number >= 5 else None) as server:
        with pytest.raises(EngineError, match=rf"teacher at http.* \(status {status}: .*sorry.*\): .*{message}"):
            engine(server, tmp_path, concurrency=1, max_delay_s=60, first_delay_s=60).generate(
                prompts(50), SamplingParams()
            )
        assert len(server.asked) == 6
        server.fault = lambda *_: None
        later = engine(server, tmp_path)
        check(prompts(50), later.generate(prompts(50), SamplingParams()), 1)
    assert later.usage.cached == 5


def test_a_permanent_error_does_not_wait_for_those_that_wait_to_try_again(tmp_path: Path) -> None:
    started = time.monotonic()
    fault = lambda number, _: (401, {}, {}) if number == 3 else "500"  # noqa: E731
    with serving(echo, fault) as server, pytest.raises(EngineError, match="401"):
        engine(server, tmp_path, first_delay_s=60, max_delay_s=60).generate(prompts(4), SamplingParams())
    assert time.monotonic() - started < 20


def test_no_credit_is_permanent_though_it_comes_as_a_rate_limit(tmp_path: Path) -> None:
    broke = (429, {}, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
    with serving(echo, lambda *_: broke) as server, pytest.raises(EngineError, match="no credit"):
        engine(server, tmp_path).generate(prompts(1), SamplingParams())
    assert len(server.asked) == 1


def test_a_refused_prompt_is_named(tmp_path: Path) -> None:
    def fault(number: int, body: dict[str, Any]) -> Any:
        return (400, {}, {"error": {"message": "too long"}}) if "3" in body["messages"][0]["content"] else None

    with serving(echo, fault) as server, pytest.raises(PromptError, match=r"p/3 .*too long") as caught:
        engine(server, tmp_path, concurrency=1).generate(prompts(5), SamplingParams())
    assert caught.value.prompt_id == "p/3"


def test_a_server_that_never_works_ends_with_the_last_failure_and_the_place_of_what_is_kept(tmp_path: Path) -> None:
    with serving(echo, lambda *_: "500") as server:
        with pytest.raises(EngineError, match=r"no usable reply in 3 tries.*500: .*fault 500.*replies\.sqlite"):
            engine(server, tmp_path, attempts=3).generate(prompts(1), SamplingParams())
        assert len(server.asked) == 3


def test_a_server_that_was_never_there_is_an_error_after_few_tries(tmp_path: Path) -> None:
    nobody = OpenAIEngineSettings(
        model="teacher", base_url="http://127.0.0.1:9/v1", first_delay_s=0, cache=str(tmp_path / "replies.sqlite")
    )
    lines: list[str] = []
    opened = OpenAIEngine(nobody, say=lines.append)
    message = r"teacher at http://127\.0\.0\.1:9/v1 cannot be reached \(ConnectError: .*start the server, or correct"
    with pytest.raises(EngineError, match=message):
        opened.generate(prompts(1), SamplingParams())
    assert opened.usage.failures == opened.usage.requests == UNREACHED_TRIES < nobody.attempts
    assert len(lines) == 1 and f"try 1 of {UNREACHED_TRIES}" in lines[0]


def test_a_server_that_is_lost_in_the_middle_is_asked_again(tmp_path: Path) -> None:
    lines: list[str] = []
    with serving(echo) as server:
        asking = engine(server, tmp_path, attempts=3)
        asking.say = lines.append
        asking.generate(prompts(1), SamplingParams())
    with pytest.raises(EngineError, match="no usable reply in 3 tries; the last failure was: ConnectError"):
        asking.generate(prompts(2)[1:], SamplingParams())
    assert "try 1 of 3" in lines[0]


def test_the_pause_that_a_server_asks_for_is_kept_by_all_requests(tmp_path: Path) -> None:
    times: list[float] = []

    def fault(number: int, body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        return (429, {"retry-after-ms": "300"}, {"error": {"message": "slow"}}) if number == 0 else None

    with serving(echo, fault) as server:
        engine(server, tmp_path, concurrency=1).generate(prompts(3), SamplingParams())
    assert times[1] - times[0] >= 0.3


def test_a_pause_beyond_patience_is_an_error(tmp_path: Path) -> None:
    late = (429, {"retry-after": "7200"}, {})
    with (
        serving(echo, lambda *_: late) as server,
        pytest.raises(EngineError, match=r"asks to wait 7200 s.*raise max_retry"),
    ):
        engine(server, tmp_path).generate(prompts(1), SamplingParams())


def test_retry_after_is_read_as_seconds_as_a_date_and_as_milliseconds() -> None:
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert 50 < retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)}) <= 60
    assert retry_after({}) == 0.0


@given(st.text())
def test_no_retry_after_raises(text: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        assert retry_after({name: text}) >= 0


def test_back_off_doubles_up_to_a_limit_with_jitter() -> None:
    assert all(2.0 <= backoff(3, 1.0, 60.0) <= 4.0 for _ in range(100))
    assert all(30.0 <= backoff(500, 1.0, 60.0) <= 60.0 for _ in range(100))
    assert len({backoff(3, 1.0, 60.0) for _ in range(10)}) == 10


def test_rate_limits_space_requests_and_count_tokens_that_were_not_used_as_free() -> None:
    async def run() -> float:
        pace = Pace(per_minute=600)
        await pace.take()
        await pace.take(100)
        pace.give_back(99)
        await pace.take()
        return time.monotonic()

    started = time.monotonic()
    assert 0.2 <= asyncio.run(run()) - started < 5


def test_requests_are_bounded_in_number(tmp_path: Path) -> None:
    under_way, most = Counter[str](), 0

    def slow(body: dict[str, Any]) -> str:
        nonlocal most
        under_way["now"] += 1
        most = max(most, under_way["now"])
        time.sleep(0.02)
        under_way["now"] -= 1
        return echo(body)

    with serving(slow) as server:
        check(prompts(20), engine(server, tmp_path, concurrency=3).generate(prompts(20), SamplingParams()), 1)
    assert most <= 3


def test_more_samples_and_other_prompts_ask_only_for_what_is_new(tmp_path: Path) -> None:
    with serving(echo) as server:
        first = engine(server, tmp_path).generate(prompts(3), SamplingParams(n=2))
        more = engine(server, tmp_path).generate(prompts(4), SamplingParams(n=3))
        assert len(server.asked) == 6 + 6
        assert [row[:2] for row in more[:3]] == first
        for changed in (SamplingParams(seed=1), SamplingParams(temperature=0.5), SamplingParams(max_tokens=9)):
            count = len(server.asked)
            engine(server, tmp_path).generate(prompts(1), changed)
            assert len(server.asked) == count + 1


def test_the_same_prompt_twice_gets_different_samples_and_greedy_ones_are_asked_for_once(tmp_path: Path) -> None:
    twice = prompts(1) * 2
    with serving(echo) as server:
        answers = engine(server, tmp_path).generate(twice, SamplingParams(n=2))
        assert len({one.text for row in answers for one in row}) == 4
        count, told = len(server.asked), list[int]()
        greedy = engine(server, tmp_path).generate(
            twice, SamplingParams(n=2, temperature=0), lambda done, total: told.append(done)
        )
    assert len(server.asked) == count + 1 and told == [4]
    assert len({one.text for row in greedy for one in row}) == 1


def test_usage_and_cost_are_counted_and_a_rerun_tells_what_it_saved(tmp_path: Path) -> None:
    prices = {"prompt_price": 1000.0, "completion_price": 2000.0}
    with serving(echo, lambda number, _: "null" if number == 0 else None) as server:
        first = engine(server, tmp_path, **prices)
        first.generate(prompts(10), SamplingParams())
        second = engine(server, tmp_path, **prices)
        second.generate(prompts(10), SamplingParams())
    assert first.usage.prompt_tokens == 77 and first.usage.completion_tokens == 33  # a useless reply is paid for too
    assert first.usage.cost == pytest.approx(11 * (7 * 1000 + 3 * 2000) / 1e6)
    assert first.usage.summary() == "11 requests (1 failed), 77 + 33 tokens, $0.14"
    assert second.usage.cost == 0 and "10 replies from the cache" in second.usage.summary()
    assert second.usage.saved == pytest.approx(0.13)


def test_parameters_go_under_the_servers_names(tmp_path: Path) -> None:
    with serving(lambda body: "ok") as server:
        asker = engine(
            server,
            tmp_path,
            omit=("seed", "top_p"),
            max_tokens_name="max_completion_tokens",
            extra_body={"reasoning_effort": "high"},
        )
        asker.generate(prompts(1), SamplingParams(max_tokens=9, stop=("END",), top_k=5))
    assert server.asked[0] == {
        "model": "teacher",
        "messages": [{"role": "user", "content": "question 0"}],
        "temperature": 1.0,
        "max_completion_tokens": 9,
        "stop": ["END"],
        "top_k": 5,
        "reasoning_effort": "high",
    }


def test_the_key_comes_from_the_environment_and_stays_out_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHERS_KEY", "sk-secret")
    with serving(echo) as server:
        engine(server, tmp_path, api_key_env="TEACHERS_KEY").generate(prompts(1), SamplingParams())
    assert server.headers[0]["authorization"] == "Bearer sk-secret"
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHERS_KEY", "schlüssel")
    with serving(echo) as server, pytest.raises(EngineError, match="TEACHERS_KEY does not hold an API key") as caught:
        engine(server, tmp_path, api_key_env="TEACHERS_KEY").generate(prompts(1), SamplingParams())
    assert "schlüssel" not in str(caught.value)


def test_a_cache_opens_while_another_process_writes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")  # SQLite then refuses the switch to WAL at once
        timer = threading.Timer(0.2, lambda: other.execute("COMMIT"))
        timer.start()
        with ReplyCache(path) as cache:
            assert cache.get("key") is None
        timer.join()


def test_two_processes_share_a_cache_while_both_work(tmp_path: Path) -> None:
    with serving(echo, lambda number, _: time.sleep(0.01)) as server:
        given = [sys.executable, "-c", KILLED, server.url, str(tmp_path / "replies.sqlite")]
        children = [subprocess.Popen(given) for _ in range(2)]
        assert [child.wait(60) for child in children] == [0, 0]
        both = engine(server, tmp_path)
        check(prompts(60), both.generate(prompts(60), SamplingParams(n=2)), 2)
    assert both.usage.cached == 120


def test_a_schema_is_sent_where_the_server_takes_one(tmp_path: Path) -> None:
    with serving(lambda body: "{}") as server:
        for kind in ("none", "json_object", "json_schema"):
            judge = engine(server, tmp_path, structured_output=kind).structured({"type": "object"})
            judge.generate(prompts(1), SamplingParams())
    formats = [body.get("response_format") for body in server.asked]
    assert formats[:2] == [None, {"type": "json_object"}]
    assert formats[2]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": "4"}, "stop", "4"),
        ({"content": ""}, "stop", ""),
        ({"content": "4", "reasoning_content": "2+2"}, "stop", "<think>2+2</think>4"),
        ({"content": "4", "reasoning": "2+2"}, "stop", "<think>2+2</think>4"),
        ({"content": "<think>2+2</think>4", "reasoning_content": "2+2"}, "stop", "<think>2+2</think>4"),
        ({"content": None, "reasoning_content": "2+"}, "length", "<think>2+"),
        ({"content": "", "reasoning_content": "2+"}, "length", "<think>2+"),
        ({"content": None}, "length", ""),
        ({"content": None}, "content_filter", ""),
        ({"content": None, "refusal": "I cannot."}, "stop", "I cannot."),
    ],
)
def test_reasoning_that_comes_apart_is_put_back(message: dict[str, Any], finish: str, text: str) -> None:
    reply = completion(None)
    reply["choices"][0] |= {"message": message, "finish_reason": finish}
    found = read_reply(json.dumps(reply))
    assert (found.text, found.finish_reason) == (text, "length" if finish == "length" else "stop")


def test_token_ids_and_log_probs_are_there_where_the_server_sends_both() -> None:
    reply = completion("4")
    assert read_reply(json.dumps(reply)).completion() == Completion(
        token_ids=(), logprobs=(), text="4", finish_reason="stop"
    )
    reply["choices"][0] |= {"token_ids": [7, 2], "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -0.1}]}}
    found = read_reply(json.dumps(reply)).completion()
    assert (found.token_ids, found.logprobs) == ((7, 2), (-0.5, -0.1))


def test_a_reward_that_counts_tokens_says_so_where_there_are_none(tmp_path: Path) -> None:
    asked = [Problem(id="p/0", prompt="question 0", answer="4")]
    overlong = build([RewardSpec(name="soft_overlong", options={"max_length": 10, "cache": 5})])
    with serving(echo) as server, pytest.raises(ValueError, match="needs the column 'completion_ids'"):
        remote: Any = engine(server, tmp_path)
        remote.tokenizer = make()
        roll_out(remote, asked, ChatFormat(), overlong, SamplingParams())


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "finish_reason"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(JSON.map(json.dumps) | st.text())
def test_any_reply_is_an_answer_or_malformed(body: str) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(read_reply(body).text, str)


def test_half_a_surrogate_pair_in_a_reply_is_a_replacement_character_and_no_fault() -> None:
    for written, text in (
        ("a\\ud83d", "a\ufffd"),
        ("\\uDE00a", "\ufffda"),
        ("\\ud83d\\ude00", "\U0001f600"),
        ("\\ud83d\\ud83d\\ude00", "\ufffd\U0001f600"),
        ("\\\\ud83d", "\\ud83d"),
    ):
        assert read_reply(f'{{"choices": [{{"message": {{"content": "{written}"}}}}]}}').text == text


@given(st.text(), st.lists(st.integers(0, 9)))
def test_the_cache_gives_back_what_it_was_given(text: str, ids: list[int]) -> None:
    reply = Reply(text=text + "\ud800", finish_reason="stop", token_ids=tuple(ids), logprobs=(-0.5,) * len(ids))
    with ReplyCache(Path(":memory:")) as cache:
        cache.put("k", "m", "p", reply)
        cache.put("k", "m", "p", Reply(text="later", finish_reason="stop"))
        assert cache.get("k") == reply
        assert cache.get("other") is None


def test_a_file_that_is_no_cache_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    path.write_text("this is my diary" * 100)
    with pytest.raises(StoreError, match=r"replies\.sqlite.*another file") as caught:
        ReplyCache(path)
    assert "free some space" not in str(caught.value)  # the disk is not full
    assert path.read_text() == "this is my diary" * 100


def test_it_works_inside_a_running_loop_and_pickles(tmp_path: Path) -> None:
    with serving(echo) as server:
        teacher: OpenAIEngine = engine(server, tmp_path)
        teacher.say = print
        teacher = pickle.loads(pickle.dumps(teacher))

        async def notebook() -> list[list[Completion]]:
            return teacher.generate(prompts(2), SamplingParams())

        check(prompts(2), asyncio.run(notebook()), 1)


def test_hostile_prompt_text_is_sent_and_prompts_without_messages_are_refused(tmp_path: Path) -> None:
    strange = Prompt(problem_id="\ud800", messages=(Message(role="user", content="a\x00\ud800😀"),), token_ids=())
    empty = Prompt(problem_id="p", messages=(), token_ids=(1, 2))
    with serving(lambda body: "ok") as server:
        assert engine(server, tmp_path).generate([strange], SamplingParams())[0][0].text == "ok"
        with pytest.raises(PromptError, match="no messages"):
            engine(server, tmp_path).generate([empty], SamplingParams())
        assert engine(server, tmp_path).generate([], SamplingParams()) == []
    assert server.asked[0]["messages"][0]["content"] == "a\x00?😀"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "openai", "model": "m"}, "needs base_url"),
        (
            {"model": "m", "base_url": "http://x/v1"},
            "base_url is a setting of engines of kind 'openai', but kind is 'local'",
        ),
        ({"kind": "openai", "model": "m", "base_url": "http://x/v1", "device": "cpu"}, "device is .* kind is 'openai'"),
        ({"kind": "vllm", "model": "m"}, "kind is 'vllm': expected one of 'local', 'openai', 'custom'"),
        ({"model": ""}, "model"),
        ({"kind": "openai", "model": "m", "base_url": "localhost:8000"}, "base_url: it must be an address"),
        ({"kind": "openai", "model": "m", "base_url": "http://[::1"}, "base_url"),
        ({"kind": "openai", "model": "m", "base_url": "http://x/v1/chat/completions"}, "leave out /chat/completions"),
        (
            {"kind": "openai", "model": "m", "base_url": "http://x/v1", "api_key": "sk-1"},
            "there is no setting api_key: did you mean api_key_env",
        ),
        ({"kind": "openai", "model": "m", "base_url": "http://x/v1", "concurrency": 0}, "concurrency"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_engine(values)


class _Teaching(Settings):
    engine: EngineSettings | None = None


def test_an_engine_is_set_field_by_field_and_its_errors_name_the_path() -> None:
    fields = {"engine.kind": "openai", "engine.model": "m", "engine.base_url": "http://x/v1"}
    assert _Teaching().override(fields).engine == OpenAIEngineSettings(model="m", base_url="http://x/v1")
    with pytest.raises(SettingsError, match=r"few-shot\.engine: there is no setting modl: did you mean model"):
        _Teaching().override({"engine.modl": "m"}, "few-shot")
    with pytest.raises(SettingsError, match=r"few-shot\.engine: an engine is 'm': expected an object"):
        _Teaching().override({"engine": "m"}, "few-shot")


def test_settings_open_either_engine(tmp_path: Path, tiny_policy_folder: Path) -> None:
    with serving(echo) as server:
        settings = OpenAIEngineSettings(model="teacher", base_url=server.url, cache=str(tmp_path / "replies.sqlite"))
        check(prompts(2), open_engine(settings).generate(prompts(2), SamplingParams()), 1)
    local = open_engine(LocalEngineSettings(model=str(tiny_policy_folder), device="cpu"))
    [row] = local.generate(prompts(1), SamplingParams(n=2, max_tokens=5))
    assert len(row) == 2 and all(one.token_ids for one in row)
    with pytest.raises(PromptError, match="model's context is 1024"):
        local.generate(prompts(1), SamplingParams(max_tokens=1020))
