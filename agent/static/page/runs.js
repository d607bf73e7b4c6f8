// All runs of this browser: sent, followed, cancelled, and found again after a reload.
//
// A batch is what was asked for at once; each of its runs is a task of the agent, with an id made here, so that a
// request whose answer was lost can be sent again and never runs twice.

import { Failure, ask, pause, posts } from "./api.js";
import { follow } from "./follow.js";
import * as store from "./store.js";
import { LARGEST_SEED, requestOf } from "./values.js";

/** Failures of the way to the agent. */
const UNSETTLED = ["Offline", "Busy", "BadAnswer", "Unauthorized"];

const OPEN = ["sending", "queued", "running"];

/** So many are kept; older ones are forgotten. */
const KEPT_RUNS = 300;

/** Pauses between tries to send, in seconds; the last one is followed by giving up. */
const PAUSES = [1, 2, 4, 8, 15, 30];

/** When following begins although the request that carries the run is still open. */
const GRACE_MS = 1_500;

const KEPT_FIELDS = ["index", "node_id", "filename", "type", "media_type", "bytes", "object_key"];

const newId = (letter) => letter + (crypto.randomUUID?.() ?? fallbackId());

/** crypto.randomUUID is for secure contexts alone; plain HTTP in a local network is none. */
function fallbackId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Runs extends EventTarget {
  batches = []; // newest first
  #runs = new Map(); // id -> run
  #control = new Map(); // id of an open run -> AbortController
  #saving = new Map(); // id -> timer

  of(batch) {
    return [...this.#runs.values()].filter((run) => run.batch === batch.id).sort((a, b) => a.number - b.number);
  }

  batch(id) {
    return this.batches.find((each) => each.id === id);
  }

  isOpen(run) {
    return OPEN.includes(run.state);
  }

  get openCount() {
    return [...this.#runs.values()].filter((run) => this.isOpen(run)).length;
  }

  /** Read what is kept, and follow again what was not over. */
  async load() {
    const [batches, runs] = await Promise.all([store.all("batches"), store.all("runs")]);
    this.batches = batches.sort((a, b) => b.created - a.created);
    for (const run of runs) if (this.batch(run.batch)) this.#runs.set(run.id, run);
    for (const batch of this.batches) if (this.of(batch).length === 0) await this.remove(batch);
    // What was never answered is sent again; what was, is followed.
    for (const run of this.#runs.values()) if (this.isOpen(run)) this.#begin(run, { isNew: !run.accepted });
  }

  /** Send a batch: `what` is {workflow, title, values, graph, outputs, seedName, ...}. */
  async submit(what, count) {
    const batch = { id: newId("b"), created: Date.now(), ...what };
    this.batches.unshift(batch);
    await store.put("batches", batch);
    const seeds = seedsOf(batch, count);
    const made = seeds.map((seed, index) => ({
      id: newId("t"),
      batch: batch.id,
      number: index + 1,
      seed,
      created: Date.now(),
      state: "sending",
      progress: 0,
    }));
    for (const run of made) this.#runs.set(run.id, run);
    await Promise.all(made.map((run) => store.put("runs", run)));
    this.#tell("batches");
    for (const run of made) this.#begin(run, { isNew: true });
    this.#forgetOld();
    return batch;
  }

  /** Whether sending the same again may help. */
  canRetry(run) {
    return run.state === "failed" && (run.error.transient ?? UNSETTLED.includes(run.error.code));
  }

  /** Send a run that failed once more, under the same id: what the agent finished after all is not run twice. */
  retry(run) {
    const failedAt = run.finished ?? null;
    this.#change(run, {
      failedAt,
      state: "sending",
      progress: 0,
      error: null,
      node: null,
      note: null,
      accepted: false,
    });
    this.#begin(run, { isNew: true });
  }

  async cancel(run) {
    if (!this.isOpen(run)) return;
    this.#change(run, { cancelling: true });
    if (run.accepted || run.sent) {
      try {
        await ask(`api/tasks/${run.id}`, { method: "DELETE" });
        return; // its events tell the rest
      } catch (error) {
        if (error.code !== "TaskNotFound") {
          this.#change(run, { cancelling: false, note: error.code === "Offline" ? "error.Offline" : "run.busy" });
          return;
        }
      }
    }
    this.#control.get(run.id)?.abort();
    this.#change(run, { state: "cancelled", cancelling: false });
  }

  async remove(batch) {
    for (const run of this.of(batch)) await this.#drop(run);
    this.batches = this.batches.filter((each) => each.id !== batch.id);
    await store.remove("batches", batch.id);
    this.#tell("batches");
  }

  async clear() {
    for (const batch of [...this.batches]) await this.remove(batch);
    await store.clear("drafts");
  }

  async #drop(run) {
    if (this.isOpen(run)) await this.cancel(run);
    this.#control.get(run.id)?.abort();
    this.#runs.delete(run.id);
    clearTimeout(this.#saving.get(run.id));
    this.#saving.delete(run.id);
    await store.remove("runs", run.id);
  }

  async #forgetOld() {
    let count = 0;
    for (const batch of [...this.batches]) {
      const runs = this.of(batch);
      count += runs.length;
      if (count > KEPT_RUNS && !runs.some((run) => this.isOpen(run))) await this.remove(batch);
    }
  }

  #begin(run, { isNew }) {
    const control = new AbortController();
    this.#control.set(run.id, control);
    this.#live(run, control.signal, isNew)
      .catch((error) => {
        if (control.signal.aborted || !this.#runs.has(run.id)) return;
        if (!(error instanceof Failure)) console.warn(error);
        const isGone = error.code === "TaskNotFound" && run.accepted;
        if (isGone) this.#change(run, { state: "gone" });
        else if (error.code === "TaskCancelled") this.#change(run, { state: "cancelled" });
        else this.#change(run, { state: "failed", error: { code: error.code, detail: error.detail, ...error.facts } });
      })
      .finally(() => {
        if (this.#control.get(run.id) === control) this.#control.delete(run.id);
      });
  }

  /** From the request to the end. The request may be answered at once, or only when the run is over. */
  async #live(run, signal, isNew) {
    const inner = new AbortController();
    const stop = () => inner.abort();
    signal.addEventListener("abort", stop);
    try {
      const sending = isNew ? this.#send(run, inner.signal) : Promise.resolve();
      let isSending = isNew;
      const sent = sending.finally(() => (isSending = false));
      const until = this.#departure(run, sent, inner.signal).then(() =>
        follow(run.id, {
          signal: inner.signal,
          see: (record) => this.#see(run, record),
          mayBeUnknown: () => isSending,
          // Sent again, a task keeps its end until the request has arrived: its failure, or that nobody waited for it.
          isOld: ({ error, finished_at }) =>
            isSending && error !== null && (error.code === "CallerGone" || finished_at === run.failedAt),
        }),
      );
      until.catch(() => {}); // where sending fails too, that is the reason to show
      await Promise.race([until, sent.then(() => until)]);
    } finally {
      signal.removeEventListener("abort", stop);
      inner.abort();
    }
  }

  /** When the agent may know the task: its request was answered, or has been open for a while. */
  async #departure(run, sent, signal) {
    const isOpenLong = async () => {
      while (!run.sent && !signal.aborted) await pause(GRACE_MS, signal);
      await pause(GRACE_MS, signal);
    };
    await Promise.race([sent, isOpenLong()]);
  }

  async #send(run, signal) {
    await posts.take();
    try {
      for (let tries = 0; ; tries += 1) {
        try {
          if (signal.aborted) return;
          const { path, body, headers } = requestOf(this.batch(run.batch), run);
          this.#change(run, { sent: true });
          const response = await ask(path, {
            method: "POST",
            body,
            headers: { ...headers, "task-id": run.id, Prefer: "respond-async" },
            signal,
          });
          this.#change(run, { accepted: true, note: null, ...(run.state === "sending" ? { state: "queued" } : {}) });
          await response.body?.cancel(); // a run's whole result, where the agent answered after it
          return;
        } catch (error) {
          if (!(error instanceof Failure) || !error.isPassing || tries === PAUSES.length) throw error;
          this.#change(run, { note: error.code === "Offline" ? "error.Offline" : "run.busy" });
          await pause(Math.max(PAUSES[tries], error.retryAfter ?? 0) * 1000, signal);
        }
      }
    } finally {
      posts.give();
    }
  }

  #see(run, record) {
    const node = record.current_node;
    const outputs = record.outputs.map((output) =>
      Object.fromEntries(KEPT_FIELDS.map((field) => [field, output[field]])),
    );
    const texts = Object.values(record.nodes).flatMap((each) => [each.text ?? []].flat().map(String));
    this.#change(run, {
      // Whoever left a request open that was to bring the result did not mean to cancel.
      state: record.error?.code === "CallerGone" ? "failed" : record.state,
      note: null,
      progress: record.progress,
      position: record.queue_position,
      node: node ? { title: node.title || node.class_type || node.id, value: node.value, max: node.max } : null,
      preview: record.preview ?? 0,
      error: record.error,
      warnings: record.warnings.map((warning) => String(warning.detail ?? warning.code)),
      finished: record.finished_at,
      started: record.started_at,
      outputs,
      texts,
    });
  }

  #change(run, changes) {
    if (!this.#runs.has(run.id)) return;
    const before = run.state;
    Object.assign(run, changes);
    this.dispatchEvent(new CustomEvent("run", { detail: { run, before } }));
    if (run.state !== before) this.#save(run);
    else if (!this.#saving.has(run.id))
      this.#saving.set(
        run.id,
        setTimeout(() => this.#save(run), 1_000),
      );
  }

  #save(run) {
    clearTimeout(this.#saving.get(run.id));
    this.#saving.delete(run.id);
    if (this.#runs.has(run.id)) store.put("runs", run);
  }

  #tell(what) {
    this.dispatchEvent(new CustomEvent(what));
  }
}

/** One seed a run: a fixed one and those after it, or random ones. Texts, since numbers of JavaScript are too short. */
function seedsOf(batch, count) {
  if (!batch.seedName) return Array.from({ length: count }, () => null);
  const given = BigInt(batch.values[batch.seedName] ?? -1);
  return Array.from({ length: count }, (_, index) =>
    String(given < 0n ? randomSeed() : (given + BigInt(index)) % (LARGEST_SEED + 1n)),
  );
}

/** 32 bits: enough never to meet the same one twice, and short enough to be read out. */
export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];
