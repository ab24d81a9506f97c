// Runs before the first paint, so that a chosen colour scheme does not flash; without a choice the system decides.
"use strict";

{
  const names = { "": "as the system", light: "light", dark: "dark" };
  const root = document.documentElement;
  const apply = (choice) => {
    if (choice) root.dataset.theme = choice;
    else delete root.dataset.theme;
  };
  const kept = localStorage.getItem("r1kit-theme");
  apply(kept === "light" || kept === "dark" ? kept : "");

  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => button.setAttribute("aria-label", `Colours: ${names[root.dataset.theme ?? ""]}. Change`);
    button.addEventListener("click", () => {
      const next = { "": "dark", dark: "light", light: "" }[root.dataset.theme ?? ""];
      apply(next);
      localStorage.setItem("r1kit-theme", next);
      label();
    });
    label();
  });
}
