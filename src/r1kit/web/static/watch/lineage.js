// From an answer or a training row back to the prompt: a trail of links, each checked by hash where that is possible.

import { getOnce, ofRun } from "./api.js";
import { h } from "./dom.js";
import { many } from "./format.js";
import { badge } from "./rewards_table.js";
import { link, state } from "./state.js";
import { completionText, facts } from "./text.js";

export const events = [];

const CHECKS = { same: ["✓", "checked"], differs: ["≠", "differs"], "not recorded": ["–", "not recorded"] };

export const load = ({ run, stage }) =>
  getOnce(`${ofRun(run.id)}/lineage`, { stage: stage.id, file: state.file, row: state.at });

export function render({ run }, { links }) {
  const checked = links.filter((each) => each.check === "same").length;
  const differing = links.filter((each) => each.check === "differs").length;
  const summary = [many(links.length, "link"), `${checked} checked by hash`, differing ? `${differing} differ` : null]
    .filter(Boolean)
    .join(", ");
  return [
    h("p.note", `Where this text comes from: ${summary}.`),
    h(
      "ol.trail",
      links.map((each, index) => trailLink(run, each, index)),
    ),
  ];
}

function trailLink(run, each, index) {
  const [sign, name] = CHECKS[each.check] ?? CHECKS["not recorded"];
  return h(
    "li",
    { class: each.check.replace(" ", "-"), "data-key": `${index}/${each.where}` },
    h("span.mark", { "aria-hidden": "true" }, sign),
    h(
      "header",
      h("h2", each.title),
      h("span.kind", each.kind),
      h("span.how", h("b", name), each.how ? `: ${each.how}` : ""),
    ),
    each.why ? h("p.why", each.why) : null,
    h(
      "p.note",
      h("code", each.where),
      each.at ? [" · ", h("a", { href: placeOf(run, each.at) }, openName(each))] : null,
    ),
    facts(each.facts),
    each.text ? completionText({ text: each.text, thinking: each.thinking, key: `${index}/${each.where}` }) : null,
    each.siblings?.length ? siblings(run, each.siblings) : null,
  );
}

const openName = ({ at }) => (at.file.startsWith("rollouts/") ? "open its group" : "show its file");

/** The view that shows a row: its group for a rollout, its file for other rows. */
function placeOf(run, at) {
  const step = /^rollouts\/step-0*(\d+)\.jsonl$/.exec(at.file)?.[1];
  const place = step ? { view: "rollouts", step, row: at.row } : { view: "rows", file: at.file };
  return `#${new URLSearchParams({ run: run.id, stage: at.stage, ...place })}`;
}

const siblings = (run, all) =>
  h(
    "details.siblings",
    h("summary", many(all.length, "sibling"), h("span.note", "other samples of the same prompt")),
    h(
      "div.cards",
      all.map((each, index) =>
        h(
          "section.card",
          { "aria-label": `Sibling ${index + 1}` },
          h(
            "header",
            badge(each.verdict),
            each.at
              ? h(
                  "a",
                  {
                    href: `#${new URLSearchParams({ run: run.id, stage: each.at.stage, view: "lineage", file: each.at.file, at: each.at.row })}`,
                  },
                  "Lineage",
                )
              : null,
          ),
          each.reason ? h("p.why", each.reason) : null,
          completionText({ text: each.text ?? "", thinking: each.thinking, key: `sibling/${index}/${each.at?.row}` }),
          facts(each.facts ?? []),
        ),
      ),
    ),
  );
