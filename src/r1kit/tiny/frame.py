"""How the tiny world writes prompts and ends documents: a short system line in the R1-Zero frame, and three tokens."""

from __future__ import annotations

from r1kit.chat import ChatFormat

END = "<|end|>"
PAD = "<|pad|>"
UNKNOWN = "<|unk|>"

# R1_ZERO_SYSTEM's structure in 50 tokens: a character-level model pays for every letter. There are words between the
# tags, so that copying the line never teaches an empty `<think> </think>`.
TINY_SYSTEM = "think, then answer: <think> steps </think> <answer> number </answer>"
TINY_CHAT = ChatFormat(system=TINY_SYSTEM)
