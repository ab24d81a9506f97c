r"""Multiple choice and yes/no. An answer must commit to one choice: "A, B, C, D" is wrong.

The reference is a letter ("B", "(B)") or one of yes, no, true, false, 是, 否, 对, 错. An answer is a claim ("the answer
is B", "B is correct", "选B"), or a letter with its mark and the option's text ("B) Paris"). It may give reasons, and
name other options to set them aside ("not C", "A is oxygen"). One grammar serves all languages; `choice_words` holds
their phrases.
"""

from __future__ import annotations

import re

from r1kit.types import Verdict
from r1kit.verifiers import extract, spelling
from r1kit.verifiers.choice_words import LANGUAGES, PATTERNS

MAX_CHARS = 2000  # a longer text might take its answer back at its end, so it is no answer
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_POLARITY = {
    phrase: polarity
    for words in LANGUAGES
    for polarity in _OPPOSITE
    for phrase in spelling.simplified(getattr(words, polarity)).split(", ")
}
_MARKUP = re.compile(
    r"\\(?:text|mbox|mathrm|textbf|mathbf|[Rr]ightarrow)(?![A-Za-z])|\\[()\[\]]|\*\*|__|</?(?:b|strong|i|em)>|[✓✔✅☑]"
)
_AROUND = " \t\n$*{}\"'`"
_CLAIM, _REASON, _AGAINST = PATTERNS["claim"], PATTERNS["reason"], re.compile(PATTERNS["against"])
_LEAD = re.compile(rf"(?:(?:{_CLAIM}|{PATTERNS['so']})[\s,:=>→⇒\"-]*)+")
_ALONE = re.compile(r"[(\[<【《]?\s*([A-Za-z])\s*[)\]>】》]?[\s.,;:!]*")
_COUNTED = re.compile(r"(?<![A-Za-z])([A-Z])、(?=[^A-Za-z\s(])")  # "C、12"
_SENTENCE = re.compile(r"(?<=[A-ZＡ-Ｚ])。(?=.)")
_SMALL = re.compile(r"[(\[]?[a-z][)\]]\s")
_TAILED = re.compile(  # "B is correct", "(B)是正确的"
    rf"[(\[<【]?([A-Z])(?![A-Za-z'])(?![)\]]\s+{PATTERNS['right']})[)\]>】\"]*"
    rf"(?:[\s\"]*(?:{_CLAIM}|{PATTERNS['right']}))+(?=\s*$|\s*[.,;:!]|\s*{_REASON})"
)
# A mark before an option's text: "(B)", "B.", "B because", or (weak) a letter that is only set apart: "B - Paris".
_MARK = re.compile(
    rf"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Z])(?:\s?\)|\s?(?P<colon>:)|\.(?![A-Z](?![A-Za-z]))|(?P<reason>,?\s*(?={_REASON}))"
    r"|(?P<weak>,|\s+-+\s|[ ]*\n|\s+(?=[(\[])|\s*(?=\([\u3040-\u9fff])|\s+(?=[\u3040-\u9fff]))))"
)
_MENTION = r"(?:[(\[]\s*[A-Ja-j]\s*[)\]]|(?<![A-Za-z'])[A-HJ]{1,4}(?![A-Za-z'])[):]?|(?<![\w'])[a-hj]\))(?:项|选项)?"
_LIST = rf"{_MENTION}(?>(?:\s*[,/&]\s*(?:{PATTERNS['joins']}\s*)?|\s*{PATTERNS['joins']}\s*){_MENTION}){{0,9}}"
_NAMING = (
    r"(?:(?i:the|both|all|other|options?|choices?|answers?|statements?|neither|la|die|antwort|opción|réponse)\s+|选项)"
)
# A clause whose subject is an option: "A) is oxygen", "选项A和B错误".
_CLAUSE = re.compile(
    rf"(?:^|[.,;!\n(]|\s-+\s|{_REASON}|(?i:\b(?:and|but|while|whereas|und|et|y)\b)|而)\s*(?:(?i:but|however|as)\s+|但)?"
    rf"{_NAMING}*(?P<letters>{_LIST})[\s,]*"
    rf"(?P<predicate>{PATTERNS['verb']}|(?<=项)(?=[\u4e00-\u9fff])|(?<=[A-J]\s)[a-z]{{3,}}s(?![\w']))"
)
_CLAIMED = rf"{_LEAD.pattern}[(\[<]?[A-J](?![A-Za-z'])"
_STOP = re.compile(rf"[.!](?!\d)|[;\n]|,\s*{PATTERNS['so']}|,\s*(?={_CLAIMED}|{_TAILED.pattern})")
_SIDE_REMARK = re.compile(rf"[,(]|{_REASON}")
# Options set aside without a verb: "not C", "Cではなく".
_ASIDE = re.compile(
    rf"[\s,;(-]*(?:{PATTERNS['instead']}\s*{_NAMING}*(?P<after>{_LIST})|(?P<before>{_LIST})\s*{PATTERNS['aside']})"
    rf"[ \t]*(?:\([^()]*\))?[) \t]*(?=$|[.,;:!\n]|{PATTERNS['but']}|{_CLAIMED}|[A-J](?![A-Za-z]))"
    rf"(?:[,\s]*{PATTERNS['but']}\s*)?"
)
_FAVOUR = re.compile(rf"{PATTERNS['favour']}|{PATTERNS['right']}|\b(?:is|be)\s+it\b|\btoo\W*$")
_ALSO = re.compile(r"\b(?:also|too|as well|auch|aussi|también)\b|也|同样|も", re.I)
_DOUBT = re.compile(rf"{PATTERNS['doubt']}|\?")
_TAKEN_BACK = re.compile(
    r"\b(?:wait|hmm+|oops|scratch that|on second thought)\b|\?\s*$"
    r"|(?:^|[.;!,\n])\s*(?:or not|(?:i am |i'm )?(?:not sure|unsure)|i (?:guess|don't know)|不确定|不知道)"
    rf"|\((?:{PATTERNS['against']}|{PATTERNS['doubt']})\)\W*$"
    rf"|[.;!\n]\s*(?:(?:that|this|it)(?:'s|\s+is|\s+was)\s+|[这那]\s*是?\s*){PATTERNS['against']}",
    re.I,
)
_BOUNDARY = re.compile(rf"(?:[.!](?!\d)|[;\n]|,\s*(?={PATTERNS['so']}))\s*(?={_CLAIMED})")
# A text that only says that the letter is wrong: "isn't right", "ist falsch".
_REFUSED = re.compile(
    rf"\W*(?:{_CLAIM}\W*)*(?=[A-Za-z])(?:{PATTERNS['verb']}|(?i:not\b))"
    rf"(?:\W*(?:{PATTERNS['against']}|{PATTERNS['favour']}|{_CLAIM}|{PATTERNS['right']}|\bbe\b))*\W*"
)
_BRACKETS = re.compile(r"\([^()]*\)")
_SEPARATOR = r"(?:\s*[,;/|&]\s*|\s+)(?:(?:and|or|nor)\s+)?"
_LISTED = re.compile(  # a list of letters only, such as "a b c d" or "and A"; a single I is a numeral
    r"[\W_]*(?:(?:both|neither|either|options?|and|or|also|as well as)\b\W*)*"
    rf"[A-HJa-hj](?:{_SEPARATOR}[A-Ja-j])*(?:\s+only)?[\W_]*"
)
_BOTH = re.compile(
    r"\W*(?:(?:both|neither|options?)\s+|(?P<any>none of|either|any of)\s+)?"
    r"[A-J](?:[\s,]+[A-J])*[\s,]+(?:and|nor|(?(any)or|and))\s+[A-J]\W*(?:only\W*)?",
    re.I,
)
_ROW = re.compile(rf"(?<![A-Za-z'])[A-Ja-j](?:{_SEPARATOR}[A-Ja-j](?![A-Za-z'(^])){{2,}}")
_NAMED = re.compile(r"(?<![A-Za-z])([B-HJ-Z])(?![A-Za-z'])")
_RIVALS = (
    re.compile(r"(?<![\w)])[(\[]\s*([A-HJa-hj])\s*[)\]]"),
    re.compile(r"\b(?i:option|choice|answer)(?i:\s+is)?\W{1,3}([A-Jb-j])(?![\w'])"),
    re.compile(r"\b(?i:and|or|nor|also|as well as|but|no|wait|instead|rather)\W+([A-HJ])\W*$"),
    re.compile(r"\b(?i:be|it is|it's|also|actually|maybe|perhaps|possibly|wait)\W+([A-HJa-hj])\W*$"),
    re.compile(r"(?:[,.;!\n]\s*|\s[/&]\s*|\bplus\s+)([A-HJ])[\s.,;!)]*$"),
    re.compile(r"(?:\b(?i:but|however|aber|mais|pero)\b|但|でも)\W*([A-HJ])(?![A-Za-z'])"),
    re.compile(rf"(?:^|[.;!\n])\s*{PATTERNS['doubt']}\W*([A-HJ])(?![A-Za-z'])"),
    re.compile(rf"(?:[.;!\n]\s*{_LEAD.pattern}|^\s*{PATTERNS['so']}\W*)[(\[<]?([A-HJ])(?![A-Za-z'])"),
    re.compile(rf"^\s*(?:(?=I\s){_CLAIM}\W+|(?:{_CLAIM}\W+){{2,}})[(\[<]?([A-HJ])(?![A-Za-z'])"),  # "I choose" is one
    re.compile(r"[,.;]\s*([A-HJ])[更也才最]"),
    re.compile(rf"(?:{PATTERNS['joins']}|{PATTERNS['doubt']}|{PATTERNS['but']})\W*([A-HJ])\W*$"),
    re.compile(r"(?:答案|选|答え|正解)\W*(?:是|为|项|は)?\W*([A-J])(?![A-Za-z])"),
)
_MARKED = re.compile(
    r"(?<![\w.'])([A-HJ])(?:\)|[.:](?=\s+\S|\d|[A-Za-z]{2}|[\u3040-\u9fff]))"
    r"|(?<![\w.'])([a-hj])\)(?=\s|$)"
)
_LOOKS_LIKE = str.maketrans("АВСЕНЈасејΑΒΕΗ", "ABCEHJacejABEH")  # Cyrillic and Greek


