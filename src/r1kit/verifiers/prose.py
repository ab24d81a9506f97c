"""Words beside a number or formula: whether they leave it unchanged, and which things they count.

This is a whitelist. Some phrases are harmless by name ("the answer is", "she sold", "in total"). A plural noun may
follow the number ("18 fresh eggs per day"), and a subject may precede a verb ("the number of eggs is"). With any other
word ("max 5", "5 and up", "opposite of 5") the text is no answer. In the two positions that allow any noun, words that
deny or change a number are barred: conjunctions, denials, numerals and comparatives are closed classes of words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from r1kit.verifiers import number_words

_MAX_WORDS = 12


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HARMLESS = _word_set("""
    a an the this that these those it its it's that's he she they we you i his her their our my your there here
    so thus hence therefore then finally final answer answers result solution value total correct right exactly
    precisely be is are was were been will would could should must also just only simply all altogether overall
    together still now today tomorrow yesterday sure surely certainly
""")
_BEFORE = _HARMLESS | _word_set(
    "in for at to another us me him them conclude conclusion get find obtain think guess believe"
)
_AFTER = _HARMLESS | _word_set("""
    left remaining remain remains attended participated more extra additional different distinct apiece daily weekly
    monthly yearly annually o'clock
    old long tall high wide deep away off ago later hence guess think believe new whole full
""")
_PREPOSITIONS = _word_set("of in for per at on from each every")
_NOUN_ENDS = _AFTER | _PREPOSITIONS | {"to"}
_SIDES = frozenset(("left", "right"))  # harmless, but 5 to the left is not 5 to the right
_DOING = _word_set("""
    build make do finish complete read write travel reach fill walk run get buy pay cook bake eat drink paint clean
    climb sell share spend give use earn save drive cover plant solve
""")
_PERIODS = _word_set("second minute hour day night week month year person piece")
_MEASURES = _word_set("""
    total profit cost price revenue income amount distance length width height depth area volume perimeter speed
    rate weight mass age salary average mean bill fee balance count payment savings earnings
    temperature duration
""")
# After one of these verbs, the number is meant, whatever the subject is.
_VERBS = _word_set("""
    : is are was were be been equals equal has have had make makes made earn earns earned sell sells sold eat
    eats ate spend spends spent pay pays paid get gets got need needs needed buy buys bought give gives gave
    receive receives received save saves saved use uses used run runs ran drive drives drove walk walks walked
    read reads wrote write writes take takes took cost costs weigh weighs weighed contain contains contained
    hold holds held collect collects collected bake bakes baked pick picks picked plant plants planted find
    finds found score scores scored produce produces produced raise raises raised drink drinks drank watch
    watches watched catch catches caught work works worked travel travels traveled charge charges charged carry
    carries carried build builds built keep keeps kept owns own
    played play plays wait waits waited attend attends attended visit visits visited answered
    solved completed finished donated invited hired painted planted served delivered drew won lost lose loses
    leave leaves remain remains totals spans lasts lasted there's es ist est son sind
""")
_DENIALS = _word_set("""
    not no none never neither nor nobody nothing nowhere cannot cant dont isnt wasnt aint wont hardly barely
    scarcely doubt doubtful unlikely impossible wrong incorrect incorrectly false falsely untrue deny denies
    denied reject rejects rejected excluded except excluding exclude excludes exception unless if whether or
    either but however instead maybe perhaps possibly probably may might without unlike error mistake mistaken
    wrongly nope nah kidding joking lie lies approximate approximately approx roughly estimate estimated rough
    about around almost nearly circa any some uncertain uncertainty unknown max min bound
""")
_SIGNS = _word_set("""
    negative minus plus neg negated negation opposite reciprocal inverse double twice thrice triple quadruple half
    squared cubed factorial itself
