"""The command `verify`: rows with answers in, rows with verdicts out; error rates on labelled cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from r1kit.commands.judged_rows import Row, batches, field_of, is_text, open_writer, renamed_columns, with_results
from r1kit.conformance import CASES, Rate, Report, measure, measure_rewards, obstacle
from r1kit.data.columns import check_fields, is_empty
from r1kit.data.errors import DataError
from r1kit.evaluate.table import align
from r1kit.tasks.mapping import MEANINGS
from r1kit.tasks.references import Several, number_text, reference_for
from r1kit.verifiers import find, verify_all
from r1kit.verifiers.extract import as_response

MAX_TEXT = 60  # characters of a text in a list of failures
OUTCOMES = {True: "right", False: "wrong", None: "unknown"}


def verify_rows(
    file: Path,
    verifier: str,
    out: Path | None = None,
    counts: Counter[str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """The rows of a file with `correct`, `extracted` and `detail` for their `prediction` and `answer`.

    `columns` maps these two to the file's: {"prediction": "output", "answer": "gold"}; `answers` and `answer_parts` are
    those of a task. A row's own `correct` becomes `input_correct`, and so on. `counts` collects right, wrong and
    unknown, and the columns that were renamed. Raises `DataError` that names file, row and field; rows that were judged
    before it are in `out`.
    """
    find(verifier)
    counts = Counter() if counts is None else counts
    columns = columns or {}
    check_fields(columns, ("prediction", *MEANINGS))
    fields = [field for field in MEANINGS if field in columns] or ["answer"]
    if len(fields) > 1:
        raise DataError("missing column", f"columns names {' and '.join(fields)}: name one of them")
    prediction, answer = columns.get("prediction", "prediction"), columns.get(fields[0], "answer")
    several = MEANINGS[fields[0]]  # how a list of answers is meant
    with open_writer(out) as writer:
        for batch in batches(file):
            predictions = [field_of(row, prediction, file, number) for number, row in batch]
            # a prediction that is neither text nor a number is an empty answer, which is wrong
            texts = [("" if not is_text(p) else p if isinstance(p, str) else number_text(p)) for p in predictions]
            responses = [as_response(text, verifier) for text in texts]
            references = [_reference(row, answer, several, verifier, file, number) for number, row in batch]
            verdicts = verify_all(verifier, responses, references)
            for (_, row), value, verdict in zip(batch, predictions, verdicts, strict=True):
                judged = with_results(row, verdict.to_json(), counts)
                if verdict.correct is False and not is_text(value):
                    judged["detail"] = f"not text: {value!r:.60}"
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
    text += renamed_columns(counts)
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
            raise ValueError("--cases needs --verifier: name the verifier to measure")
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


def _reference(row: Row, column: str, several: Several, verifier: str, file: Path, number: int) -> str:
    """The reference of a row: text as it is, an object or a list as the verifier reads it; "" for null."""
    value = field_of(row, column, file, number)
    if is_empty(value) or isinstance(value, str):
        return value or ""
    try:
        return reference_for(verifier, value, several)
    except DataError as error:
        raise error.at(str(file), number, column) from None
