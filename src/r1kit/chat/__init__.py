"""The format of prompts and responses, and the tokens that end a response: the same for all stages."""

from r1kit.chat.format import R1_ZERO_SYSTEM, ChatFormat
from r1kit.chat.response import RESPONSE, TAGS, Response, count_steps, final_answer, parse
from r1kit.chat.samples import to_samples, to_samples_each
from r1kit.chat.turn import describe_turn, end_ids, end_texts, whole_response

__all__ = [
    "R1_ZERO_SYSTEM",
    "RESPONSE",
    "TAGS",
    "ChatFormat",
    "Response",
    "count_steps",
    "describe_turn",
    "end_ids",
    "end_texts",
    "final_answer",
    "parse",
    "to_samples",
    "to_samples_each",
    "whole_response",
]
