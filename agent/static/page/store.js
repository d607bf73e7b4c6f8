// What this browser keeps: IndexedDB, or nothing but memory where the browser has none to give.
//
// batches: what was asked for, once for all its runs, with its pictures. runs: one task each. drafts: unsent forms.

const NAME = "comfyui-agent";
const STORES = { batches: "id", runs: "id", drafts: "name" };

const memory = Object.fromEntries(Object.keys(STORES).map((name) => [name, new Map()]));

function open() {
  return new Promise((resolve) => {
    let request;
    try {
      request = indexedDB.open(NAME, 1);
    } catch {
      resolve(null);
      return;
    }
    request.onupgradeneeded = () => {
      for (const [name, keyPath] of Object.entries(STORES)) request.result.createObjectStore(name, { keyPath });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
    request.onblocked = () => resolve(null);
  });
}

const database = open();

async function perform(store, mode, work, instead) {
  const db = await database;
  if (!db) return instead(memory[store]);
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(store, mode);
    const request = work(transaction.objectStore(store));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser keeps no more"));
  });
}

/** What cannot be read is not there. */
export const all = (store) =>
  perform(
    store,
    "readonly",
    (found) => found.getAll(),
    (map) => [...map.values()],
  ).catch(() => []);

export const get = (store, key) =>
  perform(
    store,
    "readonly",
    (found) => found.get(key),
    (map) => map.get(key),
  ).catch(() => undefined);

/** A browser that has no room left keeps going without what it could not keep. */
export const put = (store, value) =>
  perform(
    store,
    "readwrite",
    (found) => found.put(value),
    (map) => map.set(value[STORES[store]], value),
  ).catch((error) => console.warn("not kept:", error.message));

export const remove = (store, key) =>
  perform(
    store,
    "readwrite",
    (found) => found.delete(key),
    (map) => map.delete(key),
  );

export const clear = (store) =>
  perform(
    store,
    "readwrite",
    (found) => found.clear(),
    (map) => map.clear(),
  );

/** Small choices, such as the language. */
export function choice(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(`comfyui-agent.${name}`);
    localStorage.setItem(`comfyui-agent.${name}`, value);
  } catch {
    // Not kept: the choice holds until the page is closed.
  }
  return value ?? null;
}
