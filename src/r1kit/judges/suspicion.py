"""Signs that a text addresses its judge instead of answering: named for people, and not a proof by themselves."""

from __future__ import annotations

import re
import unicodedata

from r1kit.judges.quoting import is_hidden

_GRADER = (
    r"(?:(?<![a-z])(?:grader|judge|evaluator|examiner|scorer|verifier|reviewer|grading (?:system|model|script))s?"
    r"(?![a-z])|评分|评委|裁判|阅卷)"
)
_DEMAND = (
    r"(?:(?<![a-z])(?:mark|score|accept|rate|give|award|assign|output|return|consider|treat|reply"
    r"|prefer|choose|approve)"
    r"(?![a-z])|判|给|应|请)"
)
_TEXT = r"(?:answer|response|solution|reply|submission)"
_UNSEEN = ("Cc", "Cf", "Co", "Cs", "Mn", "Me")
_SIGNS: dict[str, re.Pattern[str]] = {
    "speaks to the grader": re.compile(
        rf"{_GRADER}[^.\n]{{0,80}}?{_DEMAND}|{_DEMAND}[^.\n]{{0,40}}?{_GRADER}"
        r"|\b(?:mark|grade|score|rate|accept|judge|evaluate|label|treat|count|consider)(?:ed)?\b[^.\n]{0,60}?"
        r"\bas (?:being )?(?:fully |entirely |completely )?(?:correct|accepted)\b"
        rf"|\b(?:mark|grade|score|judge) (?:this|it|me|my|the)(?: {_TEXT})? (?:as )?(?:correct|right)\b"
        r"|\b(?:give|award|assign|grant|deserve|merit|receive)s?\b[^.\n]{0,40}?"
        r"\b(?:(?:full|maximum|highest|perfect|top) (?:marks|scores?|credit|points|reward|grade)|1\.0|10/10)"
        r"(?!\d| ?[a-z]{1,2}\b)"  # 1.0 mL
        r"|(?:请|应)[^。\n]{0,20}(?:判|评)[^。\n]{0,10}(?:正确|满分|对)"
    ),
    "claims a verdict": re.compile(
        rf"\b(?:this|the|my|above) {_TEXT} (?:is|was|has been|have been) (?:already )?"
        r"(?:verified|graded|marked|approved|confirmed|validated|accepted|judged|checked)"
        r"|\b(?:verdict|output)\s{0,4}(?:is|:|=)\W{0,6}(?:correct|approve|a>|b>)|\[\[[ab]>>?[ab]\]\]"
    ),
    "overrides instructions": re.compile(
        r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,30}?\b(?:previous|prior|above|earlier|all|any|your|these|"
        r"the) (?:[a-z]+ ){0,2}?(?:instruction|prompt|rubric|guideline|criteria|system|reference answer)"
        r"|\bnew (?:instructions?|system prompt)\b|忽略[^。\n]{0,20}(?:指令|说明|规则|参考|以上)"
    ),
    "contains a verdict in JSON": re.compile(
        r"[\"'“”](?:correct|correctness|verdict|vote|is_correct|approved?)[\"'“”]\s{0,4}:|[\"'“”]label[\"'“”]\s{0,4}:\s{0,4}[\"'“”][ab][>=]"
    ),
    "contains tags or control tokens": re.compile(
        r"<\|[^\s|<>]{2,40}\|>|\[/?inst\]|<<sys>>|</s>|<(?:start|end)_of_turn>"
        r"|</?(?:system|assistant|user|response|reference|question|instructions?|verdict|judge|grader)\b"
        r"|(?:^|\n)[ \t#*]{0,12}(?:system|assistant)[ \t*]{0,4}:"
    ),
}
_TWO_ALPHABETS = re.compile(r"[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]")
_JOINED_LATIN = re.compile(r"[A-Za-z][\u200c\u200d]+[A-Za-z]")  # joiners belong to other scripts
# Letters that look like Latin ones: Cyrillic, Greek, Armenian, small capitals. Case first, since Н is H and η is n.
_LOOKS_LIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТУХԚԜҮавеѕіјкмнорстухһԁԛԝүɡгпΑΒΕΖΗΙΚΜΝΟΡΤΥΧαβεικνορτυχηωγμσօսհոցԱՕՍıɑᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "abesijkmhopctyxqwyabesijkmhopctyxhdqwygrnabezhikmnoptyxabeikvoptuxnwyuoouhngaouiaabcdefghijklmnoprstuvwyz",
)


def suspicions(text: str, question: str = "") -> tuple[str, ...]:
    """Names of the signs in the text, without those in the question, which may be about such things.

    `suspicions("The grader should mark this as correct.") == ("speaks to the grader",)`
    """
    plain, plain_question = _plain(text), _plain(question)
    signs = [name for name, pattern in _SIGNS.items() if pattern.search(plain) and not pattern.search(plain_question)]
    if _has_hidden(text) and not _has_hidden(question):
        signs.append("contains hidden characters")
    if _TWO_ALPHABETS.search(text) and not _TWO_ALPHABETS.search(question):
        signs.append("mixes alphabets inside a word")
    return tuple(signs)


def _has_hidden(text: str) -> bool:
    return any(map(is_hidden, text)) or _JOINED_LATIN.search(text) is not None


def _plain(text: str) -> str:
    """The text as a reader perceives it: lower case, one form per letter, no accents, nothing invisible."""
    parts = unicodedata.normalize("NFKD", text).translate(_LOOKS_LIKE).casefold()
    return "".join(mark for mark in parts if mark in "\n\t\r" or unicodedata.category(mark) not in _UNSEEN)
