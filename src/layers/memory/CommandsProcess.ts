/**
 * Programs about processes and the machine: sleep, env, nohup, setsid, ps, id ...
 */
import { DateTime, Effect, Result } from "effect"
import { exitCodeOf } from "../../domain/Process.ts"
import { fail, output } from "./CommandsBasic.ts"
import { forAppending, openPath } from "./OpenPath.ts"
import type { Process, Program } from "./Process.ts"

const units: { readonly [unit: string]: number } = { "": 1, s: 1, m: 60, h: 3600, d: 86_400 }

/** Seconds of a duration such as `1.5` or `2m`. */
const seconds = (text: string): number | undefined => {
  const match = /^([0-9]*\.?[0-9]+|[0-9]+\.)([smhd]?)$/.exec(text)
  return match === null ? undefined : Number(match[1]) * (units[match[2] ?? ""] ?? 1)
}

export const sleep: Program = (process, argv) => {
  if (argv.length < 2) return fail(process, argv[0], "missing operand")
  let total = 0
  for (const word of argv.slice(1)) {
    if (word === "infinity" || word === "inf") return Effect.never
    const time = seconds(word)
    if (time === undefined) return fail(process, argv[0], `invalid time interval '${word}'`)
    total += time
  }
  return Effect.as(process.sleep(total * 1000), 0)
}

/** Runs a program in place of this process. */
const become = (
  process: Process,
  argv: ReadonlyArray<string>,
  name: string | undefined
): Effect.Effect<number> => {
  const { cwd, uid, env, kernel } = process
  const found = kernel.load(argv, { cwd, path: env.get("PATH"), uid })
  if (Result.isSuccess(found)) {
    process.argv = found.success.argv
    return found.success.program(process, found.success.argv)
  }
  return found.failure === "not-found"
    ? fail(process, name, `failed to run command '${argv[0] ?? ""}': No such file or directory`, 127)
    : fail(process, name, `failed to run command '${argv[0] ?? ""}': Permission denied`, 126)
}

/** `env [-i] [-u name] [name=value ...] [program [arguments]]` */
export const env: Program = (process, argv) => {
  let at = 1
  for (; at < argv.length; at++) {
    const word = argv[at] ?? ""
    if (word === "-i" || word === "-") process.env.clear()
    else if (word === "-u") process.env.delete(argv[++at] ?? "")
    else if (word.includes("="))
      process.env.set(word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1))
    else break
  }
  if (at < argv.length) return become(process, argv.slice(at), argv[0])
  return output(process, argv[0], [...process.env].map(([name, value]) => `${name}=${value}\n`).join(""))
}

export const printenv: Program = (process, argv) => {
  const [, name] = argv
  if (name === undefined) return env(process, ["env"])
  const value = process.env.get(name)
  return value === undefined ? Effect.succeed(1) : output(process, argv[0], `${value}\n`)
}

export const nohup: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  if (argv.length < 2) return yield* fail(process, argv[0], "missing operand", 125)
  process.dispositions.set("SIGHUP", "ignore")
  if (process.files.get(1)?.terminal === true) {
    const file = openPath(process, "nohup.out", forAppending)
    if (Result.isSuccess(file)) process.setFile(1, file.success)
  }
  return yield* become(process, argv.slice(1), argv[0])
})

/** A session leader cannot lead another one: then a child does, and this process ends at once unless told to wait. */
export const setsid: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const wait = argv.includes("-w") || argv.includes("--wait")
  const rest = argv.slice(1).filter((word, index) => !(index === 0 && /^-/.test(word)))
  if (rest.length === 0) return yield* fail(process, argv[0], "no command specified")
  if (process.group !== process.pid) {
    process.group = process.pid
    process.session = process.pid
    return yield* become(process, rest, argv[0])
  }
  const child = process.kernel.spawn(process.execution, process, {
    argv: rest,
    env: process.env,
    cwd: process.cwd,
    uid: process.uid,
    files: process.files,
    newSession: true,
    program: (leader) => become(leader, rest, argv[0])
  })
  if (child === undefined) return yield* fail(process, argv[0], "fork: Resource temporarily unavailable")
  return wait ? exitCodeOf(yield* process.wait(child)) : 0
})

