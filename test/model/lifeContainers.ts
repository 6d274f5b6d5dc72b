/**
 * The world of real containers for random programs of a sandbox's life: a
 * service that is a process of its own over a state directory, and what the
 * kernel and the disk show of the sandboxes in it.
 *
 * A world of limits of some hundred milliseconds in real time. What lasts ends
 * by itself after a while here: a call to an agent that never answers would
 * take half a minute.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Context, Effect, Fiber, Layer, Schedule, Schema } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { SandboxId } from "../../src/domain/Ids.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import type { LifeSystem } from "../../src/testing.ts"
import { aliceToken } from "../rpc/support.ts"
import { descendants, freePort } from "../service/containers.ts"

/** What this gives, or nothing where what it is about has ended meanwhile. */
const unlessGone = <A>(f: () => A): A | undefined => {
  try {
    return f()
  } catch {
    return undefined
  }
}

const names = (path: string) => unlessGone(() => readdirSync(path)) ?? []
const text = (path: string) => unlessGone(() => readFileSync(path, "utf8")) ?? ""

const millisNow = () => performance.now()

/** How long anything that a service does as a whole may take: starting, ending. */
const serviceMillis = 60_000

/** How long an agent stands still. */
const hangMillis = 1_000

/** A service that runs, as a process. */
interface Service {
  readonly process: ChildProcess
  /** Waits for a line of its output; dies when there is none. */
  readonly says: (line: string) => Effect.Effect<void>
  readonly ended: Effect.Effect<void>
}

