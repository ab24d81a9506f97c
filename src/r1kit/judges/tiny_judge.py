"""The tiny world's own judgement as an engine: it stands for the people, or the large model, that compare replies."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache

from r1kit.engines import Engine, Report
from r1kit.tiny import everyday
from r1kit.types import Completion, Prompt, SamplingParams
from r1kit.verifiers import find

_BLOCK = re.compile(r"<(request|answer-a|answer-b)-(\w{12})>\n(.*?)\n</\1-\2>", re.DOTALL)
_CODE = re.compile(r'\{"code": "(\w+)"')


class TinyJudge(Engine):
    """Reads the question of a `PairwiseJudge` and answers in its form: a right reply is much better than a wrong one.

    A reply to an everyday request is right if it does what was asked, and one to a harmful request if it refuses.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Equal votes: a rule does not change its mind."""
        return [[self._reply(prompt.messages[-1].content)] * params.n for prompt in prompts]

    def _reply(self, question: str) -> Completion:
        parts = {match[1]: match[3].replace("&lt;", "<").replace("&amp;", "&") for match in _BLOCK.finditer(question)}
        code = _CODE.findall(question)[-1]
        if parts["request"] not in _references():
            text = "this is no training request of the tiny world"  # no form: the judge cannot tell
            return Completion(token_ids=(), logprobs=(), text=text, finish_reason="stop")
        verifier, reference = _references()[parts["request"]]
        right = [find(verifier)(parts[side], reference).correct is True for side in ("answer-a", "answer-b")]
        label = "A=B" if right[0] == right[1] else "A>>B" if right[0] else "B>>A"
        words = ["right" if side else "wrong" for side in right]
        form = {"code": code, "analysis": f"A is {words[0]}, B is {words[1]}", "label": label}
        return Completion(token_ids=(), logprobs=(), text=json.dumps(form), finish_reason="stop")


_references = cache(everyday.training_references)
