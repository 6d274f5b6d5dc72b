/**
 * Clients that keep a service busy, as a program of their own: each has a
 * connection and a sandbox, and runs `true` in it again and again, one after the
 * other. Writes when each run ended, for each client, as JSON.
 *
 *   FIBERBOX_URL=... FIBERBOX_TOKEN=... node execClients.ts CLIENTS MILLIS
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect } from "effect"
import { connect } from "./Service.ts"
import { now } from "./Timing.ts"

const [clients, millis] = process.argv.slice(2).map(Number)
const { FIBERBOX_URL: url = "", FIBERBOX_TOKEN: token = "" } = process.env

const client = Effect.gen(function* () {
  const sandbox = yield* (yield* connect({ url, token })).create()
  const until = now() + (millis ?? 0)
  const ends: Array<number> = []
  while (now() < until) {
    yield* sandbox.process.run(["true"])
    ends.push(Math.round(now() * 1e3) / 1e3)
  }
  return ends
}).pipe(Effect.scoped)

const program = Effect.gen(function* () {
  const ends = yield* Effect.replicateEffect(client, clients ?? 0, { concurrency: "unbounded" })
  process.stdout.write(JSON.stringify(ends))
})

NodeRuntime.runMain(program)
