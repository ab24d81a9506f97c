// Reading from the server: JSON over GET, nothing else.

/** An answer that is no success, with the server's own sentence. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const KEEP = 50_000_000; // characters of answers that never change: the page is open all day
const kept = new Map(); // those answers and their sizes, by address

export const get = async (path, parameters) => JSON.parse(await read(path, parameters));

async function read(path, parameters = {}) {
  const query = new URLSearchParams(
    Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined),
  );
  const address = `/api/${path}${query.size ? `?${query}` : ""}`;
  const response = await fetch(address).catch(() => {
    throw new Problem(0, "The server does not answer. Is r1kit watch still running?");
  });
  const text = await response.text();
  if (!response.ok)
    throw new Problem(
      response.status,
      text.startsWith("{") ? JSON.parse(text).error : `the server answers ${response.status}`,
    );
  return text;
}

/** For what never changes once it is written, such as the text of a stored step. */
export async function getOnce(path, parameters) {
  const key = JSON.stringify([path, parameters]);
  if (!kept.has(key)) {
    const text = await read(path, parameters);
    kept.set(key, { data: JSON.parse(text), size: text.length });
    let size = [...kept.values()].reduce((sum, answer) => sum + answer.size, 0);
    for (const [old, answer] of kept) {
      if (size <= KEEP || old === key) break;
      kept.delete(old);
      size -= answer.size;
    }
  }
  return kept.get(key).data;
}

/** A run's address; ids are folder names, which may hold any character. */
export const ofRun = (run, ...rest) => ["runs", run, ...rest].map(encodeURIComponent).join("/");
