"""A trained reward model as a reward: helpfulness of the final answer, harmlessness of the whole response."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from r1kit.numeric import sigmoid
from r1kit.rewards.inputs import RewardFunction, column, configured, report_not_scored, texts
from r1kit.types import Message

Scale = Literal["sigmoid", "raw"]
Missing = float | Literal["least"] | None


def reward_model_reward(
    completions: Sequence[Any],
    *,
    model: str,
    on: Literal["answer", "response"] | None = None,
    scale: Scale = "sigmoid",
    missing: Missing = "least",
    device: str = "auto",
    tokens_per_batch: int = 8192,
    offload_idle: bool = True,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    log_undecided: Callable[[list[bool]], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """The model's score of each completion as the answer to its prompt (column `prompts`).

    `missing` is the value of a completion without the judged part, such as a final answer; `least` is 0, the least
    value of a sigmoid. A sequence that is too long for the model or cannot be rendered gives None, and is counted in
    `reward_model/not_scored`.
    """
    missing_value, reward_model = _missing_value(missing, scale), _loaded(model, on, device, offload_idle)
    responses = texts(completions)
    values: list[float | None] = [None] * len(responses)
    ids_by_index: dict[int, Sequence[int]] = {}  # the sequence to score for each completion that has one
    unscored = set[int]()
    for index, prompt in enumerate(column("prompts", columns, len(responses), "reward_model")):
        ids = _sequence(reward_model, prompt, responses[index])
        if ids is None:
            values[index] = missing_value
        elif ids:
            ids_by_index[index] = ids
        else:
            unscored.add(index)
    scores = reward_model.scores(list(ids_by_index.values()), tokens_per_batch)
    for index, score in zip(ids_by_index, scores, strict=True):
        values[index] = score if scale == "raw" else sigmoid(score)
    if log_metric is not None:
        log_metric("reward_model/not_scored", len(unscored) / max(1, len(responses)))
    not_scored = [index in unscored for index in range(len(responses))]
    report_not_scored("reward_model", not_scored, log_undecided, log_extra)
    return values


def get_reward_model(
    *,
    model: str,
    on: Literal["answer", "response"] | None = None,
    scale: Scale = "sigmoid",
    missing: Missing = "least",
    device: str = "auto",
    tokens_per_batch: int = 8192,
    offload_idle: bool = True,
) -> RewardFunction:
    """`reward_model_reward` for a model folder that the stage `reward-model` wrote; it is loaded on first use.

    `on`: the judged part of a response; None takes the part that the model was trained on. `scale`: `sigmoid` gives 0
    to 1; `raw` gives the score itself, and needs a number for `missing`, or None to leave such a completion's part out.
    `offload_idle`: the model waits in main memory between two calls.
    Raises ValueError if the folder does not exist.
    """
    _missing_value(missing, scale)
    if not (Path(model).expanduser() / "config.json").is_file():
        raise ValueError(f"there is no model in {model}: give the folder model/ of a reward-model stage")
    options: dict[str, Any] = {"model": model, "on": on, "scale": scale, "missing": missing}
    options |= {"device": device, "tokens_per_batch": tokens_per_batch, "offload_idle": offload_idle}
    return configured(reward_model_reward, **options)


def _missing_value(missing: Missing, scale: Scale) -> float | None:
    """The value of a completion without the judged part; a raw score has no least value, and 0 may be a good one."""
    if missing != "least":
        return missing
    if scale == "raw":
        raise ValueError("a raw score has no least value: set missing to a number below the model's scores, or to null")
    return 0.0


@functools.lru_cache(maxsize=4)
def _loaded(model: str, on: Literal["answer", "response"] | None, device: str, offload_idle: bool) -> Any:
    """The reward model of these options, in memory once per process, however many rewards use it."""
    from dataclasses import replace

    from r1kit.models.classify import load_reward_model

    reward_model = load_reward_model(model, device=device, offload_idle=offload_idle)
    return reward_model if on is None else replace(reward_model, on=on)


def _sequence(reward_model: Any, prompt: Any, response: str) -> Sequence[int] | None:
    """The token ids to score; None if the judged part is missing, empty if it cannot be scored."""
    if reward_model.judged(response) is None:
        return None
    if isinstance(prompt, str):
        turns = [Message(role="user", content=prompt)]
    else:
        turns = [Message(role=turn["role"], content=turn["content"]) for turn in prompt]
    try:
        ids: Sequence[int] = reward_model.sample(turns, response).token_ids
    except ValueError:  # the template refuses it, or it contains an end token: model text is data, not an error
        return ()
    return ids if len(ids) <= reward_model.context else ()
