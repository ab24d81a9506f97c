"""The error for unusable data, which names file, row and field."""

from __future__ import annotations

from typing import Any


class DataError(ValueError):
    """Unusable data. `kind` is a short class of fault, `row` counts from 1; the message includes them all."""

    def __init__(
        self, kind: str, reason: str, file: str | None = None, row: int | None = None, field: str | None = None
    ) -> None:
        self.kind, self.reason, self.file, self.row, self.field = kind, reason, file, row, field
        place = ", ".join(
            f"{word}{value}" for word, value in (("", file), ("row ", row), ("field ", field)) if value is not None
        )
        super().__init__(f"{place}: {reason}" if place else reason)

    def __reduce__(self) -> tuple[type[DataError], tuple[Any, ...]]:
        """Pickle, which carries errors between processes, would pass the message alone."""
        return DataError, (self.kind, self.reason, self.file, self.row, self.field)

    def at(self, file: str, row: int | None = None, field: str | None = None) -> DataError:
        """The same error with its place filled in."""
        return DataError(self.kind, self.reason, file=file, row=row, field=self.field or field)

    def as_dict(self) -> dict[str, Any]:
        """Kind, file, row, field and reason as plain data."""
        return {"kind": self.kind, "file": self.file, "row": self.row, "field": self.field, "reason": self.reason}


def encodable(text: str) -> str:
    """The same text; raises `DataError` for a lone surrogate, which JSON allows and tokenizers refuse."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        reason = f"{shown(text)} holds half a surrogate pair at character {error.start}"
        raise DataError("invalid UTF-8", reason) from None
    return text


def shown(value: Any) -> str:
    """A value for an error message, cut to 80 characters."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
