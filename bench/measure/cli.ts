import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import { atMost, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { installedPeers } from "../shared/Peers.ts"
import { type Command, run } from "../shared/Program.ts"
import { baseDirOf } from "../shared/Sandboxing.ts"
import { sampled } from "../shared/Timing.ts"

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const fiberbox: Command = [process.execPath, file("../../bin/fiberbox.js")]
const loaded: Command = [process.execPath, file("../shared/loadedCli.js")]

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const runs = settings.runs ?? 40
  const env = { FIBERBOX_BASE_DIR: baseDirOf(settings) }
  const whole = (command: Command) => Effect.map(run(command, { env }), ({ whole }) => whole)
  // In turn, so that what slows the machine for a while slows each alike.
  const rounds = yield* sampled(
    { warmUp: 3, runs },
    Effect.all({
      run: whole([...fiberbox, "run", "--", "true"]),
      loaded: whole(loaded),
      version: whole([...fiberbox, "--version"]),
      node: whole([process.execPath, "--eval", "0"])
    })
  )
  const of = (name: keyof (typeof rounds)[number]) => rounds.map((one) => one[name])
  const rows = [
    row("fiberbox run -- true", "ms", of("run"), atMost(350)),
    row(
      "of that: after Node has started and loaded",
      "ms",
      rounds.map((one) => one.run - one.loaded),
      atMost(60)
    ),
    row("fiberbox, all that `run` needs loaded, and ended", "ms", of("loaded")),
    row("fiberbox --version", "ms", of("version")),
    row("node --eval 0", "ms", of("node"))
  ]
  const peers = yield* installedPeers(settings)
  for (const peer of peers) {
    const samples = yield* sampled({ warmUp: 3, runs }, whole(peer.run(["true"])))
    rows.push(row(`${peer.runs} true`, "ms", samples))
  }
  return rows
})

export const measurement: Measurement = {
  title: "The command line, from start to end",
  about:
    "The whole process `node bin/fiberbox.js run -- true`, the sandbox's removal included. " +
    "What it does once Node has started and loaded is the difference, run by run, to the same program that has loaded the same modules " +
    "and does nothing but tell its version.",
  measure
}
