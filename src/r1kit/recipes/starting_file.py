"""The recipe file that `r1kit init` prints: what a recipe takes, with comments, ready to be edited."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r1kit.models.facts import NotFetched
from r1kit.pipeline import Recipe, Stage
from r1kit.recipes import RECIPES, build_recipe
from r1kit.recipes.file import is_recipe_file
from r1kit.recipes.file_text import entries, toml_value
from r1kit.recipes.parts import PartRecipe
from r1kit.recipes.roles import DEFAULTS, ROLES
from r1kit.recipes.scales import choose_scale
from r1kit.settings import SettingsError
from r1kit.store import to_plain

KEYS = {
    "model": "a known name (r1kit models), a hub id (owner/name) or a folder",
    "student": "the smaller model that learns from the result",
    "teacher": "the model that writes, in place of R1",
    "scale": "how large to run; gpu chooses sizes for the model and the device",
    "hardware": "choose sizes for this device, such as h100; without it, for the one that runs",
}
EXAMPLES = {"student": "owner/smaller", "teacher": "owner/larger", "hardware": "h100", "model": "owner/name"}
TRAINING = ("epochs", "batch_size", "max_tokens", "optimizer.learning_rate")
SIZES = {
    "rl": ("steps", "prompts_per_step", "group_size", "max_tokens", "optimizer.learning_rate"),
    "generate": ("samples", "temperature", "max_tokens"),
    "evaluate": ("samples", "max_tokens"),
    "preferences": ("pairs_per_request", "min_margin"),
} | dict.fromkeys(("sft", "distill", "reward-model", "pretrain"), TRAINING)
STAND_INS = {"rows": "tiny-requests", "requests": "tiny-requests", "preferences": "tiny-preferences"}
STAND_INS |= {"problems": "tiny/reasoning", "eval": "tiny/reasoning"}


def starting_file(name: str, **options: Any) -> str:
    """The file of a recipe with some options of `build_recipe`.

    Sizes are those that the recipe chooses, as comments: a line counts once its # is removed. Raises `SettingsError`
    for the name of a recipe file.
    """
    if name not in RECIPES and is_recipe_file(name):
        raise SettingsError(f"{name} is a recipe file already: edit a copy of it, or name a recipe")
    options = {key: value for key, value in options.items() if value}
    data = options.pop("data", {})
    make = RECIPES.get(name)  # None: a function of the user's own
    takes = set() if make is None else set(inspect.signature(make).parameters)
    missing = []
    if isinstance(make, PartRecipe):
        missing = [group[0] for group in make.needs if not set(group) & set(data)]
        if not make.takes_teacher:
            takes.remove("teacher")
    recipe: Recipe | None = None
    try:
        recipe = build_recipe(name, **options, data={**{role: STAND_INS[role] for role in missing}, **data} or None)
    except NotFetched as error:
        unknown = str(error).replace("\n", " ")
    lines = ["# r1kit run FILE.toml runs this file, and r1kit plan FILE.toml shows its stages.", ""]
    lines.append(f"recipe = {toml_value(name)}")
    for key, about in KEYS.items():
        if key in options:
            lines.append(f"{key} = {toml_value(options[key])}  # {about}")
        elif key in takes and key != "scale":
            lines.append(f"# {key} = {toml_value(EXAMPLES[key])}  # {about}")
    lines.append('# track = ["trackio"]  # curves in trackio, tensorboard, wandb or mlflow')
    lines += ["seed = 0", *(_data(name, options, data, missing) if data or "data" in takes else [])]
    if recipe is not None:
        lines += [*_rewards(recipe), *_sizes(recipe)]
    else:
        lines += ["", f"# Sizes follow from the model and are not known: {unknown}"]
    return "\n".join(lines) + "\n"


def _data(name: str, options: Mapping[str, Any], data: Mapping[str, Any], missing: Sequence[str]) -> Iterator[str]:
    """The table of roles: those with data, those that are needed but `missing`, and the others as comments."""
    yield from (
        "",
        "[data]  # by role: a set (r1kit data list), a file, a table with name and columns, or a list of these",
    )
    make, defaults = RECIPES.get(name), dict[str, Any]()
    if make is None:
        roles: Mapping[str, str] = dict.fromkeys(data, "a role of this recipe")
    elif isinstance(make, PartRecipe):
        roles = make.roles
    elif choose_scale(name, options.get("scale"), options.get("model")).fit is None:
        yield "# this scale has data of its own"
        return
    else:
        named = ("problems", "eval") if name == "r1-zero" else tuple(ROLES)
        roles, defaults = {role: ROLES[role] for role in named}, dict(DEFAULTS)
        yield "# commented roles show their defaults"
        if "problems" in data and "eval" not in data:
            del defaults["eval"]
            roles["eval"] = "without it, a held-out part of the problems measures"
    for role, about in roles.items():
        value = data.get(role, defaults.get(role, f"{role}.jsonl"))
        yield f"{'' if role in data or role in missing else '# '}{role} = {toml_value(to_plain(value))}  # {about}"


def _rewards(recipe: Recipe) -> Iterator[str]:
    """The table of rewards, for a recipe with the stage `rl`: weights, or all fields that are not the default."""
    rewards: Any = next((stage.settings for stage in recipe.stages if stage.name == "rl"), None)
    if rewards is None:
        return
    yield from ("", '[rewards]  # added up, each with its weight; a function of your own: "mine:brevity" = 0.5')
    for spec in rewards.rewards:
        fields = to_plain(spec.model_dump(exclude_defaults=True, exclude={"name"}))
        yield from entries({spec.name: fields if set(fields) - {"weight"} else spec.weight})


def _sizes(recipe: Recipe) -> Iterator[str]:
    """A comment per stage with its main sizes; a measurement is named once for all models."""
    yield from ("", "[stages]  # sizes: remove the # to change them; r1kit accepts every setting of a stage here")
    seen = set()
    for stage in recipe.stages:
        name = stage.name.partition("-")[0] if stage.kind.name == "evaluate" else stage.name
        if name not in seen and (sizes := dict(_values(stage))):
            seen.add(name)
            yield f"# {name} = {toml_value(sizes)}"


def _values(stage: Stage) -> Iterator[tuple[str, Any]]:
    """The main sizes of a stage by dotted name; none if it copies what the data has."""
    if not getattr(stage.settings, "asks_model", True):
        return
    for path in SIZES.get(stage.kind.name, ()):
        value: Any = stage.settings
        for part in path.split("."):
            value = getattr(value, part, None)
        if value is not None:
            yield path, value
