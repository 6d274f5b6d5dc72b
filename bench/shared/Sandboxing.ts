/** fiberbox as it is measured: through its public facade, in a state directory of the measurement's own. */

import { existsSync, readdirSync, readFileSync } from "node:fs"
import { Effect, Stream } from "effect"
import { Container } from "../../src/container.ts"
import { parseLayout } from "../../src/layers/container/Cgroup.ts"
import { containerName } from "../../src/layers/container/Settings.ts"
import type { Argv } from "../../src/services/Processes.ts"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import type { Settings } from "./Measurement.ts"
import { now } from "./Timing.ts"

/** What all instances of a measurement share, such as caches. Short: a socket's path is bounded. */
export const baseDirOf = (settings: Settings): string => `${settings.directory}/base`

/** `Sandboxes` of containers. */
export const containers = (settings: Settings) => Container.layer({ baseDir: baseDirOf(settings) })

/** Runs a program to its end and gives the milliseconds to its first output, and how many bytes came in all. */
export const toOutput = Effect.fnUntraced(function* (sandbox: Sandbox, argv: Argv) {
  const start = now()
  let firstOutput: number | undefined
  let bytes = 0
  const events = sandbox.process.stream(argv, { maxOutputBytes: "none", timeoutMillis: "none" })
  yield* Stream.runForEach(events, (event) =>
    Effect.sync(() => {
      if (event._tag !== "Output") return
      firstOutput ??= now() - start
      bytes += event.data.byteLength
    })
  )
  if (firstOutput === undefined) return yield* Effect.die(new Error(`${argv.join(" ")} printed nothing`))
  return { firstOutput, bytes, whole: now() - start }
})

const hierarchies = (): ReadonlyArray<string> => {
  const unified = "/sys/fs/cgroup/cgroup.controllers"
  const { controllers, hierarchies } = parseLayout(
    readFileSync("/proc/self/mountinfo", "utf8"),
    existsSync(unified) ? readFileSync(unified, "utf8") : ""
  )
  const { freezer } = controllers
  return freezer === undefined ? hierarchies : [freezer]
}

/** The file in which the kernel lists the processes of a sandbox, seen from outside. */
export const processList = (sandbox: Sandbox): string => {
  const name = containerName(sandbox.id)
  const found = hierarchies()
    .flatMap((root) => readdirSync(root).map((group) => `${root}/${group}/${name}/cgroup.procs`))
    .find((path) => existsSync(path))
  if (found === undefined) throw new Error(`${sandbox.id} has no control group`)
  return found
}

/** The processes of a sandbox as the host numbers them. */
export const processesOf = (list: string): ReadonlyArray<number> =>
  readFileSync(list, "utf8").split("\n").filter(Boolean).map(Number)
