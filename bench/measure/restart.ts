import { Effect } from "effect"
import { atMost, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { connect, serve } from "../shared/Service.ts"
import { now, sampled } from "../shared/Timing.ts"

const count = 200
const tried = 20

/** A crash leaves the kernel with something to clear away. */
const pause = Effect.sleep("1 second")

const fill = Effect.fnUntraced(function* (settings: Settings) {
  const service = yield* serve(settings, { persistent: true })
  yield* Effect.scoped(
    Effect.gen(function* () {
      const sandboxes = yield* connect(service)
      yield* Effect.replicateEffect(sandboxes.createDetached(), count, { concurrency: 4, discard: true })
    })
  )
  yield* service.crash
}, Effect.scoped)

/** From nothing to service, which is then killed again. */
const round = Effect.fnUntraced(function* (settings: Settings, expected: number) {
  yield* pause
  const start = now()
  const service = yield* serve(settings, { persistent: true })
  const times = yield* Effect.scoped(
    Effect.gen(function* () {
      const client = yield* connect(service)
      const { sandboxes } = yield* client.list({ statuses: ["running"], limit: 1000 })
      const listed = now() - start
      const some = sandboxes.filter((_, i) => i % (count / tried) === 0)
      yield* Effect.forEach(
        some,
        ({ id }) => Effect.flatMap(client.connect(id), (sandbox) => sandbox.process.run(["true"])),
        { concurrency: "unbounded", discard: true }
      )
      const back = now() - start
      if (sandboxes.length !== expected)
        return yield* Effect.die(new Error(`${sandboxes.length} of ${expected} sandboxes run`))
      return { listed, back }
    })
  )
  yield* service.crash
  return times
}, Effect.scoped)

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const options = { warmUp: 1, runs: Math.min(settings.runs ?? 10, 10) }
  // Crashed services leave their sandboxes; the last one ends well, and they with it.
  yield* Effect.addFinalizer(() => Effect.ignore(Effect.scoped(serve(settings, { persistent: true }))))
  const empty = yield* sampled(options, round(settings, 0))
  yield* fill(settings)
  const full = yield* sampled(options, round(settings, count))
  const of = (rounds: typeof full, name: "listed" | "back") => rounds.map((one) => one[name])
  return [
    row(`until ${tried} sandboxes have each run a program`, "ms", of(full, "back"), atMost(2000)),
    row("until the sandboxes are listed", "ms", of(full, "listed")),
    row("without a sandbox, until none is listed", "ms", of(empty, "listed"))
  ]
}, Effect.scoped)

export const measurement: Measurement = {
  title: `A service with ${count} sandboxes, back after a crash`,
  about:
    `\`fiberbox serve\`, killed with SIGKILL while ${count} detached sandboxes run and started again: from the start of the process ` +
    `until it has answered \`Sandboxes.list\`, and until \`true\` has succeeded in ${tried} of them.`,
  measure
}
