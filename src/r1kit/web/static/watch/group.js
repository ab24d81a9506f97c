// One group side by side: the numbers as a table, then the texts; tokens shaded by log-prob on request.

import { h } from "./dom.js";
import { number, signed } from "./format.js";
import { go, link, state } from "./state.js";
import { canShade, clearShades, completionText, facts, SHADES, shadedTokens } from "./text.js";

export const VERDICTS = { right: "right", wrong: "wrong", unknown: "cannot tell", failed: "verifier failed" };
const BADGES = { right: "passed", wrong: "failed", unknown: "unknown", failed: "unknown" };

let built = { key: "", nodes: [] }; // texts that are shown stay the same nodes: shades point into them

export function groupView({ run, stage, step, data, list }) {
  const { completions } = data;
  const matching = new Set(list?.groups.find((group) => group.group === data.group)?.completions.filter((completion) => completion.matches).map((completion) => completion.at.row));
  const isFiltered = Boolean(state.filter || state.q);
  const right = completions.filter((completion) => completion.verdict === "right").length;
  const spread = new Set(completions.map((completion) => completion.reward)).size > 1;
  const neighbours = list ? neighboursOf(list, data.group) : {};
  const key = [run.id, stage.id, step, data.group, state.tokens, isFiltered ? [...matching].join() : ""].join("/");
  if (built.key !== key) built = { key, nodes: cards(stage, data, isFiltered ? matching : new Set()) };
  return h(
    "article.group",
    { "data-key": `${step}/${data.group}`, "aria-label": `Group ${data.group + 1}` },
    h(
      "header",
      {},
      h("div.walk", {}, h("a.back", { href: link({ group: null, row: null }) }, "‹ all groups"), h("span.note", {}, `Step ${step}, group ${data.group + 1} of ${data.groups}`), walk(neighbours.before, "‹", "previous group"), walk(neighbours.after, "›", "next group")),
      h("h2.question", { dir: "auto" }, data.question),
      h("p.note", {}, data.answer ? ["Answer ", h("b", {}, data.answer), " · "] : null, `${right} of ${completions.length} right`, spread ? null : " · equal rewards: no gradient from this group", " · ", h("code", {}, data.problem_id)),
    ),
    h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Rewards of the group" }, table(completions, matching, isFiltered)),
    tools(completions),
    h("div.cards", {}, built.nodes),
  );
}

function neighboursOf(list, group) {
  const place = list.groups.findIndex((entry) => entry.group === group);
  return { before: list.groups[place - 1]?.group, after: place < 0 ? undefined : list.groups[place + 1]?.group };
}

const walk = (group, sign, name) => (group === undefined ? h("span.arrow", { "aria-hidden": "true" }, sign) : h("a.arrow", { href: link({ group, row: null }), "aria-label": name, rel: name }, sign));

function table(completions, matching, isFiltered) {
  const parts = [...new Set(completions.flatMap((completion) => Object.keys(completion.parts)))];
  const widest = Math.max(...completions.map((completion) => Math.abs(completion.advantage ?? 0)), 1e-9);
  const head = (name) => h("th.number", { scope: "col" }, name);
  return h(
    "table.rewards",
    {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "#"), h("th", { scope: "col" }, "Verdict"), head("Advantage"), h("th", {}, h("span.quiet", {}, "Advantage as a bar")), head("Reward"), parts.map(head), head("Tokens"), h("th", { scope: "col" }, "Marks"))),
    h("tbody", {}, completions.map((completion, index) =>
      h(
        "tr",
        { class: isFiltered && matching.has(completion.at.row) ? "match" : "" },
        h("th", { scope: "row" }, h("button.plain", { type: "button", onclick: () => toCard(index), "aria-label": `Show completion ${index + 1}` }, String(index + 1))),
        h("td", {}, badge(completion.verdict)),
        h("td.number", {}, signed(completion.advantage)),
        h("td", {}, advantageBar((completion.advantage ?? 0) / widest)),
        h("td.number", {}, number(completion.reward)),
        parts.map((part) => h("td.number", {}, number(completion.parts[part]))),
        h("td.number", {}, number(completion.tokens)),
        h("td", {}, marks(completion).join(", ")),
      ),
    )),
  );
}

const marks = ({ truncated, mixed, wrong_formatted: formatted }) => [truncated && "truncated", mixed && "mixed", formatted && "formatted"].filter(Boolean);

export const badge = (verdict) => h("span", { class: BADGES[verdict] ?? "" }, h("span.badge", {}, VERDICTS[verdict] ?? "not judged"));

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

function tools(completions) {
  const stored = completions.some((completion) => completion.pieces);
  const openAll = () => {
    const folds = [...document.querySelectorAll(".cards details.thinking")];
    const open = folds.some((fold) => !fold.open);
    for (const fold of folds) fold.open = open;
  };
  const why = !canShade() ? "This browser cannot shade text." : state.tokens && !stored ? "This step was stored without log-probs." : "";
  return h(
    "div.tools",
    {},
    h("button", { type: "button", id: "unfold", onclick: openAll }, "Open all thinking"),
    h("button", { type: "button", id: "shade", "aria-pressed": String(Boolean(state.tokens)), disabled: !canShade(), onclick: () => go({ tokens: state.tokens ? null : 1 }, { replace: true }) }, "Log-probs"),
    why ? h("span.note", {}, why) : null,
    state.tokens && !why ? h("span.shades", {}, h("span.note", {}, "Probability of each token: "), SHADES.map((label, level) => h("span", { class: `shade-${level}` }, label))) : null,
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
      { id: `completion-${index}`, tabindex: -1, class: matching.has(completion.at.row) ? "match" : "", "aria-label": `Completion ${index + 1}` },
      h(
        "header",
        {},
        h("b", {}, `#${index + 1}`),
        badge(completion.verdict),
        h("span.figures", {}, `advantage ${signed(completion.advantage)}`),
        h("a", { href: link({ view: "lineage", at: completion.at.row, file: completion.at.file }) }, "Lineage"),
      ),
      h("p.why", {}, [completion.why, ...marks(completion)].filter(Boolean).join(" · ")),
      shaded ? shadedTokens(completion.pieces, tokens) : completionText({ text: completion.completion, thinking: completion.thinking, key }),
      notes(completion),
    );
  });
}

function notes({ notes: all, extracted }) {
  const entries = Object.entries(all ?? {}).filter(([name]) => !["verdict", "extracted", "detail"].includes(name));
  return facts([...(extracted ? [["read as", extracted]] : []), ...entries.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)])]);
}