def choice(text: str) -> str | None:
    """The letter or yes/no that an answer commits to: `choice("(B) Paris") == "B"`, `choice("A or B") is None`."""
    if len(text) > MAX_CHARS:
        return None
    text = text.replace("【", "\n").replace("】", ":")
    text = _SENTENCE.sub("\n", _COUNTED.sub(r"\1. ", text))
    text = spelling.simplified(_MARKUP.sub("", spelling.characters(text))).translate(_LOOKS_LIKE)
    text = text.lstrip("#-").strip(f"{_AROUND}.")
    lead = _LEAD.match(text)
    claimed = text[lead.end() :].strip(_AROUND) if lead else text
    return _polarity(text) or _polarity(claimed) or _letter(text)


def verify_choice(response: str, reference: str) -> Verdict:
    """Right if the answer commits to the reference's choice and to no other."""
    prediction = extract.extract(response)
    expected = choice(extract.reference(reference))
    if expected is None:
        detail = f"the reference is not a choice: {reference[:80]!r}"
        return Verdict(outcome="unknown", extracted=prediction, detail=detail)
    if prediction is None:
        return Verdict(outcome="wrong", detail="no answer found")
    chosen = choice(prediction)
    if chosen is None:
        return Verdict(outcome="wrong", extracted=prediction, detail="the answer does not commit to one choice")
    return Verdict.of(chosen == expected, extracted=chosen, detail=f"chose {chosen}, the reference is {expected}")