/** `timeout [-s signal] [-k time] seconds program ...`: 124 when the time has passed. */
export const timeout: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const [, limit = "", ...rest] = argv
  const time = seconds(limit)
  if (time === undefined || rest.length === 0)
    return yield* fail(process, argv[0], `invalid time interval '${limit}'`, 125)
  const child = process.kernel.spawn(process.execution, process, {
    argv: rest,
    env: process.env,
    cwd: process.cwd,
    uid: process.uid,
    files: process.files,
    program: (inner) => become(inner, rest, argv[0])
  })
  if (child === undefined) return yield* fail(process, argv[0], "fork system call failed", 125)
  const expired = Effect.as(process.sleep(time * 1000), undefined)
  const status = yield* Effect.raceFirst(process.wait(child), expired)
  if (status !== undefined) return exitCodeOf(status)
  process.kernel.signal(child, "SIGTERM")
  yield* process.wait(child)
  return 124
})

export const id: Program = (process, argv) => {
  const name = process.uid === 0 ? "root" : "user"
  const { uid } = process
  switch (argv[1]) {
    case "-u":
    case "-g":
    case "-G":
      return output(process, argv[0], `${uid}\n`)
    case "-un":
    case "-gn":
    case "-nu":
      return output(process, argv[0], `${name}\n`)
    default:
      return output(process, argv[0], `uid=${uid}(${name}) gid=${uid}(${name}) groups=${uid}(${name})\n`)
  }
}

export const whoami: Program = (process, argv) =>
  output(process, argv[0], process.uid === 0 ? "root\n" : "user\n")

export const uname: Program = (process, argv) => {
  const flags = argv.slice(1).join("")
  const machine = ["Linux", "sandbox", "6.1.0-memory", "#1 fiberbox", "x86_64", "GNU/Linux"]
  if (flags.includes("a")) return output(process, argv[0], `${machine.join(" ")}\n`)
  const wanted = ["s", "n", "r", "v", "m", "o"].flatMap((flag, index) =>
    flags.includes(flag) || (flags === "" && index === 0) ? [machine[index] ?? ""] : []
  )
  return output(process, argv[0], `${wanted.join(" ")}\n`)
}

export const hostname: Program = (process, argv) => output(process, argv[0], "sandbox\n")

export const nproc: Program = (process, argv) =>
  output(process, argv[0], `${Math.max(1, Math.ceil(process.kernel.limits.cpus))}\n`)

/** `date [+format]` with %s %Y %m %d %H %M %S %F %T %N, in UTC, by the machine's clock. */
export const date: Program = (process, argv) => {
  const millis = process.kernel.now()
  const iso = DateTime.formatIso(DateTime.makeUnsafe(millis))
  const format = argv.find((word) => word.startsWith("+"))?.slice(1) ?? "%Y-%m-%dT%H:%M:%S+00:00"
  const fields: { readonly [field: string]: string } = {
    s: String(Math.floor(millis / 1000)),
    N: String((millis % 1000) * 1_000_000).padStart(9, "0"),
    Y: iso.slice(0, 4),
    m: iso.slice(5, 7),
    d: iso.slice(8, 10),
    H: iso.slice(11, 13),
    M: iso.slice(14, 16),
    S: iso.slice(17, 19),
    F: iso.slice(0, 10),
    T: iso.slice(11, 19),
    "%": "%"
  }
  return output(
    process,
    argv[0],
    `${format.replace(/%(.)/g, (whole, field: string) => fields[field] ?? whole)}\n`
  )
}

/** Every process: number, parent, user, state, name. */
export const ps: Program = (process, argv) => {
  const lines = [...process.kernel.processes.values()].map(
    (other) =>
      `${String(other.pid).padStart(5)} ${String(other.parentPid).padStart(5)} ${other.uid === 0 ? "root" : "user"} ${other.stopped ? "T" : "S"} ${other.argv.join(" ")}\n`
  )
  return output(process, argv[0], `  PID  PPID USER S COMMAND\n${lines.join("")}`)
}

/** `stty size`, `stty [-]echo`, `stty raw`, `stty sane`. */
export const stty: Program = (process, argv) => {
  const { terminal } = process.execution
  if (terminal === undefined || process.files.get(0)?.terminal !== true) {
    return fail(process, argv[0], "'standard input': Inappropriate ioctl for device")
  }
  for (const word of argv.slice(1)) {
    if (word === "size") return output(process, argv[0], `${terminal.size.rows} ${terminal.size.cols}\n`)
    if (word === "echo" || word === "-echo") terminal.echo = word === "echo"
    if (word === "raw" || word === "-icanon") terminal.canonical = false
    if (word === "sane" || word === "icanon" || word === "cooked") terminal.canonical = true
    if (word === "sane") terminal.echo = true
  }
  return Effect.succeed(0)
}

export const tty: Program = (process, argv) =>
  process.files.get(0)?.terminal === true
    ? output(process, argv[0], "/dev/pts/0\n")
    : Effect.as(output(process, argv[0], "not a tty\n"), 1)
