"""The words of several languages that answers to multiple-choice questions are made of.

Phrases are separated by commas. To add a language, add a row; `choice` holds the grammar, which is one for all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from r1kit.verifiers import spelling


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The phrases of one language, by their part in an answer."""

    claim: str  # beside the letter, in any order: "the answer is B", "B is the answer"
    right: str  # the same, but only after the letter: "B is true"
    favour: str  # further words that speak for an option
    against: str  # words that speak against it; two of them cancel out
    doubt: str  # words after which nothing is certain
    reason: str  # begins a reason
    so: str  # begins a conclusion
    instead: str  # sets the letters after it aside: "C, not D"
    aside: str = ""  # sets the letters before it aside
    verb: str  # makes the letters before it a subject: "A is oxygen"
    joins: str  # stands between two letters of a list
    yes: str
    no: str
    true: str
    false: str


LANGUAGES = (
    Words(  # English
        claim="""
            the, my, our, final, correct, right, best, most appropriate, answer, ans, ans., option, choice, letter,
            solution, result, the one, right one, correct one, best one, that one, statement, claim, assertion, is,
            would be, must be, should be, has to be, it, this, that, it's, that's, we, i'd, i'll, we'll, would,
            will, choose, pick, select, go with, going with, let's, i'm, say, think, believe, conclude, i would,
            i will, i choose, i pick, i select, i go with, i am, i say, i think, i believe, i conclude, i also,
            i clearly, i definitely, i certainly, i obviously, i just,
            to this question, to the question, in conclusion, finally, overall, clearly, definitely, certainly,
            obviously, by elimination, only, just
        """,
        right="true, accurate, correct, right, best, answer, choice",
        favour="""
            better, valid, plausible, possible, likely, acceptable, fine, good, well, also, equally, same, works,
            work, holds, hold, preferable, superior, wins, fits, applies, reasonable, probable, ideal
        """,
        against="""
            not, n't, cannot, never, no, nope, nah, neither, nor, none, wrong, wrongly, incorrect, incorrectly,
            false, untrue, invalid, impossible, excluded, eliminated, ruled out, rejected, inaccurate, irrelevant,
            bad, fails, worse
        """,
        doubt="""
            or, maybe, perhaps, possibly, unsure, unless, if, except, whether, might, could, may, either, but,
            however, instead, rather, unlikely, although, though, actually, guess, sure, know, doubt, suppose,
            assume, assuming, not only, not just, not necessarily
        """,
        reason="because, since, given that, explanation:, reason:, reasoning:, rationale:",
        so="so, thus, hence, therefore, consequently",
        instead="""
            not, and not, but not, rather than, instead of, never, as opposed to, over, eliminating,
            after eliminating, excluding, ruling out
        """,
        verb="""
            is, are, was, were, isn't, aren't, has, have, would, wouldn't, does, doesn't, do, don't, can, can't,
            cannot, must, will, won't
        """,
        joins="and, or, nor",
        yes="yes",
        no="no",
        true="true",
        false="false",
    ),
    Words(  # Chinese
        claim="""
            答案, 答, 选项, 选择, 选, 正确的, 正确选项, 正确答案, 最佳, 最终, 最合适的, 最, 的, 是, 为, 应该, 应当,
            应, 该, 我, 我们, 认为, 觉得, 本题, 此题, 这题, 这道题, 题, 项, 就是, 由此, 可知, 综上所述, 综上, 吧,
            故选, 这个, 个人, 会, 想, 肯定, 只有, 只能, 仅, 只, 参考, 标准, 由上
        """,
        right="正确, 对, 合适, 符合题意, 成立, 答案, 选",
        favour="也, 可以, 可能, 同样, 合理, 有道理",
        against="错误, 错, 不, 没, 无, 非, 未, 排除, 误",
        doubt="""
            或, 或者, 还是, 也许, 可能, 大概, 如果, 若, 除非, 除了, 以外, 之外, 但, 不过, 其实, 不确定, 不知道,
            假设, 不仅
        """,
        reason="因为, 由于, 理由, 解析, 解释, 原因",
        so="所以, 因此, 因而, 故, 于是, 从而",
        instead="而不是, 不是, 而非, 并非, 不选择, 不选, 不应选, 不应该选, 非, 排除",
        verb="是, 为, 错, 不, 没, 无, 非, 均, 都, 有, 属, 则, 中, 的, 与题",
        joins="和, 与, 或, 及, 跟",
        yes="是, 是的",
        no="否, 不是",
        true="对, 对的, 正确",
        false="错, 错误, 不对, 不正确",
    ),
    Words(  # Japanese
        claim="""
            答え, 解答, 回答, 正答, 正解, 正しいの, 正しい答え, 正しい選択肢, 選択肢, 選び, 選ぶ, 選択し, を, は,
            が, です, である, だ, なの, の, 私, 最も, 適切な, 適切なの, 適切, ます, と, 思い, 考え, になり, となり,
            番
        """,
        right="正しい, 正解, 答え",
        favour="も, 可能",
        against="間違い, 間違って, 誤り, 不正解, 不適切, ない, ません, 違い, 違う",
        doubt="または, もし, かもしれ, たぶん, おそらく, 以外, ただし, しかし, だけでなく",
        reason="なぜなら, 理由",
        so="したがって, よって, だから, ゆえに, 以上より, そのため",
        instead="",
        aside="ではなく, じゃなく, でなく, ではない, ではありません, じゃない",
        verb="は, が, も",
        joins="と, や, か",
        yes="はい",
        no="いいえ",
        true="正しい",
        false="誤り, 間違い",
    ),
    Words(  # German
        claim="""
            also, die, das, der, meine, unsere, richtige, richtig, korrekte, korrekt, beste, endgültige, antwort,
            lösung, option, antwortmöglichkeit, antwortoption, auswahl, buchstabe, ist, lautet, wäre, es, ich, wir,
            wähle, wählen, nehme, denke, glaube, dass, entscheide mich für, auf die frage
        """,
        right="wahr, zutreffend, richtig, richtige, korrekt, korrekte, beste, antwort, lösung",
        favour="auch, ebenso, möglich, besser, gut, stimmt, gültig, passt",
        against="nicht, kein, keine, falsch, falsche, unrichtig, inkorrekt, weder, noch, ausgeschlossen, unmöglich",
        doubt="""
            oder, vielleicht, eventuell, wenn, falls, außer, ob, aber, jedoch, möglicherweise, unsicher, nicht nur
        """,
        reason="weil, da, denn",
        so="daher, deshalb, somit, folglich",
        instead="nicht, statt, anstatt, und nicht, aber nicht",
        verb="ist, sind, war, wäre, hat, haben, kann, wird",
        joins="und, oder, noch",
        yes="ja",
        no="nein",
        true="wahr, richtig",
        false="falsch",
    ),
    Words(  # French
        claim="""
            la, le, l', l'option, ma, notre, bon, bonne, meilleur, meilleure, réponse, correcte, correct, finale,
            option, choix, solution, lettre, est, serait, c'est, donc c'est, je, choisis, nous, choisissons, pense,
            crois, que, à la question
        """,
        right="vraie, vrai, juste, exacte, exact, bonne, correct, correcte, meilleur, meilleure, réponse",
        favour="aussi, également, possible, mieux, valable, valide",
        against="pas, faux, fausse, incorrecte, incorrect, jamais, aucune, ni, impossible, exclue, inexacte",
        doubt="ou, peut-être, si, sauf, mais, cependant, probablement, pas seulement",
        reason="parce que, parce qu', car, puisque, puisqu'",
        so="donc, ainsi, alors, par conséquent",
        instead="pas, et pas, et non, non, non pas, mais pas, plutôt que, au lieu de",
        verb="est, sont, n'est, ne sont, était, serait, ont, peut",
        joins="et, ou, ni",
        yes="oui",
        no="non",
        true="vrai",
        false="faux",
    ),
    Words(  # Spanish
        claim="""
            la, el, mi, nuestra, respuesta, correcta, correcto, mejor, final, opción, elección, alternativa, letra,
            solución, inciso, es, sería, elijo, elegimos, escojo, yo, creo, pienso, que, a la pregunta, seleccione,
            selecciono
        """,
        right="verdadera, verdadero, cierta, cierto, correcta, correcto, respuesta, mejor",
        favour="también, posible, válida, igualmente, buena, bien",
        against="no, falsa, falso, incorrecta, incorrecto, nunca, ninguna, ni, imposible, errónea, tampoco",
        doubt="o, quizás, quizá, tal vez, si, salvo, excepto, pero, sin embargo, probablemente, no solo",
        reason="porque, ya que, pues, puesto que, dado que",
        so="entonces, así que, por lo tanto, por tanto, luego",
        instead="y no, no la, y no la, pero no, pero no la, en lugar de, en vez de",
        verb="es, son, era, sería, tiene, tienen, puede, no es, no son",
        joins="y, e, o, ni",
        yes="sí, si",
        no="no",
        true="verdadero, cierto",
        false="falso",
    ),
)
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


def pattern(phrases: str) -> str:
    """A pattern that matches any of the phrases as whole words; longer phrases come first."""
    options = []
    for phrase in sorted(
        {" ".join(phrase.split()) for phrase in spelling.simplified(phrases).split(",")} - {""}, key=len
    )[::-1]:
        if _CJK.search(phrase):
            options.append(phrase)
        elif phrase == "n't":
            options.append(r"n't\b")
        else:
            end = "" if phrase.endswith("'") else r"(?![\w'])"
            options.append(r"(?<![\w'])" + re.escape(phrase).replace(r"\ ", r"\s+") + end)
    return f"(?i:{'|'.join(options)})"


PATTERNS = {
    field.name: pattern(", ".join(getattr(words, field.name) for words in LANGUAGES)) for field in fields(Words)
} | {"but": pattern("but, rather, sondern, mais, sino, 而是, 而")}
