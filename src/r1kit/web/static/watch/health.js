// Is a stage broken, in which way, how does one see it, and what helps? Verdicts, and the checks behind them.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { link } from "./state.js";

export const events = [];

let known = { run: "", stages: null, verdict: null };

/** What is known of a run; null until the first answer. */
export const healthOf = (run) => (known.run === run.id ? known.stages : null);

/** The stage whose verdict decides for the run. */
export const decisive = (run) => (known.run === run.id ? known.verdict : null);

/** Ask again. The page is drawn without waiting, and once more when the answer is here. */
export function refreshHealth(run) {
  get(`${ofRun(run.id)}/health`).then(
    (answer) => {
      known = { run: run.id, ...answer };
      dispatchEvent(new Event("redraw"));
    },
    () => {}, // the page says elsewhere that the server is gone
  );
}

export const load = async () => null;

export function render({ run, stage }) {
  const stages = healthOf(run);
  if (!stages) return h("p.empty", "Reading the checks …");
  const found = stages.find((entry) => entry.stage === stage.id);
  if (!found) return h("p.empty", "A verdict appears with the first steps.");
  const worries = found.checks.filter((check) => check.status === "attention");
  const fine = found.checks.filter((check) => check.status !== "attention");
  return [
    verdict(found),
    worries.length
      ? [
          h("h2", "Look here"),
          h(
            "ul.checks",
            worries.map((check) => checkItem(check)),
          ),
        ]
      : null,
    fine.length
      ? [
          h("h2", "Healthy"),
          h(
            "ul.checks",
            fine.map((check) => checkItem(check)),
          ),
        ]
      : null,
  ];
}

/** What is wrong, the figures that show it, and what to change. */
export const verdict = (found, name = "") =>
  h(
    "div.verdict",
    { class: found.is_fault ? "bad" : found.verdict === "healthy" ? "good" : "" },
    h("p.name", h("b", capital(found.verdict)), name),
    h("p", found.evidence.join("; ")),
    found.remedy ? h("p.remedy", found.remedy) : null,
  );

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A check with its evidence, and what to change if something is wrong. `stage` if others are listed beside it. */
export const checkItem = (check, run = null, stage = null, name = "") =>
  h(
    "li",
    { class: check.status },
    h(
      "b",
      stage
        ? [h("a", { href: link({ run: run.id, stage: stage.stage, view: "health" }) }, name), ` · ${check.name}`]
        : check.name,
    ),
    h("span.state", { class: check.status }, check.status === "healthy" ? "healthy" : "look here"),
    h("p", check.evidence),
    check.advice ? h("p.advice", check.advice) : null,
  );
