import { Effect } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { installedPeers } from "../shared/Peers.ts"
import { run } from "../shared/Program.ts"
import { containers, toOutput } from "../shared/Sandboxing.ts"
import { now, sampled } from "../shared/Timing.ts"

/** Between two creations: after a pause the kernel takes longer to move a process into a version 1 control group. */
const gaps = [
  { millis: 0, name: "back to back" },
  { millis: 300, name: "300 ms between" }
]

const argv = ["echo", "hello"] as const

/** One sandbox from nothing to nothing, in milliseconds. */
interface Sample {
  readonly firstOutput: number
  readonly whole: number
}

const own = Effect.gen(function* () {
  const start = now()
  const sandbox = yield* Sandboxes.createDetached()
  const created = now() - start
  const { firstOutput } = yield* toOutput(sandbox, argv)
  yield* sandbox.kill
  return { created, firstOutput: created + firstOutput, whole: now() - start }
})

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const { runs = 40 } = settings
  const spawned = (command: Parameters<typeof run>[0]) =>
    Effect.map(run(command), ({ firstOutput = Number.NaN, whole }): Sample => ({ firstOutput, whole }))
  const peers = yield* installedPeers(settings)
  const others = [
    { name: "echo alone, no sandbox", once: spawned(argv) },
    ...peers.map((peer) => ({ name: peer.runs, once: spawned(peer.run(argv)) }))
  ]
  return yield* Effect.forEach(gaps, (gap) =>
    Effect.gen(function* () {
      const options = { warmUp: 3, runs }
      const paced = <A, E, R>(once: Effect.Effect<A, E, R>) =>
        sampled(options, Effect.andThen(Effect.sleep(gap.millis), once))
      const mine = yield* paced(own).pipe(Effect.provide(containers(settings)))
      const rows = [
        row(
          `fiberbox: to first output, ${gap.name}`,
          "ms",
          mine.map((one) => one.firstOutput)
        ),
        row(
          `fiberbox: created, ${gap.name}`,
          "ms",
          mine.map((one) => one.created)
        ),
        row(
          `fiberbox: created, run and removed, ${gap.name}`,
          "ms",
          mine.map((one) => one.whole)
        )
      ]
      for (const { name, once } of others) {
        const theirs = yield* paced(once)
        rows.push(
          row(
            `${name}: to first output, ${gap.name}`,
            "ms",
            theirs.map((one) => one.firstOutput)
          )
        )
        rows.push(
          row(
            `${name}: run and removed, ${gap.name}`,
            "ms",
            theirs.map((one) => one.whole)
          )
        )
      }
      return rows
    })
  ).pipe(Effect.map((rows) => rows.flat()))
})

export const measurement: Measurement = {
  title: "A fresh sandbox, to its first output",
  about:
    "`echo hello` in a sandbox of its own. fiberbox: `Sandboxes.create` and `process.stream` in process, with a disk of bounded " +
    "size. The others are programs started by the same Node process, on the same `/usr`, without a bounded disk; " +
    "runc gets fiberbox's own description of a container.",
  measure
}
