// Following one task until it has ended, whatever happens to the connections on the way.

import { Failure, askJson, isOld, pause, records, streams } from "./api.js";

const FINAL = ["succeeded", "failed", "cancelled"];

/** Between looks at a task for which there is no event stream. */
const LOOK_MS = 1_000;

const LONGEST_PAUSE_MS = 20_000;

/** A task that nobody knows so long after it was accepted is gone: stores need no longer. */
const UNKNOWN_MS = 8_000;

/**
 * Tell `see` each record of the task; returns the final one.
 *
 * Broken connections, busy platforms (429, 503) and restarts are waited for, with growing pauses. While `mayBeUnknown`
 * says that the task may still be on its way, nobody needs to know it. `isOld` tells of a record that is from before.
 *
 * Raises Failure: TaskNotFound, or what no waiting helps against. Returns null once `signal` says stop.
 */
export async function follow(taskId, { signal, see, mayBeUnknown, isOld }) {
  let failures = 0;
  let unknownSince = null;
  while (!signal.aborted) {
    try {
      for await (const record of look(taskId, signal)) {
        failures = 0;
        unknownSince = null;
        if (isOld(record)) continue;
        see(record);
        if (FINAL.includes(record.state)) return record;
      }
      await pause(LOOK_MS, signal);
    } catch (error) {
      if (signal.aborted) return null;
      if (!(error instanceof Failure)) throw error;
      if (error.code === "TaskNotFound") {
        unknownSince = mayBeUnknown() ? null : (unknownSince ?? Date.now());
        if (unknownSince !== null && Date.now() - unknownSince >= UNKNOWN_MS) throw error;
        await pause(2 * LOOK_MS, signal);
      } else if (error.isPassing || error.status >= 500) {
        failures += 1;
        const growing = Math.min(500 * 2 ** failures, LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2);
        await pause(Math.max(growing, (error.retryAfter ?? 0) * 1000), signal);
      } else {
        throw error;
      }
    }
  }
  return null;
}

/** The records of an event stream, or a single one while all streams that the browser can hold are taken, or are
 * better left to a tab that somebody looks at. */
async function* look(taskId, signal) {
  if (isSpare() || !streams.tryTake()) {
    yield await askJson(`api/tasks/${taskId}`, { signal, cache: "no-store" });
    return;
  }
  const control = new AbortController();
  const stop = () => (signal.aborted || isSpare()) && control.abort();
  signal.addEventListener("abort", stop);
  document.addEventListener("visibilitychange", stop);
  try {
    yield* records(taskId, control.signal);
  } finally {
    signal.removeEventListener("abort", stop);
    document.removeEventListener("visibilitychange", stop);
    streams.give();
  }
}

const isSpare = () => isOld && document.hidden;
