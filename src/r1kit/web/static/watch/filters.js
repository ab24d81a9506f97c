// Which rollouts of a step are listed, and in which order: filters, text, sorting.

import { h } from "./dom.js";
import { go, state } from "./state.js";

export const FILTERS = {
  right: "right",
  wrong: "wrong",
  unknown: "no verdict",
  not_judged: "not judged",
  wrong_formatted: "wrong but well formed",
  truncated: "truncated",
  mixed: "mixed languages",
  highest: "highest advantage",
  lowest: "lowest advantage",
};
const SORTS = {
  "": "as trained",
  advantage: "highest advantage first",
  "-advantage": "lowest advantage first",
  reward: "highest reward first",
  "-reward": "lowest reward first",
  tokens: "longest first",
  "-tokens": "shortest first",
};

/** Whether the rewards of a group differ: without that no completion of it has an advantage. */
export const hasGradient = ({ completions }) => new Set(completions.map((completion) => completion.reward)).size > 1;

/** `3 of 8 right`, or that nothing judged the answers. */
export function rightOf({ completions }) {
  const judged = completions.some((completion) => completion.verdict !== null);
  const right = completions.filter((completion) => completion.verdict === "right").length;
  return judged ? `${right} of ${completions.length} right` : "not judged";
}

export function filterChips(list) {
  const chosen = state.filter ? state.filter.split(",") : [];
  const toggle = (name) =>
    go({
      filter: (chosen.includes(name) ? chosen.filter((other) => other !== name) : [...chosen, name]).join(","),
      group: null,
      row: null,
    });
  const chip = ([name, label]) => {
    const count = list?.counts[name];
    return h(
      "button.chip",
      {
        type: "button",
        "aria-pressed": String(chosen.includes(name)),
        "data-key": name,
        onclick: () => toggle(name),
        disabled: count === 0 && !chosen.includes(name),
      },
      label,
      count === undefined ? null : h("span.count", count.toLocaleString("en")),
    );
  };
  return h("div.chips", { role: "group", "aria-label": "Show only" }, Object.entries(FILTERS).map(chip));
}

export function searchBar() {
  const search = (event) =>
    later(() => go({ q: event.target.value, group: null, row: null, before: null }, { replace: true }));
  return h(
    "div.filters",
    { role: "search" },
    h("input.find", {
      type: "search",
      id: "find",
      value: state.q ?? "",
      placeholder: "Find text",
      "aria-label": "Find text in questions and completions",
      oninput: search,
    }),
    h(
      "label.check",
      h("input", {
        type: "checkbox",
        checked: Boolean(state.everywhere),
        onchange: () => go({ everywhere: state.everywhere ? null : 1, before: null }),
      }),
      "in all steps",
    ),
    h(
      "select",
      { onchange: (event) => go({ sort: event.target.value }), "aria-label": "Sort groups" },
      Object.entries(SORTS).map(([value, label]) =>
        h("option", { value, selected: (state.sort ?? "") === value }, label),
      ),
    ),
  );
}

let timer = 0;
function later(action) {
  clearTimeout(timer);
  timer = setTimeout(action, 200);
}