def _polarity(text: str) -> str | None:
    """The yes or no at the start of a text. Denials contradict a yes, except in its reason; they agree with a no."""
    if text.casefold() in _POLARITY:
        return _POLARITY[text.casefold()]
    opening = re.match(rf"([A-Za-z]+)(?=\s*(?:[.,;:!—-]|$)|\s+{_REASON})", text)
    first = opening[1].casefold() if opening else ""
    if first not in _OPPOSITE:
        return None
    rest = text[len(first) :]
    claim = re.split(_REASON, rest, maxsplit=1)[0]
    if first in ("yes", "true"):
        contradicted = (
            re.search(rf"\b{_OPPOSITE[first]}\b", rest, re.I) or _AGAINST.search(claim) or _DOUBT.search(claim)
        )
    else:
        contradicted = _DOUBT.search(claim) or re.search(
            rf"(?<!not )(?<!n't )\b{_OPPOSITE[first]}\b|(?:not|n't)\s+(?:a\s+)?{first}\b", rest, re.I
        )
    return None if contradicted else first


def _letter(text: str) -> str | None:
    """The letter that a text claims ("the answer is B") or quotes ("B) Paris"), if it names no second one."""
    text, denied = _without_others(text.upper() if _SMALL.match(text) else text)
    text = _claim_after_reasons(text)
    lead = _LEAD.match(text)
    text = (text[lead.end() :] if lead else text).strip(_AROUND)
    if alone := _ALONE.fullmatch(text):
        letter, sole = alone[1].upper(), True
    elif tailed := _TAILED.match(text):
        rest = text[tailed.end() :]
        letter = tailed[1]
        sole = _is_sole(letter, rest, quoted=False, weak="," if rest.lstrip().startswith(",") else "\n")
    elif mark := _MARK.match(text):
        letter, rest = (mark[1] or mark[2]).upper(), text[mark.end() :]
        verdict = mark["colon"] and _AGAINST.fullmatch(rest.strip(" ."))  # "B: wrong"
        sole = not verdict and _is_sole(letter, rest, quoted=mark["reason"] is None, weak=mark["weak"])
    else:
        return None
    return letter if sole and letter not in denied else None


