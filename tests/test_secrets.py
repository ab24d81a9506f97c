"""Secrets in settings: they reach the server, and no file, message or command line that r1kit writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_server import serving
from r1kit.commands.generate_command import generate
from r1kit.engines import EngineError
from r1kit.engines.openai import OpenAIEngine, OpenAIEngineSettings
from r1kit.engines.openai.payloads import build_requests
from r1kit.pipeline import Context, Kind, Recipe, Stage, execute, plan
from r1kit.recipes.file_text import to_toml
from r1kit.redaction import HIDDEN, redacted, redacted_command, redacted_text, resolved, secrets_in
from r1kit.settings import Settings, SettingsError
from r1kit.types import Message, Prompt, SamplingParams

PASSWORD, KEY = "correct-horse", "sk-0123456789abcdefghij"
SECRETS = (PASSWORD, KEY)
BODY = {"api_key": "short-key", "nested": [{"X-Api-Key": "deep-key"}], "best_of": 2, "api_key_env": "NAME"}
EVERY = (*SECRETS, "short-key", "deep-key")
PROMPT = Prompt(problem_id="p", messages=(Message(role="user", content="q"),), token_ids=())


def no_secret(text: str) -> bool:
    return not any(secret in text for secret in EVERY)


def settings(url: str = f"https://ann:{PASSWORD}@host.example/v1", **more: Any) -> OpenAIEngineSettings:
    return OpenAIEngineSettings(model="teacher", base_url=url, **{"extra_body": BODY, **more})


def test_secrets_are_hidden_by_address_by_name_and_by_form() -> None:
    hidden = redacted(settings().model_dump() | {"note": f"my key is {KEY}", "url": "http://x/?a=1&api_key=q1w2e3"})
    assert hidden["base_url"] == "https://ann:***@host.example/v1"
    assert hidden["extra_body"] == {
        "api_key": HIDDEN,
        "nested": [{"X-Api-Key": HIDDEN}],
        "best_of": 2,
        "api_key_env": "NAME",
    }
    assert (hidden["note"], hidden["url"]) == ("my key is ***", "http://x/?a=1&api_key=***")
    assert redacted({"api_keys": ["one", "two"]}) == {"api_keys": [HIDDEN, HIDDEN]}


@pytest.mark.parametrize(
    "value",
    [
        {"max_tokens": 5, "eos_token": "</s>", "token": "<s>", "key": "answer", "secretary": "x"},
        {"base_url": "http://localhost:8000/v1", "omit": ["seed"], "text": "a: b@c"},
        {"prompt": "the password: hunter2 is what he said", "api_key": "${MY_KEY}", "n": None, "x": 1.5},
        {"api_key": ""},
        {"model": "hf-internal-testing/tiny-random-Llama", "data": "/x/hf_train_questions_2024.jsonl"},
        {"rewards": ["mine:sk-learn_pipeline_questions"]},
    ],
)
def test_settings_without_secrets_stay_as_they_are(value: dict[str, Any]) -> None:
    assert redacted(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "https://u:correct@horse@host/v1",
        "https://host/v1?key=correct-horse",
        "https://host/v1?a=1&token=correct-horse",
        "https://host/f?X-Amz-Signature=correct-horse",
        "gsk_Correct0Horse0Battery0",
        "github_pat_11Correct0Horse0Battery0_0staple",
        "hf_horseCorrectHorseBatteryStaple",
        "nvapi-Correct0Horse0Battery0-staple",
        "xai-Correct0Horse0Battery0",
        "pplx-correct0horse0battery0STAPLE",
        "r8_Correct0Horse0Battery0",
        "AKIAHORSE0HORSE0HOR5",
        "AIzaCorrectHorseBatteryStaple-CorrectHorse0",
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIxIn0.correct-horse",
        "https://host/v1?subscription-key=correct-horse",
    ],
)
def test_passwords_with_an_at_and_more_kinds_of_keys_are_hidden(text: str) -> None:
    for hidden in (redacted(text), redacted_text(text)):
        assert HIDDEN in hidden and "horse" not in hidden.lower()


@pytest.mark.parametrize(
    "name", ["Ocp-Apim-Subscription-Key", "X-Auth-Key", "X-Token", "signing_key", "passphrase", "X-Amz-Security-Token"]
)
def test_headers_that_other_services_take_are_hidden_by_name(name: str) -> None:
    assert redacted({name: "correct-horse"}) == {name: HIDDEN}


@pytest.mark.parametrize("name", ["clientSecret", "userPassword", "openaiApiKey", "oauth2AccessToken"])
def test_names_in_camel_case_are_those_of_secrets_too(name: str) -> None:
    assert redacted({name: "correct-horse"}) == {name: HIDDEN}
    assert "horse" not in redacted_text(f'{{"{name}": "correct-horse"}}')


def test_a_number_can_be_a_secret_and_a_switch_is_none() -> None:
    body = {"password": 20240117, "nested": {"access_keys": [12345, 0.5]}, "use_api_key": True, "seed": 7}
    hidden = {"password": HIDDEN, "nested": {"access_keys": [HIDDEN, HIDDEN]}, "use_api_key": True, "seed": 7}
    assert redacted(body) == hidden
    assert list(secrets_in(body)) == ["20240117", "12345", "0.5"]


def test_a_header_in_a_text_and_a_password_with_spaces_are_hidden_as_a_whole() -> None:
    assert "horse" not in redacted_text("refused: Authorization: Bearer correct-horse")
    assert redacted_command(["--set", "a.password=correct horse, battery"]) == ["--set", "a.password=***"]
    assert redacted_command(["--set=a.password=correct;horse"]) == ["--set=a.password=***"]
    assert redacted_command(["--set", "a.api_key=${MY_KEY}"]) == ["--set", "a.api_key=${MY_KEY}"]


def test_a_recipe_file_hides_a_secret_that_one_setting_is() -> None:
    text = to_toml("r1", {"overrides": {"rl.engine.extra_body.api_key": "short-key", "rl.engine.model": "teacher"}})
    assert no_secret(text) and "teacher" in text


@given(st.recursive(st.none() | st.integers() | st.text("abc:/@=&?{}$. "), lambda inner: st.lists(inner, max_size=3)))
def test_hiding_twice_is_hiding_once(value: Any) -> None:
    once = redacted({"a": value, "password": value})
    assert redacted(once) == once


def test_a_command_line_keeps_no_secret() -> None:
    arguments = [
        "serve",
        "--api-key",
        "short-key",
        f"--set=a.password={PASSWORD}",
        "--engine",
        json.dumps({"base_url": f"http://u:{PASSWORD}@h/v1", "extra_body": {"api_key": "deep-key"}, "n": 1}),
        f"--header=Authorization: Bearer {KEY}",
    ]
    hidden = redacted_command(arguments)
    assert no_secret(" ".join(hidden)) and len(hidden) == len(arguments)
    assert hidden[:3] == ["serve", "--api-key", HIDDEN]
    assert json.loads(hidden[5])["n"] == 1
    plain = ["run", "r1", "--set", "rl.steps=3", "--seed", "1", "http://h/v1"]
    assert redacted_command(plain) == plain


class EngineUser(Settings):
    engine: OpenAIEngineSettings
    steps: int = 1


def work(context: Context) -> Mapping[str, Any]:
    context.progress.say(OpenAIEngine(context.settings.engine).name)
    return {"steps": context.settings.steps}


def recipe(engine: OpenAIEngineSettings) -> Recipe:
    kind = Kind(name="engine-user", run=work, settings=EngineUser)
    options = {"seed": 1, "overrides": {"one.engine": engine}}
    return Recipe("asks", (Stage("one", kind, EngineUser(engine=engine)),), file=to_toml("asks", options))


def test_a_run_leaves_no_secret_and_resumes_with_another_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["r1kit", "run", "--set", f"one.engine.base_url=https://u:{PASSWORD}@h/v1"])
    execute(recipe(settings()), tmp_path)
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) >= 4 and all(map(no_secret, texts))
    assert any(HIDDEN in text for text in texts)
    assert no_secret("".join(capsys.readouterr()))
    [row] = plan(recipe(settings("https://ann:another-one@host.example/v1")), tmp_path)
    assert row.status == "done"
    [row] = plan(recipe(settings("https://bob:another-one@host.example/v1")), tmp_path)
    assert row.status != "done"


def test_settings_that_were_hidden_say_how_to_set_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for values, name in (
        (redacted(settings().model_dump()), "base_url"),
        ({"extra_body": {"api_key": HIDDEN}}, "body"),
    ):
        broken = OpenAIEngineSettings.parse({"model": "m", "base_url": "http://h/v1", **values})
        with pytest.raises(ValueError, match=rf"{name}.* has \*\*\* for a secret.*\$\{{NAME\}}"):
            OpenAIEngine(broken)
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(ValueError, match="environment variable NO_SUCH, which is not set"):
        OpenAIEngine(settings(extra_body={"user": "${NO_SUCH}"}))


def test_a_variable_is_sent_and_its_name_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", PASSWORD)
    cache = str(tmp_path / "replies.sqlite")
    with serving(lambda body: "yes") as server:
        chosen = settings(server.url, extra_body={"user": "${MY_PASSWORD}"}, cache=cache)
        OpenAIEngine(chosen).generate([PROMPT], SamplingParams(max_tokens=5))
        assert server.asked[0]["user"] == PASSWORD
    assert PASSWORD not in json.dumps(redacted(chosen.model_dump(mode="json")))
    assert resolved("a${MY_PASSWORD}b", "x") == f"a{PASSWORD}b"
    assert list(secrets_in("${MY_PASSWORD}")) == [PASSWORD]


def test_replies_are_found_again_after_a_key_was_changed() -> None:
    def keys(chosen: OpenAIEngineSettings) -> list[str]:
        [[request]] = build_requests([PROMPT], SamplingParams(max_tokens=5), chosen, None)
        return [request.key]

    other = settings("https://ann:changed-it@host.example/v1", extra_body=BODY | {"api_key": "new-key"})
    assert keys(settings()) == keys(other) != keys(settings(extra_body=BODY | {"best_of": 3}))


@pytest.mark.parametrize("status", [401, 400, 500])
def test_a_server_that_repeats_secrets_does_not_get_them_into_messages(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "the-key-of-the-account")
    lines: list[str] = []

    def fault(number: int, body: dict[str, Any]) -> Any:
        return status, {}, {"error": {"message": f"wrong: {json.dumps(body)} Bearer the-key-of-the-account {PASSWORD}"}}

    with serving(lambda body: "yes", fault) as server:
        url = server.url.replace("http://", f"http://ann:{PASSWORD}@")
        quick = {"first_delay_s": 0.001, "max_delay_s": 0.001, "attempts": 2, "cache": str(tmp_path / "c.sqlite")}
        engine = OpenAIEngine(settings(url, api_key_env="A_KEY", **quick), say=lines.append)
        with pytest.raises(EngineError) as caught:
            engine.generate([PROMPT], SamplingParams(max_tokens=5))
    text = str(caught.value) + "".join(lines)
    assert no_secret(text) and "the-key-of-the-account" not in text
    assert "ann:***@127.0.0.1" in text


def test_settings_errors_show_no_secret() -> None:
    for values in ({"base_url": f"ftp://u:{PASSWORD}@h"}, {"extra_body": f"api_key={KEY}"}):
        with pytest.raises(SettingsError) as caught:
            OpenAIEngineSettings.parse({"model": "m", "base_url": "http://h/v1", **values})
        assert no_secret(str(caught.value)) and HIDDEN in str(caught.value)
    assert redacted_text('{"password": "hunter2", "n": 1}') == '{"password": "***", "n": 1}'


def test_rows_of_generate_keep_no_secret(tmp_path: Path) -> None:
    with serving(lambda body: "yes") as server:
        url = server.url.replace("http://", f"http://ann:{PASSWORD}@")
        engine = {
            "kind": "openai",
            "base_url": url,
            "extra_body": {"api_key": KEY},
            "cache": str(tmp_path / "c.sqlite"),
        }
        sampling = SamplingParams(max_tokens=5)
        rows = list(generate("teacher", prompt="q", sampling=sampling, engine=engine, out=tmp_path / "rows.jsonl"))
        assert rows and server.asked[0]["api_key"] == KEY
    assert all(no_secret(path.read_bytes().decode("latin-1")) for path in tmp_path.iterdir())
