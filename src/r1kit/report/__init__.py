"""One self-contained HTML page and one `summary.json` per run, read from the files that the stages left."""

from r1kit.report.page import build, summary, write_report

__all__ = ["build", "summary", "write_report"]
