import { fileURLToPath } from "node:url"
import { Context, Effect, Layer, Schema } from "effect"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { atLeast, atMost, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { run } from "../shared/Program.ts"
import { containers, toOutput } from "../shared/Sandboxing.ts"
import { type Address, connect, serve } from "../shared/Service.ts"
import { rate, sampled, timed } from "../shared/Timing.ts"

const argv = ["head", "-c", String(256 * 1024 * 1024), "/dev/zero"] as const

const programs = 2
const clientsEach = 4
/** A service runs for long: what is wanted is how fast it is when its code has been compiled. */
const warmUpRounds = 2000
const warmUpMillis = 2000
const windowMillis = 1000

const clientProgram = fileURLToPath(new URL("../shared/execClients.ts", import.meta.url))
const decodeEnds = Schema.decodeUnknownEffect(
  Schema.fromJsonString(Schema.Array(Schema.Array(Schema.Finite)))
)

/** In milliseconds; in turn, so that what slows the machine for a while slows each alike. */
const execs = (runs: number, sandboxes: { readonly [K in "own" | "socket" | "http"]: Sandbox }) => {
  const exec = (sandbox: Sandbox) => timed(sandbox.process.run(["true"]))
  const { http, own, socket } = sandboxes
  return sampled(
    { warmUp: warmUpRounds, runs },
    Effect.all({ own: exec(own), socket: exec(socket), http: exec(http) })
  )
}

const output = (runs: number, sandbox: Sandbox) =>
  sampled(
    { warmUp: 2, runs },
    Effect.map(toOutput(sandbox, argv), ({ bytes, whole }) => rate(bytes, whole))
  )

/** How many programs ended in each second in which all clients were at work, and how long each took its client. */
const sustained = Effect.fnUntraced(function* (seconds: number, { url, token }: Address) {
  const millis = warmUpMillis + (seconds + 1) * windowMillis
  const clients = run([process.execPath, clientProgram, String(clientsEach), String(millis)], {
    env: { FIBERBOX_URL: url, FIBERBOX_TOKEN: token },
    keepBytes: Number.POSITIVE_INFINITY
  }).pipe(Effect.flatMap(({ stdout }) => decodeEnds(stdout)))
  const all = (yield* Effect.replicateEffect(clients, programs, { concurrency: programs })).flat()
  const from = Math.max(...all.map((ends) => ends.at(0) ?? Number.NaN)) + warmUpMillis
  const to = Math.min(...all.map((ends) => ends.at(-1) ?? Number.NaN))
  const perSecond = Array.from({ length: Math.floor((to - from) / windowMillis) }, () => 0)
  for (const end of all.flat()) {
    const window = Math.floor((end - from) / windowMillis)
    if (perSecond[window] !== undefined) perSecond[window]++
  }
  const each = all.flatMap((ends) =>
    ends.flatMap((end, i) => {
      const before = ends[i - 1]
      return before === undefined || before < from || end > to ? [] : [end - before]
    })
  )
  return { perSecond, each }
})

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const service = yield* serve(settings)
  const inProcess = Context.get(yield* Layer.build(containers(settings)), Sandboxes)
  const own = yield* inProcess.create()
  const socket = yield* (yield* connect(service)).create()
  const http = yield* (yield* connect(service, "http")).create()
  const rounds = yield* execs(settings.runs ?? 1000, { own, socket, http })
  const few = Math.min(settings.runs ?? 12, 12)
  const socketOutput = yield* output(few, socket)
  const httpOutput = yield* output(Math.ceil(few / 3), http)
  const { perSecond, each } = yield* sustained(Math.min(settings.runs ?? 10, 10), service)
  const of = (name: "own" | "socket" | "http") => rounds.map((one) => one[name])
  const more = (name: "socket" | "http") => rounds.map((one) => one[name] - one.own)
  return [
    row('in process: process.run(["true"])', "ms", of("own")),
    row("over WebSocket", "ms", of("socket")),
    row("over WebSocket, more than in process", "ms", more("socket"), atMost(0.4)),
    row("over HTTP", "ms", of("http")),
    row("over HTTP, more than in process", "ms", more("http")),
    row(`${programs * clientsEach} clients: ended in each second`, "/s", perSecond, atLeast(1000)),
    row(`${programs * clientsEach} clients: each`, "ms", each),
    row("standard output over WebSocket", "MB/s", socketOutput, atLeast(150)),
    row("standard output over HTTP", "MB/s", httpOutput)
  ]
}, Effect.scoped)

export const measurement: Measurement = {
  title: "Through a service",
  about:
    "`fiberbox serve` on loopback. `true`, from the call to its result, in process and through the service in turn, " +
    `after ${warmUpRounds} rounds that do not count; what is more is the difference, run by run. The ${programs * clientsEach} clients are in ${programs} programs of their own, each with a connection and a sandbox, and run ` +
    "`true` one after the other. Output is 256 MiB of zeros, counted as it arrives.",
  measure
}
