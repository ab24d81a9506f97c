// What the reader looks at, kept in the address after the #: a link opens the same view, and Back goes back.

export const state = {}; // run, stage, view, step, group, filter, q, with (compared runs), beside (stages), row (lineage)

const listeners = [];

function read() {
  const values = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  for (const key of Object.keys(state)) delete state[key];
  Object.assign(state, values);
}

/** The address of the current view with some values changed; "" and null remove one. */
export function link(changes) {
  const values = Object.entries({ ...state, ...changes }).filter(
    ([, value]) => value !== "" && value !== null && value !== undefined,
  );
  return `#${new URLSearchParams(values)}`;
}

/** Show another view. `replace` leaves no entry behind for Back: for typing and sliders. */
export function go(changes, { replace = false } = {}) {
  const address = link(changes);
  if (address === (location.hash || "#")) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  changed();
}

export function onState(listener) {
  listeners.push(listener);
}

function changed() {
  const before = { ...state };
  read();
  for (const listener of listeners) listener(before);
}

/** How far the reader had scrolled when they left this entry of the history; 0 for a new one. */
export const scrolled = () => history.state?.scrolled ?? 0;

history.scrollRestoration = "manual"; // the browser would restore it before the view is drawn
addEventListener("scrollend", () => history.replaceState({ scrolled: scrollY }, ""));
addEventListener("popstate", changed); // Back, Forward, and a link that changes the hash
read();
