// A caller of RunPod who uses its own client for JavaScript.
// usage: node use_runpod.mjs BASE_URL KEY < {"quick": input, "long": input, "failing": input}; prints what it gave back.
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"

// It is no dependency of ours: the folder whose node_modules has it is named.
const require = createRequire(`${process.env.CLIENTS}/`)
const { default: runpodSdk } = await import(require.resolve("runpod-sdk"))

const PATIENCE_MS = 60000
const [baseUrl, key] = process.argv.slice(2)
const jobs = JSON.parse(readFileSync(0, "utf8"))
const print = console.log
console.log = console.error // where the client says how it is getting on

const endpoint = runpodSdk(key, { baseUrl }).endpoint("an-endpoint")
const told = { health: await endpoint.health(PATIENCE_MS) }
told["at once"] = (await endpoint.runSync({ input: jobs.quick }, PATIENCE_MS)).output

const job = await endpoint.run({ input: jobs.quick }, PATIENCE_MS)
told.waited = await endpoint.statusSync(job.id, PATIENCE_MS)
told.later = (await endpoint.status(job.id, PATIENCE_MS)).output

const long = await endpoint.run({ input: jobs.long }, PATIENCE_MS)
const status = async () => (await endpoint.status(long.id, PATIENCE_MS)).status
told.cancelled = [await status(), (await endpoint.cancel(long.id, PATIENCE_MS)).status, await status()]

const failing = await endpoint.run({ input: jobs.failing }, PATIENCE_MS)
told.streamed = []
for await (const piece of endpoint.stream(failing.id)) told.streamed.push(piece)
told.failed = (await endpoint.status(failing.id, PATIENCE_MS)).status

const wrong = { workflow: {}, prompt: "nothing that worker-comfyui takes" }
told.refused = await endpoint.run({ input: wrong }, PATIENCE_MS).catch((error) => [
  error.response.status, error.response.data.code,
])
const stranger = runpodSdk("not-the-key", { baseUrl }).endpoint("an-endpoint")
told.unauthorized = await stranger.health(PATIENCE_MS).catch((error) => error.response.status)

print(JSON.stringify(told))
