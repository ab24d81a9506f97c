// A stage's settings, what it read and where it ran; and its log.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { link } from "./state.js";

export const settings = {
  events: [],
  load: ({ run, stage }) => get(`${ofRun(run.id)}/settings`, { stage: stage.id }),
  render: ({ run }, { settings: values, facts, inputs }) => [
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

export const log = {
  events: ["stage", "step"],
  load: ({ run, stage }) => get(`${ofRun(run.id)}/log`, { stage: stage.id }),
  render: (_, { lines }) =>
    lines.length
      ? h("pre.log", { tabindex: 0, role: "region", "aria-label": "Last lines of the log" }, lines.join("\n"))
      : h("p.empty", "No log is stored for this stage. Stages have a log of their own if several run at once (--jobs)."),
};
