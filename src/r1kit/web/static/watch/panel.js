// A plot with its caption, legend and crosshair; one crosshair goes through all plots.

import { h } from "./dom.js";
import { number } from "./format.js";
import { plot } from "./plot.js";
import { max, min, nearest } from "./scale.js";
import { go } from "./state.js";

const hidden = new Set(); // names of series that the legend has switched: off, or on if they are folded
const MOST = 3; // series of a plot that are drawn for several runs at once
const MOST_TOLD = 2; // compared runs whose figures are told one by one
const panels = new Map(); // by title
let cursor = null; // a step

/** Whether there are so many compared runs that their figures are told as a range. */
export const isMany = (compared) => compared.length > MOST_TOLD;

/** The panel of a title. Panels outlive redraws, so that focus and crosshair stay where the reader has them. */
export function panelOf(title) {
  if (!panels.has(title)) panels.set(title, new Panel(title));
  return panels.get(title);
}

/** For another stage. */
export function clearPanels() {
  panels.clear();
  cursor = null;
}

class Panel {
  constructor(title) {
    this.title = title;
    this.caption = h("figcaption");
    this.field = h("div.plot", { role: "slider", tabindex: 0, "aria-label": title });
    this.element = h("figure", { "data-key": title, "data-keep": title }, this.caption, this.field);
    this.field.onpointermove = (event) => moveTo(this.drawing.stepAt(event));
    this.field.onpointerleave = () => moveTo(null);
    this.field.onblur = () => moveTo(null);
    // a finger on a plot looks at values
    this.field.onclick = (event) => event.pointerType !== "touch" && this.openStep(this.drawing.stepAt(event));
    this.field.onkeydown = (event) => this.key(event);
  }

  /** Of the runs `compared`, `lacking` have no line in this plot, and the reader has brought one `inFront`, or "". */
  update(each, lines, { bounds, width, first, last, stored, lacking, compared, inFront }) {
    Object.assign(this, { each, stored, first, last, inFront, isCompared: compared.length > 0 });
    this.isMany = isMany(compared);
    this.note = lacking.length ? `not logged by ${lacking.join(", ")}` : each.note;
    // many lines of several runs cannot be told apart: then one is shown, and the others on demand
    this.folded = this.isCompared && each.series.length > MOST ? each.series[0].label : null;
    const shownLines = lines.filter((line) => this.isShown(line));
    this.lines = inFront ? behind(shownLines, inFront) : shownLines;
    this.steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    const own = this.lines.filter((line) => !line.run);
    const shown = bounds.filter(({ metric }) => own.some((line) => line.metric === metric));
    const named = shown.map((bound) => ({ ...bound, name: own.length > 1 ? labelOf(own, bound) : "" }));
    const { is_share: isShare, exact } = each;
    this.drawing = plot({ series: this.lines, bounds: named, isShare, exact, width, first, last });
    this.drawing.svg.classList.toggle("many", this.isMany);
    this.field.replaceChildren(this.drawing.svg);
    this.field.setAttribute("aria-description", this.drawing.limits.join("; "));
    this.field.setAttribute("aria-valuemin", first);
    this.field.setAttribute("aria-valuemax", last);
    this.caption.replaceChildren(...this.captionParts(lines));
    this.at(cursor);
  }

  isShown({ label }) {
    const isFolded = this.folded !== null && label !== this.folded;
    return hidden.has(`${this.title}/${label}`) === isFolded;
  }

  captionParts(lines) {
    const own = lines.filter((line) => !line.run);
    this.value = h("span.ends");
    const legend = own.map((line) => this.legendEntry(line));
    const lacking = this.note === this.each.note ? null : h("span", this.note);
    this.about = h("span.about", own.length > 1 ? [legend, lacking] : this.note);
    return [h("b", this.title), this.value, this.about];
  }

  legendEntry(line) {
    const name = `${this.title}/${line.label}`;
    const toggle = () => {
      if (this.isShown(line) && this.lines.every((other) => other.label === line.label)) return; // the last one stays
      if (!hidden.delete(name)) hidden.add(name);
      dispatchEvent(new Event("redraw"));
      [...this.caption.querySelectorAll("button")].find((button) => button.dataset.name === name)?.focus();
    };
    return h(
      "button.legend",
      { type: "button", "data-name": name, "aria-pressed": String(this.isShown(line)), onclick: toggle },
      h("i", { class: `${line.colour} ${line.dash}` }),
      line.label,
      h("span.ends", { "data-line": line.label }),
    );
  }

  /** Show the values at a step, in place of the first and last ones. */
  at(step) {
    const values = this.drawing.at(step);
    const figures = step === null ? this.lines.map((line) => line.ends[1]) : values;
    const labels = [...new Set(this.lines.map((line) => line.label))];
    const text = (label) => (step === null && !this.isCompared ? this.course(label) : this.told(figures, label));
    const spans = this.caption.querySelectorAll("[data-line]");
    for (const span of spans) span.textContent = labels.includes(span.dataset.line) ? text(span.dataset.line) : "";
    const named = step === null ? "" : `step ${step}`;
    this.value.textContent = spans.length ? named : text(labels[0]);
    if (!spans.length) this.about.textContent = named || this.note; // beside both, a long title has no room
    const spoken = labels.map((label) => `${label} ${this.told(figures, label)}`);
    this.field.setAttribute("aria-valuenow", step ?? this.last);
    this.field.setAttribute("aria-valuetext", `step ${step ?? this.last}: ${spoken.join(", ")}`);
  }

  course(label) {
    const { ends } = this.lines.find((line) => line.label === label);
    return ends.map((value) => number(value, this.each.is_share)).join(" → ");
  }

  /** One value of each line as text: this run's, and of the compared ones each, that in front, or their range. */
  told(values, label) {
    const text = (value) => number(value, this.each.is_share);
    const of = (isWanted) => values.filter((_, place) => this.lines[place].label === label && isWanted(this.lines[place]));
    const own = of((line) => !line.run);
    if (this.inFront || !this.isMany)
      return [...own, ...of((line) => line.run && (!this.inFront || line.run === this.inFront))].map(text).join(" | ");
    const others = of((line) => line.run).filter(Number.isFinite);
    return [...own.map(text), others.length ? `${text(min(others))} … ${text(max(others))}` : "–"].join(" | ");
  }

  key(event) {
    const place = nearest(this.steps, cursor ?? this.last);
    const to = {
      ArrowLeft: place - 1,
      ArrowDown: place - 1,
      ArrowRight: place + 1,
      ArrowUp: place + 1,
      PageDown: place - 10,
      PageUp: place + 10,
      Home: 0,
      End: this.steps.length - 1,
    }[event.key];
    if (event.key === "Enter") this.openStep(cursor ?? this.last);
    else if (to !== undefined) moveTo(this.steps[Math.max(0, Math.min(to, this.steps.length - 1))]);
    else return;
    event.preventDefault();
  }

  openStep(step) {
    if (this.stored.length) go({ view: "rollouts", step: this.stored[nearest(this.stored, step)], group: null });
  }
}

/** The lines of all compared runs but one first, so that the others lie over them; they become pale. */
function behind(lines, run) {
  const isBack = (line) => line.run && line.run !== run;
  return [...lines.filter(isBack).map((line) => ({ ...line, isBack: true })), ...lines.filter((line) => !isBack(line))];
}

const labelOf = (lines, { metric }) => lines.find((line) => line.metric === metric).label;

function moveTo(step) {
  if (step === cursor) return;
  cursor = step;
  for (const panel of panels.values()) if (panel.element.isConnected) panel.at(step);
}
