// The graph of stages, drawn as lanes beside their list: a dot in each row, and lines to the stages that read it.

import { s } from "./dom.js";

const ROW = 30; // pixels, as in watch.css
const LANE = 13;
const DOT = 4.5;

/** The stages so that each comes after those that it reads, otherwise in their order. */
export function inOrder(stages) {
  const byId = new Map(stages.map((stage) => [stage.id, stage]));
  const placed = new Set();
  const place = (stage) => {
    if (!stage || placed.has(stage)) return;
    byId.delete(stage.id); // a cycle, which no recipe has, would end here
    stage.reads.forEach((id) => place(byId.get(id)));
    placed.add(stage);
  };
  stages.forEach(place);
  return [...placed];
}

/** For each stage its lane and the rows of the stages that it reads. A lane is free again below a stage's last reader. */
export function lanes(stages) {
  const rows = new Map(stages.map((stage, row) => [stage.id, row]));
  const parents = stages.map((stage, row) => stage.reads.map((id) => rows.get(id)).filter((parent) => parent < row));
  const until = stages.map((_, row) =>
    Math.max(row, ...parents.flatMap((read, reader) => (read.includes(row) ? [reader] : []))),
  );
  const busy = []; // by lane: the last row in which it is in use
  const lane = [];
  for (const row of stages.keys()) {
    const ending = parents[row].map((parent) => lane[parent]).find((place) => busy[place] === row);
    const free = busy.findIndex((last) => last < row);
    lane[row] = ending ?? (free < 0 ? busy.length : free);
    busy[lane[row]] = until[row];
  }
  return { lane, parents, count: busy.length };
}

/** The drawing, and its width in pixels. The list beside it has the names, so the picture is hidden from screen readers. */
export function drawLanes(stages) {
  const { lane, parents, count } = lanes(stages);
  const width = count * LANE + 8;
  const x = (row) => lane[row] * LANE + 9;
  const y = (row) => row * ROW + ROW / 2;
  const lines = stages.flatMap((_, row) =>
    parents[row].map((parent) => {
      const bend = y(row) - ROW + 6;
      const end =
        lane[parent] === lane[row]
          ? `V${y(row)}`
          : `V${bend}C${x(parent)} ${bend + 14} ${x(row)} ${bend + 8} ${x(row)} ${y(row)}`;
      return s("path", { d: `M${x(parent)} ${y(parent)}${end}`, class: stages[parent].state === "done" ? "read" : "" });
    }),
  );
  const dots = stages.map((stage, row) => dot(stage, x(row), y(row)));
  const picture = s(
    "svg.lanes",
    { width, height: stages.length * ROW, viewBox: `0 0 ${width} ${stages.length * ROW}`, "aria-hidden": "true" },
    lines,
    dots,
  );
  return { picture, width };
}

/** Filled when done, a ring that fills while it runs, hollow while it waits, crossed after a failure. */
function dot(stage, x, y) {
  const circle = s("circle", { cx: x, cy: y, r: DOT });
  const share = stage.total ? Math.min(1, stage.done / stage.total) : 0;
  const round = 2 * Math.PI * DOT;
  const arc =
    stage.state === "running" && share
      ? s("circle.arc", {
          cx: x,
          cy: y,
          r: DOT,
          "stroke-dasharray": `${share * round} ${round}`,
          transform: `rotate(-90 ${x} ${y})`,
        })
      : null;
  const cross = ["failed", "damaged"].includes(stage.state)
    ? s("path.cross", { d: `M${x - 2} ${y - 2}l4 4m0 -4l-4 4` })
    : null;
  return s("g.dot", { class: stage.state }, circle, arc, cross);
}
