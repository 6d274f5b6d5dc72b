/**
 * What random lives on containers stand on: a service that is a process of its
 * own, over a state directory on a small disk of its own. It can be killed and
 * started again, its clock set, its store locked and its disk filled, and
 * nothing of it is left in the end, whatever was done to it.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, rmdirSync, rmSync, statfsSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { DatabaseSync } from "node:sqlite"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import { freePort } from "../service/containers.ts"
import { baseName, instanceIn, sweep, unlessGone } from "./lifeKernel.ts"

/** How long anything that a service does as a whole may take: starting, ending. */
const serviceMillis = 60_000

/** A service that runs, as a process. */
interface Service {
  readonly process: ChildProcess
  /** Waits for a line of its output; dies when there is none. */
  readonly says: (line: string) => Effect.Effect<void>
  readonly ended: Effect.Effect<void>
}

const startService = (args: ReadonlyArray<string>): Service => {
  const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] })
  const lines = createInterface({ input: child.stdout })
  const within = <A>(effect: Effect.Effect<A>, what: string) =>
    Effect.timeoutOrElse(effect, {
      duration: serviceMillis,
      orElse: () => Effect.die(new Error(`the service did not ${what} in ${serviceMillis} ms`))
    })
  return {
    process: child,
    says: (expected) =>
      within(
        Effect.callback<void>((resume) => {
          const hear = (line: string) => {
            if (line === expected) resume(Effect.void)
          }
          const end = () => resume(Effect.die(new Error(`the service ended and did not say ${expected}`)))
          lines.on("line", hear)
          child.once("exit", end)
          return Effect.sync(() => {
            lines.off("line", hear)
            child.off("exit", end)
          })
        }).pipe(Effect.ensuring(Effect.sync(() => lines.resume()))),
        `say ${expected}`
      ),
    ended: within(
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
      }),
      "end"
    )
  }
}

/** The disk that all of an instance is on. */
const diskBytes = 256 * 1024 * 1024

const settle = Effect.sync(() => {
  const base = mkdtempSync(join(tmpdir(), baseName(process.pid)))
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${diskBytes}`, "fiberbox-life", base])
  return base
})

/** Ends and removes all that is in a directory whose service has ended, and the directory. */
const clear = Effect.fnUntraced(function* (base: string) {
  const instance = instanceIn(base)
  if (instance !== "") yield* sweep(base, instance)
  unlessGone(() => execFileSync("umount", ["-l", base], { stdio: "ignore" }))
  // What was abandoned may be cleared by another test program at the same time.
  unlessGone(() => rmdirSync(base))
  if (existsSync(base)) return yield* Effect.die(new Error(`${base} stays`))
})

/** Clears what test programs left that were killed themselves. Their services ended with them. */
const clearAbandoned = Effect.suspend(() => {
  const left = readdirSync(tmpdir()).filter((name) => {
    const owner = new RegExp(`^${baseName(0).replace("0", "(\\d+)")}`).exec(name)?.[1]
    return owner !== undefined && !existsSync(`/proc/${owner}`)
  })
  return Effect.forEach(left, (name) => clear(join(tmpdir(), name)), { discard: true })
})

/** A state directory and the service over it: one world after another is made on it, and the service may go on. */
export interface Ground {
  readonly base: () => string
  readonly instance: () => string
  readonly port: number
  readonly pid: () => number | undefined
  /** How much later than it is the service takes it to be, in milliseconds. */
  readonly later: () => number
  readonly setLater: (millis: number) => Effect.Effect<void>
  /** Holds the store, as another process may, until it is let go. */
  readonly lockStore: Effect.Effect<void>
  readonly unlockStore: Effect.Effect<void>
  /** Leaves no byte of the disk that all of the instance is on, until it is given back. */
  readonly fillDisk: Effect.Effect<void>
  readonly freeDisk: Effect.Effect<void>
  /** Ends the service, by SIGKILL or in order, and starts another. */
  readonly restart: (isKilled: boolean) => Effect.Effect<void>
  /** A service in another directory takes the place of this one, of which nothing is left. */
  readonly abandon: Effect.Effect<void>
}

/** A fresh ground with a service, which `program` is. When the scope closes nothing of it is left. */
export const make = Effect.fnUntraced(function* (
  program: URL = new URL("../service/host.ts", import.meta.url),
  ...options: ReadonlyArray<string>
) {
  yield* clearAbandoned
  const port = yield* freePort
  let later = 0
  let base = ""
  let service: Service | undefined
  let held: DatabaseSync | undefined

  const start = Effect.suspend(() => {
    service = startService([fileURLToPath(program), base, String(port), String(later), ...options])
    return service.says("ready")
  })
  const kill = Effect.suspend(() => {
    service?.process.kill("SIGKILL")
    return service?.ended ?? Effect.void
  })
  const unlockStore = Effect.sync(() => {
    held?.close()
    held = undefined
  })
  const filler = () => `${base}/filler`
  const freeDisk = Effect.sync(() => rmSync(filler(), { force: true }))
  const begin = Effect.suspend(() =>
    Effect.flatMap(settle, (made) => {
      base = made
      return start
    })
  )
  const leave = kill.pipe(
    Effect.andThen(unlockStore),
    Effect.andThen(Effect.suspend(() => (base === "" ? Effect.void : clear(base)))),
    Effect.andThen(
      Effect.sync(() => {
        base = ""
      })
    )
  )
  yield* Effect.addFinalizer(() => leave)
  yield* begin

  const made: Ground = {
    base: () => base,
    instance: () => instanceIn(base),
    port,
    pid: () => service?.process.pid,
    later: () => later,
    setLater: (millis) =>
      Effect.suspend(() => {
        if (millis === later || service === undefined) return Effect.void
        later = millis
        const { process, says } = service
        return Effect.all([says("set"), Effect.sync(() => process.stdin?.write(`${millis}\n`))], {
          concurrency: "unbounded",
          discard: true
        })
      }),
    lockStore: Effect.sync(() => {
      if (held !== undefined) return
      held = new DatabaseSync(`${base}/state/store.db`, { timeout: 5_000 })
      held.exec("BEGIN IMMEDIATE")
    }),
    unlockStore,
    fillDisk: Effect.sync(() => {
      const { bavail, bsize } = statfsSync(base)
      unlessGone(() => writeFileSync(filler(), new Uint8Array(bavail * bsize), { flag: "a" }))
    }),
    freeDisk,
    restart: (isKilled) =>
      Effect.gen(function* () {
        if (isKilled || service === undefined) yield* kill
        else {
          service.process.stdin?.write("end\n")
          yield* service.ended
        }
        // A service that finds its store locked, or its disk full, does not begin.
        yield* Effect.andThen(unlockStore, freeDisk)
        yield* start
      }),
    abandon: Effect.andThen(leave, begin)
  }
  return made
})
