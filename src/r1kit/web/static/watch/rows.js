// The rows of a data file or of an evaluation, page by page.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { badge } from "./rewards_table.js";
import { FILTERS } from "./filters.js";
import { go, link, state } from "./state.js";
import { completionText, facts } from "./text.js";

export const events = ["rows"];

const PAGE = 20;
const KNOWN = ["right", "wrong", "unknown", "not_judged", "wrong_formatted", "truncated", "mixed"];
let pages = { key: "", rows: [], next: 0 }; // what "more" has added to the first page

export async function load({ run, stage }) {
  const file = stage.has.rows.includes(state.file) ? state.file : stage.has.rows[0];
  if (!file) return null;
  const query = { stage: stage.id, file, text: state.q, filter: state.filter, limit: PAGE };
  const key = JSON.stringify([run.id, query]);
  if (pages.key !== key || pages.rows.length <= PAGE) {
    const { rows, next } = await get(`${ofRun(run.id)}/rows`, query);
    pages = { key, rows, next };
  }
  const more = async () => {
    const { rows, next } = await get(`${ofRun(run.id)}/rows`, { ...query, from: pages.next });
    pages = { key, rows: [...pages.rows, ...rows], next };
    dispatchEvent(new Event("redraw"));
  };
  return { file, more };
}

export function render({ stage }, data) {
  if (!data) return h("p.empty", "No rows yet. They appear as the stage writes them.");
  const { file, more } = data;
  return [
    h(
      "div.filters",
      { role: "search" },
      h(
        "div.chips",
        { role: "group", "aria-label": "File" },
        stage.has.rows.map((name) =>
          h(
            "a.chip",
            { href: link({ file: name, filter: null }), "aria-current": name === file ? "true" : null },
            name,
          ),
        ),
      ),
      h("input.find", {
        type: "search",
        id: "find",
        value: state.q ?? "",
        placeholder: "Find text",
        "aria-label": "Find text in the rows",
        onchange: (event) => go({ q: event.target.value }, { replace: true }),
      }),
      h(
        "label.check",
        "Show ",
        h(
          "select",
          { "aria-label": "Show only", onchange: (event) => go({ filter: event.target.value }) },
          h("option", { value: "", selected: !state.filter }, "all rows"),
          KNOWN.map((name) => h("option", { value: name, selected: state.filter === name }, FILTERS[name])),
        ),
      ),
    ),
    pages.rows.length
      ? h(
          "div.rows",
          pages.rows.map((row) => rowCard(row)),
        )
      : h("p.empty", state.q || state.filter ? "No row matches." : "This file is empty."),
    pages.next === null ? null : h("button", { type: "button", id: "more", onclick: more }, "More rows"),
  ];
}

function rowCard(row) {
  const key = `${row.at.stage}/${row.at.file}/${row.at.row}`;
  return h(
    "section.card",
    { "data-key": key, "data-keep": key, "aria-label": `Row ${row.at.row}` },
    h(
      "header",
      h("b", `${row.at.file}:${row.at.row}`),
      row.verdict ? badge(row.verdict) : null,
      h("a", { href: link({ view: "lineage", file: row.at.file, at: row.at.row }) }, "Lineage"),
    ),
    row.question ? h("h2.question", { dir: "auto" }, row.question) : null,
    completionText({ text: row.text ?? "", thinking: row.thinking, key }),
    facts([...(row.answer ? [["answer", row.answer]] : []), ...row.facts]),
  );
}
