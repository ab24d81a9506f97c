// Keys for everything, and the sheet that lists them.

import { h } from "./dom.js";

const SHEET = [
  ["j k", "next and previous group or stage"],
  ["← →", "previous and next stored step"],
  ["1 … 6", "curves, health, rollouts, rows, settings, log"],
  ["o", "open or close all thinking"],
  ["p", "shade tokens by log-prob"],
  ["/", "find text"],
  ["u", "up: from a group to the list, from a stage to the run"],
  ["t", "light, dark, as the system"],
  ["?", "these keys"],
];
const isOn = () => localStorage.getItem("r1kit-keys") !== "off";

/** `actions` are by key. Keys are ignored while a field has the focus, and can be turned off. */
export function bindKeys(actions) {
  const dialog = document.getElementById("keys");
  const box = h("input", {
    type: "checkbox",
    checked: isOn(),
    onchange: () => localStorage.setItem("r1kit-keys", box.checked ? "on" : "off"),
  });
  dialog.append(
    h("h2", { id: "keys-title" }, "Keys"),
    h(
      "dl",
      SHEET.map(([keys, what]) =>
        h(
          "div",
          h(
            "dt",
            keys.split(" ").map((key) => (key === "…" ? "…" : h("kbd", key))),
          ),
          h("dd", what),
        ),
      ),
    ),
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
