// Elements made from text: nothing here parses HTML, so text that a model wrote cannot become anything else.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = [
  "onclick",
  "onchange",
  "oninput",
  "onkeydown",
  "onpointermove",
  "onpointerleave",
  "ontoggle",
  "onfocus",
  "onblur",
  "onsubmit",
];

/** `h("a.mark", {href: "#"}, "text", [more])`: an HTML element. Attributes may be left out; null and false are no children. */
export const h = (tag, attributes, ...children) =>
  make((name) => document.createElement(name), tag, attributes, children);

/** The same for SVG. */
export const s = (tag, attributes, ...children) =>
  make((name) => document.createElementNS(SVG, name), tag, attributes, children);

function make(create, tag, attributes, children) {
  const [name, ...classes] = tag.split(".");
  const element = create(name || "div");
  if (classes.length) element.setAttribute("class", classes.join(" "));
  const hasAttributes = attributes?.constructor === Object;
  for (const [key, value] of hasAttributes ? Object.entries(attributes) : []) {
    if (key.startsWith("on")) element[key] = value;
    else if (key === "class") element.setAttribute("class", [...classes, value].filter(Boolean).join(" "));
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  const all = hasAttributes ? children : [attributes, ...children];
  element.append(...all.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * Make the children of `parent` equal to `wanted`, and touch only what differs: focus, selection, scroll positions and
 * open details survive. Children with a `data-key` are matched by it, others by position. An element whose `data-keep`
 * is unchanged is left as it is, with all that is in it; one with another `data-keep` is replaced.
 */
export function patch(parent, ...wanted) {
  const keyed = new Map();
  for (const child of parent.children) if (child.dataset.key !== undefined) keyed.set(child.dataset.key, child);
  let cursor = parent.firstChild;
  for (let next of wanted.flat(Infinity)) {
    if (next === null || next === undefined || next === false) continue;
    if (!(next instanceof Node)) next = document.createTextNode(next);
    const key = next.dataset?.key;
    const match = key === undefined ? (isAlike(cursor, next) ? cursor : null) : keyed.get(key);
    if (!match || match.nodeName !== next.nodeName) {
      parent.insertBefore(next, cursor);
    } else {
      if (match === cursor) cursor = cursor.nextSibling;
      else parent.insertBefore(match, cursor);
      morph(match, next);
    }
  }
  while (cursor) {
    const following = cursor.nextSibling;
    cursor.remove();
    cursor = following;
  }
}

const isAlike = (old, next) => old && old.nodeName === next.nodeName && old.dataset?.key === undefined;

function morph(old, next) {
  if (old === next) return;
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  if (old.dataset.keep !== next.dataset.keep) old.replaceWith(next);
  if (old.dataset.keep !== undefined || !old.isConnected) return;
  // the policy of the page forbids a style attribute that is set as text
  if (old.style.cssText !== next.style.cssText) old.style.cssText = next.style.cssText;
  for (const { name, value } of next.attributes)
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  // a reader opens and closes details, not the page
  for (const { name } of [...old.attributes])
    if (name !== "open" && name !== "style" && !next.hasAttribute(name)) old.removeAttribute(name);
  for (const name of HANDLERS) if (old[name] !== next[name]) old[name] = next[name];
  if (old.nodeName === "INPUT" || old.nodeName === "SELECT") morphField(old, next);
  if (old.nodeName !== "SELECT") patch(old, [...next.childNodes]);
}

function morphField(old, next) {
  if (old.nodeName === "SELECT") patch(old, [...next.childNodes]);
  if (old.type === "checkbox") old.checked = next.checked;
  else if (document.activeElement !== old && old.value !== next.value) old.value = next.value;
}