""")
_FALSEHOODS = _word_set(
    "lying lied liar trap decoy distractor fake bogus mistakenly erroneous erroneously fooled pretends"
)
# Subjects that mean another number than the answer: "the square of x is", but not "the area of the square is".
_ANOTHER_NUMBER = re.compile(
    r"\b(?:square|cube|fourth|nth) root|\b(?:square|cube|log|logarithm|ln|sine|cosine|tangent|root) of\b"
    r"(?! (?:(?:the|this|a|our) )?(?:equation|polynomial|quadratic|function)\b)"
    r"|(?<!value )\bof (?:(?:the|this|that|our|my|your|its) )?(?:final |correct |right )*(?:answer|result|solution)\b"
    r"|^(?:the |a )?(?:square|cube|log|logarithm|ln|sqrt|exp)\b(?= \w$|$)|^(?:log|ln|lg|sqrt|cbrt|exp|abs|sqr?)\b"
    r"|\b(?:bad|invalid|previous|former|initial|first|old|other|next) (?:answer|result|solution|guess|attempt)\b"
    r"|^(?!.*\bnumber\b).*\b(?:squares|cubes)$"
)
_NAMES = {*number_words.SMALL, *number_words.TENS, *number_words.SCALES, *number_words.DENOMINATORS}
_NAMES |= _word_set("hundred dozen lakh crore score")
_NUMERALS = frozenset(name + ending for name in _NAMES for ending in ("", "s", "es", "th", "ths"))
_CHANGES = (
    _DENIALS
    | _NUMERALS
    | _word_set("""
    than versus vs up upward upwards down downward downwards over under above below beyond within between and
    plus minus less lesser fewer greater most least maximum minimum maxima minima squared cubed factorial
    negative positive reciprocal inverse opposite opposites reciprocals negatives inverses sixties twice double
    triple half pi k m grand myriad binary octal hex hexadecimal base modulo mod divided multiplied
    alpha beta gamma delta epsilon theta lambda mu sigma phi omega sqrt log ln exp sin cos tan infinity
    percent power as thus perhaps yes always besides across otherwise top apart short behind ahead remainder
