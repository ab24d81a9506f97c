// The list of runs, and the stages of the one that is shown.

import { get, ofRun } from "./api.js";
import { h } from "./dom.js";
import { duration } from "./format.js";
import { decisive, healthOf, mark } from "./health.js";
import { drawLanes, inOrder } from "./lanes.js";
import { go, link, state } from "./state.js";

export const MOST_COMPARED = 12; // by one click
const MOST_RUNS = 30; // that one click looks at
export const STATES = {
  waiting: "waiting",
  running: "running",
  done: "done",
  finished: "finished",
  failed: "failed",
  stopped: "stopped",
  died: "died",
  unknown: "on another machine",
  damaged: "damaged",
};

export function rail({ runs, run, stage }) {
  return [
    h("div.heading", h("h2", "Runs"), compareAll(runs, run, stage)),
    runs.length
      ? h(
          "ul.runs",
          runs.map((entry) => runEntry(entry, run)),
        )
      : h("p.note", "No run yet. It appears here as soon as one starts in this folder."),
    run ? stageLists(run, stage) : null,
  ];
}

function runEntry(entry, run) {
  const isShown = entry.id === run?.id;
  const compared = comparedRuns();
  return h(
    "li",
    { "data-key": entry.id, class: entry.state },
    h(
      "a",
      {
        href: `#${new URLSearchParams({ run: entry.id })}`,
        "aria-current": isShown ? "page" : null,
        title: entry.path,
      },
      h("span.state", { class: entry.state }),
      h("span.name", { dir: "auto" }, entry.name),
      h("span.says", { dir: "auto" }, mark(decisive(entry)), " ", saysOf(entry)),
    ),
    run && !isShown ? compareBox(entry, run, compared) : null,
  );
}

/** Where the run is, with its state in words, once. */
function saysOf({ state, says }) {
  const word = STATES[state] ?? state;
  if (state === "finished" || !says) return word;
  return says.includes(word) ? says : `${word}: ${says}`;
}

/** Runs whose curves are drawn over those of the run that is shown. */
export const comparedRuns = () => (state.with ? state.with.split("|") : []);

/** The stage of another run that has the name of this one. */
export const twinOf = async (id, stage) => (await get(ofRun(id))).stages.find((other) => other.name === stage.name);

/** The stage whose curves are compared: the one that is shown, or the first with curves. */
const comparable = (run, stage) => stage ?? run.stages.find((one) => one.has.curves);

/** One click for all other runs that have this stage, the last changed first, and one for none. */
function compareAll(runs, run, stage) {
  const others = runs.filter((entry) => entry.id !== run?.id).slice(0, MOST_RUNS);
  const base = run && comparable(run, stage);
  if (!base?.has.curves || others.length < 2) return null;
  const choose = async () => {
    const twins = await Promise.all(others.map(({ id }) => twinOf(id, base).catch(() => null))); // one may be damaged
    const ids = others.map(({ id }) => id).filter((_, place) => twins[place]?.has.curves);
    go({ with: ids.slice(0, MOST_COMPARED).join("|"), stage: base.id });
  };
  const title = `Draw the curves of all runs with a stage ${base.name} over these, of at most ${MOST_COMPARED}`;
  const chooseNone = (event) => {
    event.target.previousElementSibling.focus(); // this button goes
    go({ with: "" });
  };
  const none = { type: "button", onclick: chooseNone, "aria-label": "Compare none" };
  return h(
    "span",
    h("button", { type: "button", onclick: choose, title }, "compare all"),
    comparedRuns().length ? h("button", none, "none") : null,
  );
}

function compareBox(entry, run, compared) {
  const place = compared.indexOf(entry.id);
  const change = () => {
    const chosen = place < 0 ? [...compared, entry.id] : compared.filter((id) => id !== entry.id);
    go({ with: chosen.join("|"), stage: state.stage ?? comparable(run)?.id });
  };
  return h(
    "label.compare",
    { class: place < 0 ? "" : `s${(place % 5) + 2}`, title: `Draw the curves of ${entry.name} over these` },
    h("input", { type: "checkbox", checked: place >= 0, onchange: change, "aria-label": `Compare with ${entry.name}` }),
    h("span", "compare"),
  );
}

function stageLists(run, stage) {
  const recipe = inOrder(run.stages.filter((entry) => !entry.measures));
  const measuring = run.stages.filter((entry) => entry.measures);
  const done = (entries) => entries.filter((entry) => entry.state === "done").length;
  const { picture, width } = drawLanes(recipe);
  const list = (entries) =>
    h(
      "ul.stages",
      entries.map((entry) => stageEntry(entry, run, stage)),
    );
  const graph = h("div.graph", picture, list(recipe));
  graph.style.setProperty("--lanes", `${width}px`);
  return [
    h("h2", "Stages", h("span.note", `${done(recipe)} of ${recipe.length}`)),
    graph,
    measuring.length
      ? folded("Measurements", `${done(measuring)} of ${measuring.length}`, list(measuring), measuring.includes(stage))
      : null,
    run.earlier.length
      ? folded("With other settings", `${run.earlier.length}`, list(run.earlier), run.earlier.includes(stage))
      : null,
  ];
}

const folded = (title, count, content, open) =>
  h("details.more", { open, "data-key": title }, h("summary", title, h("span.note", count)), content);

function stageEntry(entry, run, stage) {
  const current = entry.id === stage?.id;
  const found = (healthOf(run) ?? []).find(({ stage }) => stage === entry.id);
  return h(
    "li",
    { "data-key": entry.id },
    h(
      "a",
      {
        href: link({ stage: entry.id, view: null, step: null, group: null, row: null, at: null, file: null }),
        "aria-current": current ? "page" : null,
        class: entry.state,
      },
      h("span.name", { dir: "auto" }, entry.name),
      mark(found),
      h("span.quiet", `, ${STATES[entry.state] ?? entry.state}, `),
      h("span.time", timeOf(entry)),
    ),
  );
}

function timeOf(entry) {
  if (entry.state === "running")
    return [
      entry.total ? `${entry.done}/${entry.total}` : "running",
      entry.seconds_left === null ? "" : ` · ${duration(entry.seconds_left)} left`,
    ].join("");
  if (entry.state === "done") return duration(entry.seconds);
  return entry.state === "waiting" ? "" : (STATES[entry.state] ?? entry.state);
}
