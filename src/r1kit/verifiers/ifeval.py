"""The verifiers `ifeval` and `ifeval-loose`: whether a reply follows instructions that a program can check.

These are the 25 kinds of instruction of IFEval (Zhou et al. 2023, arXiv:2311.07911). The reference is a row of that set
as JSON: `{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}`. A reply is right if it follows all of its
instructions. `ifeval` is strict; `ifeval-loose` also accepts a reply that follows an instruction once its first or last
line (an introduction, a farewell) or its asterisks are taken away. Scores of a verdict: both readings, for the prompt
and for its instructions.

The final answer is judged, not the reasoning. It must not be empty. Words, sentences and languages are counted by rules
of our own, so numbers near a limit may differ from those of the original code.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from r1kit import chat
from r1kit.types import Verdict
from r1kit.verifiers import extract
from r1kit.verifiers.language.model import detected

_WORD = re.compile(r"[^\W_]+(?:[-.'’][^\W_]+)*")
_ABBREVIATIONS = r"(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|e\.g|i\.e|cf|approx|No|Fig|[A-Z])"
_SENTENCE_END = re.compile(
    rf"(?<![A-Za-z.]){_ABBREVIATIONS}\.(?=\s)|(?P<end>[.!?…]+[\"'”’)\]*]*(?=\s|$)|[。！？]+[」』”]*)", re.MULTILINE
)
_BULLET = re.compile(r"^[ \t]*(?:\*(?!\*)|-(?!-))[^\n]*\S", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*\*(?=[^\n*]*[^\s*])[^\n*]+\*\*|\*(?=[^\n*]*[^\s*])[^\n*]+\*")
_TITLE = re.compile(r"<<[ \t]*[^\s<>][^\n<>]*>>")
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*(?:```)?", re.DOTALL | re.IGNORECASE)
_CHOSEN = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _related(count: int, relation: str, bound: int) -> bool:
    return count >= bound if relation == "at least" else count < bound


def _occurrences(text: str, keyword: str) -> int:
    return text.casefold().count(keyword.casefold())


def _parts(text: str, separator: str) -> list[str]:
    """The parts between separators; empty ones at either end do not count."""
    parts = [part.strip() for part in re.split(separator, text)]
    first, last = not parts[0], len(parts) > 1 and not parts[-1]
    return parts[first : len(parts) - last]


def _is_json(text: str) -> bool:
    fenced = _FENCED.fullmatch(text.strip())
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


def _sentences(text: str) -> int:
    ends = [match for match in _SENTENCE_END.finditer(text) if match["end"]]
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + (_WORD.search(rest) is not None)


def _opens_with(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Whether there are so many paragraphs, and the n-th begins with the word."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(paragraphs) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].strip("'\"*_.,?!:;")
    return word.casefold() == first_word.casefold()


def _postscript(text: str, marker: str) -> bool:
    """Whether a line has the marker and a text after it; P.S. may have spaces, and need not have its last point."""
    letters = re.findall(r"[A-Za-z]", marker) if re.fullmatch(r"(?:P\.\s?)+S\.?", marker) else []
    pattern = r"\.\s?".join(letters) + r"\b\.?" if letters else re.escape(marker)
    return re.search(rf"(?<![\w.]){pattern}[^\n]*\w", text, re.IGNORECASE) is not None


# Every instruction: its name in the data, and its check of a reply; the arguments are named as in the data.
INSTRUCTIONS: dict[str, Callable[..., bool]] = {
    "keywords:existence": lambda text, keywords: all(_occurrences(text, word) for word in keywords),
    "keywords:frequency": lambda text, keyword, frequency, relation: _related(
        _occurrences(text, keyword), relation, frequency
    ),
    "keywords:forbidden_words": lambda text, forbidden_words: (
        not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in forbidden_words)
    ),
    "keywords:letter_frequency": lambda text, letter, let_frequency, let_relation: _related(
        _occurrences(text, letter), let_relation, let_frequency
    ),
    "language:response_language": lambda text, language: detected(text) == language.partition("-")[0],
    "length_constraints:number_sentences": lambda text, num_sentences, relation: _related(
        _sentences(text), relation, num_sentences
    ),
    "length_constraints:number_paragraphs": lambda text, num_paragraphs: (
        len(parts := _parts(text, r"\*\*\*")) == num_paragraphs and all(parts)
    ),
    "length_constraints:number_words": lambda text, num_words, relation: _related(
        len(re.findall(r"\w+", text)), relation, num_words
    ),
    "length_constraints:nth_paragraph_first_word": _opens_with,
    "detectable_content:number_placeholders": lambda text, num_placeholders: (
        len(re.findall(r"\[[^\[\]]+\]", text)) >= num_placeholders
    ),
    "detectable_content:postscript": lambda text, postscript_marker: _postscript(text, postscript_marker),
    "detectable_format:number_bullet_lists": lambda text, num_bullets: len(_BULLET.findall(text)) == num_bullets,
    "detectable_format:constrained_response": lambda text: any(choice in text for choice in _CHOSEN),
    "detectable_format:number_highlighted_sections": lambda text, num_highlights: (
        len(_HIGHLIGHT.findall(text)) >= num_highlights
    ),
    "detectable_format:multiple_sections": lambda text, section_spliter, num_sections: (
        len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections
    ),
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda text: _TITLE.search(text) is not None,
    "combination:two_responses": lambda text: (
        len(parts := _parts(text, r"\*{6}")) == 2 and all(parts) and parts[0] != parts[1]
    ),
    "combination:repeat_prompt": lambda text, prompt_to_repeat: (
        " ".join(text.split()).casefold().startswith(" ".join(prompt_to_repeat.split()).casefold())
    ),
    "startend:end_checker": lambda text, end_phrase: (
        text.strip().strip('"').rstrip().casefold().endswith(end_phrase.strip().casefold())
    ),
    "startend:quotation": lambda text: re.fullmatch(r'\s*".*"\s*', text, re.DOTALL) is not None,
    "change_case:capital_word_frequency": lambda text, capital_frequency, capital_relation: _related(
        sum(word.isupper() for word in _WORD.findall(text)), capital_relation, capital_frequency
    ),
    "change_case:english_capital": lambda text: text.isupper() and detected(text) == "en",
    "change_case:english_lowercase": lambda text: text.islower() and detected(text) == "en",
    "punctuation:no_comma": lambda text: re.search("[,，、]", text) is None,
}


def verify_ifeval(response: str, reference: str) -> Verdict:
    """Right if the final answer follows all instructions as it is."""
    return _judge(response, reference, loose=False)


def verify_ifeval_loose(response: str, reference: str) -> Verdict:
    """Right if each instruction is followed by the final answer, or by it without first or last line or asterisks."""
    return _judge(response, reference, loose=True)


def _judge(response: str, reference: str, *, loose: bool) -> Verdict:
    instructions = parse_instructions(reference)
    answer = chat.final_answer(response)
    if isinstance(instructions, str):
        return Verdict(outcome="unknown", extracted=answer and answer[:512], detail=instructions)
    # the answer; then, for the loose score, without first line, last line or both; then all of these without `*`
    lines = (answer or "").split("\n")
    cut = ["\n".join(lines), *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    readings = [text for text in dict.fromkeys([*cut, *(text.replace("*", "") for text in cut)]) if text.strip()]
    strict = [any(INSTRUCTIONS[name](text, **arguments) for text in readings[:1]) for name, arguments in instructions]
    relaxed = [any(INSTRUCTIONS[name](text, **arguments) for text in readings) for name, arguments in instructions]
    scores = {
        "prompt_strict": (int(all(strict)), 1),
        "instruction_strict": (sum(strict), len(strict)),
        "prompt_loose": (int(all(relaxed)), 1),
        "instruction_loose": (sum(relaxed), len(relaxed)),
    }
    followed = relaxed if loose else strict
    broken = [name for (name, _), kept in zip(instructions, followed, strict=True) if not kept]
    detail = f"follows {sum(followed)} of {len(followed)}" + (f"; not {', '.join(broken)}" if broken else "")
    return Verdict.of(not broken, extracted=answer and answer[:512], detail=detail, scores=scores)


@lru_cache(maxsize=4096)
def parse_instructions(reference: str) -> tuple[tuple[str, Mapping[str, Any]], ...] | str:
    """The names and arguments of the instructions, or why they cannot be used."""
    row = extract.json_reference(reference, dict) or {}
    names, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(names, list) or not isinstance(arguments, list) or len(names) != len(arguments) or not names:
        return 'the reference is not JSON of {"instruction_id_list": [...], "kwargs": [{...}, ...]} of one length'
    instructions = []
    for name, values in zip(names, arguments, strict=True):
        if not isinstance(name, str) or name not in INSTRUCTIONS:
            return f"there is no instruction {name!r:.60}"
        if not isinstance(values, Mapping | None):
            return f"the arguments of {name} are {values!r:.60}: expected an object"
        known = {}
        for key, value in (values or {}).items():
            if value is not None and value == value:  # tables fill in null or NaN, and write whole numbers as 3.0
                known[key] = int(value) if isinstance(value, float) and value.is_integer() else value
        if set(known) != set(inspect.signature(INSTRUCTIONS[name]).parameters) - {"text"}:
            return f"{name} has the arguments {', '.join(known) or 'none'}: see IFEval's data for the right ones"
        if unusable := [key for key, value in known.items() if not _is_usable(key, value)]:
            return f"the argument {unusable[0]} of {name} is {known[unusable[0]]!r:.60}, which cannot be used"
        instructions.append((name, known))
    return tuple(instructions)


def _is_usable(key: str, value: Any) -> bool:
    if "relation" in key:
        return value in ("at least", "less than")
    if key.startswith(("num_", "nth_")) or key.endswith("frequency"):
        return type(value) is int and value >= 0
    if key in ("keywords", "forbidden_words"):
        return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text.strip() for text in value)
    return isinstance(value, str) and bool(value.strip())
