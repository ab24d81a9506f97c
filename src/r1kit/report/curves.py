"""Training curves as small inline SVG pictures whose colours and fonts are the page's own (so dark mode just works)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.report.folders import Row, Stage, is_number

Series = list[tuple[float, float]]
SCHEDULES = ("Learning rate",)  # set, not measured: smoothing would only bend them

# Stand-ins that matplotlib writes out and the page replaces by its own variables.
INK, LINE = "#010203", "#020304"
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
VARIABLES = {INK: "--muted", LINE: "--line"} | {colour: f"--s{i}" for i, colour in enumerate(SERIES, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A picture and its words. `series` is (label, first value, last value), values already as text."""

    title: str
    note: str
    svg: str
    series: list[tuple[str, str, str]]


# title, (key, label) ..., is it a share, what to look for
PANELS: tuple[tuple[str, tuple[tuple[str, str], ...], bool, str], ...] = (
    ("Reward", (("reward/mean", "mean"),), False, "what the policy is trained to raise"),
    ("Loss", (("optim/loss", "loss"),), False, ""),
    ("Held-out accuracy", (("probe/accuracy", "share"),), True, "problems answered on the way, greedily"),
    (
        "Held-out answers",
        (("probe/format", "in form"), ("probe/mixed", "mixed"), ("probe/truncated", "truncated")),
        True,
        "",
    ),
    (
        "Pairs in order",
        (("train/accuracy", "in training"), ("validation/accuracy", "held out")),
        True,
        "a reward model's accuracy",
    ),
    ("Calibration error", (("validation/calibration_error", "held out"),), True, "of a reward model's certainty"),
    (
        "Completion length",
        (("completion/length_mean", "all"), ("completion/length_right", "right"), ("completion/length_wrong", "wrong")),
        False,
        "tokens, end token included",
    ),
    ("Truncated", (("completion/truncated", "share"),), True, "completions cut off at the limit"),
    ("Zero-variance groups", (("groups/zero_variance", "share"),), True, "all rewards alike: nothing to learn"),
    ("Entropy", (("policy/entropy", "mean"),), False, "nats per token; near zero, exploring ends"),
    ("KL to the reference", (("policy/kl", "mean"),), False, "nats per token"),
    ("Clipped tokens", (("policy/clip_fraction", "share"),), True, "outside the trust region"),
    ("Sampler-trainer gap", (("sampler/logprob_gap_mean", "mean"),), False, "|log-prob difference| per token"),
    ("Mixed languages", (("language/mixed", "share"),), True, "completions in more than one language"),
    ("Language switching", (("language/other", "share"),), True, "most words not in the problem's script"),
    (
        "Verifier cannot tell",
        (("verifier/unknown", "cannot tell"), ("verifier/failed", "verifier failed")),
        True,
        "neither right nor wrong; those that failed are part of those that cannot tell",
    ),
    ("Audit disagreement", (("audit/disagreement", "share"),), True, "of verdicts given again by another"),
    ("In form and wrong", (("hack/format_only", "share"),), True, "reward for the tags alone"),
    ("Copied answers", (("hack/copied", "share"),), True, "wrong, and a number of the prompt"),
    ("One answer for all", (("hack/one_answer", "share"),), True, "the commonest answer, beyond where it is right"),
    ("Repetition", (("hack/repetition", "share"),), True, "word trigrams that came before in the completion"),
    ("Gradient norm", (("optim/grad_norm", "norm"),), False, "before clipping"),
    ("Learning rate", (("optim/learning_rate", "rate"),), False, ""),
    ("Tokens per second", (("speed/rollout", "sampling"), ("speed/train", "training")), False, ""),
    ("Seconds per step", (("time/rollout_s", "sampling"), ("time/train_s", "training")), False, ""),
)


def panels(stage: Stage) -> tuple[list[Panel], list[str]]:
    """The stage's pictures, and the titles of those that were zero all along (a line of text says as much)."""
    rows = [row | speeds(row) for row in stage.metrics]
    parts = reward_parts(rows)
    wanted = [
        *PANELS[:1],
        ("Reward parts", tuple((f"reward/{p}", p) for p in parts), False, "unweighted"),
        *PANELS[1:],
        ("Held-out loss", by_source(rows, "validation/loss"), False, "nats per token; one that rises is forgotten"),
        ("Accuracy by task", by_source(rows, "probe/accuracy")[1:], True, "problems answered on the way"),
        ("Held-out judges", judges(rows), False, "of the same answers; one that falls while the reward rises is gamed"),
        ("Judge cannot tell", by_source(rows, "probe/unknown")[1:], True, "answers that a held-out judge left open"),
    ]
    if parts:  # the loss of a policy gradient says nothing about progress
        wanted = [panel for panel in wanted if panel[0] != "Loss"]
    drawn, flat = [], []
    for title, keys, is_share, note in wanted:
        lines = [(label, points) for key, label in keys if (points := series(rows, key))]
        if not lines:
            continue
        if all(y == 0 for _, points in lines for _, y in points):
            flat.append(title)
        else:
            drawn.append(panel(title, note, lines, is_share))
    return drawn, flat