""")
)
_IRREGULAR = re.compile(r".*(?:people|children|men|women|feet|teeth|mice|geese)|fish|sheep|deer|dice|cattle|staff|data")
_NO_PLURAL = re.compile(r".*(?:ss|us|is|less)|as|yes|was|has|does")
_BOUND = re.compile(r"\bat (?:least|most)\b", re.IGNORECASE)
_TAKES = re.compile(r"it (?:took|takes|cost|costs) ", re.IGNORECASE)
_EYE = re.compile(r"\b[iI]\b(?!['’]| (?:think|guess|believe)\b)")  # the imaginary unit, not "I think"
_SCALE = re.compile(r".*illi(?:on|ard)s?|(?:twen|thir|for|fif|six|seven|eigh|nine)tieths?")
_NO_NOUN = re.compile(r".*(?:ed|ly|ing|wise)")
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*(?:(?<=s)'(?!\w))?")
_MARKS = re.compile(r"(?!.*\.\.)[\s.,;:\"]*", re.DOTALL)
_HAN = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")  # Chinese and Japanese
_HAN_BEFORE = re.compile(
    r"(?:因此|所以|故|则|一?共|总[共计数]|合计|有|是|为|等于|[最终正确]*答案?|结果|得到?|[她他它我]们?|卖了?|需要|还?剩下?|[\s:,])*"
    r"|(?:したがって|よって|だから|答え|解答|正解|合计|全部|残り|は|で|が|、|[\s:,])*"
)
_HAN_AFTER = re.compile(
    r"\s*([\u3040-\u30ff\u4e00-\u9fff]{0,6}?)"
    r"(?:です|でした|である|だ|にな(?:る|ります)|とな(?:る|ります)|が?あります|が?います|が?残ります)?"
)
_HAN_CHANGES = re.compile(
    r"[十百千万亿兆负不非没无或约多少余左右以上下几倍半成折和与至到错误未超程弱割]|か$|ない|ません|くらい|ぐらい|ほど|マイナス"
)


@dataclass(frozen=True, slots=True)
class Label:
    """The noun counted ("egg", or ""), and the other words that tell quantities apart."""

    noun: str = ""
    others: frozenset[str] = frozenset()


class _Everything(frozenset[str]):
    def __contains__(self, word: object) -> bool:
        return len(str(word)) > 1  # a letter alone may be a variable


EVERYTHING: Collection[str] = _Everything()  # as `known`: a reference may use any noun


def tokens(text: str) -> list[str] | None:
    """The lower-case words and colons of a text; None if it contains anything but words and punctuation."""
    if _MARKS.fullmatch(_WORD.sub("", text)) is None:
        return None
    words = [match[0] for match in re.finditer(rf"{_WORD.pattern}|:", text.casefold())]
    return words if len(words) <= 2 * _MAX_WORDS else None


def before(text: str, known: Collection[str] = frozenset()) -> frozenset[str] | None:
    """The words before a number that tell which quantity it is ("profit of"), or None if they may change it."""
    if not text.strip():
        return frozenset()
    if _HAN.search(text):
        return frozenset() if _HAN_BEFORE.fullmatch(text) else None
    words = tokens(text)
    if words is None or len(words) > _MAX_WORDS:
        return None
    verbs = [place for place, word in enumerate(words) if word in _VERBS]
    if verbs:
        subject = words[: verbs[-1]]  # "SUBJECT is 5" must not mean that another number is 5, or that 5 is wrong
        if _BOUND.search(text) or _ANOTHER_NUMBER.search(" ".join(subject)):
            return None
        if any(word in _SIGNS or word in _FALSEHOODS or _denies(word) for word in subject):
            return None
        words = words[verbs[-1] + 1 :]
        if _TAKES.match(text) and verbs == [1] and len(words) == 1 and _content(words[0]):
            return frozenset()  # it took Ann
    label: set[str] = set()
    for place, word in enumerate(words):
        if word in _BEFORE or (word == "of" and place and words[place - 1] in (*_MEASURES, *label)):
            continue
        if not (words[place + 1 : place + 2] == ["of"] and word in _MEASURES) and not _allowed(word, known):
            return None
        label.add(singular(word))
    return frozenset(label)


def names(text: str) -> bool:
    """Whether the words before an equals sign only name the number: "total cost" does, "twice x" does not."""
    if not _NUMERALS.isdisjoint(text.casefold().split()):  # ten x
        return False
    return before(f"{text} is") is not None


def after(text: str, known: Collection[str] = frozenset(), *, single: bool = False) -> Label | None:
    """The thing that a number counts, from the words after it, or None if they may change the number.

    `after("fresh eggs per day") == Label("egg", {"fresh", "day"})`, `after("and up") is None`. `single` allows a noun
    in the singular. Words in `known` are also in the reference.
    """
    if not text.strip():
        return Label()
    if _HAN.search(text):
        counted = _HAN_AFTER.fullmatch(text)
        return Label(counted[1].removeprefix("の")) if counted and not _HAN_CHANGES.search(text) else None
    words = tokens(text)
    if not words:
        return None if words is None else Label()
    if len(words) > _MAX_WORDS or len(words[-1]) == 1 or _EYE.search(text):
        return None
    size = len(words)
    start = next((place for place, word in enumerate(words) if word not in _AFTER or _opens(words, place)), size)
    stop = next((place for place in range(start, size) if words[place] in _NOUN_ENDS), size)
    run = words[start:stop]
    rest = tail(words[stop:], known)
    if rest is None:
        return None
    rest |= _SIDES.intersection(words[:start])
    if not run:
        return Label("", rest)
    if len(run) > 4 or not all(_allowed(word, known) or _content(word) for word in run):
        return None
    if len(run) == 1 and run[0] in _MEASURES:  # 5 profit
        return Label("", rest | {singular(word) for word in run})
    if not (_allowed(run[-1], known) or plural(run[-1]) or (single and not _NO_NOUN.fullmatch(run[-1]))):
        return None
    return Label(singular(run[-1]), rest | {singular(word) for word in run[:-1]})


def tail(words: Sequence[str], known: Collection[str] = frozenset()) -> frozenset[str] | None:
    """The content words after the thing counted ("per day", "in the box"), or None if they may change the number."""
    label: set[str] = set()
    opened = False
    for place, word in enumerate(words):
        opened = opened or _opens(words, place)
        if word not in _SIDES and (word in _AFTER or word in _PREPOSITIONS):
            continue
        if word == "to" and words[place + 1 : place + 2] and words[place + 1] in _DOING:  # 30 months to build it
            opened = True
            continue
        if not (word in _SIDES or _allowed(word, known) or (opened and _content(word))):
            return None
        label.add(singular(word))
    return frozenset(label)


def plural(word: str) -> bool:
    """Whether the word looks like a plural noun."""
    return bool(_IRREGULAR.fullmatch(word)) or (len(word) > 3 and word[-1] == "s" and not _NO_PLURAL.fullmatch(word))


def singular(word: str) -> str:
    """The singular of a noun, for comparison: `singular("cherries") == "cherry"`."""
    word = word.removesuffix("'s").removesuffix("s'")
    if not plural(word) or _IRREGULAR.fullmatch(word):
        return {"people": "person", "children": "child", "men": "man", "women": "woman"}.get(word, word)
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if re.search(r"(?:ss|x|ch|sh)es$", word) else word[:-1]


def _opens(words: Sequence[str], place: int) -> bool:
    """Whether any noun may follow: after "per", and after "a" in "a day"."""
    word = words[place]
    return word in _PREPOSITIONS or (word in ("a", "an") and not _PERIODS.isdisjoint(words[place + 1 :]))


def _allowed(word: str, known: Collection[str]) -> bool:
    return (word in known or singular(word) in known) and not _alters(word)


def _content(word: str) -> bool:
    return len(word) > 1 and not _alters(word)


def _alters(word: str) -> bool:
    return not _CHANGES.isdisjoint((word, singular(word))) or _denies(word) or bool(_SCALE.fullmatch(word))


def _denies(word: str) -> bool:
    return word in _DENIALS or word.endswith("n't")