const startService = (base: string, port: number, later: number): Service => {
  const program = fileURLToPath(new URL("../service/host.ts", import.meta.url))
  const child = spawn(process.execPath, [program, base, String(port), String(later)], {
    stdio: ["pipe", "pipe", "inherit"]
  })
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

// --- what the machine shows ---

const groupRoot = "/sys/fs/cgroup"

const sandboxIn = (text: string): SandboxId | undefined => {
  const id = `sb_${/local_[a-z0-9]+/.exec(text)?.[0]}`
  return Schema.is(SandboxId)(id) ? id : undefined
}

const nameOf = (id: SandboxId) => id.slice("sb_".length)

/** The directories of an instance's control groups: one for each hierarchy. */
const groupsOf = (instance: string) =>
  ["", ...names(groupRoot).map((hierarchy) => `/${hierarchy}`)]
    .map((hierarchy) => `${groupRoot}${hierarchy}/fiberbox-${instance}`)
    .filter((path) => existsSync(path))

/** The processes that live in a sandbox's control groups, frozen or not. */
const processesOf = (instance: string, id: SandboxId): ReadonlyArray<number> => {
  const lists = groupsOf(instance).map((group) => text(`${group}/${nameOf(id)}/cgroup.procs`))
  const pids = new Set(lists.flatMap((list) => list.split("\n").filter((line) => line !== "")))
  return [...pids].map(Number).filter((pid) => /^State:\s+[^ZX]/m.test(text(`/proc/${pid}/status`)))
}

/** The agent: the first process of its namespace. */
const agentOf = (instance: string, id: SandboxId) =>
  processesOf(instance, id).find((pid) => /^NSpid:.*\t1$/m.test(text(`/proc/${pid}/status`)))

const isFrozen = (instance: string, id: SandboxId) =>
  groupsOf(instance).some(
    (group) =>
      text(`${group}/${nameOf(id)}/freezer.state`).trim() === "FROZEN" ||
      /^frozen 1$/m.test(text(`${group}/${nameOf(id)}/cgroup.events`))
  )

/** Kills all in a sandbox's control groups; of version 1 the frozen die only when they thaw. */
const killAll = (instance: string, id: SandboxId) => {
  for (const pid of processesOf(instance, id)) unlessGone(() => process.kill(pid, "SIGKILL"))
  for (const group of groupsOf(instance)) {
    const state = `${group}/${nameOf(id)}/freezer.state`
    if (existsSync(state)) unlessGone(() => writeFileSync(state, "THAWED"))
  }
}

const Record = Schema.fromJsonString(Schema.Struct({ generation: Schema.Number }))

/** All that is there of any sandbox of an instance: groups, disks in use or not, records of the runtime, mounts. */
const census = (base: string, instance: string): ReadonlyArray<LifeSystem.Found> => {
  const disks = names("/sys/block")
    .map((name) => text(`/sys/block/${name}/loop/backing_file`))
    .filter((file) => file.startsWith(`${base}/`))
  const mounts = text("/proc/self/mountinfo")
    .split("\n")
    .filter((line) => line.includes(`${base}/state/`))
  const places = [
    ...groupsOf(instance).flatMap(names),
    ...disks.map((file) => file.slice(base.length)),
    ...mounts,
    ...names(`${base}/state/s`),
    ...names(`${base}/state/runc`)
  ]
  const ids = new Set(places.flatMap((place) => sandboxIn(place) ?? []))
  return [...ids].map((id) => {
    const processes = processesOf(instance, id)
    if (processes.length === 0) return { id, machine: undefined }
    const record = Schema.decodeOption(Record)(text(`${base}/state/s/${nameOf(id)}/machine.json`))
    const programs = processes.map((pid) => text(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim())
    return {
      id,
      machine: {
        generation: record._tag === "Some" ? record.value.generation : Number.NaN,
        isPaused: isFrozen(instance, id),
        programs
      }
    }
  })
}

// --- the ground ---

/** A state directory and the service over it: one world after another is made on it, and the service may go on. */
export interface Ground {
  readonly base: () => string
  readonly instance: () => string
  readonly port: number
  readonly pid: () => number | undefined
  /** How much later than it is the service takes it to be, in milliseconds. */
  readonly later: () => number
  readonly setLater: (millis: number) => Effect.Effect<void>
  /** Ends the service, by SIGKILL or in order, and starts another. */
  readonly restart: (isKilled: boolean) => Effect.Effect<void>
  /** A service in another directory takes the place of this one, of which every program is killed. */
  readonly abandon: Effect.Effect<void>
}

/** A fresh ground with a service; when the scope closes nothing of it runs any more. */
export const ground = Effect.gen(function* () {
  const port = yield* freePort
  let later = 0
  let base = ""
  let service: Service | undefined
  const instance = () => {
    const { id } = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({ id: Schema.String })))(
      text(`${base}/state/instance.json`)
    )
    return id
  }
  const start = Effect.suspend(() => {
    service = startService(base, port, later)
    return service.says("ready")
  })
  const kill = Effect.suspend(() => {
    service?.process.kill("SIGKILL")
    return service?.ended ?? Effect.void
  })
  const leave = Effect.gen(function* () {
    yield* kill
    if (!existsSync(`${base}/state/instance.json`)) return
    for (const { id } of census(base, instance())) killAll(instance(), id)
    yield* Effect.sync(() => rmSync(base, { recursive: true, force: true })).pipe(
      Effect.sandbox,
      Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 100 }),
      Effect.orDie
    )
  })
  const settle = Effect.suspend(() => {
    base = mkdtempSync(join(tmpdir(), "fb-"))
    return start
  })
  yield* Effect.addFinalizer(() => leave)
  yield* settle
  const made: Ground = {
    base: () => base,
    instance,
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
    restart: (isKilled) =>
      Effect.gen(function* () {
        if (isKilled || service === undefined) yield* kill
        else {
          service.process.stdin?.write("end\n")
          yield* service.ended
        }
        yield* start
      }),
    abandon: Effect.andThen(leave, settle)
  }
  return made
})

// --- the world ---

/** Steps that this world cannot take: nothing can be cut or lost on the way to a machine, and helpers are met only while they work. */
export const leaveOut = (step: LifeSystem.Command): boolean => {
  const fault = step._tag === "During" ? step.fault : step
  switch (fault._tag) {
    case "WayCut":
    case "StoreFails":
      return true
    case "HelperFails":
      return fault.how !== "dies" || step._tag !== "During"
    default:
      return false
  }
}

