"""The commands on a real, random model: what they write, what they take up again, what they refuse."""

from __future__ import annotations

import importlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from chat_server import serving
from r1kit import cli
from r1kit.chat import ChatFormat, saved
from r1kit.commands.chat_command import chat as talk
from r1kit.commands.chat_command import show
from r1kit.commands.eval_command import evaluate
from r1kit.commands.generate_command import generate
from r1kit.commands.show_data_command import COLOUR, PLAIN, marked, show_data
from r1kit.commands.turns_command import model_turns
from r1kit.data.jsonl import read_rows
from r1kit.evaluate.measurement import check_verifiers, measure
from r1kit.models.known import parameters_in
from r1kit.pipeline import Recipe, Stage, execute, plan
from r1kit.recipes import RECIPES
from r1kit.stages.generate import GENERATE, GenerateSettings
from r1kit.store import StoreError, write_text
from r1kit.tiny.frame import TINY_SYSTEM
from r1kit.tiny.tokenizer import make
from r1kit.types import Problem, SamplingParams
from shapes import SHAPES

SHORT = SamplingParams(n=2, max_tokens=8)
ROWS = [{"question": f"what is {n} + 2?", "answer": str(n + 2), "verifier": "number"} for n in range(3)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def model(tiny_policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The random model with the prompt format that the tiny world's stages save."""
    folder = tmp_path_factory.mktemp("commands") / "model"
    shutil.copytree(tiny_policy_folder, folder)
    saved.save(ChatFormat(system=TINY_SYSTEM), folder)
    return str(folder)


def test_eval_prints_a_table_and_keeps_rows_and_results(
    model: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["eval", model, "--task", str(rows), "--samples", "2", "--max-tokens", "8", "--out", str(out)]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert "pass@1" in printed.out
    assert "3 problems x 2 samples" in printed.out
    assert "prompt format: chat_format.json of the model" in printed.err
    assert f"{rows}: prompt: question; reference: answer; unused: none" in printed.err
    kept = list(read_rows(out / "completions.jsonl"))
    assert [(row["question"], row["sample"]) for row in kept] == [(r["question"], n) for r in ROWS for n in range(2)]
    assert cli.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["columns"][model] == json.loads((out / "results.json").read_text())
    assert result["formats"][model]["system"] == TINY_SYSTEM
    assert list(read_rows(out / "completions.jsonl")) == kept


def test_a_comparison_is_paired_by_problem(model: str, tiny_policy_folder: Path, rows: Path, tmp_path: Path) -> None:
    other = str(tiny_policy_folder)
    result = evaluate(model, task=rows, sampling=SHORT, compare=other, limit=2, out=tmp_path / "out")
    assert (result["from"], result["to"]) == (model, other)
    assert result["differences"]["format"]["problems"] == 2
    assert "difference" in result["table"]
    assert result["formats"][other]["system"] != TINY_SYSTEM
    assert (tmp_path / "out" / "compare" / "results.json").is_file()
    with pytest.raises(ValueError, match="name another one"):
        evaluate(model, task=rows, compare=model)


def test_an_evaluation_is_never_mixed_with_another(model: str, rows: Path, tmp_path: Path) -> None:
    evaluate(model, task=rows, sampling=SHORT, limit=2, out=tmp_path / "out")
    more = evaluate(model, task=rows, sampling=SHORT, out=tmp_path / "out")
    assert more["columns"][model]["problems"] == 3
    before = (tmp_path / "out" / "completions.jsonl").read_bytes()
    with pytest.raises(StoreError, match=r"holds an evaluation with another setup \(sampling\): name another folder"):
        evaluate(model, task=rows, sampling=SamplingParams(n=2, max_tokens=9), out=tmp_path / "out")
    with pytest.raises(StoreError, match=r"another setup .*task"):
        evaluate(model, task=write(rows, ROWS[:2]), sampling=SHORT, out=tmp_path / "out")
    (tmp_path / "out" / "setup.json").unlink()
    with pytest.raises(StoreError, match="name another folder"):
        evaluate(model, task=rows, sampling=SHORT, out=tmp_path / "out")
    assert (tmp_path / "out" / "completions.jsonl").read_bytes() == before


def test_generate_goes_on_where_it_was_stopped(model: str, rows: Path, tmp_path: Path) -> None:
    whole = list(generate(model, task=rows, sampling=SHORT))
    out = tmp_path / "out.jsonl"
    some = generate(model, task=rows, sampling=SHORT, out=out)
    first = [next(some) for _ in range(3)]
    some.close()
    assert list(read_rows(out)) == first
    rest = list(generate(model, task=rows, sampling=SHORT, out=out))
    assert first + rest == list(read_rows(out)) == whole
    assert list(generate(model, task=rows, sampling=SHORT, out=out)) == []
    with pytest.raises(StoreError, match="rows of another model, prompt format or sampling: name another file"):
        list(generate(model, task=rows, sampling=SamplingParams(n=2, max_tokens=8, seed=1), out=out))


def test_generate_answers_a_prompt_and_a_file_without_answers(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", model, "--prompt", "2+2?", "--samples", "2", "--max-tokens", "4"]) == 0
    [row] = generate(model, prompt="2+2?", sampling=SamplingParams(max_tokens=4, temperature=0.0))
    assert (row["problem_id"], row["prompt"], row["tokens"], "answer" in row) == ("prompt", "2+2?", 4, False)
    file = write(tmp_path / "prompts.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    capsys.readouterr()
    assert cli.main(["generate", model, str(file), "--max-tokens", "4", "--limit", "1"]) == 0
    assert [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()] == ["a"]
    assert cli.main(["generate", model, str(file), "--max-tokens", "4", "--out", str(tmp_path / "out.jsonl")]) == 0
    assert capsys.readouterr().out == f"2 new rows in {tmp_path / 'out.jsonl'}\n"


def answers(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> list[str]:
    """Let the engine give these texts in turn; returns the list that its prompts are put into, as text."""
    from r1kit.engines.local import LocalEngine
    from r1kit.types import Completion

    left, asked = iter(texts), list[str]()

    def say(self: LocalEngine, prompts: Any, params: SamplingParams, report: Any = None) -> list[list[Completion]]:
        asked.extend(self.policy.tokenizer.decode(prompt.token_ids) for prompt in prompts)
        return [[Completion(token_ids=(1,), logprobs=(0.0,), text=next(left), finish_reason="stop")] for _ in prompts]

    monkeypatch.setattr(LocalEngine, "generate", say)
    return asked


def test_chat_keeps_earlier_answers_in_the_prompt_without_their_reasoning(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answers(monkeypatch, ["<think>two and two</think> <answer>4</answer>", "no tags\x1b[2J"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("2+2?\n\nand 3 more?\n"))
    assert cli.main(["chat", model]) == 0
    assert capsys.readouterr().out == "4\nno tags\N{REPLACEMENT CHARACTER}[2J\n"
    assert asked[1] == f"{TINY_SYSTEM}\nuser: 2+2?\nassistant: 4\nuser: and 3 more?\nassistant: "


def test_chat_shows_the_reasoning_to_people_and_ends_calmly_when_interrupted(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show("plain")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show("<think>two and two</think> <answer>4</answer>")
    plain, reasoning, answer = capsys.readouterr().out.splitlines()
    assert (plain, reasoning[:2], answer) == ("plain", "  ", "4")
    assert "two and two" in reasoning

    def interrupt(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    talk(model)


def test_chat_forgets_the_oldest_turns_and_refuses_a_question_that_never_fits(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answers(monkeypatch, ["1", "2", "3"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{'a' * 500}\n{'b' * 500}\n{'c' * 1000}\nd\n"))
    talk(model, sampling=SamplingParams(max_tokens=100))
    assert ["aaa" in prompt for prompt in asked] == [True, False, False]
    assert "bbb" in asked[2]
    assert "the prompt has" in capsys.readouterr().err


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_chat_answers_questions_that_are_no_utf_8(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], errors: str
) -> None:
    answers(monkeypatch, ["1", "2"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9?\nand?\n"), "utf-8", errors))
    talk(model)
    assert capsys.readouterr().out == "1\n2\n"


def test_a_format_is_the_models_own_unless_another_is_asked_for(model: str, tmp_path: Path) -> None:
    bare, templated, gemma = make(), SHAPES["phi-4"].tokenizer(), SHAPES["gemma-3"].tokenizer()
    assert saved.choose(None, Path(model), bare)[0].system == TINY_SYSTEM
    assert saved.choose(model, tmp_path, bare)[0].system == TINY_SYSTEM
    assert saved.choose("plain", Path(model), bare)[0] == ChatFormat()
    assert saved.choose(None, tmp_path, bare)[0].template == "plain"
    assert saved.choose(None, tmp_path, templated)[0] == ChatFormat(template="chat")
    gemma.chat_template = "{{ raise_exception('no system') if messages[0].role == 'system' }}" + gemma.chat_template
    chat, source = saved.choose(None, tmp_path, gemma)
    assert chat == ChatFormat(template="chat") and source == "the R1-Zero prompt through the chat template"
    assert chat.folds_system(gemma), "a template that refuses system messages"
    gemma.chat_template = "{{ messages[-1].content }}{% if add_generation_prompt %}{{ '<start_of_turn>' }}{% endif %}"
    assert saved.choose(None, tmp_path, gemma)[0].folds_system(gemma), "a template that drops them in silence"
    with pytest.raises(ValueError, match="has no chat template: use the format plain"):
        saved.choose("chat", tmp_path, bare)
    with pytest.raises(ValueError, match="there is no prompt format plane: expected plain, chat"):
        saved.choose("plane", tmp_path, bare)
    write_text(tmp_path / "chat_format.json", '{"sistem": ""}')
    with pytest.raises(ValueError, match=r"chat_format.json: .*did you mean system"):
        saved.choose(None, tmp_path, bare)


def test_the_stages_save_the_format_they_train_in(tmp_path: Path) -> None:
    small = {"pretrain.steps": 1, "pretrain.documents_per_step": 2, "pretrain.layers": 1, "pretrain.width": 32}
    folder = execute(RECIPES["tiny-base"](overrides=small), tmp_path, until="pretrain")
    assert saved.read(folder / "model").system == TINY_SYSTEM
    # plain transformers takes the folder as it is
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder / "model")


def test_the_example_of_an_own_reward_logs_its_parts(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    example = importlib.import_module("add_a_reward")
    assert example.brevity(["<think>short</think>", "no tags"], answer=["1", "2"]) == [1.0, None]
    found = example.main(model, tmp_path)
    assert [row["step"] for row in found] == [1, 2]
    assert "step 2: {'reward/mean'" in capsys.readouterr().out
    [rl] = tmp_path.glob("r1-zero-tiny/rl-*/model")
    assert saved.read(rl).system == TINY_SYSTEM


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "./nowhere", "--task", "ROWS"], "there is no model './nowhere'"),
        (["eval", "FOLDER", "--task", "ROWS"], "has no config.json: give a folder that save_pretrained wrote"),
        (["eval", "MODEL", "--task", "ROWS", "--compare", "./nowhere"], "there is no model './nowhere'"),
        (["eval", "BARE", "--task", "ROWS"], "has no usable tokenizer"),
        (["eval", "MODEL", "--task", "gsm9k"], "there is no task 'gsm9k': did you mean gsm8k?"),
        (["eval", "MODEL", "--task", "EMPTY"], "the file has no rows"),
        (["eval", "MODEL", "--task", "ROWS", "--split", "train"], "split would have no effect"),
        (["eval", "MODEL", "--task", "ROWS", "--max-tokens", "1020"], "and the model's context is 1024"),
        (["eval", "MODEL", "--task", "WRONG"], "there is no verifier 'nmber'"),
        (["eval", "MODEL", "--task", "ROWS", "--format", "chat"], "has no chat template"),
        (["generate", "MODEL", "--prompt", " "], "the prompt is empty"),
        (["generate", "MODEL", "--prompt", "x" * 600], "r1kit: error: the prompt has"),
        (["generate", "MODEL", "--prompt", "x", "--max-tokens", "9999"], "max_tokens is 9999, and the model's context"),
        (["generate", "MODEL", "EMPTY"], "the file has no rows"),
        (["chat", "MODEL", "--max-tokens", "1024"], "max_tokens is 1024, and the model's context is 1024"),
    ],
)
def test_bad_input_is_one_clear_message(
    arguments: list[str], message: str, model: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("token*"))
    write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "wrong.jsonl", [ROWS[0] | {"verifier": "nmber"}])
    places = {"MODEL": model, "ROWS": str(rows), "FOLDER": str(tmp_path), "BARE": str(bare)}
    places |= {"EMPTY": str(tmp_path / "empty.jsonl"), "WRONG": str(tmp_path / "wrong.jsonl")}
    assert cli.main([places.get(argument, argument) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("r1kit: error:") == 1
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_problem_without_a_verifier_is_refused_before_sampling() -> None:
    problems = [Problem(id="p/0", prompt="Tell a story.", answer="", verifier="")]
    with pytest.raises(ValueError, match="p/0 cannot be evaluated: it has no reference answer and no verifier"):
        check_verifiers(problems)


def served(body: dict[str, Any]) -> str:
    """A model that adds: right for even numbers, one too many for odd ones."""
    first = int(body["messages"][-1]["content"].split()[2])
    return f"<think>I add.</think> <answer>{first + 2 + first % 2}</answer>"


def test_eval_generate_and_chat_ask_a_served_model(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(served) as server:
        engine = json.dumps({"kind": "openai", "base_url": server.url, "cache": str(tmp_path / "replies.sqlite")})
        arguments = ["eval", "adder", "--engine", engine, "--task", str(rows), "--out", str(tmp_path / "out")]
        assert cli.main(arguments) == 0
        printed = capsys.readouterr()
        assert "pass@1     66.7 %" in printed.out and "completion_tokens" not in printed.out
        assert "lengths in tokens are unknown: the engine gives no token ids" in printed.err
        assert {body["model"] for body in server.asked} == {"adder"}
        assert server.asked[0]["messages"][0]["role"] == "system"
        assert cli.main(arguments) == 0 and len(server.asked) == len(ROWS)
        kept = list(read_rows(tmp_path / "out" / "completions.jsonl"))
        assert [(row["correct"], row["completion_tokens"]) for row in kept] == [
            (True, None),
            (False, None),
            (True, None),
        ]
        with pytest.raises(StoreError, match=r"holds an evaluation with another setup \(model"):
            evaluate("other", task=rows, engine=json.loads(engine), out=tmp_path / "out")
        capsys.readouterr()
        assert cli.main(["generate", "adder", "--engine", engine, "--prompt", "what is 4 + 2?"]) == 0
        assert capsys.readouterr().out == "<think>I add.</think> <answer>6</answer>\n"
        monkeypatch.setattr(sys, "stdin", io.StringIO("what is 6 + 2?\nand is 8 + 2?\n"))
        assert cli.main(["chat", "adder", "--engine", engine]) == 0
        assert capsys.readouterr().out == "8\n10\n"
        assert [turn["role"] for turn in server.asked[-1]["messages"]] == ["system", "user", "assistant", "user"]
        assert cli.main(["eval", "adder", "--engine", engine, "--task", str(rows), "--format", "plain"]) == 1
        assert "a server or your own engine renders prompts itself" in capsys.readouterr().err


OWN = """
from r1kit.types import Completion

class Adder:
    def __init__(self, model, off=0):
        self.off = off

    def generate(self, prompts, params, report=None):
        return [[self.add(prompt)] * params.n for prompt in prompts]

    def add(self, prompt):
        first = int(prompt.messages[-1].content.split()[2])
        text = f"<think>I add.</think> <answer>{first + 2 + self.off}</answer>"
        return Completion(token_ids=(), logprobs=(), text=text, finish_reason="stop")

class Nothing:
    def __init__(self, model): ...
"""


def test_an_engine_of_your_own_answers_commands_and_its_code_counts(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = tmp_path / "own_engines.py"
    code.write_text(OWN)
    arguments = ["eval", "adder", "--task", str(rows), "--engine"]
    assert cli.main([*arguments, "own_engines:Adder", "--out", str(tmp_path / "out")]) == 0
    assert "pass@1     100.0 %" in capsys.readouterr().out
    options = {"kind": "custom", "path": "own_engines:Adder", "options": {"off": 1}}
    assert cli.main([*arguments, json.dumps(options)]) == 0
    assert "pass@1     0.0 %" in capsys.readouterr().out
    assert cli.main(["generate", "adder", "--engine", "own_engines:Adder", "--prompt", "what is 4 + 2?"]) == 0
    assert capsys.readouterr().out == "<think>I add.</think> <answer>6</answer>\n"
    code.write_text(OWN + "# edited\n")
    assert cli.main([*arguments, "own_engines:Adder", "--out", str(tmp_path / "out")]) == 1
    assert "another setup (code)" in capsys.readouterr().err
    wrong = {**options, "options": {"of": 1}}
    for engine, message in (
        (json.dumps(wrong), "engine 'own_engines:Adder' does not take its arguments: got an unexpected keyword"),
        ("own_engines:Nothing", "engine 'own_engines:Nothing' gives a Nothing: expected an object with generate"),
        ("own_engines:Addr", "did you mean Adder?"),
    ):
        assert cli.main([*arguments, engine]) == 1
        assert message in capsys.readouterr().err


def test_an_engine_of_your_own_answers_in_a_stage_and_an_edit_of_it_redoes_the_stage(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    code = tmp_path / "engines_of_stages.py"
    code.write_text(OWN)
    engine = {"kind": "custom", "model": "adder", "path": "engines_of_stages:Adder"}
    settings = GenerateSettings.parse({"engine": engine, "tasks": str(rows), "may_be_empty": True})
    assert GENERATE.sources is not None
    recipe = Recipe("own", (Stage("ask", GENERATE, settings, dict(GENERATE.sources(settings))),))
    folder = execute(recipe, tmp_path / "runs")
    samples = list(read_rows(folder / "samples.jsonl"))
    assert samples and all(row["made_by"]["model"] == "adder" for row in samples)
    code.write_text(OWN + "# edited\n")
    assert plan(recipe, tmp_path / "runs")[0].why == f"input code/engine changed ({code})"


def test_data_check_lists_every_fault_and_its_status_is_1(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "check", str(rows)]) == 0
    assert "3 of 3 rows are usable" in capsys.readouterr().out
    faulty = write(tmp_path / "faulty.jsonl", [ROWS[0], ROWS[1] | {"answer": None}, {"question": "", "answer": "1"}])
    assert cli.main(["data", "check", str(faulty)]) == 1
    text = capsys.readouterr().out
    assert "1 of 3 rows are usable" in text
    assert "faulty.jsonl, row 2, field answer: " in text
    assert "faulty.jsonl, row 3, field question: " in text
    assert cli.main(["data", "check", str(tmp_path / "none.jsonl"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["issues"][0]["kind"]) == (False, "missing file")


def test_models_count_the_parameters_of_weights_that_are_there(
    tiny_policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    expected = AutoModelForCausalLM.from_pretrained(tiny_policy_folder).num_parameters()
    assert parameters_in(tiny_policy_folder / "model.safetensors") == expected
    assert cli.main(["models", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["tiny"]["parameters"].endswith("M") or listed["tiny"]["parameters"] == "not made"
    assert listed["smollm2-135m"]["parameters"] == "135M"


def test_models_say_what_a_template_does_with_system_messages_and_earlier_reasoning(tmp_path: Path) -> None:
    for name, facts in (("gemma-2", ("in the first question", "kept")), ("qwen-3", ("as it is", "dropped"))):
        [row] = model_turns([str(SHAPES[name].save(tmp_path / name))])
        assert (row["system message"], row["earlier reasoning"]) == facts


def test_models_show_the_turns_of_a_named_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = SHAPES["qwen-3-silent"]
    folder = str(shape.save(tmp_path / "model"))
    assert cli.main(["models", folder, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    tokenizer = shape.tokenizer()
    assert (row["opens"], row["SFT teaches"]) == (repr(shape.opened), "<|im_end|>")
    assert row["ids without a token"] == shape.padding
    assert (row["system message"], row["earlier reasoning"]) == ("as it is", "kept")
    assert tokenizer.decode(row["prompt_ids"]).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.decode(row["reply_ids"]) == "3<|im_end|>"
    write_text(tmp_path / "format.json", '{"template": "chat", "system": ""}')
    assert cli.main(["models", folder, "--format", str(tmp_path / "format.json")]) == 0
    assert "nothing" in capsys.readouterr().out


def test_a_killed_evaluation_loses_one_round_and_ends_with_the_same_rows(
    tiny_policy_folder: Path, tmp_path: Path
) -> None:
    from r1kit.engines.local import LocalEngine
    from r1kit.models.load import load

    problems = [Problem(id=f"p{n}", prompt=f"what is {n} + 2?", answer=str(n + 2), verifier="number") for n in range(9)]
    chat, sampling = ChatFormat(), SamplingParams(n=4, max_tokens=8)

    def measured(max_rows: int, name: str, stop: int = 99) -> Any:
        class Killed(LocalEngine):
            def generate(self, prompts: Any, *rest: Any) -> Any:
                asked.append(len(prompts))
                if len(asked) > stop:
                    raise KeyboardInterrupt
                return super().generate(prompts, *rest)

        asked: list[int] = []
        engine = Killed(policy, max_rows=max_rows)
        options = {"tokenizer": policy.tokenizer, "batch": 4 * max_rows}
        measure(engine, problems, chat, sampling, tmp_path / name, lambda *_: None, **options)
        return asked

    policy = load(str(tiny_policy_folder), device="cpu")
    assert measured(128, "whole") == [9]
    with pytest.raises(KeyboardInterrupt):
        measured(2, "killed", stop=2)
    assert len(list(read_rows(tmp_path / "killed"))) == 2 * 2 * sampling.n
    assert measured(2, "killed") == [2, 2, 1]
    assert measured(1, "one") == [1] * 9
    whole = list(read_rows(tmp_path / "whole"))
    assert whole == list(read_rows(tmp_path / "killed")) == list(read_rows(tmp_path / "one"))


CHATS = [
    {"messages": [{"role": "user", "content": "say cat"}, {"role": "assistant", "content": "cat \x1b[31m"}]},
    {"prompt": "what is 1+2?", "completion": "<think> 1+2=3 </think> <answer> 3 </answer>"},
]


def test_data_show_marks_the_tokens_that_sft_trains_on(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chats = str(write(tmp_path / "chats.jsonl", CHATS))
    assert cli.main(["data", "show", chats, "--model", model]) == 0
    out = capsys.readouterr().out
    assert "a completion ends at <|end|>; SFT teaches <|end|>" in out
    assert "assistant: «<think> 1+2=3 </think> <answer> 3 </answer><|end|>»" in out
    assert "\x1b" not in out and "row 2: 87 tokens, 16 of them trained on (18 %)" in out
    assert cli.main(["data", "show", chats, "--model", model, "--rows", "1", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    trained = "".join(piece["text"] for piece in row["pieces"] if piece["trained"])
    assert trained.startswith("cat ") and trained.endswith("<|end|>")


def test_data_show_of_problems_is_the_prompt_that_rl_asks(
    model: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "show", str(rows), "--model", model, "--rows", "1"]) == 0
    out = capsys.readouterr().out
    assert TINY_SYSTEM in out and "reference '2', verifier number" in out and "«" not in out
    pairs = write(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert cli.main(["data", "show", str(pairs), "--model", model]) == 1
    assert "preference pairs have no trained tokens" in capsys.readouterr().err


def test_trained_text_is_coloured_on_a_terminal_and_a_gap_is_counted() -> None:
    pieces = [{"text": text, "trained": trained, "skipped": 0} for text, trained in (("a", False), ("b", True))]
    assert marked(pieces, *COLOUR) == "a\x1b[32mb\x1b[0m"
    pieces.append({"text": "c", "trained": True, "skipped": 1200})
    assert marked(pieces, *PLAIN) == "a«b ... 1,200 tokens ... c»"


def test_conversations_are_shown_in_the_template_as_it_is(tmp_path: Path) -> None:
    folder = SHAPES["qwen-2.5"].save(tmp_path / "shape")
    chats = write(tmp_path / "chats.jsonl", CHATS[1:])
    shown = show_data(chats, str(folder), None, {}, 1, in_colour=False)
    assert "the chat template\n" in shown["text"] and "The assistant first reasons" not in shown["text"]
