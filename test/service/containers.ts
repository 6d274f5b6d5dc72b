/**
 * Services of containers as programs of their own, for tests to freeze and kill,
 * and what of the processes they started the machine shows.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { Effect, Option, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { instanceIn, sandboxIn, sweep } from "../model/lifeKernel.ts"

/** Below the ports that the kernel gives to whoever asks for any: those may be another test's in the next moment. */
const ports = { from: 20_000, below: 32_768 }

/** A port that nobody listens on, and that stays free between the end of one service and the next. */
export const freePort: Effect.Effect<number> = Effect.suspend(() => {
  const port = ports.from + Math.floor(Math.random() * (ports.below - ports.from))
  return Effect.callback<number, "taken">((resume) => {
    const server = createServer()
      .once("error", () => resume(Effect.fail("taken")))
      .listen(port, "127.0.0.1", () => server.close(() => resume(Effect.succeed(port))))
  })
}).pipe(Effect.retry({ times: 100 }), Effect.orDie)

/** Starts the service; closing the scope kills it, as `kill -9` does. Gives its process id. */
export const startService = Effect.fnUntraced(function* (base: string, port: number) {
  const program = fileURLToPath(new URL("./host.ts", import.meta.url))
  const service = yield* ChildProcess.make(process.execPath, [program, base, String(port)], {
    stderr: "inherit",
    killSignal: "SIGKILL"
  })
  const ready = yield* service.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.filter((line) => line === "ready"),
    Stream.runHead
  )
  // Otherwise whoever else is at that port would be asked.
  if (Option.isNone(ready)) return yield* Effect.die("the service ended before it was ready")
  return service.pid
})

/** A file of a process that may end at any moment. */
const read = (pid: number, name: string): string => {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "utf8")
  } catch {
    return ""
  }
}

/** A process as the machine shows it. */
export interface Seen {
  readonly pid: number
  readonly parent: number
  readonly command: string
}

const all = (): ReadonlyArray<Seen> =>
  readdirSync("/proc").flatMap((name) => {
    const pid = Number(name)
    const stat = Number.isInteger(pid) ? read(pid, "stat") : ""
    // The name in brackets may have brackets and spaces of its own.
    const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1])
    return stat === "" ? [] : [{ pid, parent, command: read(pid, "cmdline").replaceAll("\0", " ").trim() }]
  })

/** What a process has started, and what that has, and so on. */
export const descendants = (root: number): ReadonlyArray<Seen> => {
  const processes = all()
  const found: Array<Seen> = []
  const parents = new Set([root])
  for (let before = -1; before !== found.length; ) {
    before = found.length
    for (const one of processes) {
      if (!parents.has(one.parent) || parents.has(one.pid)) continue
      parents.add(one.pid)
      found.push(one)
    }
  }
  return found
}

/** The agents of an instance's sandboxes that live: the first process of each, in control groups that are called after it. */
export const agentsOf = (
  instance: string
): ReadonlyArray<{ readonly pid: number; readonly sandbox: string }> =>
  all().flatMap(({ pid }) => {
    const group = new RegExp(`fiberbox-${instance}/(local_[a-z0-9]+)`).exec(read(pid, "cgroup"))?.[1]
    const status = read(pid, "status")
    const isFirst = /^NSpid:.*\t1$/m.test(status)
    // One that has ended is there until its parent hears of it.
    const hasEnded = /^State:\t[ZX]/m.test(status)
    return group !== undefined && isFirst && !hasEnded ? [{ pid, sandbox: `sb_${group}` }] : []
  })

/** Leaves nothing in a directory of a test, nor of its service, which must end before the scope does, when the scope closes. */
export const cleared = (base: string) =>
  Effect.addFinalizer(() =>
    Effect.suspend(() => (existsSync(base) ? sweep(base, instanceIn(base)) : Effect.void))
  )

/** The sandboxes of which an instance has a control group, a disk in use or a runtime's record. */
export const held = (base: string, instance: string): ReadonlySet<string> => {
  const list = (path: string) => (existsSync(path) ? readdirSync(path) : [])
  const groups = list("/sys/fs/cgroup").flatMap((hierarchy) =>
    list(`/sys/fs/cgroup/${hierarchy}/fiberbox-${instance}`)
  )
  const disks = list("/sys/block").flatMap((name) => {
    const path = `/sys/block/${name}/loop/backing_file`
    const file = existsSync(path) ? readFileSync(path, "utf8") : ""
    return file.startsWith(`${base}/`) ? [file.slice(base.length)] : []
  })
  const records = list(`${base}/state/runc`)
  return new Set([...groups, ...disks, ...records].flatMap((text) => sandboxIn(text) ?? []))
}