/** A world on a ground that nothing is on. */
export const make = Effect.fnUntraced(function* (ground: Ground) {
  const client = yield* Layer.build(
    SandboxesClient.layer({ url: `http://127.0.0.1:${ground.port}`, token: aliceToken })
  )
  const sandboxes = Context.get(client, Sandboxes)
  const all = () => census(ground.base(), ground.instance())
  const began = millisNow()

  const stopped = new Set<number>()
  const goOn = (pid: number) => {
    if (stopped.delete(pid)) unlessGone(() => process.kill(pid, "SIGCONT"))
  }

  const empty = Effect.suspend(() => (all().length === 0 ? Effect.void : Effect.fail("not yet")))
  // What a failed program left is killed, so that the next begins with nothing.
  yield* Effect.addFinalizer(() =>
    Effect.gen(function* () {
      for (const pid of stopped) goOn(pid)
      yield* ground.setLater(0)
      if (all().length === 0) return
      const { sandboxes: left } = yield* sandboxes.list({ limit: 1000 })
      for (const { id } of left) yield* Effect.ignore(sandboxes.kill(id))
      yield* Effect.retry(empty, { schedule: Schedule.spaced("50 millis"), times: 100 })
    }).pipe(
      Effect.timeout("20 seconds"),
      Effect.catchCause(() => ground.abandon)
    )
  )

  /** A machine's death is a thing of the past only when the service has heard of it. */
  const die = (id: SandboxId) =>
    Effect.gen(function* () {
      const before = yield* Effect.option(sandboxes.get(id))
      killAll(ground.instance(), id)
      const heard = Effect.gen(function* () {
        if (before._tag === "None") return true
        const { status, generation } = yield* sandboxes.get(id)
        return (status !== "running" && status !== "paused") || generation !== before.value.generation
      })
      yield* Effect.repeat(heard, { schedule: Schedule.spaced("20 millis"), until: (is) => is })
    }).pipe(Effect.timeout("5 seconds"), Effect.ignore)

  const hang = (id: SandboxId) =>
    Effect.gen(function* () {
      const pid = agentOf(ground.instance(), id)
      if (pid === undefined || unlessGone(() => process.kill(pid, "SIGSTOP")) === undefined) return
      stopped.add(pid)
      yield* Effect.forkDetach(
        Effect.andThen(
          Effect.sleep(hangMillis),
          Effect.sync(() => goOn(pid))
        )
      )
    })

  const strike = (fault: LifeSystem.Fault, id: SandboxId | undefined): Effect.Effect<void> => {
    switch (fault._tag) {
      case "ServiceKilled":
        return ground.restart(true)
      case "ServiceEnded":
        return ground.restart(false)
      case "MachineDies":
        return id === undefined ? Effect.void : die(id)
      case "AgentHangs":
        return id === undefined ? Effect.void : hang(id)
      case "HelperFails":
        return Effect.sync(() => {
          for (const { pid, command } of descendants(ground.pid() ?? -1)) {
            if (/^\S*(fiberbox-host|runc) /.test(command)) unlessGone(() => process.kill(pid, "SIGKILL"))
          }
        })
      case "ClockJumps":
        return ground.setLater(ground.later() + (fault.to === "an hour on" ? 3_600_000 : -86_400_000))
      case "WayCut":
      case "StoreFails":
        return Effect.void
    }
  }

  const asked = <A, E>(fiber: Fiber.Fiber<A, E>) => {
    const exit = (millis: number) =>
      Effect.map(Effect.timeoutOption(Fiber.await(fiber), millis), (exit) =>
        exit._tag === "Some" ? exit.value : undefined
      )
    return {
      // Close together at first, since most calls are short, and up to what it takes to make a sandbox.
      some: (moment: number) => Effect.sleep((moment * moment) / 15),
      answer: exit,
      giveUp: (millis: number) =>
        Effect.suspend(() => {
          fiber.interruptUnsafe()
          return exit(millis)
        })
    }
  }

  const made: LifeSystem.World = {
    unitMillis: 400,
    callMillis: 40_000,
    orderMillis: 20_000,
    ask: (call) => Effect.map(Effect.forkDetach(call(sandboxes)), asked),
    strike,
    heal: Effect.gen(function* () {
      for (const pid of stopped) goOn(pid)
      yield* ground.setLater(0)
    }),
    wait: (millis) => Effect.sleep(millis),
    now: Effect.sync(() => ({ elapsed: millisNow() - began, wall: Date.now() + ground.later() })),
    census: Effect.sync(all)
  }
  return made
})
