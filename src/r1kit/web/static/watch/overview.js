// A run at a glance: what it does now, what needs attention, what was measured, and its stages as a table.

import { h } from "./dom.js";
import { duration, many, number } from "./format.js";
import { checkItem, decisive, healthOf, SYMPTOMS, verdict } from "./health.js";
import { STATES } from "./rail.js";
import { link } from "./state.js";

export const events = [];

export const load = async () => null;

export function render({ run }) {
  const first = decisive(run);
  return [
    first
      ? verdict(
          run,
          first,
          h("a", { href: link({ run: run.id, stage: first.stage, view: "health" }) }, `stage ${nameOf(run, first)}`),
        )
      : null,
    h("div.halves", h("section", h("h2", "Health"), attention(run)), measured(run)),
    h("section", h("h2", "Stages"), stageTable(run)),
  ];
}

/** Other stages with a fault, and all checks that need a look. */
function attention(run) {
  const stages = healthOf(run);
  if (!stages) return h("p.note", "Reading the checks …");
  if (!stages.length) return h("p.note", "A verdict appears with the first steps of a stage that trains.");
  const worries = stages.flatMap((stage) =>
    stage.checks.filter((check) => check.status === "attention").map((check) => [stage, check]),
  );
  const isFault = stages.some((stage) => stage.is_fault);
  const checked = stages.reduce((sum, stage) => sum + stage.checks.length, 0);
  return [
    h(
      "ul.verdicts",
      stages.map((stage) =>
        h(
          "li",
          { "data-key": stage.stage },
          h("a", { href: link({ run: run.id, stage: stage.stage, view: "health" }) }, nameOf(run, stage)),
          h("span.state", { class: verdictClass(stage) }, stage.verdict),
        ),
      ),
    ),
    h(
      "p.note",
      worries.length
        ? `${worries.length} of ${many(checked, "check")} need${worries.length === 1 ? "s" : ""} attention. ${isFault ? SYMPTOMS : ""}`
        : `No check of ${checked} needs attention.`,
    ),
    h(
      "ul.checks",
      worries.map(([stage, check]) => checkItem(stage, check, run, nameOf(run, stage))),
    ),
  ];
}

/** The name that the list of stages has; a report may call the same stage otherwise. */
const nameOf = (run, { stage, name }) =>
  [...run.stages, ...run.earlier].find((entry) => entry.id === stage)?.name ?? name;

const verdictClass = (stage) => (stage.is_fault ? "failed" : stage.verdict === "healthy" ? "healthy" : "");

/** The accuracy of each model that was measured: `eval-zero` is the row zero of the column eval. */
function measured(run) {
  const stages = run.stages.filter(
    (stage) => stage.kind === "evaluate" && typeof stage.metrics?.["pass@1"] === "number",
  );
  if (!stages.length) return null;
  const rows = new Map();
  for (const stage of stages) {
    const [, column, row] = /^([^-]*)-?(.*)$/.exec(stage.name);
    rows.set(row, { ...rows.get(row), [column]: stage });
  }
  const columns = [...new Set([...rows.values()].flatMap((row) => Object.keys(row)))];
  return h(
    "section",
    h("h2", "Measured", h("span.note", "pass@1 on held-out problems")),
    h(
      "table.bars",
      h(
        "thead",
        h(
          "tr",
          h("th", { scope: "col" }, "Model"),
          columns.map((column) => h("th", { scope: "col", colspan: 2 }, column)),
        ),
      ),
      h(
        "tbody",
        [...rows].map(([name, row]) =>
          h(
            "tr",
            { "data-key": name },
            h("th", { scope: "row" }, name),
            columns.map((column) => cell(run, row[column])),
          ),
        ),
      ),
    ),
  );
}

function cell(run, stage) {
  if (!stage) return [h("td"), h("td")];
  const share = number(stage.metrics["pass@1"], true);
  return [
    h("td.bar", h("meter", { min: 0, max: 1, value: stage.metrics["pass@1"], "aria-label": share })),
    h("td.number", h("a", { href: link({ run: run.id, stage: stage.id }) }, share)),
  ];
}

function stageTable(run) {
  const hasNotes = run.stages.some((stage) => stage.error || stage.note); // of stages that run, or that failed
  const row = (stage) =>
    h(
      "tr",
      { "data-key": stage.id },
      h("th", { scope: "row" }, h("a", { href: link({ run: run.id, stage: stage.id }) }, stage.name)),
      h("td", stage.kind),
      h("td", h("span.state", { class: stage.state }, STATES[stage.state] ?? stage.state)),
      h("td.number", stage.total ? `${stage.done ?? 0} / ${stage.total}` : ""),
      h("td.number", duration(stage.seconds)),
      hasNotes ? h("td.long", stage.error || stage.note || "") : null,
    );
  return h(
    "div.scroll",
    { tabindex: 0, role: "region", "aria-label": "Stages" },
    h(
      "table",
      h(
        "thead",
        h(
          "tr",
          ["Stage", "Kind", "State"].map((name) => h("th", { scope: "col" }, name)),
          ["Steps", "Took"].map((name) => h("th.number", { scope: "col" }, name)),
          hasNotes ? h("th", { scope: "col" }, "Last figures") : null,
        ),
      ),
      h("tbody", run.stages.map(row)),
    ),
  );
}
