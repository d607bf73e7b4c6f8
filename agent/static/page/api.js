// Asking the agent. Its address is taken from this file's, so that the page works under any prefix.

export const BASE = new URL("../../", import.meta.url);

const KEY = "comfyui-agent.key";

/** A silent event stream is dropped: the agent writes a line every 20 seconds. */
const SILENCE_MS = 60_000;

/** Whatever went wrong. `code` is the agent's, or one of ours: Offline, Busy, BadAnswer. */
export class Failure extends Error {
  constructor(code, { detail = "", status = 0, retryAfter = null, facts = {} } = {}) {
    super(detail || code);
    Object.assign(this, { code, detail, status, retryAfter, facts });
  }

  /** Whether the same request may go through a little later. */
  get isPassing() {
    return this.code === "Offline" || [429, 502, 503].includes(this.status);
  }
}

let askForKey = async () => null;
let asking = null;

/** Who asks the user: a function that gets "" or the key that was refused, and gives a key, or null for none. */
export function setKeyPrompt(prompt) {
  askForKey = prompt;
}

let inMemory = ""; // where the browser keeps nothing for a tab

function key() {
  try {
    return sessionStorage.getItem(KEY) ?? inMemory;
  } catch {
    return inMemory;
  }
}

function keep(given) {
  inMemory = given;
  try {
    sessionStorage.setItem(KEY, given);
  } catch {
    // Then it is asked for again after a reload.
  }
}

/** The whole tab asks once, however many requests are refused. */
function newKey(refused) {
  if (key() !== refused) return Promise.resolve(true); // meanwhile there is another one
  asking ??= askForKey(refused).then((given) => {
    asking = null;
    if (given) keep(given);
    return Boolean(given);
  });
  return asking;
}

/** An answer of the agent with a status of 2xx. Raises Failure; AbortError once `signal` says so. */
export async function ask(path, { headers = {}, ...options } = {}) {
  for (;;) {
    const used = key();
    let response;
    try {
      response = await fetch(new URL(path, BASE), {
        cache: "no-cache",
        ...options,
        headers: { ...headers, ...(used ? { "X-Api-Key": used } : {}) },
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("Offline");
    }
    if (response.ok) return response;
    const failure = await failureOf(response);
    if (response.status !== 401 || failure.code !== "Unauthorized" || !(await newKey(used))) throw failure;
  }
}

export async function askJson(path, options) {
  const response = await ask(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("BadAnswer", { status: response.status });
  }
}

async function failureOf(response) {
  const seconds = Number(response.headers.get("Retry-After"));
  const about = { status: response.status, retryAfter: seconds > 0 ? seconds : null };
  let body = null;
  try {
    body = await response.json();
  } catch {
    // Not from the agent: what stands in front of it answered.
  }
  if (typeof body?.message === "string" && typeof body?.error?.detail === "string")
    return new Failure(body.message, { ...about, detail: body.error.detail, facts: body.error });
  return new Failure([429, 502, 503, 504].includes(response.status) ? "Busy" : "BadAnswer", about);
}

/** The records of an event stream as they come. Ends where the stream does; raises Failure where it breaks. */
export async function* records(taskId, signal) {
  const inner = new AbortController();
  const stop = () => inner.abort();
  signal.addEventListener("abort", stop);
  let timer = setTimeout(stop, SILENCE_MS);
  try {
    if (signal.aborted) return;
    const response = await ask(`api/tasks/${taskId}/events`, { signal: inner.signal, cache: "no-store" });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) if (block.startsWith("data: ")) yield JSON.parse(block.slice(6));
    }
  } catch (error) {
    if (signal.aborted) return;
    throw error instanceof Failure ? error : new Failure("Offline");
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    inner.abort();
  }
}

/** Resolves after a pause, or at once when the network comes back or `signal` says so. */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}

/** So many may hold a place at the same time; the others wait in turn. */
export class Places {
  #waiting = [];

  constructor(count) {
    this.free = count;
  }

  /** Whether there was a place; whoever got it gives it back. */
  tryTake() {
    if (this.free === 0) return false;
    this.free -= 1;
    return true;
  }

  async take() {
    if (!this.tryTake()) await new Promise((resolve) => this.#waiting.push(resolve));
  }

  give() {
    const next = this.#waiting.shift();
    if (next) next();
    else this.free += 1;
  }
}

/**
 * Browsers open six connections to a server that speaks HTTP/1.1, for all their tabs, and a request that stays open holds
 * one. Without these limits eight runs would leave none for the pictures.
 */
export const isOld = !["h2", "h3"].includes(performance.getEntriesByType("navigation")[0]?.nextHopProtocol);
export const posts = new Places(isOld ? 3 : 16);
export const streams = new Places(isOld ? 2 : 16);