def _without_others(text: str) -> tuple[str, set[str]]:
    """The text without the clauses that set options aside or only describe them, and the options that are denied."""
    denied: set[str] = set()

    def set_aside(match: re.Match[str]) -> str:
        denied.update(_letters(match["after"] or match["before"]))
        return " "

    text = _ASIDE.sub(set_aside, text).strip()
    clauses = list(_CLAUSE.finditer(text))
    kept, position = [], 0
    for clause, following in zip(clauses, [*(later.start() for later in clauses[1:]), len(text)], strict=False):
        stop = _STOP.search(text, clause.start("predicate"), following)
        end = stop.start() if stop else following
        predicate = text[clause.start("predicate") : end]
        remark = _SIDE_REMARK.search(predicate)
        denials = len(_AGAINST.findall(predicate[: remark.start()] if remark else predicate))
        denials += "neither" in clause[0].casefold() and not denials
        quoted = clause.start() == 0 and clause["letters"][-1] in ")]"  # "(B) is positive": the option's own text
        in_favour = denials == 0 and _FAVOUR.search(predicate)
        if quoted or in_favour or denials > 1 or _DOUBT.search(predicate) or _NAMED.search(predicate):
            continue
        denied.update(_letters(clause["letters"]) if denials else ())
        kept.append(text[position : clause.start()])
        position = end
    return "".join([*kept, text[position:]]).strip(" ,;.\n"), denied


def _letters(mentions: str) -> set[str]:
    return {
        letter.upper() for letter in re.findall(r"(?<![a-z])[A-Z](?![a-z])|(?<![A-Za-z])[a-j](?![A-Za-z])", mentions)
    }


def _claim_after_reasons(text: str) -> str:
    """The text from its claim on, if only reasons precede it: "Plants take it in, so the answer is B"."""
    boundary = _BOUNDARY.search(text)
    reasons = text[: boundary.start()] if boundary else ""
    if (
        boundary is None
        or _CLAUSE.search(reasons)
        or _NAMED.search(reasons)
        or _AGAINST.search(reasons)
        or _DOUBT.search(reasons)
    ):
        return text
    return text if _MARK.match(reasons) else text[boundary.end() :]


def _is_sole(letter: str, rest: str, *, quoted: bool, weak: str | None) -> bool:
    """Whether the text after a letter leaves it the only one chosen.

    A quoted option's own text may contain denials and letters: "B. not guilty" and "C. both A and B" are choices.
    """
    both = _BOTH.fullmatch(rest)  # "both A and B" is one choice if it is the text of a third letter
    is_list = _LISTED.fullmatch(rest) or any(letter in row[0].upper() for row in _ROW.finditer(rest))
    if is_list and not (both and letter not in re.findall(r"\b[A-J]\b", rest.upper())):
        return False
    claim = re.split(_REASON, rest, maxsplit=1)[0]
    refused = _REFUSED.fullmatch(rest) and len(_AGAINST.findall(rest)) == 1
    if refused or _TAKEN_BACK.search(rest) or (weak == "," and _AGAINST.search(claim)):
        return False
    if weak is not None and (_AGAINST.match(rest.lstrip(" (")) or ("\n" not in weak and _DOUBT.search(rest))):
        return False
    also = _TAILED.match(rest.lstrip())  # "D is correct" is no option's text
    is_claim = also is not None and also[1] != "I" and not rest.lstrip().startswith(",", also.end())
    others = {also[1]} if also and is_claim else set()
    for clause in _CLAUSE.finditer(rest):  # those left over speak for an option, or may do so
        if not quoted or rest[clause.start()] in ".;!\n" or _ALSO.search(rest):
            others |= _letters(clause["letters"])
    others |= {(large or small).upper() for large, small in _MARKED.findall(_BRACKETS.sub(" ", rest))}
    if not both:
        others |= {rival.upper() for pattern in _RIVALS for rival in pattern.findall(rest)}
    others |= set(_NAMED.findall(rest)) if weak is not None or _ALSO.search(rest) else set()
    return others <= {letter}
