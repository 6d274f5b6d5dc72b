import { readFileSync } from "node:fs"
import { Worker } from "node:worker_threads"
import { Effect, Fiber, Schedule } from "effect"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import type { Watch } from "../shared/goneWatcher.ts"
import { atMost, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { containers, processesOf, processList } from "../shared/Sandboxing.ts"
import { now, sampled } from "../shared/Timing.ts"

const command = "setsid sleep 1000 & sleep 1000"

const nameOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim()
  } catch {
    return ""
  }
}

/** The processes of the command, once both sleeps are there. */
const started = (list: string) =>
  Effect.sync(() => {
    const pids = processesOf(list).filter((pid) => ["sh", "dash", "bash", "sleep"].includes(nameOf(pid)))
    return pids.filter((pid) => nameOf(pid) === "sleep").length === 2 ? pids : undefined
  }).pipe(
    Effect.repeat({ schedule: Schedule.spaced("1 millis"), until: (pids) => pids !== undefined }),
    Effect.map((pids) => pids ?? [])
  )

const nextMessage = (worker: Worker): Effect.Effect<unknown> =>
  Effect.callback((resume) => {
    worker.once("message", (message) => resume(Effect.succeed(message)))
  })

const once = Effect.fnUntraced(function* (sandbox: Sandbox, list: string, worker: Worker) {
  const run = yield* Effect.forkChild(sandbox.commands.run(command))
  const pids = yield* started(list)
  yield* Effect.sync(() => worker.postMessage({ list, pids } satisfies Watch))
  yield* nextMessage(worker)
  const gone = yield* Effect.forkChild(nextMessage(worker), { startImmediately: true })
  // The thread is back in its loop by then.
  yield* Effect.sleep("5 millis")
  const start = now()
  yield* Fiber.interrupt(run)
  const returned = now() - start
  return { returned, gone: Number(yield* Fiber.join(gone)) - start }
})

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const samples = yield* Effect.gen(function* () {
    const sandbox = yield* Sandboxes.create()
    const list = processList(sandbox)
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(new URL("../shared/goneWatcher.ts", import.meta.url))),
      (worker) => Effect.promise(() => worker.terminate())
    )
    return yield* sampled({ warmUp: 5, runs: settings.runs ?? 100 }, once(sandbox, list, worker))
  }).pipe(Effect.scoped, Effect.provide(containers(settings)))
  return [
    row(
      "to the last process gone",
      "ms",
      samples.map((one) => one.gone),
      atMost(10)
    ),
    row(
      "to the interruption's end",
      "ms",
      samples.map((one) => one.returned)
    )
  ]
})

export const measurement: Measurement = {
  title: "Interrupting a command",
  about: `\`commands.run("${command}")\`; its processes are watched from the host, in the sandbox's control group, every 0.1 ms.`,
  measure
}
