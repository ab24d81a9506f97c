// One plot as SVG: pale raw values under a bold moving average, axes, and a crosshair that keys and pointer move.

import { s } from "./dom.js";
import { max, min, nearest, path, tick, ticks } from "./scale.js";

const HEIGHT = 156;
const [LEFT, RIGHT, TOP, BOTTOM] = [40, 10, 8, 20];

/**
 * Draw `series` ({label, colour, dash, steps, values, smooth}) on one pair of axes, with those of `bounds` ({name, side,
 * value, status}) that belong there. `at(step)` moves the crosshair and gives the values there, in the order of the
 * series; null removes it.
 */
export function plot({ series, bounds, isShare, exact, width, first, last }) {
  const values = series.flatMap((line) => line.values);
  let [low, high] = [min(values), max(values)];
  const limits = bounds.filter((bound) => isNear(bound, low, high));
  for (const { value } of limits) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const room = 0.08 * (high - low) || Math.abs(high) * 0.1 || 1;
  [low, high] = [low - room, high + room];
  const span = Math.max(last - first, 1);
  const x = (step) => LEFT + ((step - first) / span) * (width - LEFT - RIGHT);
  const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);

  const limitText = ({ name, side, value }) => `${name || "limit"}: ${side} ${tick(value, isShare)}`;
  /** The words stand above the line, or below one near the top; the second line has them at the other end. */
  const limit = (bound, place) => {
    const height = y(bound.value);
    const words = place % 2 ? ["text", LEFT + 2] : ["text.end", width - RIGHT];
    return s(
      "g.limit",
      { class: bound.status },
      s("line", { x1: LEFT, x2: width - RIGHT, y1: height, y2: height }),
      s(words[0], { x: words[1], y: height + (height > TOP + 14 ? -3.5 : 11) }, limitText(bound)),
    );
  };
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
    series.map((line) =>
      s(
        line.isBack ? "g.back" : "g",
        { class: line.colour },
        exact ? null : s("path.raw", { d: path(line.steps, line.values, x, y) }),
        s("path.mean", { d: path(line.steps, exact ? line.values : line.smooth, x, y), class: line.dash }),
        line.steps.length === 1 ? s("circle.only", { cx: x(line.steps[0]), cy: y(line.values[0]), r: 3 }) : null,
      ),
    ),
    limits.map(limit),
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

  return { svg, at, stepAt, limits: limits.map(limitText) };
}

/** Whether a bound leaves the curves half of the height, or all values are past it: then the distance is the news. */
function isNear({ side, value }, low, high) {
  const isPast = side === "at most" ? value < low : value > high;
  return isPast || Math.max(high, value) - Math.min(low, value) <= 2 * (high - low);
}
