// Keys for everything, and the sheet that lists them, with the terms of the page.

import { h } from "./dom.js";

const SHEET = [
  ["j k", "next and previous group or stage"],
  ["← →", "previous and next stored step"],
  ["1 … 6", "curves, health, rollouts, rows (of data and evaluations), settings, log"],
  ["o", "open or close all thinking"],
  ["p", "shade tokens by log-prob"],
  ["/", "find text"],
  ["u", "up: from a group to the list, from a stage to the run"],
  ["t", "light, dark, as the system"],
  ["?", "this sheet"],
];
const TERMS = [
  ["group", "the completions of one problem in one step"],
  ["advantage", "how much better a completion's reward is than that of its group; 0 teaches nothing"],
  ["zero variance", "all rewards of a group are equal, so it gives no gradient"],
  ["held out", "problems of probe.tasks, not trained on and answered greedily; training samples its answers"],
  ["entropy", "how spread out the next token's probabilities are: near 0, nothing new is tried"],
  ["KL", "how far the policy is from the reference model"],
  ["truncated", "cut off at max_tokens"],
  ["no verdict", "the verifier could not tell; not judged: no reward of the run judges answers"],
  ["hacking", "the reward pays for something other than right answers"],
  ["collapsed", "the policy fell apart"],
  ["starved", "there is nothing to learn from"],
  ["mismatched", "the trained model is not the one that samples or is measured"],
  ["leaking", "training saw what measures it, or its prompts hold the answers"],
];
const isOn = () => localStorage.getItem("r1kit-keys") !== "off";

const list = (entries, name) =>
  h(
    "dl",
    entries.map(([first, what]) => h("div", h("dt", name(first)), h("dd", what))),
  );

/** `actions` are by key. Keys are ignored while a field has the focus, and can be turned off. */
export function bindKeys(actions) {
  const dialog = document.getElementById("keys");
  const box = h("input", {
    type: "checkbox",
    checked: isOn(),
    onchange: () => localStorage.setItem("r1kit-keys", box.checked ? "on" : "off"),
  });
  dialog.append(
    h("h2", { id: "keys-title", tabindex: -1, autofocus: true }, "Terms"),
    list(TERMS, (term) => term),
    h("h2", "Keys"),
    list(SHEET, (keys) => keys.split(" ").map((key) => (key === "…" ? "…" : h("kbd", key)))),
    h("p.note", "On a plot: arrows move the crosshair, Enter opens the rollouts of that step."),
    h("label.check", box, "single keys"),
    h("form", { method: "dialog" }, h("button", "Close")),
  );
  const help = () => (dialog.open ? dialog.close() : dialog.showModal());
  document.getElementById("help").onclick = help;
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, select, input:not([type=checkbox], [type=range])");
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.matches("[type=range], [role=slider]") && event.key.startsWith("Arrow")) return;
    if (event.key === "?") return help();
    if (dialog.open || !isOn() || !Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  });
}
