"""Settings are validated however they are changed; errors name the right field; one rule says what is hashed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import Field

from r1kit import recipes  # imports the settings of all stages
from r1kit.cli import main
from r1kit.commands.settings_command import KINDS, groups_of
from r1kit.engines.engine_settings import parse_engine
from r1kit.rewards import REWARDS
from r1kit.settings import NOT_HASHED, Settings, SettingsError, nearest
from r1kit.stages.rl import RL
from r1kit.train.learner import OptimizerSettings
from r1kit.types import SamplingParams

# Fields that exist for speed, memory, logging or waiting, wherever they are found.
NEVER_HASHED = (
    "device",
    "max_rows",
    "tokens_per_batch",
    "activation_checkpointing",
    "sequence_devices",
    "shard",
    "checkpoint_every",
    "workers",
)


class Optimizer(Settings):
    learning_rate: float = Field(1e-3, gt=0)


class Part(Settings):
    weight: int = 1


class Loop(Settings):
    steps: int = Field(3, ge=1)
    optimizer: Optimizer = Optimizer()
    fallback: Optimizer | None = None
    parts: tuple[Part, ...] = ()


def test_replaced_settings_are_validated_and_keep_their_class() -> None:
    class Longer(Loop):
        extra: int = 0

    loop = Longer(extra=7).replace(steps=4, optimizer=Optimizer(learning_rate=2.0))
    assert loop == Longer(steps=4, optimizer=Optimizer(learning_rate=2.0), extra=7)
    with pytest.raises(SettingsError, match="steps is -5: it must be at least 1"):
        loop.replace(steps=-5)
    with pytest.raises(SettingsError, match=r"there is no setting stepz: did you mean steps\?"):
        loop.replace(stepz=3)


def test_errors_are_in_our_words_and_one_line_each() -> None:
    class Derived(Settings):
        mode: Literal["fast", "slow"]
        share: float = Field(ge=0, le=1)
        copy_of: str = Field(default_factory=lambda values: str(values["mode"]))

    with pytest.raises(SettingsError) as caught:
        Derived.parse({"mode": "quick"}, prefix="rl")
    assert str(caught.value).splitlines() == [
        "rl.mode is 'quick': it must be 'fast' or 'slow'",
        "rl.share is missing: set it",
    ]
    with pytest.raises(SettingsError, match=r"^share is 2: it must be at most 1$"):
        Derived.parse({"mode": "fast", "share": 2})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "c"}, "kind is 'c': it must be 'a, got b' or 'd'"),
        ({"code": "7"}, "code is '7': it must match pattern '^[a-z], [a-z]$'"),
        ({"items": []}, "items is []: it must have at least 1 item"),
        ({"pair": [1, 2, 3]}, "pair is [1, 2, 3]: it must have at most 2 items"),
        ({"day": "soon"}, "day is 'soon': it must be a date like 2024-07-26"),
        ({"day": "2024-13-01"}, "day is '2024-13-01': it must be a date like 2024-07-26"),
        ({"count": 2.5}, "count is 2.5: it must be a whole number"),
    ],
)
def test_an_error_has_the_rule_whole_and_nothing_of_pydantics_details(values: dict[str, Any], message: str) -> None:
    class Rules(Settings):
        kind: Literal["a, got b", "d"] = "d"
        code: str = Field(default="a, b", pattern="^[a-z], [a-z]$")
        items: tuple[str, ...] = Field(default=("a",), min_length=1)
        pair: tuple[int, int] = (1, 2)
        day: datetime.date = datetime.date(2024, 7, 26)
        count: int = 1

    with pytest.raises(SettingsError) as caught:
        Rules.parse(values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("stpes", "no setting rl.stpes: did you mean rl.steps?"),
        ("learning_rate", "no setting rl.learning_rate: did you mean rl.optimizer.learning_rate?"),
        ("optimizer.lerning_rate", "rl.optimizer.lerning_rate: did you mean rl.optimizer.learning_rate?"),
        ("optimiser.learning_rate", "no setting rl.optimiser: did you mean rl.optimizer?"),
        ("qqq", "no setting rl.qqq: known are steps, optimizer, fallback, parts"),
        ("parts.weight", "rl.parts is a list: set all of it, as JSON: rl.parts=[...]"),
        ("steps.first", "rl.steps has no settings in it"),
    ],
)
def test_an_unknown_setting_is_answered_by_the_one_that_was_meant(path: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Loop().override({path: "1"}, prefix="rl")
    assert message in str(caught.value)


def test_a_wrong_field_of_an_item_in_a_list_is_named() -> None:
    with pytest.raises(SettingsError, match=r"no setting parts\.0\.wieght: did you mean parts\.0\.weight\?"):
        Loop.parse({"parts": [{"wieght": 2}]})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimizer.learning_rate", 1000, "rl.optimizer.learning_rate is '1000': it must be at most 1"),
        ("optimizer.weight_decay", 10, "rl.optimizer.weight_decay is '10': it must be at most 1"),
        ("temperature", 60, "rl.temperature is '60': it must be at most 10"),
        ("temperature", 0, "rl.temperature is '0': it must be above 0"),
    ],
)
def test_a_number_that_can_only_be_a_slip_of_the_finger_is_refused(path: str, value: int, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RL.settings.parse({"tasks": "tiny/reasoning", "rewards": "accuracy"}).override({path: str(value)}, prefix="rl")
    assert str(caught.value) == message


def test_the_temperature_of_a_single_command_has_the_bound_of_the_settings() -> None:
    with pytest.raises(ValueError, match=r"temperature is 60: it must be 0 \(greedy\) to 10"):
        SamplingParams(temperature=60)


def test_a_hint_lists_what_is_known_if_nothing_is_close_and_not_all_of_a_long_list() -> None:
    assert nearest("acuracy", ["accuracy", "format"]) == "did you mean accuracy?"
    assert nearest("x", ["accuracy", "format"]) == "known are accuracy, format"
    assert nearest("x", []) == "known are none"
    assert nearest("???", [str(n) for n in range(100)]).endswith(", 39 and 60 more")


def test_what_is_meant_to_change_speed_or_memory_alone_never_enters_a_fingerprint() -> None:
    assert recipes.RECIPES
    fields = [(cls, name) for cls in subclasses(Settings) for name in NEVER_HASHED if name in cls.model_fields]
    assert len(fields) > 20
    for cls, name in fields:
        assert cls.model_fields[name].json_schema_extra == NOT_HASHED, f"{cls.__name__}.{name} is hashed"


def subclasses(cls: type[Settings]) -> Iterator[type[Settings]]:
    for sub in cls.__subclasses__():
        if sub.__module__.startswith("r1kit."):
            yield sub
            yield from subclasses(sub)


@pytest.mark.parametrize("kind", [[], {}, None, 3])
def test_an_engine_whose_kind_is_no_text_is_refused(kind: object) -> None:
    with pytest.raises(SettingsError, match="expected one of 'local', 'openai', 'custom'"):
        parse_engine({"kind": kind})


def test_every_field_of_a_kind_of_stage_is_shown_with_its_default() -> None:
    for kind, (made, _) in KINDS.items():
        shown = {name for group in groups_of(made.settings) for name in group.fields}
        tops = {name.split(".")[0].removesuffix("[]") for name in shown}
        assert tops == set(made.settings.model_fields), kind
    fields = {name: value for group in groups_of(RL.settings) for name, value in group.fields.items()}
    assert fields["group_size"][0] == "16", "the default of the class that counts, not of one below it"
    assert fields["optimizer.learning_rate"][0] == str(OptimizerSettings().learning_rate)
    assert fields["rewards[].name"][0] == "required" and fields["algorithm.entropy.target"][0] == "null"
    assert fields["truncated"][1] == "keep | skip"


def test_the_settings_command_lists_kinds_rewards_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ([], ("rl ", "rewards ")),
        (["rewards"], (*REWARDS, "ngram_size=3")),
        (["sft"], ("epochs",)),
    ):
        assert main(["settings", *arguments]) == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words)
    assert main(["settings", "zero"]) == 1
    assert "there is no kind of stage 'zero': known are rl, sft" in capsys.readouterr().err
