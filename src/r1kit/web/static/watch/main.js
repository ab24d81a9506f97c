// The page: reads what the address names, draws it, and draws again what the server says has changed.

import { get, ofRun } from "./api.js";
import * as curves from "./curves.js";
import { h, patch } from "./dom.js";
import { emptyFolder, runHeading, stageHeading, trouble, VIEW_NAMES, viewsOf } from "./frame.js";
import * as health from "./health.js";
import { bindKeys } from "./keys.js";
import * as lineage from "./lineage.js";
import { Live } from "./live.js";
import * as overview from "./overview.js";
import { rail } from "./rail.js";
import * as rollouts from "./rollouts.js";
import * as rows from "./rows.js";
import { log, settings } from "./settings.js";
import { go, onState, scrolled, state } from "./state.js";

const VIEWS = { overview, curves, health, rollouts, rows, settings, log, lineage };
const [LEAST_MS, MOST_MS] = [2000, 10_000]; // between two refreshes of a view:
const SHARE = 60; // this many times as long as one takes, so that watching costs training next to nothing
const LIST_MS = 60_000; // between two looks at the verdicts of the list
const ALL_MS = 200; // for what happens rarely: a run or a stage starts or ends
const NARROW = matchMedia("(max-width: 62rem)");

const byId = (id) => document.getElementById(id);
let list = null; // the answer of /api/runs
let run = null; // and of /api/runs/RUN
let shown = null; // {name, run, stage, data} of the view
let turn = 0;

const stageBy = (id) => [...(run?.stages ?? []), ...(run?.earlier ?? [])].find((stage) => stage.id === id) ?? null;

function viewOf(stage) {
  if (!stage) return "overview";
  if (state.view in VIEWS && state.view !== "overview") return state.view;
  return viewsOf(stage).find((name) => name !== "health");
}

/** Read and draw all that the address names. What is drawn stays until the new data is here. */
async function show({ again = false } = {}) {
  const mine = (turn += 1);
  try {
    const isNew = !list || again;
    if (isNew) list = await get("runs");
    const id = state.run ?? list.runs[0]?.id;
    if (!id) run = null;
    else if (run?.id !== id || again) run = await get(ofRun(id));
    if (mine !== turn) return;
    live.follow(run?.id ?? null);
    const stage = stageBy(state.stage);
    drawRail(stage);
    if (!run) return drawOnly(emptyFolder(list.folder));
    if (state.stage && !stage) return drawOnly(trouble(`There is no stage ${state.stage} in ${run.name}.`));
    const name = viewOf(stage);
    if (again || !health.healthOf(run) || ["overview", "health"].includes(name)) health.refreshHealth(run);
    await showView(name, stage, mine);
    if (isNew) health.refreshList(list.runs);
  } catch (problem) {
    if (problem.status === undefined) throw problem;
    if (mine === turn && (problem.status || !shown)) drawOnly(trouble(problem.message)); // status 0: the top bar says it
  }
}

async function showView(name, stage, mine) {
  const isOther = shown?.name !== name || shown.stage !== stage?.id || shown.run !== run.id;
  const reading = () => {
    drawHead(stage);
    patch(byId("view"), h("p.empty", "Reading …"));
  };
  const soon = isOther && setTimeout(() => mine === turn && reading(), 150);
  const data = await VIEWS[name].load({ run, stage }).finally(() => clearTimeout(soon));
  if (mine !== turn) return;
  shown = { name, run: run.id, stage: stage?.id, data };
  draw();
}

function draw() {
  const stage = stageBy(shown.stage);
  drawRail(stage);
  drawHead(stage);
  patch(byId("view"), VIEWS[shown.name].render({ run, stage }, shown.data));
}

function drawRail(stage) {
  patch(byId("rail-content"), rail({ runs: list.runs, run, stage }));
  byId("folder").textContent = list.folder;
  byId("where").textContent = [run?.name ?? "Runs", stage?.name].filter(Boolean).join(" › ");
  document.title = [stage?.name, run?.name, "r1kit watch"].filter(Boolean).join(" · ");
}

const drawHead = (stage) => patch(byId("head"), stage ? stageHeading(run, stage, viewOf(stage)) : runHeading(run));

