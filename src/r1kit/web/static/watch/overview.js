// A run at a glance: what it does now, what needs attention, what was measured, and its stages as a table.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { duration, many, number } from "./format.js";
import { STATES } from "./rail.js";
import { link } from "./state.js";

export const events = ["stage", "runs", "step"];

let health = { run: "", stages: null };

/** The checks come when they are ready: the rest of the page needs nothing that is not here already. */
export function load({ run }) {
  if (health.run !== run.id) health = { run: run.id, stages: null };
  get(`${ofRun(run.id)}/health`).then(({ stages }) => {
    health = { run: run.id, stages };
    dispatchEvent(new Event("redraw"));
  }, () => {}); // the page says by itself that the server is gone
}

export function render({ run }) {
  const stages = health.stages ?? [];
  const worries = stages.flatMap((stage) => stage.checks.filter((check) => check.status === "attention").map((check) => [stage, check]));
  const checked = stages.reduce((sum, stage) => sum + stage.checks.length, 0);
  return [
    verdicts(stages.filter(isFault)),
    h("div.halves", {}, h("section", {}, h("h2", {}, "Health"), health.stages ? attention(worries, checked, run) : h("p.note", {}, "Reading the checks …")), measured(run)),
    h("section", {}, h("h2", {}, "Stages"), stageTable(run)),
  ];
}

/** One line for each stage with a verdict: what is wrong, why it is thought, what to change. */
export function verdicts(stages) {
  const judged = stages.filter((stage) => stage.verdict);
  return judged.map((stage) =>
    h(
      "div.verdict",
      { class: isFault(stage) ? "bad" : stage.verdict === "healthy" ? "good" : "", "data-key": `verdict/${stage.stage}` },
      h("b", {}, `${stage.name}: ${stage.verdict}`),
      h("p", {}, [stage.evidence].flat().join("; ")),
      stage.advice ? h("p.advice", {}, stage.advice) : null,
    ),
  );
}

const isFault = ({ verdict }) => Boolean(verdict) && !["healthy", "too early to tell"].includes(verdict);

function attention(worries, checked, run) {
  if (!checked) return h("p.note", {}, "Checks appear with the first steps of a stage of reinforcement learning.");
  if (!worries.length) return h("p.fine", {}, `All ${many(checked, "check")} are healthy.`);
  return [
    h("p.note", {}, `${many(worries.length, "check")} of ${checked} need${worries.length === 1 ? "s" : ""} a look.`),
    h("ul.checks", {}, worries.map(([stage, check]) => checkItem(check, h("a", { href: link({ run: run.id, stage: stage.stage, view: "health" }) }, stage.name)))),
  ];
}

/** A check with its evidence, and what to change if something is wrong. */
export const checkItem = (check, where = null) =>
  h(
    "li",
    { "data-key": where ? null : check.name, class: check.status },
    h("b", {}, where ? [where, ` · ${check.name}`] : check.name),
    h("span.state", { class: check.status }, check.status === "healthy" ? "healthy" : "look here"),
    h("p", {}, check.evidence),
    check.advice ? h("p.advice", {}, check.advice) : null,
  );

/** The accuracy of each model that was measured: `eval-zero` is the row zero of the column eval. */
function measured(run) {
  const stages = run.stages.filter((stage) => stage.kind === "evaluate" && typeof stage.metrics?.["pass@1"] === "number");
  if (!stages.length) return null;
  const rows = new Map();
  for (const stage of stages) {
    const [, column, row] = /^([^-]*)-?(.*)$/.exec(stage.name);
    rows.set(row, { ...rows.get(row), [column]: stage });
  }
  const columns = [...new Set([...rows.values()].flatMap((row) => Object.keys(row)))];
  return h(
    "section",
    {},
    h("h2", {}, "Measured", h("span.note", {}, "pass@1 on held-out problems")),
    h(
      "table.bars",
      {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Model"), columns.map((column) => h("th", { scope: "col", colspan: 2 }, column)))),
      h("tbody", {}, [...rows].map(([name, row]) => h("tr", { "data-key": name }, h("th", { scope: "row" }, name), columns.map((column) => cell(run, row[column]))))),
    ),
  );
}

function cell(run, stage) {
  if (!stage) return [h("td"), h("td")];
  const share = number(stage.metrics["pass@1"], true);
  return [h("td.bar", {}, h("meter", { min: 0, max: 1, value: stage.metrics["pass@1"], "aria-label": share })), h("td.number", {}, h("a", { href: link({ run: run.id, stage: stage.id }) }, share))];
}

function stageTable(run) {
  const row = (stage) =>
    h(
      "tr",
      { "data-key": stage.id },
      h("th", { scope: "row" }, h("a", { href: link({ run: run.id, stage: stage.id }) }, stage.name)),
      h("td", {}, stage.kind),
      h("td", {}, h("span.state", { class: stage.state }, STATES[stage.state] ?? stage.state)),
      h("td.number", {}, stage.total ? `${stage.done ?? 0} / ${stage.total}` : ""),
      h("td.number", {}, duration(stage.seconds)),
      h("td.long", {}, stage.error || stage.note || ""),
    );
  return h(
    "div.scroll",
    { tabindex: 0, role: "region", "aria-label": "Stages" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["Stage", "Kind", "State"].map((name) => h("th", { scope: "col" }, name)), ["Steps", "Took"].map((name) => h("th.number", { scope: "col" }, name)), h("th", { scope: "col" }, "Last figures"))),
      h("tbody", {}, run.stages.map(row)),
    ),
  );
}
