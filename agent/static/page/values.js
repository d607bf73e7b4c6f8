// From what was filled in to the request that runs it.

export const LARGEST_SEED = 2n ** 64n - 1n;

/** Seeds of a graph, in its text, so that no other number is ever read and written again. */
const SEED = /("(?:noise_)?seed"\s*:\s*)-?\d+/g;

/** {path, body, headers} of one run. Numbers go as the text that was typed: those of JavaScript are too short. */
export function requestOf(batch, run) {
  if (batch.graph !== undefined) {
    const graph = batch.newSeeds ? batch.graph.replace(SEED, "$1-1") : batch.graph;
    return { path: "api/run", body: graph, headers: { "Content-Type": "application/json" } };
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(batch.values)) {
    if (name === batch.seedName) continue;
    if (value?.blob) form.append(name, value.blob, value.name || "file");
    else if (value?.url) form.append(name, value.url);
    else if (value !== null && value !== undefined) form.append(name, String(value));
  }
  if (batch.seedName) form.append(batch.seedName, run.seed);
  return { path: `api/workflows/${encodeURIComponent(batch.workflow)}/run`, body: form, headers: {} };
}
