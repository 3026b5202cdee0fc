// What the page asks its server.

/** The server's answer to something it refuses, or could not do; `status` as in HTTP, 0 without an answer. */
export class Refused extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

async function ask(path, init) {
  let response;
  try {
    response = await fetch(`api/${path}`, { cache: "no-store", signal: AbortSignal.timeout(30_000), ...init });
  } catch (error) {
    throw new Refused(`the inspector does not answer (${error.message})`, 0);
  }
  let body = {};
  try {
    body = await response.json();
  } catch {
    // a proxy's page, say
  }
  if (!response.ok) throw new Refused(body.error ?? `HTTP ${response.status}`, response.status);
  return body;
}

/** Ask for something by its path below `api/` and its query. */
export const get = (path, query = {}) => ask(`${path}?${new URLSearchParams(query)}`);

/** Have something done. */
export const post = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
