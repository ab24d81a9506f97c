// Reading from the server: JSON over GET, nothing else.

/** An answer that is no success, with the server's own sentence. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const kept = new Map(); // answers that never change, by address

export async function get(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  const address = `/api/${path}${query.size ? `?${query}` : ""}`;
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Problem(0, "The server does not answer. Is r1kit watch still running?");
  }
  const data = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, data.error ?? `the server answers ${response.status}`);
  return data;
}

/** For what never changes once it is written, such as the text of a stored step. */
export async function getOnce(path, parameters) {
  const key = JSON.stringify([path, parameters]);
  if (!kept.has(key)) {
    kept.set(key, await get(path, parameters));
    if (kept.size > 40) kept.delete(kept.keys().next().value); // a page that is open all day
  }
  return kept.get(key);
}

/** A run's address; ids are folder names, which may hold any character. */
export const ofRun = (run, ...rest) => ["runs", run, ...rest].map(encodeURIComponent).join("/");
