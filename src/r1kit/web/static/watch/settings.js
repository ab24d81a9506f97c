// A stage's settings, what it read and where it ran; and its log.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { comparedRuns, twinOf } from "./rail.js";
import { link } from "./state.js";

export const settings = {
  events: [],
  async load({ run, stage }) {
    const settingsOf = (id, other) => get(`${ofRun(id)}/settings`, { stage: other.id });
    const others = comparedRuns().map(async (id) => {
      const twin = await twinOf(id, stage);
      return { name: id, settings: twin ? (await settingsOf(id, twin)).settings : [] };
    });
    return { ...(await settingsOf(run.id, stage)), others: await Promise.all(others) };
  },
  render: ({ run }, { settings: values, facts, inputs, others }) => [
    others.length ? differences([{ name: run.name, settings: values }, ...others]) : null,
    values.length
      ? h(
          "dl.settings",
          values.map(([name, value]) => h("div", h("dt", name), h("dd", value))),
        )
      : h("p.empty", "Settings appear when the stage starts."),
    inputs.length
      ? [
          h("h2", "Reads"),
          h(
            "dl.settings",
            inputs.map(([name, value, stage]) =>
              h(
                "div",
                h("dt", name),
                h("dd", stage ? h("a", { href: link({ run: run.id, stage, view: null }) }, value) : value),
              ),
            ),
          ),
        ]
      : null,
    facts.length
      ? [
          h("h2", "Made by"),
          h(
            "dl.settings",
            facts.map(([name, value]) => h("div", h("dt", name), h("dd", value))),
          ),
        ]
      : null,
  ],
};

/** A table of the settings that compared runs do not share. */
function differences(runs) {
  const columns = runs.map((each) => new Map(each.settings));
  const names = [...new Set(columns.flatMap((column) => [...column.keys()]))];
  const differing = names.filter((name) => new Set(columns.map((column) => column.get(name))).size > 1);
  if (!differing.length) return [h("h2", "Settings that differ"), h("p.note", "None."), h("h2", "All settings")];
  return [
    h("h2", "Settings that differ"),
    h(
      "div.scroll",
      { tabindex: 0, role: "region", "aria-label": "Settings that differ" },
      h(
        "table",
        h(
          "thead",
          h(
            "tr",
            ["Setting", ...runs.map((each) => each.name)].map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        h(
          "tbody",
          differing.map((name) =>
            h(
              "tr",
              h("th", { scope: "row" }, name),
              columns.map((column) => h(column.get(name)?.length > 40 ? "td.long" : "td", column.get(name) ?? "–")),
            ),
          ),
        ),
      ),
    ),
    h("h2", "All settings"),
  ];
}

export const log = {
  events: ["stage", "step"],
  load: ({ run, stage }) => get(`${ofRun(run.id)}/log`, { stage: stage.id }),
  render: (_, { lines }) =>
    lines.length
      ? h("pre.log", { tabindex: 0, role: "region", "aria-label": "Last lines of the log" }, lines.join("\n"))
      : h("p.empty", "No log is stored for this stage. Stages have a log of their own if several run at once (--jobs)."),
};
