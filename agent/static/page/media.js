// The bytes of outputs, as addresses that elements can show. An <img> cannot send an API key, so pictures are fetched.

import { Failure, ask, askJson } from "./api.js";

/** Shown by the browser itself; SVG and HTML could hold scripts and are only ever downloaded. */
const SHOWN = /^(image\/(png|jpeg|webp|gif|avif|bmp)|video\/[\w.+-]+|audio\/[\w.+-]+)$/;

const held = new Map(); // path -> {users, promise, url}

export const kindOf = (output) => {
  const [kind] = output.media_type.split("/");
  if (!SHOWN.test(output.media_type)) return output.media_type.startsWith("text/plain") ? "text" : "file";
  return kind;
};

/** Signed URLs end; the agent makes new ones whenever it is asked. The shortest that is worth using: */
const LINK_MS = 30_000;

const links = new Map(); // task id -> {until, promise of its outputs}

/**
 * An output as {url, blob, release}. `blob` is null where it lies in an object store: elements may show that, but the
 * page may not read it. Raises Failure.
 */
export async function open(run, output) {
  if (!output.object_key) return acquire(`api/tasks/${run.id}/outputs/${output.index}`);
  let known = links.get(run.id);
  if (!known || known.until < Date.now()) {
    known = { until: Date.now() + LINK_MS, promise: askJson(`api/tasks/${run.id}`).then((record) => record.outputs) };
    known.promise.catch(() => links.delete(run.id));
    links.set(run.id, known);
  }
  const url = (await known.promise).find((each) => each.index === output.index)?.signed_url;
  if (!url) throw new Failure("ObjectStoreUnavailable");
  return { url, blob: null, release: () => {} };
}

/**
 * Fetch what lies at `path`; everybody who asks shares it. Gives {url, blob, release}: after the last release the
 * memory is free again. Raises Failure.
 */
export async function acquire(path) {
  let entry = held.get(path);
  if (!entry) {
    entry = { users: 0, url: null, promise: load(path) };
    held.set(path, entry);
  }
  entry.users += 1;
  let isMine = true;
  const release = () => {
    if (!isMine) return;
    isMine = false;
    entry.users -= 1;
    if (entry.users > 0) return;
    if (held.get(path) === entry) held.delete(path);
    if (entry.url) URL.revokeObjectURL(entry.url);
    entry.url = null;
  };
  try {
    const blob = await entry.promise;
    if (isMine) entry.url ??= URL.createObjectURL(blob);
    return { url: entry.url, blob, release };
  } catch (error) {
    release();
    throw error;
  }
}

async function load(path) {
  // Outputs never change: what the browser's cache has is right.
  const response = await ask(path, { cache: "default" });
  const type = (response.headers.get("Content-Type") ?? "").split(";")[0];
  const blob = await response.blob();
  return new Blob([blob], { type: SHOWN.test(type) ? type : "application/octet-stream" });
}

const near = new Map(); // element -> {enter, leave}
const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) near.get(target)?.[isIntersecting ? "enter" : "leave"]();
  },
  { rootMargin: "800px" },
);

/** Call `enter` whenever the element comes near to what is visible, and `leave` when it is far again or forgotten. */
export function whileNear(element, enter, leave) {
  near.set(element, { enter, leave });
  observer.observe(element);
}

/** What is no longer in the document gives back what it holds. */
export function forget(root) {
  for (const [element, { leave }] of near) {
    if (!root.contains(element)) continue;
    observer.unobserve(element);
    near.delete(element);
    leave();
  }
}

/** Offer a file to the user under a name. */
export function save(url, filename) {
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: filename, target: "_blank", rel: "noopener" });
  document.body.append(link);
  link.click();
  link.remove();
}
