"""References with several right answers, for every verifier: JSON text `{"any_of": ["4", "four"]}`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from r1kit.types import Verdict
from r1kit.verifiers.extract import json_reference


def any_of(references: Sequence[str]) -> str:
    """A reference for which any of several answers is right."""
    return references[0] if len(references) == 1 else json.dumps({"any_of": list(references)}, ensure_ascii=False)


def alternatives(reference: Any) -> list[Any]:
    """The answers of which any is right; a plain reference is the only one."""
    if not isinstance(reference, str) or '"any_of"' not in reference:
        return [reference]
    data = json_reference(reference, dict)
    listed = data["any_of"] if data is not None and set(data) == {"any_of"} else None
    return listed if isinstance(listed, list) and listed else [reference]


def best(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for all alternatives. An unusable one makes it "unknown", whatever the response."""
    first = {verdict.outcome: verdict for verdict in reversed(verdicts)}
    return next(first[outcome] for outcome in ("unknown", "right", "failed", "wrong") if outcome in first)
