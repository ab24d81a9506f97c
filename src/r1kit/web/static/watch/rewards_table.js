// The numbers of a group as a table: verdict, advantage, reward and its parts.

import { h } from "./dom.js";
import { number, signed } from "./format.js";

const VERDICTS = { right: "right", wrong: "wrong", unknown: "no verdict", failed: "verifier failed" };
const BADGES = { right: "passed", wrong: "failed", unknown: "unknown", failed: "unknown" };

/** One line for each completion of a group; `matching` are the row numbers of those that are looked for. */
export function rewardsTable(completions, matching) {
  const parts = [...new Set(completions.flatMap((completion) => Object.keys(completion.parts)))];
  const widest = Math.max(...completions.map((completion) => Math.abs(completion.advantage ?? 0)), 1e-9);
  const head = (name) => h("th.number", { scope: "col" }, name);
  return h(
    "table.rewards",
    h(
      "thead",
      h(
        "tr",
        h("th", { scope: "col" }, "#"),
        h("th", { scope: "col" }, "Verdict"),
        head("Advantage"),
        h("th", h("span.quiet", "Advantage as a bar")),
        head("Reward"),
        parts.map(head),
        head("Tokens"),
        h("th", { scope: "col" }, "Marks"),
      ),
    ),
    h(
      "tbody",
      completions.map((completion, index) =>
        h(
          "tr",
          { class: matching.has(completion.at.row) ? "match" : "" },
          h(
            "th",
            { scope: "row" },
            h(
              "button.plain",
              { type: "button", onclick: () => toCard(index), "aria-label": `Show completion ${index + 1}` },
              String(index + 1),
            ),
          ),
          h("td", badge(completion.verdict)),
          h("td.number", signed(completion.advantage)),
          h("td", advantageBar((completion.advantage ?? 0) / widest)),
          h("td.number", number(completion.reward)),
          parts.map((part) => h("td.number", number(completion.parts[part]))),
          h("td.number", number(completion.tokens)),
          h("td", marks(completion).join(", ")),
        ),
      ),
    ),
  );
}

export const marks = ({ truncated, mixed, wrong_formatted: formatted }) =>
  [truncated && "truncated", mixed && "mixed languages", formatted && "wrong but well formed"].filter(Boolean);

export const badge = (verdict) =>
  h("span", { class: BADGES[verdict] ?? "" }, h("span.badge", VERDICTS[verdict] ?? "not judged"));

function advantageBar(share) {
  const bar = h("span.advantage", { "aria-hidden": "true" }, h("i", { class: share < 0 ? "minus" : "plus" }));
  bar.firstChild.style.width = `${Math.abs(share) * 50}%`;
  return bar;
}

function toCard(index) {
  const card = document.getElementById(`completion-${index}`);
  card.scrollIntoView({ block: "start" });
  card.focus({ preventScroll: true });
}
