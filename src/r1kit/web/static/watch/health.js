// Is a stage broken, in which way, how does one see it, and what helps? Verdicts, and the checks behind them.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { link } from "./state.js";

export const events = [];

const MOST_RUNS = 30; // of the list whose verdicts are asked for
const known = new Map(); // by run: the stages, the verdict that decides, and when the run had changed

/** What is known of a run; null until the first answer. */
export const healthOf = (run) => known.get(run.id)?.stages ?? null;

/** The stage whose verdict decides for the run. */
export const decisive = (run) => known.get(run.id)?.verdict ?? null;

async function ask(run) {
  known.set(run.id, { ...(await get(`${ofRun(run.id)}/health`)), changed: run.changed });
  dispatchEvent(new Event("redraw"));
}

/** Ask again. The page is drawn without waiting, and once more when the answer is here. */
export function refreshHealth(run) {
  ask(run).catch(() => {}); // the page says elsewhere that the server is gone
}

/** Ask for the runs of the list that have changed, one after the other: a list of long runs must not hold up the view. */
export async function refreshList(runs) {
  try {
    for (const run of runs.slice(0, MOST_RUNS)) if (known.get(run.id)?.changed !== run.changed) await ask(run);
  } catch {
    // as above
  }
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
