// The curves of a stage as they grow, with those of other runs over them.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { boundsOf, plotsOf } from "./health.js";
import { clearPanels, isMany, panelOf } from "./panel.js";
import { comparedRuns, MOST_COMPARED, twinOf } from "./rail.js";
import { go, link, state } from "./state.js";

export const events = ["step"];

const GAP = 32; // pixels between columns, as in watch.css
const NARROWEST = 270;
const ALL = "*"; // no folder has this name
let shownStage = "";
let inFront = ""; // the compared run that the reader has picked from many

export async function load({ run, stage }) {
  const curvesOf = (id, other) => get(`${ofRun(id)}/curves`, { stage: other.id, points: 400 });
  const mine = curvesOf(run.id, stage);
  const others = [
    ...comparedRuns().map(async (id) => {
      const twin = await twinOf(id, stage);
      return { name: id, run: id, curves: twin?.has.curves ? await curvesOf(id, twin) : null };
    }),
    ...comparedStages(run, stage).map(async (other) => ({
      name: labelOf(run, other),
      run: run.id,
      stage: other.id,
      curves: await curvesOf(run.id, other),
    })),
  ];
  const steps = stage.has.rollouts ? get(`${ofRun(run.id)}/rollouts`, { stage: stage.id }) : { steps: [] };
  return { mine: await mine, others: (await Promise.all(others)).map(coloured), stored: (await steps).steps };
}

const coloured = (other, place) => ({ ...other, colour: `s${(place % 5) + 2}` });

/** Other stages of the run with curves, those of other settings too. */
const candidates = (run, stage) =>
  [...run.stages, ...run.earlier].filter((other) => other.has.curves && other.id !== stage.id);

const comparedStages = (run, stage) =>
  candidates(run, stage).filter((other) => shownBeside().includes(other.id));

/** Stages of other settings may have the name of this one: they go by their folder. */
const labelOf = (run, stage) => (run.earlier.includes(stage) ? stage.id : stage.name);

export function render({ run, stage }, { mine, others, stored }) {
  if (shownStage !== stage.id) clearPanels();
  shownStage = stage.id;
  if (!mine.plots.length)
    return h("p.empty", "No step yet. Curves appear with the first one, once its completions are sampled and scored.");
  const drawn = others.filter((other) => other.curves);
  const compared = drawn.map(({ name }) => name);
  if (!compared.includes(inFront)) inFront = "";
  const isFlat = ({ series }) => series.every((line) => line.values.every((value) => value === 0));
  const flat = mine.plots.filter(isFlat);
  const width = columnWidth();
  const range = [mine, ...drawn.map((other) => other.curves)];
  const [first, last] = [Math.min(...range.map((one) => one.first)), Math.max(...range.map((one) => one.last))];
  const behind = plotsOf(run, stage);
  const bounds = sharedBounds(run, stage, drawn);
  const moving = mine.plots.filter((each) => !isFlat(each));
  const leading = behind.titles.flatMap((title) => moving.filter((each) => each.title === title));
  const rest = moving.filter(({ title }) => !behind.titles.includes(title));
  const figures = (plots) =>
    plots.map((each) => {
      const panel = panelOf(each.title);
      const lines = withOthers(each, drawn);
      const lacking = compared.filter((name) => !lines.some((line) => line.run === name));
      panel.update(each, lines, { bounds, width, first, last, stored, lacking, compared, inFront });
      return panel.element;
    });
  return [
    h(
      "div.over",
      h(
        "p.note",
        isMany(compared) ? "Lines: moving averages. Figures: " : "Pale: each step. Bold: a moving average. Figures: ",
        figuresOf(compared),
        stored.length ? " Click a step to read its rollouts." : "",
      ),
      stageChoice(run, stage),
    ),
    comparing(run, stage, others),
    leading.length
      ? [h("h2", `Behind the verdict: ${behind.verdict}`), h("div.panels", figures(leading)), h("h2", "All others")]
      : null,
    h("div.panels", figures(rest)),
    flat.length ? h("p.note", `Zero throughout: ${flat.map((each) => each.title.toLowerCase()).join(", ")}.`) : null,
  ];
}

