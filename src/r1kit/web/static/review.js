// What the page gains with a script: a live preview, the changes as they are made, and keys. Nothing here is needed.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("decision");
  const fields = [byId("reasoning"), byId("summary")];
  let timer = 0;
  let asked = null; // the request that is under way
  let leaving = false;

  document.documentElement.classList.add("scripted");

  const isEdited = () => fields.some((field) => field.value !== field.defaultValue);

  // The server makes all HTML: what is shown live is what a page without a script shows.
  async function refresh() {
    asked?.abort();
    asked = new AbortController();
    const body = new URLSearchParams(new FormData(form));
    try {
      const answer = await fetch("/live", { method: "POST", body, signal: asked.signal });
      if (!answer.ok) throw new Error(answer.statusText);
      show(await answer.json());
    } catch (error) {
      if (error.name !== "AbortError") say("The preview cannot be reached: is r1kit still running? Your text is safe here.");
    }
  }

  function show(facts) {
    if (!facts.yours) {
      say("This sample is no longer reserved for you. Copy what you need, then open the next one.");
      return;
    }
    say("");
    for (const name of ["reasoning", "summary"]) {
      byId(`${name}-preview`).innerHTML = facts.preview[name];
      byId(`${name}-words`).textContent = `${facts.words[name]} ${facts.words[name] === 1 ? "word" : "words"}`;
      byId(`${name}-changes`).hidden = !facts.changes[name];
      byId(`${name}-changes`).querySelector(".diff").innerHTML = facts.changes[name];
    }
    byId("changes").hidden = !facts.differs;
    byId("changes-count").textContent = facts.changed;
    byId("revert").hidden = !facts.differs;
    byId("accept-label").textContent = facts.edited ? "Accept with edit" : "Accept";
    byId("notes").replaceChildren(...facts.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  }

  function say(text) {
    byId("said").textContent = text;
  }

  function edit() {
    for (const field of fields) field.closest("details").open = true;
    fields[0].focus();
  }

  function send(button) {
    button.form.requestSubmit(button);
  }

  for (const field of fields) {
    field.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(refresh, 120);
    });
  }
  if (isEdited()) refresh(); // typed before this ran, or kept by the browser over a reload
  for (const each of document.forms) {
    each.addEventListener("submit", (event) => {
      if (leaving) event.preventDefault(); // a second click
      leaving = true;
    });
  }
  addEventListener("pageshow", () => (leaving = false)); // back from the next page
  addEventListener("beforeunload", (event) => {
    if (!leaving && isEdited()) event.preventDefault();
  });

  // Single keys can be turned off: they are in the way of those who speak to their computer.
  const keysOn = byId("keys-on");
  keysOn.checked = localStorage.getItem("r1kit-keys") !== "off";
  keysOn.addEventListener("change", () => localStorage.setItem("r1kit-keys", keysOn.checked ? "on" : "off"));

  const keys = {
    a: () => send(byId("accept")),
    e: edit,
    r: () => (byId("reason").value.trim() ? send(byId("reject")) : byId("reason").focus()),
    s: () => send(byId("skip")),
    u: () => send(byId("undo")),
  };
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, input:not([type=checkbox])");
    if (event.isComposing || event.repeat) return;
    if (typing && event.key === "Escape") event.target.blur();
    else if (event.target.matches("textarea") && event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(byId("accept"));
    else if (!typing && keysOn.checked && !event.ctrlKey && !event.metaKey && !event.altKey && Object.hasOwn(keys, event.key)) {
      event.preventDefault();
      keys[event.key]();
    }
  });
})();
