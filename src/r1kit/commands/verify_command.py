"""The command `verify`: rows with answers in, rows with verdicts out; error rates on labelled cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from r1kit.commands.judged_rows import Row, batches, is_text, open_writer
from r1kit.conformance import CASES, Rate, Report, measure, measure_rewards, obstacle
from r1kit.data.errors import DataError
from r1kit.evaluate.table import align
from r1kit.rewards.columns import reference_text
from r1kit.tasks.references import number_text
from r1kit.verifiers import find, verify_all
from r1kit.verifiers.extract import as_response

MAX_TEXT = 60  # characters of a text in a list of failures
OUTCOMES = {True: "right", False: "wrong", None: "unknown"}


def verify_rows(
    file: Path, verifier: str, out: Path | None = None, counts: Counter[str] | None = None
) -> Iterator[Row]:
    """The rows of a file with `correct`, `extracted` and `detail` for their `prediction` and `answer`.

    `counts` collects right, wrong and unknown. Raises `DataError` that names file, row and field; rows that were judged
    before it are in `out`.
    """
    find(verifier)
    counts = Counter() if counts is None else counts
    with open_writer(out) as writer:
        for batch in batches(file):
            responses = [as_response(_text_field(row, "prediction", file, number), verifier) for number, row in batch]
            references = [_text_field(row, "answer", file, number) for number, row in batch]
            for (_, row), verdict in zip(batch, verify_all(verifier, responses, references), strict=True):
                judged = row | {"correct": verdict.correct, "extracted": verdict.extracted, "detail": verdict.detail}
                if verdict.correct is False and not is_text(row["prediction"]):
                    judged["detail"] = f"not text: {row['prediction']!r:.60}"
                counts[OUTCOMES[verdict.correct]] += 1
                if writer is not None:
                    writer.append(judged)
                yield judged


def verify_summary(verifier: str, counts: Mapping[str, int]) -> Row:
    """The counts of `verify_rows`, and the share of right answers among judged ones with its 95 % interval."""
    right, wrong, unknown = (counts.get(name, 0) for name in OUTCOMES.values())
    rate = Rate.among(right, right + wrong)
    text = f"{right + wrong + unknown} rows by {verifier}: {right} right, {wrong} wrong, {unknown} cannot tell"
    if rate.low is not None and rate.high is not None:
        text += f"; right {rate.share:.1%} [{rate.low:.1%}, {rate.high:.1%}]"
    summary = {"verifier": verifier, "right": right, "wrong": wrong, "unknown": unknown}
    return summary | {"share": rate.share if rate.of else None, "low": rate.low, "high": rate.high, "text": text}


def conformance(verifier: str | None = None, cases: str | None = None) -> tuple[Row, str, bool]:
    """Error rates of a verifier (name or dotted path), or of all verifiers and rewards that have cases.

    Returns plain data, the text for people, and whether all pass: no false positive, few false negatives. Without a
    verifier, those that cannot work on this machine are skipped with the reason.
    """
    skipped: dict[str, str] = {}
    if verifier is None:
        if cases is not None:
            raise ValueError("--cases needs --verifier: name the verifier to run them on")
        skipped = {name: reason for name in CASES if (reason := obstacle(name))}
        verifiers, rewards = [measure(name) for name in CASES if name not in skipped], measure_rewards()
    else:
        source = Path(cases) if cases and cases.endswith(".jsonl") else cases
        verifiers, rewards = [measure(verifier, source)], []
    failures = []
    names = OUTCOMES | {None: "cannot tell"}
    for failure in (failure for report in (*verifiers, *rewards) for failure in report.failures):
        texts = [ascii(text) if not text.isprintable() else repr(text) for text in (failure.given, failure.reference)]
        given, reference = (text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..." for text in texts)
        values = (failure.expected, failure.found)
        expected, judged = (names[v] if v is None or isinstance(v, bool) else f"{v:g}" for v in values)
        verdict = f"{given} for {reference} is {expected}, judged {judged}"
        failures.append(f"{failure.case} ({failure.kind}): {verdict}: {failure.detail}")
    data = {
        "verifiers": [report.as_dict() for report in verifiers],
        "rewards": [report.as_dict() for report in rewards],
        "skipped": skipped,
    }
    parts = [
        _rates_table("verifier", verifiers, "wrong judged right", "right not judged right"),
        _rates_table("reward", rewards, "too high", "too low"),
        "\n".join(failures),
        *(f"{name} is not measured: {reason}" for name, reason in skipped.items()),
    ]
    return data, "\n\n".join(filter(None, parts)), all(report.ok for report in (*verifiers, *rewards))


def _rates_table(title: str, reports: Sequence[Report], false_positives: str, false_negatives: str) -> str:
    if not reports:
        return ""
    head = [title, "cases", f"{false_positives} (95 %)", f"{false_negatives} (95 %)", "cannot tell"]
    lines = [
        [r.name, str(r.cases), _rate(r.false_positives), _rate(r.false_negatives), str(r.cannot_tell)] for r in reports
    ]
    return align([head, *lines])


def _rate(rate: Rate) -> str:
    if rate.low is None or rate.high is None:
        return "-"
    return f"{rate.count}/{rate.of} = {rate.share:.1%} [{rate.low:.1%}, {rate.high:.1%}]"


def _text_field(row: Row, name: str, file: Path, number: int) -> str:
    """A field of a row as text. A reference may be an object (countdown, code), which becomes JSON.

    A prediction that is not text is an empty answer, which is wrong.
    """
    if name not in row:
        reason = f"the row has no field {name!r}, only {', '.join(map(repr, row)) or 'none'}"
        raise DataError("missing column", reason, str(file), number, name)
    value = row[name]
    if name == "answer" and isinstance(value, dict | list):
        return reference_text(value)
    if not is_text(value):
        if name == "prediction" or value is None:
            return ""
        expected = "a finite number" if isinstance(value, float) else "text or a number"
        raise DataError("wrong type", f"{value!r:.60}: expected {expected}", str(file), number, name)
    return value if isinstance(value, str) else number_text(value)
