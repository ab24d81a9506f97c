// One group side by side: the numbers as a table, then the texts; tokens shaded by log-prob on request.

import { h } from "./dom.js";
import { hasGradient, rightOf } from "./filters.js";
import { signed } from "./format.js";
import { badge, marks, rewardsTable } from "./rewards_table.js";
import { go, link, state } from "./state.js";
import { canShade, clearShades, completionText, facts, SHADES, shadedTokens } from "./text.js";

let built = { key: "", node: null }; // texts that are shown stay the same nodes: shades point into them

export function groupView({ run, stage, step, data, list }) {
  const { completions } = data;
  const matching = matchingRows(list?.groups.find((group) => group.group === data.group));
  const neighbours = list ? neighboursOf(list, data.group) : {};
  const key = [run.id, stage.id, step, data.group, state.tokens, [...matching].join()].join("/");
  // other texts replace them as a whole: a fold that is kept would not be opened again, and would stay empty
  if (built.key !== key) built = { key, node: h("div.cards", { "data-keep": key }, cards(stage, data, matching)) };
  return h(
    "article.group",
    { "data-key": `${step}/${data.group}`, "aria-label": `Group ${data.group + 1}` },
    h(
      "header",
      h(
        "div.walk",
        h("a.back", { href: link({ group: null, row: null }) }, "‹ all groups"),
        h("span.note", `Step ${step}, group ${data.group + 1} of ${data.groups}`),
        walk(neighbours.before, "‹", "previous group"),
        walk(neighbours.after, "›", "next group"),
      ),
      h("h2.question", { dir: "auto" }, data.question),
      h(
        "p.note",
        data.answer ? ["Answer ", h("b", data.answer), " · "] : null,
        rightOf(data),
        hasGradient(data) ? null : " · equal rewards: no gradient from this group",
        " · ",
        h("code", data.problem_id),
      ),
    ),
    h(
      "div.scroll",
      { tabindex: 0, role: "region", "aria-label": "Rewards of the group" },
      rewardsTable(completions, matching),
    ),
    tools(completions),
    built.node,
  );
}

/** The row numbers of the completions that the reader looks for: those of a filter or a text, or one by a link. */
function matchingRows(group) {
  if (state.row) return new Set([Number(state.row)]);
  if (!state.filter && !state.q) return new Set();
  return new Set(group?.completions.filter((completion) => completion.matches).map((completion) => completion.at.row));
}

function neighboursOf(list, group) {
  const place = list.groups.findIndex((entry) => entry.group === group);
  return { before: list.groups[place - 1]?.group, after: place < 0 ? undefined : list.groups[place + 1]?.group };
}

const walk = (group, sign, name) =>
  group === undefined
    ? h("span.arrow", { "aria-hidden": "true" }, sign)
    : h("a.arrow", { href: link({ group, row: null }), "aria-label": name, rel: name }, sign);

function tools(completions) {
  const stored = completions.some((completion) => completion.pieces);
  const openAll = () => {
    const folds = [...document.querySelectorAll(".cards details.thinking")];
    const open = folds.some((fold) => !fold.open);
    for (const fold of folds) fold.open = open;
  };
  const why = !canShade()
    ? "This browser cannot shade text."
    : state.tokens && !stored
      ? "This step was stored without log-probs."
      : "";
  return h(
    "div.tools",
    h("button", { type: "button", id: "unfold", onclick: openAll }, "Open all thinking"),
    h(
      "button",
      {
        type: "button",
        id: "shade",
        "aria-pressed": String(Boolean(state.tokens)),
        disabled: !canShade(),
        onclick: () => go({ tokens: state.tokens ? null : 1 }, { replace: true }),
      },
      "Log-probs",
    ),
    why ? h("span.note", why) : null,
    state.tokens && !why
      ? h(
          "span.shades",
          h("span.note", "Probability of each token: "),
          SHADES.map((label, level) => h("span", { class: `shade-${level}` }, label)),
        )
      : null,
    h("span.token", { id: "token", role: "status" }),
  );
}

function cards(stage, data, matching) {
  clearShades();
  const tokens = data.completions.reduce((sum, completion) => sum + (completion.pieces?.length ?? 0), 0);
  return data.completions.map((completion, index) => {
    const key = `${stage.id}/${data.step}/${data.group}/${index}`;
    const shaded = state.tokens && completion.pieces && canShade();
    return h(
      "section.card",
      {
        id: `completion-${index}`,
        tabindex: -1,
        class: matching.has(completion.at.row) ? "match" : "",
        "aria-label": `Completion ${index + 1}`,
      },
      h(
        "header",
        h("b", `#${index + 1}`),
        badge(completion.verdict),
        h("span.figures", `advantage ${signed(completion.advantage)}`),
        h("a", { href: link({ view: "lineage", at: completion.at.row, file: completion.at.file }) }, "Lineage"),
      ),
      h("p.why", [completion.why, ...marks(completion)].filter(Boolean).join(" · ")),
      shaded
        ? shadedTokens(completion.pieces, tokens)
        : completionText({ text: completion.completion, thinking: completion.thinking, key }),
      notes(completion),
    );
  });
}

function notes({ notes: all, extracted }) {
  const entries = Object.entries(all ?? {}).filter(([name]) => !["verdict", "extracted", "detail"].includes(name));
  return facts([
    ...(extracted ? [["read as", extracted]] : []),
    ...entries.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  ]);
}
