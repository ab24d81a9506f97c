// The curves of a stage as they grow, with those of other runs over them; one crosshair through all plots.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { number } from "./format.js";
import { plot } from "./plot.js";
import { comparedRuns } from "./rail.js";
import { nearest } from "./scale.js";
import { go } from "./state.js";

export const events = ["step"];

const GAP = 32; // pixels between columns, as in watch.css
const NARROWEST = 270;
const hidden = new Set(); // names of series that the legend has switched off
let panels = new Map(); // by title
let shownStage = "";
let cursor = null;

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
  if (shownStage !== stage.id) [panels, shownStage, cursor] = [new Map(), stage.id, null];
  if (!mine.plots.length) return h("p.empty", {}, "No step yet. Curves appear with the first one, once its completions are sampled and scored.");
  const drawn = others.filter((other) => other.curves);
  const isFlat = ({ series }) => series.every((line) => line.values.every((value) => value === 0));
  const flat = mine.plots.filter(isFlat);
  const width = columnWidth();
  const range = [mine, ...drawn.map((other) => other.curves)];
  const [first, last] = [Math.min(...range.map((one) => one.first)), Math.max(...range.map((one) => one.last))];
  const figures = mine.plots
    .filter((each) => !isFlat(each))
    .map((each) => {
      if (!panels.has(each.title)) panels.set(each.title, new Panel(each.title));
      const panel = panels.get(each.title);
      panel.update(each, withOthers(each, drawn), { width, first, last, stored });
      return panel.element;
    });
  return [
    comparing(run, stage, others),
    h("p.note", {}, "Pale: each step. Bold: a moving average, whose first and last values are the figures.", stored.length ? " Click a step to read its rollouts." : ""),
    h("div.panels", {}, figures),
    flat.length ? h("p.note", {}, `Zero throughout: ${flat.map((each) => each.title.toLowerCase()).join(", ")}.`) : null,
  ];
}

/** The series of a plot: by colour those of one run, or by colour the runs and by dash the series. */
function withOthers(each, drawn) {
  const lines = each.series.map((line, index) => ({ ...line, colour: drawn.length ? "s1" : `s${(index % 6) + 1}`, dash: drawn.length ? `dash${index % 4}` : "" }));
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
    h("span.swatch.s1", {}, run.name),
    others.filter((other) => other.curves).map((other) => h("span.swatch", { class: `s${(comparedRuns().indexOf(other.run) % 5) + 2}` }, other.run)),
    missing.length ? h("span.note", {}, `${missing.join(", ")}: no stage ${stage.name} with curves`) : null,
  );
}

function columnWidth() {
  const whole = document.getElementById("content").clientWidth - 2 * parseFloat(getComputedStyle(document.getElementById("content")).paddingLeft);
  const columns = Math.max(1, Math.floor((whole + GAP) / (NARROWEST + GAP)));
  return Math.floor((whole - (columns - 1) * GAP) / columns);
}

/** A plot with its caption. It outlives redraws, so that focus and crosshair stay where the reader has them. */
class Panel {
  constructor(title) {
    this.title = title;
    this.caption = h("figcaption");
    this.field = h("div.plot", { role: "slider", tabindex: 0, "aria-label": title });
    this.element = h("figure", { "data-key": title, "data-keep": title }, this.caption, this.field);
    this.field.onpointermove = (event) => moveTo(this.drawing.stepAt(event));
    this.field.onpointerleave = () => moveTo(null);
    this.field.onblur = () => moveTo(null);
    this.field.onclick = (event) => this.openStep(this.drawing.stepAt(event));
    this.field.onkeydown = (event) => this.key(event);
  }

  update(each, lines, { width, first, last, stored }) {
    Object.assign(this, { each, stored, first, last });
    this.lines = lines.filter((line) => !hidden.has(`${this.title}/${line.label}`));
    this.steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    this.drawing = plot({ series: this.lines, isShare: each.is_share, exact: each.exact, width, first, last });
    this.field.replaceChildren(this.drawing.svg);
    this.field.setAttribute("aria-valuemin", first);
    this.field.setAttribute("aria-valuemax", last);
    this.caption.replaceChildren(...this.captionParts(lines));
    this.at(cursor);
  }

  captionParts(lines) {
    const own = lines.filter((line) => !line.run);
    this.value = h("span.ends");
    const about = own.length > 1 ? own.map((line) => this.legendEntry(line)) : [this.each.note];
    return [h("b", {}, this.title), this.value, h("span.about", {}, about)];
  }

  legendEntry(line) {
    const name = `${this.title}/${line.label}`;
    const toggle = () => {
      if (hidden.has(name)) hidden.delete(name);
      else if (this.lines.some((other) => other.label !== line.label)) hidden.add(name);
      dispatchEvent(new Event("redraw"));
      [...this.caption.querySelectorAll("button")].find((button) => button.dataset.name === name)?.focus();
    };
    return h("button.legend", { type: "button", "data-name": name, "aria-pressed": String(!hidden.has(name)), onclick: toggle }, h("i", { class: `${line.colour} ${line.dash}` }), line.label, h("span.ends", { "data-line": line.label }));
  }

  /** Show the values at a step, in place of the first and last ones. */
  at(step) {
    const values = this.drawing.at(step);
    const texts = this.lines.map((line, index) => (step !== null ? number(values[index], this.each.is_share) : this.lines.some((line) => line.run) ? this.drawing.ends[index][1] : this.drawing.ends[index].join(" → ")));
    const spans = this.caption.querySelectorAll("[data-line]");
    for (const span of spans) span.textContent = this.lines.flatMap((line, index) => (line.label === span.dataset.line ? [texts[index]] : [])).join(" | ");
    this.value.textContent = step === null ? (spans.length ? "" : texts.join(" | ")) : `step ${step}${spans.length ? "" : `: ${texts.join(" | ")}`}`;
    this.field.setAttribute("aria-valuenow", step ?? this.last);
    this.field.setAttribute("aria-valuetext", `step ${step ?? this.last}: ${this.lines.map((line, index) => `${line.label} ${number(step === null ? line.smooth.at(-1) : values[index], this.each.is_share)}`).join(", ")}`);
  }

  key(event) {
    const place = nearest(this.steps, cursor ?? this.last);
    const to = { ArrowLeft: place - 1, ArrowDown: place - 1, ArrowRight: place + 1, ArrowUp: place + 1, PageDown: place - 10, PageUp: place + 10, Home: 0, End: this.steps.length - 1 }[event.key];
    if (event.key === "Enter") this.openStep(cursor ?? this.last);
    else if (to !== undefined) moveTo(this.steps[Math.max(0, Math.min(to, this.steps.length - 1))]);
    else return;
    event.preventDefault();
  }

  openStep(step) {
    if (this.stored.length) go({ view: "rollouts", step: this.stored[nearest(this.stored, step)], group: null });
  }
}

function moveTo(step) {
  if (step === cursor) return;
  cursor = step;
  for (const panel of panels.values()) if (panel.element.isConnected) panel.at(step);
}

