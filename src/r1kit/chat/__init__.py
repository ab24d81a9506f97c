"""The format of prompts and responses, and the tokens that end a response: the same for all stages."""

from r1kit.chat.format import R1_ZERO_SYSTEM, ChatFormat
from r1kit.chat.response import RESPONSE, TAGS, Response, count_steps, final_answer, parse
from r1kit.chat.samples import end_ids, to_samples

__all__ = [
    "R1_ZERO_SYSTEM",
    "RESPONSE",
    "TAGS",
    "ChatFormat",
    "Response",
    "count_steps",
    "end_ids",
    "final_answer",
    "parse",
    "to_samples",
]
