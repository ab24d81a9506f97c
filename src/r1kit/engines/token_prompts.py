"""What engines that take token ids share: checks of prompts, names and seeds for random numbers, stop strings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from r1kit.engines import PromptError
from r1kit.engines.ask import refuse_long
from r1kit.types import Prompt


def require_fitting(prompts: Sequence[Prompt], max_tokens: int, context: int) -> None:
    """Raise `PromptError` for a prompt without tokens, or one that leaves no room for `max_tokens` in the context."""
    for prompt in prompts:
        if not prompt.token_ids:
            message = f"the prompt of {prompt.problem_id} is empty: it needs at least one token"
            raise PromptError(message, prompt.problem_id)
        refuse_long(prompt.problem_id, len(prompt.token_ids), max_tokens, context, "drop long prompts")


def numbered_names(prompts: Sequence[Prompt]) -> list[str]:
    """`PROBLEM#0` for each prompt, and `PROBLEM#1` for the second one of a problem.

    A prompt's random numbers depend on its name, so a problem that comes twice gets other completions.
    """
    seen: Counter[str] = Counter()
    names = []
    for prompt in prompts:
        names.append(f"{prompt.problem_id}#{seen[prompt.problem_id]}")
        seen[prompt.problem_id] += 1
    return names


def server_seed(name: str) -> int:
    """A seed of 31 bits, which every server accepts, from a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 33


def text_before(text: str, stops: Sequence[str]) -> str | None:
    """The text before the first stop string in it; None if it has none."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places)] if places else None
