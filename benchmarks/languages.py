"""Accuracy and speed of language identification per word, on real questions and on mixes of them.

    python benchmarks/languages.py [--data ../shared/data] [--count 100]

Writes benchmarks/results/languages.json. `pure`: MGSM questions in eleven languages, and one sentence
each in nineteen more; every word belongs to the question's language. `sentences`: sentences of two languages in turn.
`phrases`: three to six words of another language in the middle of a sentence, names and numbers included. `scripts`: a
word or a few characters in another script. Errors are shares of words; `mixed` is the share of texts that the graded
reward counts as mixed (over a tenth of the words outside the main language). The weights in
`r1kit.verifiers.language.per_word` were tuned on the first sixty questions in de, en, es and fr.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from r1kit.verifiers.language import per_word, scripts

MGSM = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
LATIN = ("en", "de", "es", "fr", "sw")
Mix = list[tuple[str, str]]  # language and text, in order
OTHERS = {  # languages that MGSM lacks
    "it": "Maria compra tre libri e due quaderni, poi divide la spesa con il fratello. Quanto paga ciascuno?",
    "pt": "A Maria compra três livros e dois cadernos e depois divide a conta com o irmão. Quanto paga cada um?",
    "nl": "Zij koopt drie boeken en twee schriften en deelt daarna de rekening met haar broer. Hoeveel betaalt ieder?",
    "sv": "Hon köper tre böcker och två häften och delar sedan notan med sin bror. Hur mycket betalar var och en?",
    "pl": "Kupuje trzy książki i dwa zeszyty, a potem dzieli rachunek z bratem. Ile płaci każde z nich?",
    "tr": "Üç kitap ve iki defter alır, sonra hesabı kardeşiyle paylaşır. Her biri ne kadar öder?",
    "vi": "Cô ấy mua ba quyển sách và hai quyển vở, sau đó chia hóa đơn với anh trai. Mỗi người trả bao nhiêu?",
    "id": "Dia membeli tiga buku dan dua buku tulis, lalu membagi tagihan dengan kakaknya. "
    "Berapa yang dibayar masing-masing?",
    "uk": "Вона купує три книжки і два зошити, а потім ділить рахунок з братом. Скільки платить кожен?",
    "bg": "Тя купува три книги и две тетрадки, след което разделя сметката с брат си. Колко плаща всеки?",
    "ar": "تشتري ثلاثة كتب ودفترين ثم تقسم الحساب مع أخيها. كم يدفع كل واحد منهما؟",
    "fa": "او سه کتاب و دو دفتر می‌خرد و سپس هزینه را با برادرش تقسیم می‌کند. هر کدام چقدر می‌پردازند؟",
    "ur": "وہ تین کتابیں اور دو کاپیاں خریدتی ہے، پھر خرچ اپنے بھائی کے ساتھ بانٹتی ہے۔ ہر ایک کتنا دیتا ہے؟",
    "hi": "वह तीन किताबें और दो कॉपियाँ खरीदती है, फिर खर्च अपने भाई के साथ बाँटती है। हर एक कितना देता है?",
    "mr": "ती तीन पुस्तके आणि दोन वह्या विकत घेते आणि नंतर खर्च भावासोबत वाटून घेते. प्रत्येकजण किती पैसे देतो?",
    "ko": "그녀는 책 세 권과 공책 두 권을 사고 나서 비용을 오빠와 나눕니다. 각자 얼마를 냅니까?",
    "el": "Αγοράζει τρία βιβλία και δύο τετράδια και μοιράζεται τα έξοδα με τον αδελφό της. Πόσα πληρώνει ο καθένας;",
    "he": "היא קונה שלושה ספרים ושתי מחברות ואחר כך מתחלקת בחשבון עם אחיה. כמה משלם כל אחד?",
    "ta": "அவள் மூன்று புத்தகங்களும் இரண்டு குறிப்பேடுகளும் வாங்கி செலவை அண்ணனுடன் பகிர்ந்து கொள்கிறாள்.",
}


def questions(data: Path, language: str) -> list[str]:
    with gzip.open(data / "mgsm" / f"{language}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["question"] for line in file]


def sentences(text: str) -> list[str]:
    return [sentence for sentence in re.findall(r"[^.!?。！？]+[.!?。！？]*\s*", text) if sentence.strip()]


def in_turn(first: Sequence[str], second: Sequence[str], names: tuple[str, str]) -> Iterator[Mix]:
    for text, other in zip(first, second, strict=True):
        pairs = zip(sentences(text), sentences(other), strict=False)
        yield [(names[at % 2], f"{pair[at % 2]} ") for at, pair in enumerate(pairs)]


def phrases(first: Sequence[str], second: Sequence[str], names: tuple[str, str]) -> Iterator[Mix]:
    """Three to six words of `second` at a random place in each sentence of `first`."""
    rng = random.Random(0)
    for text in first:
        for sentence in sentences(text)[:2]:
            inside, others = sentence.split(), rng.choice(second).split()
            size = rng.randint(3, 6)
            if len(inside) < 4 or len(others) <= size:
                continue
            at, start = rng.randrange(1, len(inside) - 1), rng.randrange(len(others) - size)
            before, after = " ".join(inside[:at]), " ".join(inside[at:])
            yield [
                (names[0], f"{before} "),
                (names[1], " ".join(others[start : start + size])),
                (names[0], f" {after}"),
            ]


def characters(first: Sequence[str], second: Sequence[str], names: tuple[str, str]) -> Iterator[Mix]:
    """One to five characters of another script, at a random place. ASCII characters are left out."""
    rng = random.Random(0)
    for text in first:
        inside, other = text.split(), re.sub(r"[\x00-\x7f]", "", rng.choice(second))
        at, start = rng.randrange(1, len(inside)), rng.randrange(max(1, len(other) - 5))
        before, after = " ".join(inside[:at]), " ".join(inside[at:])
        yield [(names[0], f"{before} "), (names[1], other[start : start + rng.randint(1, 5)]), (names[0], f" {after}")]


def measure(mixes: Sequence[Mix], expected: str | None = None) -> dict[str, float]:
    """The share of words with the wrong language, the share of texts counted as mixed, and microseconds per text."""
    wrong = total = mixed = 0
    spent = 0.0
    for pieces in mixes:
        truth = [name for name, text in pieces for _ in scripts.script_words(text)]
        text = "".join(text for _, text in pieces)
        start = time.process_time()
        placed = per_word.place(text, expected)
        spent += time.process_time() - start
        if len(placed) != len(truth):  # the end of a piece split or joined a word
            continue
        # names in Latin letters inside another script belong to no language of the text
        own = [
            (language, name)
            for (word, language), name in zip(placed, truth, strict=True)
            if word.script in scripts.LANGUAGES[name]
        ]
        wrong += sum(language != name for language, name in own)
        total += len(own)
        counts = Counter(language for _, language in placed)
        mixed += counts.most_common(1)[0][1] < 0.9 * len(placed)
    return {
        "texts": len(mixes),
        "words": total,
        "error": wrong / max(1, total),
        "mixed": mixed / max(1, len(mixes)),
        "us_per_text": spent / max(1, len(mixes)) * 1e6,
    }


def averaged(results: dict[str, dict[str, float]]) -> float:
    return sum(row["error"] * row["words"] for row in results.values()) / sum(row["words"] for row in results.values())


def run(data: Path, count: int) -> dict[str, dict[str, dict[str, float]]]:
    texts = {name: questions(data, name)[:count] for name in MGSM}
    results: dict[str, dict[str, dict[str, float]]] = {"pure": {}}
    for name in MGSM:
        results["pure"][name] = measure([[(name, text)] for text in texts[name]], name)
    for name, text in OTHERS.items():
        results["pure"][name] = measure([[(name, text)]], name)
    latin = list(itertools.combinations(LATIN, 2))
    kinds: dict[str, tuple[Callable[..., Iterator[Mix]], list[tuple[str, str]]]] = {
        "sentences": (in_turn, [*latin, ("zh", "ja"), ("en", "ru"), ("en", "zh")]),
        "phrases": (phrases, [*latin, *((b, a) for a, b in latin)]),
        "scripts": (characters, [("en", "zh"), ("de", "ja"), ("ru", "zh"), ("es", "th"), ("fr", "te")]),
    }
    for kind, (make, pairs) in kinds.items():
        results[kind] = {
            f"{first}+{second}": measure(list(make(texts[first], texts[second], (first, second))))
            for first, second in pairs
        }
    return results


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[1].parent / "shared" / "data")
    parser.add_argument("--count", type=int, default=250, help="questions of each language")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    if not (options.data / "mgsm").is_dir():
        parser.error(f"{options.data} has no folder mgsm: name the folder that holds mgsm/ with --data")
    per_word.place("The model is loaded before the clock starts.")
    results = run(options.data, options.count)
    for kind, rows in results.items():
        print(f"{kind}: {averaged(rows):.2%} of words in the wrong language")
        for name, row in rows.items():
            print(
                f"  {name:6} {row['error']:7.2%} of {row['words']:6.0f} words, {row['mixed']:4.0%} of "
                f"{row['texts']:3.0f} texts mixed, {row['us_per_text']:6.0f} us per text"
            )
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "languages.json"
    file.write_text(json.dumps({"cores": os.cpu_count(), "count": options.count, "kinds": results}, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
