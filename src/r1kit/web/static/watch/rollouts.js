// Rollouts of one step: the list of its groups, and beside it the group that is open.

import { get, getOnce, ofRun } from "./api.js";
import { h } from "./dom.js";
import { filterChips, hasGradient, rightOf, searchBar } from "./filters.js";
import { many, signed } from "./format.js";
import { groupView } from "./group.js";
import { go, link, state } from "./state.js";

export const events = ["rollouts"];

let reading = { stage: "", step: null }; // a new step never replaces the one that is being read

export async function load({ run, stage }) {
  const { steps } = await get(`${ofRun(run.id)}/rollouts`, { stage: stage.id });
  if (!steps.length) return { steps };
  const step = Number(state.step ?? (reading.stage === stage.id ? reading.step : steps.at(-1)));
  reading = { stage: stage.id, step };
  const read = stage.state === "running" && step === steps.at(-1) ? get : getOnce; // it may still be written
  const base = ofRun(run.id, "rollouts", stage.id, step);
  const query = { text: state.q, filter: state.filter, sort: state.sort };
  if (state.everywhere && (state.q || state.filter)) {
    const found = await get(`${ofRun(run.id)}/search`, {
      stage: stage.id,
      text: state.q,
      filter: state.filter,
      before: state.before,
    });
    return { steps, step, found, open: await openGroup(read, base, state.group) };
  }
  const list = await read(base, query);
  const group =
    state.group ??
    (state.row ? groupOfRow(list, Number(state.row)) : null) ??
    (isWide() ? (list.groups.find(hasGradient) ?? list.groups[0])?.group : null);
  return { steps, step, list, group, open: await openGroup(read, base, group) };
}

const openGroup = (read, base, group) =>
  group === null || group === undefined ? null : read(`${base}/${group}`, { tokens: state.tokens });
const groupOfRow = (list, row) =>
  list.groups.find((group) => group.completions.some((completion) => completion.at.row === row))?.group;
const isWide = () => matchMedia("(min-width: 62rem)").matches;

export function render({ run, stage }, { steps, step, list, found, group, open }) {
  if (!steps.length)
    return h(
      "p.empty",
      "No rollouts yet. The first are stored with step 1, then at intervals; each new step appears here by itself.",
    );
  return h(
    "div.reading",
    { class: state.group || state.row ? "opened" : "" }, // a narrow screen shows either the list or the group
    h("div.where", stepBar(steps, step), searchBar()),
    filterChips(list),
    h(
      "div.reader",
      h("div.list", found ? hits(found) : groupList(list, group)),
      h(
        "div.sheet",
        open
          ? groupView({ run, stage, step, data: open, list })
          : h("p.empty", list?.groups.length === 0 ? "Nothing to show." : "Choose a group."),
      ),
    ),
  );
}

function stepBar(steps, step) {
  const place = Math.max(0, steps.indexOf(step));
  const to = (index) => link({ step: steps[index], group: null, row: null });
  const arrow = (index, sign, name) =>
    steps[index] === undefined
      ? h("span.arrow", { "aria-hidden": "true" }, sign)
      : h("a.arrow", { href: to(index), "aria-label": `${name}: ${steps[index]}`, rel: name }, sign);
  const slide = (event) => go({ step: steps[event.target.value], group: null, row: null }, { replace: true });
  return h(
    "div.steps",
    arrow(place - 1, "‹", "previous step"),
    h("input", {
      type: "range",
      min: 0,
      max: steps.length - 1,
      value: place,
      "aria-label": "Step",
      "aria-valuetext": `step ${step}`,
      oninput: slide,
      disabled: steps.length === 1,
    }),
    arrow(place + 1, "›", "next step"),
    h("b", `Step ${step}`),
    h("span.note", `${place + 1} of ${steps.length} stored`),
    step < steps.at(-1) ? h("a.newest", { href: to(steps.length - 1) }, `newest: ${steps.at(-1)}`) : null,
  );
}

function groupList(list, group) {
  if (!list.groups.length)
    return h("p.empty", "No completion of this step matches. Take a filter away, or look in all steps.");
  return [
    state.filter || state.q
      ? h("p.note", { role: "status" }, `${many(list.matches, "completion")} in ${many(list.groups.length, "group")}`)
      : null,
    h(
      "ul.groups",
      list.groups.map((entry) => groupEntry(entry, list.step, entry.group === Number(group ?? -1))),
    ),
  ];
}

function groupEntry(entry, step, isOpen) {
  return h(
    "li",
    { "data-key": entry.group },
    h(
      "a",
      { href: link({ step, group: entry.group, row: null }), "aria-current": isOpen ? "true" : null },
      h("span.question", { dir: "auto" }, entry.question),
      h(
        "span.strip",
        { "aria-hidden": "true" },
        entry.completions.map((completion) =>
          h("i", {
            class: `${completion.verdict ?? ""} ${completion.matches && (state.filter || state.q) ? "match" : ""}`,
          }),
        ),
      ),
      h("span.score", rightOf(entry), hasGradient(entry) ? null : " · no gradient"),
    ),
  );
}

function hits(found) {
  const range = `steps ${found.searched[0]} to ${found.searched[1]}`;
  if (!found.hits.length)
    return h(
      "p.empty",
      `No match in ${range}.`,
      found.next ? h("a", { href: link({ before: found.next }) }, " Search earlier steps") : null,
    );
  return [
    h("p.note", { role: "status" }, `${many(found.hits.length, "match", "matches")} in ${range}`),
    h(
      "ul.groups",
      found.hits.map((hit) =>
        h(
          "li",
          { "data-key": `${hit.step}/${hit.at.row}` },
          h(
            "a",
            {
              href: link({ step: hit.step, group: hit.group, row: null }),
              "aria-current": Number(state.step) === hit.step && Number(state.group) === hit.group ? "true" : null,
            },
            h("span.question", { dir: "auto" }, hit.excerpt || hit.question),
            h("span.score", `step ${hit.step} · ${hit.verdict ?? "not judged"} · advantage ${signed(hit.advantage)}`),
          ),
        ),
      ),
    ),
    found.next ? h("a.button", { href: link({ before: found.next }) }, "Search earlier steps") : null,
  ];
}
