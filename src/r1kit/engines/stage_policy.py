"""The policy of a stage, in the precision that the stage's first attempt chose: a resumed run must not change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from r1kit import ranks
from r1kit.pipeline import Context
from r1kit.store import read_object, write_json
from r1kit.types import ComputeDtype, WeightsDtype

if TYPE_CHECKING:
    from r1kit.models.load import Policy

FILE = "compute_dtype.json"


def load_policy(context: Context, name: str = "model") -> Policy:
    """Load the language model of the input `name`; raises `ModelError` like `models.load.load`."""
    from r1kit.models.load import load

    settings = context.settings
    path, seed = str(context.input(name)), getattr(settings, "seed", 0)
    weights: WeightsDtype = "fp32"
    if name == "model":  # others, such as teachers, are not trained, so they have no such setting
        weights = getattr(settings, "weights_dtype", "fp32")
    with ranks.in_turn():  # the first rank chooses the precision, and the others read its choice
        dtype = compute_dtype(context, name)
        policy = load(path, device=settings.device, compute_dtype=dtype, weights_dtype=weights, seed=seed)
        keep_compute_dtype(context, policy.model, name)
    return policy


def compute_dtype(context: Context, name: str = "model") -> ComputeDtype:
    """The precision of an earlier attempt at this stage, otherwise that of the settings."""
    file = context.folder / FILE
    kept: dict[str, ComputeDtype] = read_object(file) if file.is_file() else {}
    return kept.get(name, context.settings.compute_dtype)  # type: ignore[no-any-return]


def keep_compute_dtype(context: Context, model: Any, name: str = "model") -> None:
    """Write down the precision that loading chose.

    Says once if it is bf16, if bf16 was set or measured in vain, and if the model runs on the plain path.
    """
    from r1kit.models.compute import DTYPES, compute_dtype_of, rounding_obstacle
    from r1kit.models.plain import describe_path

    file = context.folder / FILE
    kept = read_object(file) if file.is_file() else {}
    chosen = next(key for key, dtype in DTYPES.items() if dtype == compute_dtype_of(model))
    wanted = context.settings.compute_dtype
    obstacle = rounding_obstacle(model)
    if name not in kept and (obstacle or "bf16" in (chosen, wanted)):
        if obstacle:
            why = f", and on a CPU the model does not run with linear layers in bf16 ({obstacle})"
        else:
            why = "" if chosen == "bf16" else ", but on a CPU a model this small is never rounded"
        context.progress.say(f"the {name}'s linear layers compute in {chosen}: compute_dtype is {wanted}{why}")
    if name not in kept and (line := describe_path(model)):
        context.progress.say(f"the {name}: {line}")
    if kept.get(name) != chosen:  # resumed runs read it, and copies of the model on other nodes
        write_json(file, {**kept, name: chosen})
