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
  const part = (status, title, note = null) => {
    const checks = found.checks.filter((check) => check.status === status);
    if (!checks.length) return null;
    return [
      h("h2", title, note ? h("span.note", note) : null),
      h(
        "ul.checks",
        checks.map((check) => checkItem(found, check)),
      ),
    ];
  };
  return [
    verdict(run, found),
    found.is_fault ? part("attention", "Symptoms", SYMPTOMS) : part("attention", "Need attention"),
    part("healthy", "Within limits"),
    part("not applicable", "Not applicable"),
  ];
}

export const SYMPTOMS = "They can follow from the fault above: repair that first.";

/** The plots that show a fault, by verdict: the page draws them first. */
const PLOTS = {
  hacking: ["Reward", "Held-out accuracy", "Held-out judges", "Reward parts", "Audit of verdicts"],
  collapsed: ["Held-out accuracy", "Entropy", "Truncated", "Zero-variance groups", "Loss", "Held-out loss"],
  starved: ["Reward parts", "Zero-variance groups", "Truncated", "Gradient norm"],
  mismatched: ["Sampler-trainer gap", "Entropy", "Truncated"],
};

/** The titles of the plots behind a stage's verdict. */
export const plotsOf = (run, stage) => {
  const found = (healthOf(run) ?? []).find((entry) => entry.stage === stage.id);
  return { verdict: found?.verdict, titles: PLOTS[found?.verdict] ?? [] };
};

/** The numbers that a stage's metrics should not pass, each with the status of its check. */
export const boundsOf = (run, stage) => {
  const found = (healthOf(run) ?? []).find((entry) => entry.stage === stage.id);
  return (found?.checks ?? []).flatMap(({ bounds, status }) => bounds.map((bound) => ({ ...bound, status })));
};

/** What is wrong, the figures that show it, what to change, and where to see it. */
export const verdict = (run, found, name = "") =>
  h(
    "div.verdict",
    { class: found.is_fault ? "bad" : found.verdict === "healthy" ? "good" : "" },
    h("p.name", h("b", capital(found.verdict)), name),
    h("p", found.evidence.join("; ")),
    found.remedy ? h("p.remedy", found.remedy) : null,
    found.is_fault ? seeAlso(run, found) : null,
  );

/** Links to what the remedy tells to look at. */
function seeAlso(run, found) {
  const { has } = [...run.stages, ...run.earlier].find(({ id }) => id === found.stage) ?? { has: {} };
  const at = { run: run.id, stage: found.stage, step: null, group: null, row: null, q: null, filter: null };
  return h(
    "p.see",
    has.curves && PLOTS[found.verdict] ? h("a", { href: link({ ...at, view: "curves" }) }, "Plots behind it") : null,
    has.rollouts
      ? h("a", { href: link({ ...at, view: "rollouts", sort: "reward" }) }, "Last rollouts, highest reward first")
      : null,
  );
}

/** The verdict as a mark beside a name: green only for a healthy one; nothing while it is too early. */
export function mark(found) {
  if (!found || (!found.is_fault && found.verdict !== "healthy")) return null;
  return h(found.is_fault ? "span.fault" : "span.is-healthy", found.verdict);
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const WORDS = { healthy: "within limits", attention: "attention", "not applicable": "not applicable" };

/**
 * A check with its evidence, its limit, and what to change if something is wrong: under a fault its remedy comes first,
 * and that of a symptom is left out. `name` of the stage if others are listed beside it.
 */
export const checkItem = (found, check, run = null, name = "") =>
  h(
    "li",
    { class: check.status },
    h(
      "b",
      run
        ? [h("a", { href: link({ run: run.id, stage: found.stage, view: "health" }) }, name), ` · ${check.name}`]
        : check.name,
    ),
    h("span.state", { class: check.status }, WORDS[check.status]),
    h("p", check.evidence, check.limit ? ` · limit: ${check.limit}` : null),
    check.advice && !found.is_fault ? h("p.advice", check.advice) : null,
  );
