// One plot as SVG: pale raw values under a bold moving average, axes, and a crosshair that keys and pointer move.

import { s } from "./dom.js";
import { number } from "./format.js";
import { nearest, path, tick, ticks } from "./scale.js";

const HEIGHT = 156;
const [LEFT, RIGHT, TOP, BOTTOM] = [40, 10, 8, 20];

/**
 * Draw `series` ({label, colour, dash, steps, values, smooth}) on one pair of axes. `at(step)` moves the crosshair and gives the
 * values there, in the order of the series; null removes it.
 */
export function plot({ series, isShare, exact, width, first, last }) {
  const values = series.flatMap((line) => line.values);
  let [low, high] = [min(values), max(values)];
  const room = 0.08 * (high - low) || Math.abs(high) * 0.1 || 1;
  [low, high] = [low - room, high + room];
  const span = Math.max(last - first, 1);
  const x = (step) => LEFT + ((step - first) / span) * (width - LEFT - RIGHT);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);

  const cross = s(
    "g.cross",
    { visibility: "hidden" },
    s("line", { y1: TOP, y2: HEIGHT - BOTTOM }),
    series.map((line) => s("circle", { r: 3, class: line.colour })),
  );
  const svg = s(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT },
    ticks(low, high, 4).map((value) => [
      s("line.grid", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      s("text.end", { x: LEFT - 6, y: y(value) + 3.5 }, tick(value, isShare)),
    ]),
    s("line.axis", { x1: LEFT, x2: width - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
    ticks(first, last, Math.max(2, Math.floor(width / 55)), true).map((step) =>
      s("text.middle", { x: x(step), y: HEIGHT - 5 }, tick(step, false)),
    ),
    series.map((line) => [
      exact ? null : s("path.raw", { d: path(line.steps, line.values, x, y), class: line.colour }),
      s("path.mean", {
        d: path(line.steps, exact ? line.values : line.smooth, x, y),
        class: `${line.colour} ${line.dash ?? ""}`,
      }),
      line.steps.length === 1
        ? s("circle.only", { cx: x(line.steps[0]), cy: y(line.values[0]), r: 3, class: line.colour })
        : null,
    ]),
    cross,
  );

  /** Move the crosshair to a step, or hide it. */
  function at(step) {
    cross.setAttribute("visibility", step === null ? "hidden" : "visible");
    if (step === null) return [];
    cross.firstChild.setAttribute("x1", x(step));
    cross.firstChild.setAttribute("x2", x(step));
    return series.map((line, index) => {
      const isInside = line.steps[0] <= step && step <= line.steps.at(-1); // a shorter run has no value here
      const place = isInside ? nearest(line.steps, step) : -1;
      const dot = cross.children[index + 1];
      dot.setAttribute("visibility", place < 0 ? "hidden" : "inherit");
      if (place < 0) return NaN;
      dot.setAttribute("cx", x(line.steps[place]));
      dot.setAttribute("cy", y(line.values[place]));
      return line.values[place];
    });
  }

  /** The step under a pointer. */
  function stepAt(event) {
    const box = svg.getBoundingClientRect();
    const share = (((event.clientX - box.left) / box.width) * width - LEFT) / (width - LEFT - RIGHT);
    return Math.round(first + Math.min(1, Math.max(0, share)) * span);
  }

  const ends = series.map((line) => [number(line.ends[0], isShare), number(line.ends[1], isShare)]);
  return { svg, at, stepAt, ends };
}

// not Math.min(...values): a long run has more values than a call has arguments
const min = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const max = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
