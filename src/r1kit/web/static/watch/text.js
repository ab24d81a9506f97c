// Text that a model wrote: the reasoning folded, the rest in the open, tokens shaded by their log-probs on request.

import { h } from "./dom.js";

const LONG = 1000; // characters that may scroll, and so must be reachable by key
const TAG = /(<\/?(?:think|answer)>)/;

/** The completion in two blocks. `thinking` are the offsets of the reasoning, in code points as Python counts them. */
export function completionText({ text, thinking, key, open = false }) {
  const [begin, end] = thinking ? thinking.map((offset) => unitsOf(text, offset)) : [0, 0];
  const inside = text.slice(begin, end);
  const closed = end + (/^\s*<\/think>/.exec(text.slice(end))?.[0].length ?? 0);
  const after = text.slice(closed);
  if (!inside.trim()) return block(text.trim() || "(nothing)", text.trim() ? "" : "empty");
  const fold = h(
    "details.thinking",
    {
      "data-keep": `${key}/thinking`,
      open,
      ontoggle: () => fold.open && !fold.children[1] && fold.append(block(text.slice(0, closed))),
    },
    h("summary", "Thinking ", h("span.note", `${inside.trim().length.toLocaleString("en")} characters`)),
  );
  return [fold, after.trim() ? block(after.trim()) : block("(no answer after the thinking)", "empty")];
}

/** An offset in code points, as Python counts, in the UTF-16 units of JavaScript. */
const unitsOf = (text, offset) => (/[\ud800-\udfff]/.test(text) ? [...text].slice(0, offset).join("").length : offset);

export const block = (text, kind = "") =>
  h(
    "div.text",
    { dir: "auto", class: kind, tabindex: text.length > LONG ? 0 : null },
    text.split(TAG).map((piece, index) => (index % 2 ? h("span.tag", piece) : piece)),
  );

/** Names and values in one flowing line. */
export const facts = (entries) =>
  entries.length
    ? h(
        "dl.facts",
        entries.map(([name, value]) => h("div", h("dt", name), h("dd", { dir: "auto" }, String(value)))),
      )
    : null;

const LIMITS = [-0.1, -0.7, -1.6, -3]; // log-probs at which the shade grows: probabilities 0.9, 0.5, 0.2, 0.05
export const SHADES = ["above 90 %", "50 to 90 %", "20 to 50 %", "5 to 20 %", "below 5 %"];

const AT_ONCE = 20_000; // tokens of a group that are shaded without being asked: a browser needs a second for 400,000

/** The pieces of a completion, shaded; folded if its group is large. */
export function shadedTokens(pieces, inGroup) {
  const fold = h(
    "details.thinking",
    { open: inGroup <= AT_ONCE, ontoggle: () => fold.open && !fold.children[1] && fold.append(shadedText(pieces)) },
    h("summary", "Tokens ", h("span.note", pieces.length.toLocaleString("en"))),
  );
  return fold;
}

/**
 * All pieces as one text in which ranges are highlighted: 8,000 tokens then are one text node, not 8,000 elements. The
 * token under the pointer is described in the element `token`.
 */
function shadedText(pieces) {
  const node = document.createTextNode(pieces.map(([piece]) => piece).join(""));
  const ends = [];
  for (const [piece, logprob] of pieces) {
    const begin = ends.at(-1) ?? 0;
    ends.push(begin + piece.length);
    const level = logprob === null ? 0 : LIMITS.filter((limit) => logprob < limit).length;
    if (level && piece)
      shades(level).add(
        new StaticRange({ startContainer: node, startOffset: begin, endContainer: node, endOffset: ends.at(-1) }),
      );
  }
  const describe = (event) => {
    const caret = document.caretPositionFromPoint?.(event.clientX, event.clientY);
    const place = caret?.offsetNode === node ? ends.findIndex((last) => last > caret.offset) : -1;
    document.getElementById("token").textContent = place < 0 ? "" : tokenText(pieces[place]);
  };
  return h("div.text.tokens", { dir: "auto", tabindex: node.length > LONG ? 0 : null, onpointermove: describe }, node);
}

function tokenText([piece, logprob]) {
  if (logprob === null) return `${JSON.stringify(piece)}: given, not sampled`;
  return `${JSON.stringify(piece)}: log-prob ${logprob.toFixed(3)}, ${(100 * Math.exp(logprob)).toPrecision(3)} %`;
}

export const canShade = () => globalThis.CSS?.highlights !== undefined;

function shades(level) {
  const name = `shade-${level}`;
  if (!CSS.highlights.has(name)) CSS.highlights.set(name, new Highlight());
  return CSS.highlights.get(name);
}

/** Forget the shades of text that is no longer shown. */
export const clearShades = () => CSS.highlights?.clear();
