// What surrounds a view: the heading of a run or a stage, and the views that a stage has.

import { h } from "./dom.js";
import { duration } from "./format.js";
import { healthOf, mark } from "./health.js";
import { STATES } from "./rail.js";
import { link } from "./state.js";

const TITLES = {
  curves: "Curves",
  health: "Health",
  rollouts: "Rollouts",
  rows: "Rows",
  settings: "Settings",
  log: "Log",
};
const ENDED_EARLY = ["died", "stopped", "failed"];

/** The views of a stage, in order. */
export function viewsOf({ has }) {
  const needs = { curves: has.curves, health: has.curves, rollouts: has.rollouts, rows: has.rows.length > 0 };
  return Object.keys(TITLES).filter((name) => needs[name] ?? true);
}

export const VIEW_NAMES = Object.keys(TITLES);

const stateOf = ({ state }) => h("span.state", { class: state }, STATES[state] ?? state);

export function runHeading(run) {
  return h(
    "header.head",
    h("div.title", h("h1", { dir: "auto" }, run.title || run.name), h("p.says", stateOf(run), run.says)),
    run.state === "running"
      ? h("progress", { max: run.stages_total, value: run.stages_done, "aria-label": "Stages done" })
      : null,
    run.command
      ? h(
          "p.note",
          ENDED_EARLY.includes(run.state) ? "The same command goes on where it stopped: " : null,
          h("code", run.command),
        )
      : null,
  );
}

export function stageHeading(run, stage, current) {
  const reset = { step: null, group: null, row: null, at: null, file: null, q: null, filter: null, before: null };
  const tab = (name, address) =>
    h("a", { href: address, "aria-current": name === current ? "page" : null }, TITLES[name] ?? "Lineage");
  return h(
    "header.head",
    h(
      "div.title",
      h("h1", { dir: "auto" }, stage.name, stage.kind === stage.name ? null : h("span.kind", stage.kind)),
      h("p.says", stateOf(stage), says(stage), verdictLink(run, stage)),
    ),
    stage.state === "running" && stage.total
      ? h("progress", { max: stage.total, value: stage.done ?? 0, "aria-label": "Steps done" })
      : null,
    h(
      "nav",
      { "aria-label": "Views" },
      viewsOf(stage).map((name) => tab(name, link({ view: name, ...reset }))),
      current === "lineage" ? tab("lineage", location.hash) : null,
    ),
  );
}

function says(stage) {
  if (stage.state === "done") return stage.seconds === null ? "" : `in ${duration(stage.seconds)}`;
  if (stage.state !== "running") return stage.error;
  const steps = stage.total ? `step ${stage.done ?? 0} of ${stage.total}` : "";
  return [steps, stage.seconds_left === null ? "" : `about ${duration(stage.seconds_left)} left`]
    .filter(Boolean)
    .join(", ");
}

/** The verdict stands wherever the stage is shown. */
function verdictLink(run, stage) {
  const found = mark((healthOf(run) ?? []).find((entry) => entry.stage === stage.id));
  return found ? h("a", { href: link({ view: "health" }) }, found) : null;
}

export const trouble = (text) => h("div.trouble", { role: "alert" }, h("p", text), h("a", { href: "#" }, "All runs"));

export const emptyFolder = (folder) =>
  h(
    "div.empty",
    h("h1", "No run yet"),
    h(
      "p",
      "This page shows runs below ",
      h("code", folder),
      ". The first appears here as soon as it starts, for example with",
    ),
    h("pre", "r1kit run r1 --scale tiny"),
  );
