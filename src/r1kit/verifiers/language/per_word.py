"""The language of every word: by script, then by the model within a script, smoothed over neighbours.

If several languages share a script, clauses of up to `_CLAUSE` words decide which of them occur in the text at all.
Each word is then scored alone and with its two neighbours, and the most likely path (Viterbi) pays a price for every
change of language, a lower one at punctuation. So a word or short sentence with little evidence follows its neighbours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from r1kit.verifiers.language.model import probabilities
from r1kit.verifiers.language.scripts import FAMILIES, LANGUAGES, Word, known, script_words

_CLAUSE = 8  # words
_LETTERS = 20  # fewer letters do not identify a language
_POSSIBLE = 0.02  # least probability in some clause for a language to occur in the text
# Tuned on mixes of MGSM (benchmarks/languages.py): the price of a change of language and the bonus per word of the
# expected language, in nats; the weights of a word alone and of its window of three.
_CHANGE, _CHANGE_AT_BREAK = 5.0, 2.5
_EXPECTED = 0.15
_WINDOW, _ALONE = 0.3, 0.7
# Log-likelihood of Han characters and kana in Japanese and Chinese text.
_CJK = {"ja": {"han": -0.7, "kana": 0.0}, "zh": {"han": 0.0, "kana": -6.0}}

Scores = dict[str, float]  # language -> log-likelihood, comparable between the languages of one word only


def place(text: str, expected: str | None = None) -> list[tuple[Word, str]]:
    """Every word with its language, without code, LaTeX, links and the like.

    `expected` is the language that the text should have; a text too short to tell counts as that. Languages that r1kit
    does not know count as the closest one that it does.
    """
    all_words = script_words(text)
    by_family: dict[str, list[int]] = {}
    for at, word in enumerate(all_words):
        by_family.setdefault(FAMILIES[word.script], []).append(at)
    placed: dict[int, str] = {}
    for family, places in by_family.items():
        placed |= zip(places, _languages([all_words[at] for at in places], family, expected), strict=True)
    return [(word, placed[at]) for at, word in enumerate(all_words)]


def share(text: str, language: str) -> float | None:
    """The share of words in the language (paper, equation 7); None for a text without words.

    Unlike `scripts.share`, this tells languages of one script apart, and needs the model.
    """
    known(language)
    placed = place(text, language)
    return sum(actual == language for _, actual in placed) / len(placed) if placed else None


def main_language(text: str, expected: str | None = None) -> tuple[str | None, float]:
    """The most frequent language and its share of the words; `(None, 0.0)` for a text without words."""
    counts = Counter(language for _, language in place(text, expected))
    if not counts:
        return None, 0.0
    language, count = counts.most_common(1)[0]
    return language, count / counts.total()


def _languages(run: Sequence[Word], family: str, expected: str | None) -> list[str]:
    """The language of each word; all words are of one family of scripts."""
    possible = [name for name, scripts in LANGUAGES.items() if FAMILIES[scripts[0]] == family]
    if family == "cjk" and any(word.script == "kana" for word in run):
        return _path(run, [{name: usage[word.script] for name, usage in _CJK.items()} for word in run], expected)
    if expected in possible and sum(len(word.text) for word in run) < _LETTERS:
        return [expected] * len(run)
    if family == "cjk":
        return ["zh"] * len(run)
    if len(possible) > 1:
        clauses: list[list[str]] = [[]]  # long enough to identify a language, cut at punctuation if possible
        for word in run:
            enough = sum(map(len, clauses[-1])) >= _LETTERS
            if (word.breaks and enough) or len(clauses[-1]) == _CLAUSE:
                clauses.append([])
            clauses[-1].append(word.text)
        chances = [probabilities(clause, possible) for clause in clauses]
        best = map(max, zip(*chances, strict=True))
        possible = [name for name, chance in zip(possible, best, strict=True) if chance >= _POSSIBLE]
    if len(possible) == 1:
        return possible * len(run)
    steps: list[Scores] = []
    for at, word in enumerate(run):
        window = probabilities([neighbour.text for neighbour in run[max(0, at - 1) : at + 2]], possible)
        pairs = zip(possible, window, probabilities([word.text], possible), strict=True)
        steps.append({name: _WINDOW * math.log(p) + _ALONE * math.log(q) for name, p, q in pairs})
    return _path(run, steps, expected)


def _path(run: Sequence[Word], steps: Sequence[Scores], expected: str | None) -> list[str]:
    """The most likely sequence of languages, with a price for every change (Viterbi)."""
    best = dict.fromkeys(steps[0], 0.0)
    back: list[dict[str, str]] = []
    for word, scores in zip(run, steps, strict=True):
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