function figuresOf(compared) {
  if (!compared.length) return "mean of the first tenth of the steps → mean of the last quarter, as in the verdict.";
  const theirs = inFront || (isMany(compared) ? "lowest … highest of the others" : "of the others in turn");
  return `means of the last quarter of the steps, of this run | ${theirs}.`;
}

/** The numbers that this stage should not pass, and that all compared ones should not pass either. */
function sharedBounds(run, stage, drawn) {
  const theirs = drawn.map((other) => boundsOf({ id: other.run }, { id: other.curves.stage }));
  const isSame = (a, b) => a.metric === b.metric && a.side === b.side && a.value === b.value;
  return boundsOf(run, stage).filter((bound) => theirs.every((bounds) => bounds.some((it) => isSame(it, bound))));
}

/** The series of a plot: by colour those of one run, or by colour the runs and by dash the series. */
function withOthers(each, drawn) {
  const lines = each.series.map((line, index) => ({
    ...line,
    colour: drawn.length ? "s1" : `s${(index % 6) + 1}`,
    dash: `dash${(drawn.length ? index : Math.floor(index / 6)) % 4}`,
  }));
  const over = drawn.flatMap(({ name, colour, curves }) => {
    const twins = curves.plots.find((other) => other.title === each.title)?.series ?? [];
    return each.series.flatMap((line, index) => {
      const twin = twins.find((other) => other.metric === line.metric);
      return twin ? [{ ...twin, run: name, colour, dash: `dash${index % 4}` }] : [];
    });
  });
  return [...over, ...lines]; // this run's lie over the others
}

/** Which colour is which; a stage of this run leaves by its button, a run by its tick in the list. */
function comparing(run, stage, others) {
  if (!others.length) return null;
  const missing = others.filter((other) => !other.curves).map((other) => other.name);
  return h(
    "div.key",
    { role: "group", "aria-label": "Curves that are compared" },
    h("span.swatch.s1", others.some((other) => other.stage) ? labelOf(run, stage) : run.name),
    others
      .filter((other) => other.curves)
      .map((other) =>
        h("span", swatch(other, others.length), other.stage ? leaveOut(other) : null),
      ),
    missing.length ? h("span.note", `${missing.join(", ")}: no stage ${stage.name} with curves`) : null,
    comparedRuns().length ? h("a", { href: link({ view: "settings" }) }, "settings that differ") : null,
  );
}

/** Of several, a click brings one to the front: colours come again from the sixth on. */
function swatch({ name, colour }, count) {
  if (count < 2) return h("span.swatch", { class: colour }, name);
  const onclick = () => {
    inFront = inFront === name ? "" : name;
    dispatchEvent(new Event("redraw"));
  };
  return h(
    "button.swatch",
    { type: "button", class: colour, "aria-pressed": String(inFront === name), title: "Bring to the front", onclick },
    name,
  );
}

const leaveOut = ({ name, stage }) =>
  h("button.plain", { type: "button", "aria-label": `Leave out ${name}`, onclick: () => beside(shownBeside().filter((id) => id !== stage)) }, "×");

function stageChoice(run, stage) {
  const left = candidates(run, stage).filter((other) => !comparedStages(run, stage).includes(other));
  if (!left.length) return null;
  const alike = left.filter((other) => other.kind === stage.kind).slice(0, MOST_COMPARED);
  const choose = (event) => {
    const id = event.target.value;
    event.target.value = "";
    beside(id === ALL ? [...comparedStages(run, stage), ...alike].map((other) => other.id) : [...shownBeside(), id]);
  };
  return h(
    "select",
    { "aria-label": "Compare with another stage of this run", onchange: choose },
    h("option", { value: "" }, "compare with …"),
    alike.length > 1 ? h("option", { value: ALL }, `all of the kind ${stage.kind}`) : null,
    left.map((other) => h("option", { value: other.id }, labelOf(run, other))),
  );
}

const shownBeside = () => (state.beside ? state.beside.split("|") : []);
const beside = (ids) => go({ beside: ids.join("|") });

function columnWidth() {
  const whole = document.getElementById("view").clientWidth;
  const columns = Math.max(1, Math.floor((whole + GAP) / (NARROWEST + GAP)));
  return Math.floor((whole - (columns - 1) * GAP) / columns);
}
