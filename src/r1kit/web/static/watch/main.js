// The page: reads what the address names, draws it, and draws again what the server says has changed.

import { get, ofRun } from "./api.js";
import * as curves from "./curves.js";
import { h, patch } from "./dom.js";
import { duration } from "./format.js";
import * as health from "./health.js";
import { bindKeys } from "./keys.js";
import * as lineage from "./lineage.js";
import { Live } from "./live.js";
import * as overview from "./overview.js";
import { rail, STATES } from "./rail.js";
import * as rollouts from "./rollouts.js";
import * as rows from "./rows.js";
import { log, settings } from "./settings.js";
import { go, link, onState, scrolled, state } from "./state.js";

const VIEWS = { overview, curves, health, rollouts, rows, settings, log, lineage };
const TITLES = { curves: "Curves", health: "Health", rollouts: "Rollouts", rows: "Rows", settings: "Settings", log: "Log" };
const LEAST_MS = 2000; // between two refreshes of a view
const SHARE = 60; // and this many times as long as a refresh takes, so that watching costs training little

const byId = (id) => document.getElementById(id);
let list = null; // the answer of /api/runs
let run = null; // and of /api/runs/RUN
let shown = null; // {view, stage, data}
let turn = 0;

const stageOf = () => [...(run?.stages ?? []), ...(run?.earlier ?? [])].find((stage) => stage.id === state.stage) ?? null;

function viewOf(stage) {
  if (!stage) return "overview";
  if (state.view in VIEWS && state.view !== "overview") return state.view;
  return stage.has.curves ? "curves" : stage.has.rows.length ? "rows" : "settings";
}

/** Read and draw all that the address names. What is drawn stays until the new data is here. */
async function show({ again = false } = {}) {
  const mine = (turn += 1);
  try {
    if (!list || again) list = await get("runs");
    const id = state.run ?? list.runs[0]?.id;
    if (id && (run?.id !== id || again)) run = await get(ofRun(id));
    if (!id) run = null;
    live.follow(run?.id ?? null);
    if (mine !== turn) return;
    const stage = stageOf();
    drawFrame(stage);
    if (!run) return drawContent(emptyFolder());
    if (state.stage && !stage) return drawContent(trouble(`There is no stage ${state.stage} in ${run.name}.`));
    const name = viewOf(stage);
    const isOther = shown?.name !== name || shown.stage?.id !== stage?.id || shown.run !== run.id;
    const soon = isOther && setTimeout(() => mine === turn && drawContent([heading(stage), h("p.empty", {}, "Reading …")]), 150);
    const data = await VIEWS[name].load({ run, stage });
    clearTimeout(soon);
    if (mine !== turn) return;
    shown = { name, stage, data, run: run.id };
    draw();
  } catch (problem) {
    if (mine !== turn) return;
    if (problem.status === undefined) throw problem;
    if (problem.status !== 0 || !shown) drawContent(trouble(problem.message));
  }
}

function draw() {
  const stage = stageOf();
  drawFrame(stage);
  drawContent([heading(stage), VIEWS[shown.name].render({ run, stage }, shown.data)]);
}

function drawFrame(stage) {
  patch(byId("rail-content"), rail({ runs: list.runs, run, stage }));
  byId("folder").textContent = list.folder;
  byId("where").textContent = [run?.name ?? "Runs", stage?.name].filter(Boolean).join(" › ");
  document.title = [stage?.name, run?.name, "r1kit watch"].filter(Boolean).join(" · ");
}

const drawContent = (content) => patch(byId("content"), content);

