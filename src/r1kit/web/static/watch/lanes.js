// The graph of stages, drawn as lanes beside their list: a dot in each row, and lines to the stages that read it.

import { s } from "./dom.js";

const ROW = 30; // pixels, as in watch.css
const LANE = 13;
const DOT = 4.5;
const WIDEST = 130; // pixels: many lanes lie closer together, so that names keep their room
const MANY = 4;

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

/**
 * For each stage its lane and the rows of the stages that it reads. A lane is free again below a stage's last reader.
 * Many stages that one stage alone reads, as a comparison reads its arms, share a lane to it: they are `isGathered`.
 */
export function lanes(stages) {
  const rows = new Map(stages.map((stage, row) => [stage.id, row]));
  const parents = stages.map((stage, row) => stage.reads.map((id) => rows.get(id)).filter((parent) => parent < row));
  const readers = stages.map((_, row) => parents.flatMap((read, reader) => (read.includes(row) ? [reader] : [])));
  const gathers = parents.map((read) => read.filter((parent) => readers[parent].length === 1).length >= MANY);
  const isGathered = readers.map((each) => each.length === 1 && gathers[each[0]]);
  const busy = []; // by lane: the last row in which it is in use
  const lane = [];
  const trunk = []; // by row of such a reader
  const take = (row, until, wanted = -1) => {
    const free = wanted >= 0 ? wanted : busy.findIndex((last) => last < row);
    const place = free < 0 ? busy.length : free;
    busy[place] = until;
    return place;
  };
  for (const row of stages.keys()) {
    if (isGathered[row]) trunk[readers[row][0]] ??= take(row, readers[row][0]);
    const ending = [trunk[row], ...parents[row].map((parent) => lane[parent])].find((place) => busy[place] === row);
    lane[row] = take(row, isGathered[row] ? row : Math.max(row, ...readers[row]), ending);
  }
  return { lane, parents, isGathered, count: busy.length };
}

/** The drawing, and its width in pixels. The list beside it has the names, so the picture is hidden from screen readers. */
export function drawLanes(stages) {
  const { lane, parents, isGathered, count } = lanes(stages);
  const between = Math.min(LANE, WIDEST / count);
  const width = count * between + 8;
  const x = (row) => lane[row] * between + 9;
  const y = (row) => row * ROW + ROW / 2;
  const curve = (from, to, top) => `C${from} ${top + 14} ${to} ${top + 8} ${to} ${top + ROW - 6}`;
  const lines = stages.flatMap((_, row) =>
    parents[row].map((parent) => {
      const [from, to] = [x(parent), x(row)];
      const bend = y(row) - ROW + 6;
      const end = from === to ? `V${y(row)}` : `V${bend}${curve(from, to, bend)}`;
      const joining = `${curve(from, to, y(parent))}V${y(row)}`;
      return s("path", {
        d: `M${from} ${y(parent)}${isGathered[parent] ? joining : end}`,
        class: stages[parent].state === "done" ? "read" : "",
      });
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
