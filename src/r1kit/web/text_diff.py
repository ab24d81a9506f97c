"""Word-by-word differences between two texts, as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from r1kit.web.markup import escape, shown

# A word with the space after it, so that spaces alone do not match; in Chinese and Japanese a character.
_WORD = re.compile(
    r"(?:[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\\[A-Za-z]+|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s])\s*|\s+"
)
LARGEST = 1_000_000  # pairs of words to compare; larger differences are shown as a replacement
KEPT = 12  # unchanged words shown on each side of a change

Piece = tuple[str, Sequence[str]]  # "same", "del" or "ins", and the words


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Safe HTML, and the number of words removed and added; false if the texts are equal."""

    html: str
    removed: int
    added: int
    differs: bool

    def __bool__(self) -> bool:
        return self.differs


def changes(before: str, after: str) -> Changes:
    """The changes between two texts: `changes("2 + 3 is 6", "2 + 3 is 5")` removes one word and adds one."""
    pieces = list(compare(_WORD.findall(shown(before)), _WORD.findall(shown(after))))
    counts = {"same": 0, "del": 0, "ins": 0}
    html = ""
    for at, (kind, words) in enumerate(pieces):
        counts[kind] += sum(any(map(str.isalnum, word)) for word in words)
        head = words[:KEPT] if at > 0 else []
        tail = words[len(words) - KEPT :] if at < len(pieces) - 1 else []
        left_out = len(words) - len(head) - len(tail)
        if kind != "same":
            html += f"<{kind}>{escape(''.join(words))[0]}</{kind}>"
        elif left_out <= KEPT:
            html += escape("".join(words))[0]
        else:
            note = f'<span class="left-out">{left_out} words as before</span>'
            html += f"{escape(''.join(head))[0]} {note} {escape(''.join(tail))[0]}"
    differs = any(kind != "same" for kind, _ in pieces)
    return Changes(html=html, removed=counts["del"], added=counts["ins"], differs=differs)


def compare(before: Sequence[str], after: Sequence[str]) -> Iterator[Piece]:
    """Pieces in order. Equal ends are removed first: they are most of a long text with one edit."""
    start = _equal(before, after)
    end = _equal(before[start:][::-1], after[start:][::-1])
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    if start:
        yield "same", before[:start]
    if len(old) * len(new) > LARGEST:
        yield "del", old
        yield "ins", new
    else:
        for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind == "equal":
                yield "same", old[a:b]
            else:
                yield from ((name, words) for name, words in (("del", old[a:b]), ("ins", new[c:d])) if words)
    if end:
        yield "same", before[len(before) - end :]


def _equal(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))
