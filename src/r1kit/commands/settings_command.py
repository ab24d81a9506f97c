"""The command `settings`: what can be set in each kind of stage, and which rewards there are with which options."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from r1kit.pipeline import Kind
from r1kit.rewards import REWARDS
from r1kit.settings import Settings, SettingsError, nearest
from r1kit.stages.data_requests import DATA_REQUESTS
from r1kit.stages.distill import DISTILL, TEACHER_LOGITS
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.generate import GENERATE
from r1kit.stages.mix import MIX
from r1kit.stages.on_policy import ON_POLICY
from r1kit.stages.preferences import PREFERENCES
from r1kit.stages.pretrain import PRETRAIN
from r1kit.stages.review import REVIEW
from r1kit.stages.reward_model import REWARD_MODEL
from r1kit.stages.rl import RL
from r1kit.stages.sft import SFT

KINDS: dict[str, tuple[Kind, str]] = {
    kind.name: (kind, about)
    for kind, about in (
        (RL, "reinforcement learning: rl, zero, dev2, rules, r1, experts"),
        (SFT, "supervised training: sft, dev1, dev3, student-sft"),
        (GENERATE, "sampling, judging and filtering: few-shot, reflect, cold-start, traces, rejection, general"),
        (EVALUATE, "measuring: eval and everyday of every model"),
        (REWARD_MODEL, "reward models: helpfulness, safety"),
        (PREFERENCES, "pairs of replies for a reward model"),
        (DISTILL, "a student on a teacher's distribution: student-logits"),
        (TEACHER_LOGITS, "a teacher's distributions, stored for students"),
        (ON_POLICY, "on-policy distillation: student-on-policy, v4"),
        (MIX, "reasoning and general data together"),
        (REVIEW, "people's review of samples"),
        (DATA_REQUESTS, "requests, pairs and labels from public sets"),
        (PRETRAIN, "a base model from text"),
    )
}
LONGEST = 60  # characters of a default value


@dataclass(frozen=True)
class Group:
    """Fields that belong together, by dotted name: (default, choices or description)."""

    about: str
    fields: dict[str, tuple[str, str]]


def groups_of(settings: type[Settings], prefix: str = "") -> Iterator[Group]:
    """The fields of each class that the settings are made of, and then those of settings inside them."""
    inner, done = dict[str, type[Settings]](), set[str]()  # `inner` by name; those of a list as NAME[]
    for cls in settings.__mro__:  # the most special first: it has the default that counts
        if not issubclass(cls, Settings) or cls is Settings:
            continue
        fields = dict[str, tuple[str, str]]()
        for name in inspect.get_annotations(cls):
            field = settings.model_fields.get(name)
            if field is None or name in done:
                continue
            done.add(name)
            own = [each for each in (field.annotation, *get_args(field.annotation)) if _has_fields(each)]
            if own:  # settings of their own, these or null, or a list of them
                is_list = get_origin(field.annotation) is tuple
                inner[f"{name}[]" if is_list else name] = own[0]
            else:
                fields[f"{prefix}{name}"] = (_default(field), _meaning(field))
        if fields:
            yield Group(inspect.cleandoc(cls.__doc__ or ""), fields)
    for name, nested in inner.items():
        yield from groups_of(nested, f"{prefix}{name}.")


def _has_fields(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    text = json.dumps(value, ensure_ascii=False, default=_as_json)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _as_json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Settings) else str(value)


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return "; ".join(filter(None, [" | ".join(map(str, choices)), field.description or ""]))


def reward_groups() -> Iterator[Group]:
    """Each reward with its options."""
    for name, make in REWARDS.items():
        yield Group(_about(make), {name: ("", _options(make))})


def _about(make: Callable[..., Any]) -> str:
    """The first paragraph of the reward's documentation: of what makes it, or of the reward function itself."""
    documented = make.func if isinstance(make, partial) else make() if make.__name__ == "<lambda>" else make
    return inspect.cleandoc(documented.__doc__ or "").partition("\n\n")[0]


def _options(make: Callable[..., Any]) -> str:
    options = []
    for option in inspect.signature(make).parameters.values():
        is_required = option.default is inspect.Parameter.empty
        options.append(option.name if is_required else f"{option.name}={option.default!r:.40}")
    return ", ".join(options)


def settings_text(name: str) -> str:
    """The settings of a kind of stage, or the rewards; without a name, the kinds. Raises `SettingsError` for an
    unknown one."""
    if not name:
        width = max(map(len, KINDS))
        lines = [f"{kind:{width}}  {about}" for kind, (_, about) in KINDS.items()]
        return "\n".join([*lines, f"{'rewards':{width}}  the rewards of rl, with their options"])
    if name == "rewards":
        return "\n\n".join(_as_text(group) for group in reward_groups())
    if name not in KINDS:
        raise SettingsError(f"there is no kind of stage {name!r}: {nearest(name, [*KINDS, 'rewards'])}")
    kind, about = KINDS[name]
    head = (
        f"{about}\n"
        "--set STAGE.FIELD=VALUE, or FIELD = VALUE below [stages.STAGE] in a recipe file. NAME[] is a list, as in\n"
        '--set \'rl.rewards=[{"name": "accuracy"}, {"name": "format", "weight": 0.2}]\''
    )
    return "\n\n".join([head, *(_as_text(group) for group in groups_of(kind.settings))])


def _as_text(group: Group) -> str:
    width, column = (max(map(len, texts)) for texts in (group.fields, [each for each, _ in group.fields.values()]))
    lines = [
        f"  {name:{width}}  {default:{column}}  {meaning}".rstrip() for name, (default, meaning) in group.fields.items()
    ]
    return "\n".join([group.about, *lines])
