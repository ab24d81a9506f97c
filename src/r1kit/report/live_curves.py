"""The curves of a stage while it trains, as one picture: in a notebook the output of the cell, elsewhere a file."""

from __future__ import annotations

import importlib
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1kit import store
from r1kit.report.curve_svg import smoothed
from r1kit.report.curves import plots, points_of
from r1kit.report.folders import StageFolder
from r1kit.report.health import verdict

TITLES = (  # of the report's plots
    *("Reward parts", "Held-out accuracy", "Completion length", "Entropy", "Zero-variance groups"),
    *("Loss", "Held-out loss", "Truncated", "Gradient norm"),
)
MOST = 6


@dataclass
class LiveCurves:
    """Redraws the curves and the verdict of the stage that trains: `r1kit.run(..., on_step=LiveCurves())`.

    Outside a notebook the picture is `file`. `titles` are plots of the report; the first six with values are drawn.
    """

    titles: tuple[str, ...] = TITLES
    file: Path = Path("curves.svg")
    _outputs: dict[str, Any] = field(default_factory=dict)  # by stage: its place in the cell's output

    def __call__(self, stage: StageFolder) -> None:
        if not stage.metrics:  # it measures or generates
            return
        svg = self.draw(stage)
        if not in_notebook():
            store.write_text(self.file, svg)
            return
        notebook = importlib.import_module("IPython.display")
        if stage.name in self._outputs:
            self._outputs[stage.name].update(notebook.SVG(svg))
        else:
            self._outputs[stage.name] = notebook.display(notebook.SVG(svg), display_id=True)

    def draw(self, stage: StageFolder) -> str:
        """The picture as SVG."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        metrics = stage.metrics
        by_title = {plot.title: plot for plot in plots(metrics.names())}
        chosen = [by_title[title] for title in self.titles if title in by_title]
        drawn = [plot for plot in chosen if any(points_of(metrics, name) for name in plot.metrics)][:MOST]
        figure = Figure(figsize=(10.5, 1.2 + 2.1 * -(-len(drawn) // 3)), layout="constrained")
        result = verdict(stage)
        figure.suptitle(
            f"{stage.name}, step {metrics.steps[-1]}: {result.name} ({'; '.join(result.evidence[:2])})", size=10
        )
        for place, plot in enumerate(drawn, 1):
            axes = figure.add_subplot(-(-len(drawn) // 3), 3, place)
            axes.set_title(plot.title, size=9, loc="left")
            axes.tick_params(labelsize=8)
            axes.grid(axis="y", alpha=0.3)
            for number, (name, label) in enumerate(plot.metrics.items()):
                points = points_of(metrics, name)
                steps, values = [step for step, _ in points], [value for _, value in points]
                axes.plot(steps, values, color=f"C{number}", linewidth=0.8, alpha=0.35)
                axes.plot(
                    steps, smoothed(values), color=f"C{number}", label=label, marker="." if len(steps) < 3 else ""
                )
            if len(plot.metrics) > 1:
                axes.legend(fontsize=7, frameon=False)
        target = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(target, metadata={"Date": None})
        return target.getvalue()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which has imported IPython already."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