def panel(title: str, note: str, lines: Sequence[tuple[str, Series]], is_share: bool) -> Panel:
    words = []
    for label, points in lines:
        smooth = smoothed([y for _, y in points], title in SCHEDULES)
        words.append((label, figure(smooth[0], is_share), figure(smooth[-1], is_share)))
    return Panel(title=title, note=note, svg=draw(title, lines, is_share), series=words)


def reward_parts(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(key.removeprefix("reward/") for row in rows for key in row if key.startswith("reward/"))
    return [name for name in names if name not in ("mean", "std")]


def by_source(rows: Sequence[Row], key: str) -> tuple[tuple[str, str], ...]:
    """The lines of a metric: over everything, and for each source."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(f"{key}/"))
    return ((key, "all"), *((name, name.removeprefix(f"{key}/")) for name in names))


def judges(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """The held-out judges, and their weighted sum where there are several."""
    everything, *each = by_source(rows, "probe/reward")
    return (everything, *each) if len(each) > 1 else tuple(each)


def speeds(row: Row) -> Row:
    """Tokens per second, where tokens and seconds were both written down."""
    found = {}
    whole = row.get("time/step_s")  # of a stage that only trains
    for kind, seconds in (("rollout", row.get("time/rollout_s")), ("train", row.get("time/train_s", whole))):
        tokens = row.get(f"tokens/{kind}")
        if is_number(tokens) and is_number(seconds) and seconds > 0:
            found[f"speed/{kind}"] = tokens / seconds
    return found


def series(rows: Sequence[Row], key: str) -> Series:
    """(step, value) wherever there is a finite number."""
    return [(row["step"], row[key]) for row in rows if is_number(row.get(key)) and math.isfinite(row[key])]


def smoothed(values: Sequence[float], exact: bool = False) -> list[float]:
    """A centred moving average over about a tenth of the run; the window shrinks towards the ends."""
    reach = 0 if exact else len(values) // 20 + (len(values) > 8)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    spans = [(max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values))]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in spans]


def figure(value: float, is_share: bool = False) -> str:
    """A number for reading: `97.8 %`, `1,234`, `0.0123`, `3e-06`."""
    if is_share:
        return f"{100 * value:.1f} %"
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def draw(title: str, lines: Sequence[tuple[str, Series]], is_share: bool) -> str:
    """Raw values thin and pale, the smoothed line over them."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 8.5}):
        picture = Figure(figsize=(3.4, 1.75), facecolor="none")
        axes = picture.add_axes((0.135, 0.15, 0.85, 0.8), facecolor="none")
        for colour, (_, points) in zip(SERIES * 9, lines, strict=False):
            steps, values = [x for x, _ in points], [y for _, y in points]
            axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35)
            axes.plot(steps, smoothed(values, title in SCHEDULES), color=colour, linewidth=1.7, solid_capstyle="round")
            if len(points) == 1:
                axes.plot(steps, values, color=colour, marker="o", markersize=3)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(LINE)
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelcolor=INK, pad=3)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(y, is_share)))
        axes.margins(x=0.01, y=0.08)
        target = io.StringIO()
        canvas: Any = FigureCanvasSVG(picture)
        canvas.print_svg(target, metadata={"Date": None})
    return inline(target.getvalue(), title)


def tick(value: float, is_share: bool) -> str:
    if is_share:
        return f"{100 * value:.3g}%"
    size = abs(value)
    if size >= 1000:
        return f"{value / 1000:.4g}k"
    return f"{value:.1e}".replace("e-0", "e-") if 0 < size < 0.001 else f"{value:.3g}"


def inline(svg: str, title: str) -> str:
    """Make matplotlib's file fit for the inside of a page: no prolog, no metadata, no addresses, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', svg)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r"\n\s*", "\n", svg).strip()
