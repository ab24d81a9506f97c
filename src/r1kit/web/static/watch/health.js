// The checks of one stage: evidence for or against each known way to go wrong, and what to change.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { checkItem, verdicts } from "./overview.js";

export const events = ["step"];

export async function load({ run, stage }) {
  const { stages } = await get(`${ofRun(run.id)}/health`);
  return stages.filter((entry) => entry.stage === stage.id);
}

export function render({ stage }, found) {
  const checks = found.flatMap((entry) => entry.checks);
  if (!checks.length) return h("p.empty", {}, stage.kind === "rl" ? "The checks appear with the first steps." : "Only stages of reinforcement learning have these checks.");
  const worries = checks.filter((check) => check.status === "attention");
  const fine = checks.filter((check) => check.status !== "attention");
  return [
    verdicts(found),
    worries.length ? h("ul.checks", {}, worries.map((check) => checkItem(check))) : h("p.fine", {}, "Nothing needs a look."),
    fine.length && worries.length ? h("h2", {}, "Healthy") : null,
    h("ul.checks", {}, fine.map((check) => checkItem(check))),
  ];
}
