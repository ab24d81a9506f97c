"""Writes the completions of a step to disk, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1kit import ranks
from r1kit.chat import whole_response
from r1kit.data.jsonl import encoded
from r1kit.store import atomic_file, to_plain
from r1kit.train.rl.collect import ScoredGroup
from r1kit.train.step_hashes import hash_floats, hash_of
from r1kit.types import Completion


def write_rollouts(folder: Path, step: int, scored: Sequence[ScoredGroup], tokenizer: Any) -> None:
    """Write `rollouts/step-NNNNNN.jsonl`, and `logprobs/step-NNNNNN.jsonl` with the tokens of the same rows.

    Both appear whole: a resumed run writes its step again, and somebody may be reading it on the live page.
    """
    if not ranks.is_first():
        return
    path, tokens_path = (folder / name / f"step-{step:06d}.jsonl" for name in ("rollouts", "logprobs"))
    # the file opened last is there first: whoever sees a row finds its tokens
    with atomic_file(path) as rows, atomic_file(tokens_path) as tokens:
        for entry in scored:
            for rollout, advantage in zip(entry.group.rollouts, entry.advantages, strict=True):
                completion = rollout.completion
                texts = token_texts(completion, tokenizer)
                logprobs = [round(value, 4) for value in completion.logprobs]
                opened = rollout.prompt.opened
                tokens.write(encoded(to_plain({"opened": opened, "texts": texts, "logprobs": logprobs})))
                notes = dict(rollout.reward.notes)
                # functions may log notes of these names too: the reward's verdict is the one that counts
                if (verdict := rollout.reward.verdict) is not None:
                    extracted = verdict.extracted or ""
                    notes |= {"verdict": verdict.outcome, "extracted": extracted, "detail": verdict.detail}
                row = {
                    "step": step,
                    "problem_id": entry.group.problem.id,
                    "question": entry.group.problem.prompt,
                    "completion": whole_response(rollout.prompt, completion),
                    "answer": entry.group.problem.answer,
                    "reward": rollout.reward.total,
                    "parts": dict(rollout.reward.parts),
                    "advantage": advantage,
                    "notes": notes,
                    "finish_reason": completion.finish_reason,
                    "tokens": len(completion.token_ids),
                }
                rows.write(encoded(to_plain(row)))


def sampled_hashes(scored: Sequence[ScoredGroup]) -> dict[str, list[str]]:
    """The hashes of a step's completions, one for each: its prompt, tokens, log-probs, reward and advantage."""
    rows = [
        (entry.group.problem, rollout, advantage)
        for entry in scored
        for rollout, advantage in zip(entry.group.rollouts, entry.advantages, strict=True)
    ]
    return {
        "prompts": [hash_of(problem.id, list(each.prompt.token_ids)) for problem, each, _ in rows],
        "sampled": [hash_of(list(each.completion.token_ids), each.completion.finish_reason) for _, each, _ in rows],
        "logprobs": [hash_floats(each.completion.logprobs) for _, each, _ in rows],
        "rewards": [hash_of(each.reward.total, dict(each.reward.parts)) for _, each, _ in rows],
        "advantages": [hash_of(advantage) for _, _, advantage in rows],
    }


def token_texts(completion: Completion, tokenizer: Any) -> list[str] | None:
    """The text that each token adds: "" before a character is whole. None for a tokenizer without Rust code.

    A token decoded alone can lose its space, or be a part of a character.
    """
    from tokenizers.decoders import DecodeStream

    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
        return None
    stream = DecodeStream(skip_special_tokens=False)
    return [stream.step(backend, token_id) or "" for token_id in completion.token_ids]
