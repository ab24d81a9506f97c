// A plot with its caption, legend and crosshair; one crosshair goes through all plots.

import { h } from "./dom.js";
import { number } from "./format.js";
import { plot } from "./plot.js";
import { nearest } from "./scale.js";
import { go } from "./state.js";

const hidden = new Set(); // names of series that the legend has switched: off, or on if they are folded
const MOST = 3; // series of a plot that are drawn for several runs at once
const panels = new Map(); // by title
let cursor = null; // a step

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

  /** `lacking` are the compared runs without a line in this plot. */
  update(each, lines, { width, first, last, stored, lacking, isCompared }) {
    Object.assign(this, { each, stored, first, last, isCompared });
    this.note = lacking.length ? `not logged by ${lacking.join(", ")}` : each.note;
    // many lines of several runs cannot be told apart: then one is shown, and the others on demand
    this.folded = isCompared && each.series.length > MOST ? each.series[0].label : null;
    this.lines = lines.filter((line) => this.isShown(line));
    this.steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    this.drawing = plot({ series: this.lines, isShare: each.is_share, exact: each.exact, width, first, last });
    this.field.replaceChildren(this.drawing.svg);
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
    const atStep = this.drawing.at(step).map((value) => number(value, this.each.is_share));
    const last = this.drawing.ends.map((ends) => ends[1]);
    const course = this.isCompared ? last : this.drawing.ends.map((ends) => ends.join(" → "));
    const texts = step === null ? course : atStep;
    const spans = this.caption.querySelectorAll("[data-line]");
    for (const span of spans) {
      const own = texts.filter((_, index) => this.lines[index].label === span.dataset.line);
      span.textContent = own.join(" | ");
    }
    const named = step === null ? "" : `step ${step}`;
    this.value.textContent = spans.length ? named : texts.join(" | ");
    if (!spans.length) this.about.textContent = named || this.note; // beside both, a long title has no room
    const spoken = (step === null ? last : atStep).map((text, index) => `${this.lines[index].label} ${text}`);
    this.field.setAttribute("aria-valuenow", step ?? this.last);
    this.field.setAttribute("aria-valuetext", `step ${step ?? this.last}: ${spoken.join(", ")}`);
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

function moveTo(step) {
  if (step === cursor) return;
  cursor = step;
  for (const panel of panels.values()) if (panel.element.isConnected) panel.at(step);
}