function heading(stage) {
  if (!stage) {
    return h(
      "header.head",
      {},
      h("div.title", {}, h("h1", { dir: "auto" }, run.title || run.name), h("p.says", {}, h("span.state", { class: run.state }, STATES[run.state] ?? run.state), run.says)),
      run.state === "running" ? [h("progress", { max: run.stages_total, value: run.stages_done, "aria-label": "Stages done" }), h("span.note", {}, `${run.stages_done} of ${run.stages_total} stages done`)] : null,
      run.command ? h("p.note", {}, h("code", {}, run.command)) : null,
    );
  }
  const left = stage.seconds_left === null ? "" : `, about ${duration(stage.seconds_left)} left`;
  const says = stage.state === "running" ? `${stage.total ? `step ${stage.done ?? 0} of ${stage.total}` : ""}${left}` : stage.state === "done" ? `in ${duration(stage.seconds)}` : stage.error;
  const current = viewOf(stage);
  return h(
    "header.head",
    {},
    h("div.title", {}, h("h1", { dir: "auto" }, stage.name, h("span.kind", {}, stage.kind)), h("p.says", {}, h("span.state", { class: stage.state }, STATES[stage.state] ?? stage.state), says)),
    stage.state === "running" && stage.total ? h("progress", { max: stage.total, value: stage.done ?? 0, "aria-label": "Steps done" }) : null,
    h("nav", { "aria-label": "Views" }, tabs(stage).map((name) => h("a", { href: link({ view: name, step: null, group: null, row: null, at: null, file: null, q: null, filter: null, before: null }), "aria-current": name === current ? "page" : null }, TITLES[name])), current === "lineage" ? h("a", { href: location.hash, "aria-current": "page" }, "Lineage") : null),
  );
}

const tabs = (stage) => Object.keys(TITLES).filter((name) => ({ curves: stage.has.curves, health: stage.kind === "rl", rollouts: stage.has.rollouts, rows: stage.has.rows.length })[name] ?? true);

const trouble = (text) => h("div.trouble", { role: "alert" }, h("p", {}, text), h("a", { href: "#" }, "All runs"));

const emptyFolder = () => h("div.empty", {}, h("h1", {}, "No run yet"), h("p", {}, "This page shows runs below ", h("code", {}, list.folder), ". The first appears here as soon as it starts, for example with"), h("pre", {}, "r1kit run r1 --scale tiny"));

// ---- news

let waiting = 0;
let lastMs = 0;

/** Refresh soon: never more often than a refresh is cheap, and not while nobody looks. */
function refresh(options = {}) {
  if (waiting) return;
  waiting = setTimeout(async () => {
    waiting = 0;
    if (document.hidden) return document.addEventListener("visibilitychange", () => refresh({ again: true }), { once: true });
    const began = performance.now();
    await show(options);
    lastMs = performance.now() - began;
  }, Math.max(LEAST_MS, SHARE * lastMs));
}

function tell(name, data) {
  if (name === "runs" || name === "again") return refresh({ again: true });
  if (data.run !== run?.id) return;
  if (name === "stage") {
    const stage = [...run.stages, ...run.earlier].find((entry) => entry.id === data.stage);
    if (!stage || stage.state !== data.state) return refresh({ again: true });
    Object.assign(stage, data);
    if (shown) draw();
  }
  const concerned = shown && (!shown.stage || shown.stage.id === data.stage);
  if (concerned && VIEWS[shown.name].events.includes(name)) refresh();
}

function showLive(kind, text) {
  patch(byId("live"), h("span", { class: kind }, text));
}

const live = new Live(tell, showLive);

// ---- the reader

onState((before) => {
  const moved = ["run", "stage", "view", "at"].some((name) => before[name] !== state[name]);
  if (moved && matchMedia("(max-width: 62rem)").matches) byId("rail").open = false;
  show().then(() => {
    if (!moved) return;
    scrollTo({ top: scrolled(), behavior: "instant" });
    byId("said").textContent = document.title;
  });
});

/** Follow the next or the previous of the links that the view lists. */
function step(by) {
  const groups = [...document.querySelectorAll(".groups a")];
  const links = groups.length ? groups : [...document.querySelectorAll(".stages a")].filter((each) => each.checkVisibility());
  const place = links.findIndex((each) => each.getAttribute("aria-current"));
  const next = links[place + by] ?? (place < 0 ? links[0] : null);
  next?.click();
  next?.scrollIntoView({ block: "nearest" });
}

const press = (selector) => () => document.querySelector(selector)?.click();
const up = () => go(state.group || state.row ? { group: null, row: null } : state.view === "lineage" ? { view: null, at: null, file: null } : { stage: null, view: null, step: null });
const tab = (name) => () => stageOf() && tabs(stageOf()).includes(name) && go({ view: name, group: null, row: null, at: null, file: null });

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
  ...Object.fromEntries(Object.keys(TITLES).map((name, index) => [String(index + 1), tab(name)])),
});

byId("jump").onclick = (event) => {
  event.preventDefault(); // the part after # is the state of the page
  byId("content").focus();
};
addEventListener("redraw", draw);
addEventListener("resize", () => shown?.name === "curves" && draw());
if (matchMedia("(max-width: 62rem)").matches) byId("rail").open = false;
show();
