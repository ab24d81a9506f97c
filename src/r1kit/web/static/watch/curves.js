// The curves of a stage as they grow, with those of other runs over them.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { clearPanels, panelOf } from "./panel.js";
import { comparedRuns } from "./rail.js";

export const events = ["step"];

const GAP = 32; // pixels between columns, as in watch.css
const NARROWEST = 270;
let shownStage = "";

export async function load({ run, stage }) {
  const mine = get(`${ofRun(run.id)}/curves`, { stage: stage.id, points: 400 });
  const others = comparedRuns().map(async (id) => {
    const twin = (await get(ofRun(id))).stages.find((other) => other.name === stage.name && other.has.curves);
    return { run: id, curves: twin ? await get(`${ofRun(id)}/curves`, { stage: twin.id, points: 400 }) : null };
  });
  const steps = stage.has.rollouts ? get(`${ofRun(run.id)}/rollouts`, { stage: stage.id }) : { steps: [] };
  return { mine: await mine, others: await Promise.all(others), stored: (await steps).steps };
}

export function render({ run, stage }, { mine, others, stored }) {
  if (shownStage !== stage.id) clearPanels();
  shownStage = stage.id;
  if (!mine.plots.length)
    return h("p.empty", "No step yet. Curves appear with the first one, once its completions are sampled and scored.");
  const drawn = others.filter((other) => other.curves);
  const isFlat = ({ series }) => series.every((line) => line.values.every((value) => value === 0));
  const flat = mine.plots.filter(isFlat);
  const width = columnWidth();
  const range = [mine, ...drawn.map((other) => other.curves)];
  const [first, last] = [Math.min(...range.map((one) => one.first)), Math.max(...range.map((one) => one.last))];
  const figures = mine.plots
    .filter((each) => !isFlat(each))
    .map((each) => {
      const panel = panelOf(each.title);
      panel.update(each, withOthers(each, drawn), { width, first, last, stored });
      return panel.element;
    });
  return [
    comparing(run, stage, others),
    h(
      "p.note",
      "Pale: each step. Bold: a moving average, whose first and last values are the figures.",
      stored.length ? " Click a step to read its rollouts." : "",
    ),
    h("div.panels", figures),
    flat.length ? h("p.note", `Zero throughout: ${flat.map((each) => each.title.toLowerCase()).join(", ")}.`) : null,
  ];
}

/** The series of a plot: by colour those of one run, or by colour the runs and by dash the series. */
function withOthers(each, drawn) {
  const lines = each.series.map((line, index) => ({
    ...line,
    colour: drawn.length ? "s1" : `s${(index % 6) + 1}`,
    dash: drawn.length ? `dash${index % 4}` : "",
  }));
  const over = drawn.flatMap(({ run, curves }) => {
    const place = comparedRuns().indexOf(run);
    const twins = curves.plots.find((other) => other.title === each.title)?.series ?? [];
    return each.series.flatMap((line, index) => {
      const twin = twins.find((other) => other.metric === line.metric);
      return twin ? [{ ...twin, run, colour: `s${(place % 5) + 2}`, dash: `dash${index % 4}` }] : [];
    });
  });
  return [...lines, ...over];
}

function comparing(run, stage, others) {
  if (!others.length) return null;
  const missing = others.filter((other) => !other.curves).map((other) => other.run);
  return h(
    "div.key",
    { role: "group", "aria-label": "Runs that are compared" },
    h("span.swatch.s1", run.name),
    others
      .filter((other) => other.curves)
      .map((other) => h("span.swatch", { class: `s${(comparedRuns().indexOf(other.run) % 5) + 2}` }, other.run)),
    missing.length ? h("span.note", `${missing.join(", ")}: no stage ${stage.name} with curves`) : null,
  );
}

function columnWidth() {
  const whole = document.getElementById("view").clientWidth;
  const columns = Math.max(1, Math.floor((whole + GAP) / (NARROWEST + GAP)));
  return Math.floor((whole - (columns - 1) * GAP) / columns);
}
