"""The language of every word: scripts first, then the model inside a script, smoothed over neighbours.

Where several languages share a script, clauses of up to `_CLAUSE` words tell which of them occur in the text at all;
each word is then placed by itself and its two neighbours, on the most likely path (Viterbi) with a price for every
change of language, lower at punctuation. So a word or a short sentence that says little follows its neighbours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from r1kit.verifiers.language.model import probabilities
from r1kit.verifiers.language.scripts import FAMILIES, LANGUAGES, Word, known, words

_CLAUSE = 8  # words
_LETTERS = 20  # fewer do not tell a language
_POSSIBLE = 0.02
# In nats and weights, found on mixes of MGSM (benchmarks/languages.py): what a change of language costs, what speaks
# for the language that a text should have, and how much a word counts beside its window of three.
_CHANGE, _CHANGE_AT_BREAK = 5.0, 2.5
_EXPECTED = 0.15
_WINDOW, _ALONE = 0.3, 0.7
# How Japanese and Chinese text uses Han characters and kana, in nats.
_CJK = {"ja": {"han": -0.7, "kana": 0.0}, "zh": {"han": 0.0, "kana": -6.0}}

Scores = dict[str, float]  # language -> log-likelihood, comparable between the languages of one word only


def place(text: str, expected: str | None = None) -> list[tuple[Word, str]]:
    """Every word with its language; words of code, LaTeX, links and the like are left out.

    `expected` is the language that the text should have: where there is too little text to tell, it is taken for that.
    Languages that r1kit does not know are taken for the nearest that it does.
    """
    found = words(text)
    by_family: dict[str, list[int]] = {}
    for at, word in enumerate(found):
        by_family.setdefault(FAMILIES[word.script], []).append(at)
    placed: dict[int, str] = {}
    for family, places in by_family.items():
        placed |= zip(places, _languages([found[at] for at in places], family, expected), strict=True)
    return [(word, placed[at]) for at, word in enumerate(found)]


def share(text: str, language: str) -> float | None:
    """Words in the language over all words (paper, equation 7); None for a text without words.

    Languages of one script are told apart; `scripts.share` does not, and needs no model.
    """
    known(language)
    placed = place(text, language)
    return sum(found == language for _, found in placed) / len(placed) if placed else None


def main_language(text: str, expected: str | None = None) -> tuple[str | None, float]:
    """The language that most words are in, and their share; `(None, 0.0)` for a text without any."""
    counts = Counter(language for _, language in place(text, expected))
    if not counts:
        return None, 0.0
    language, count = counts.most_common(1)[0]
    return language, count / counts.total()


def _languages(found: Sequence[Word], family: str, expected: str | None) -> list[str]:
    """The language of each of a text's words in one family of scripts."""
    possible = [name for name, scripts in LANGUAGES.items() if FAMILIES[scripts[0]] == family]
    if family == "cjk" and any(word.script == "kana" for word in found):
        return _path(found, [{name: usage[word.script] for name, usage in _CJK.items()} for word in found], expected)
    if expected in possible and sum(len(word.text) for word in found) < _LETTERS:
        return [expected] * len(found)
    if family == "cjk":
        return ["zh"] * len(found)
    if len(possible) > 1:
        chances = [probabilities(clause, possible) for clause in _clauses(found)]
        possible = [
            name for name, column in zip(possible, zip(*chances, strict=True), strict=True) if max(column) >= _POSSIBLE
        ]
    if len(possible) == 1:
        return possible * len(found)
    return _path(found, [_scores(found, at, possible) for at in range(len(found))], expected)


def _clauses(found: Sequence[Word]) -> list[list[str]]:
    """Words in pieces that are long enough to tell a language, cut at punctuation where they can be."""
    pieces: list[list[str]] = [[]]
    for word in found:
        enough = sum(map(len, pieces[-1])) >= _LETTERS
        if (word.breaks and enough) or len(pieces[-1]) == _CLAUSE:
            pieces.append([])
        pieces[-1].append(word.text)
    return pieces


def _scores(found: Sequence[Word], at: int, possible: Sequence[str]) -> Scores:
    window = probabilities([word.text for word in found[max(0, at - 1) : at + 2]], possible)
    alone = probabilities([found[at].text], possible)
    return {
        name: _WINDOW * math.log(p) + _ALONE * math.log(q) for name, p, q in zip(possible, window, alone, strict=True)
    }


def _path(found: Sequence[Word], steps: Sequence[Scores], expected: str | None) -> list[str]:
    """The most likely languages of a sequence of words, with a price for every change (Viterbi)."""
    best = dict.fromkeys(steps[0], 0.0)
    back: list[dict[str, str]] = []
    for word, scores in zip(found, steps, strict=True):
        price = _CHANGE_AT_BREAK if word.breaks else _CHANGE
        top = max(best, key=best.__getitem__)
        back.append({name: name if best[name] >= best[top] - price else top for name in scores})
        best = {
            name: max(best[name], best[top] - price) + score + (_EXPECTED if name == expected else 0.0)
            for name, score in scores.items()
        }
    path = [max(best, key=best.__getitem__)]
    for origin in reversed(back[1:]):
        path.append(origin[path[-1]])
    return path[::-1]