function drawOnly(content) {
  shown = null;
  patch(byId("head"));
  patch(byId("view"), content);
}

// ---- news

let timer = 0;
let again = false; // the next refresh reads the list of runs and the run, too
let lastMs = 0;
let missed = false; // news while nobody looked

/** Refresh the view, but no more often than it is cheap, and not while nobody looks; `all` at once. */
function refresh(all = false) {
  missed = document.hidden;
  again ||= all;
  if (missed || (timer && !all)) return;
  clearTimeout(timer);
  timer = setTimeout(refreshNow, all ? ALL_MS : Math.min(MOST_MS, Math.max(LEAST_MS, SHARE * lastMs)));
}

async function refreshNow() {
  const began = performance.now();
  const all = again;
  [timer, again] = [0, false];
  await show({ again: all });
  lastMs = performance.now() - began;
}

function tell(name, data) {
  if (name === "runs" || name === "again") return refresh(true);
  if (data.run !== run?.id) return;
  const stage = stageBy(data.stage);
  if (name === "stage") {
    if (stage?.state !== data.state) return refresh(true);
    Object.assign(stage, data);
    if (shown?.name === "overview") draw();
    else if (shown) [drawRail(stageBy(shown.stage)), drawHead(stageBy(shown.stage))];
  } else if (
    shown && ["overview", "health"].includes(shown.name)
      ? name === "step"
      : shown?.stage === data.stage && VIEWS[shown.name].events.includes(name)
  ) {
    refresh();
  }
}

/** Runs that nobody has opened go on, too. */
async function lookAtList() {
  if (document.hidden || !list) return;
  list = await get("runs");
  if (shown) drawRail(stageBy(shown.stage));
  health.refreshList(list.runs);
}
setInterval(() => lookAtList().catch(() => {}), LIST_MS);

const live = new Live(tell, (kind, text) => patch(byId("live"), h("span", { class: kind }, text)));
addEventListener("visibilitychange", () => missed && refresh(true));
addEventListener("redraw", () => shown && draw());
addEventListener("resize", () => shown?.name === "curves" && draw());

// ---- the reader

onState((before) => {
  const moved = ["run", "stage", "view", "at"].some((name) => before[name] !== state[name]);
  if (moved && NARROW.matches) foldRail();
  show().then(() => {
    if (!moved) return;
    scrollTo({ top: scrolled(), behavior: "instant" });
    byId("said").textContent = document.title;
  });
});

/** The focus moves on to what has been chosen: inside a folded list it would be lost. */
function foldRail() {
  if (byId("rail").contains(document.activeElement)) byId("content").focus({ preventScroll: true });
  byId("rail").open = false;
}

/** Follow the next or the previous of the links that are listed: groups, otherwise stages. */
function step(by) {
  const groups = [...document.querySelectorAll(".groups a")];
  const links = groups.length
    ? groups
    : [...document.querySelectorAll(".stages a")].filter((each) => each.checkVisibility());
  const place = links.findIndex((each) => each.getAttribute("aria-current"));
  const next = place < 0 ? links[0] : links[place + by];
  next?.click();
  next?.scrollIntoView({ block: "nearest" });
}

function up() {
  if (state.group || state.row) go({ group: null, row: null });
  else if (state.view === "lineage") go({ view: null, at: null, file: null });
  else if (state.stage) go({ stage: null, view: null, step: null });
}

const press = (selector) => () => document.querySelector(selector)?.click();
const open = (name) => () =>
  stageBy(state.stage) &&
  viewsOf(stageBy(state.stage)).includes(name) &&
  go({ view: name, group: null, row: null, at: null, file: null });

bindKeys({
  j: () => step(1),
  k: () => step(-1),
  ArrowRight: press(".steps [rel='next step']"),
  ArrowLeft: press(".steps [rel='previous step']"),
  o: press("#unfold"),
  p: press("#shade"),
  "/": () => byId("find")?.focus(),
  u: up,
  t: press("#theme"),
  ...Object.fromEntries(VIEW_NAMES.map((name, index) => [String(index + 1), open(name)])),
});

byId("jump").onclick = (event) => {
  event.preventDefault(); // the part after # is the state of the page
  byId("content").focus();
};
if (NARROW.matches) byId("rail").open = false;
show();
