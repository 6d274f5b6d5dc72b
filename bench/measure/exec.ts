import { Effect } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { atMost, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { installedPeers } from "../shared/Peers.ts"
import { run } from "../shared/Program.ts"
import { containers } from "../shared/Sandboxing.ts"
import { median } from "../shared/Stats.ts"
import { sampled, timed } from "../shared/Timing.ts"

const own = Effect.fnUntraced(function* (runs: number) {
  const sandbox = yield* Sandboxes.create()
  const program = yield* sampled({ warmUp: 300, runs }, timed(sandbox.process.run(["true"])))
  const shell = yield* sampled({ warmUp: 30, runs: Math.ceil(runs / 4) }, timed(sandbox.commands.run("true")))
  return { program, shell }
}, Effect.scoped)

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const mine = yield* own(settings.runs ?? 2000).pipe(Effect.provide(containers(settings)))
  const rows = [
    row('fiberbox: process.run(["true"])', "ms", mine.program, atMost(1)),
    row('fiberbox: commands.run("true"), through the login shell', "ms", mine.shell)
  ]
  for (const peer of yield* installedPeers(settings)) {
    if (peer.open === undefined) continue
    const samples = yield* Effect.flatMap(peer.open, (exec) =>
      sampled(
        { warmUp: 3, runs: settings.runs ?? 40 },
        Effect.map(run(exec(["true"])), ({ whole }) => whole)
      )
    ).pipe(Effect.scoped)
    rows.push(row(`${peer.name} exec`, "ms", samples))
    const share = median(mine.program) / median(samples)
    if (peer.name === "runc")
      rows.push(row("fiberbox's median as a part of runc exec's", "times", [share], atMost(0.1)))
  }
  return rows
})

export const measurement: Measurement = {
  title: "A program in a running sandbox",
  about: "`true`, from the call to its result, one after the other.",
  measure
}
