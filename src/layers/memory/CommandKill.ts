/**
 * `kill`, and the names of signals.
 */
import { Effect } from "effect"
import { type Signal, signalNumbers } from "../../domain/Process.ts"
import { fail, output } from "./CommandsBasic.ts"
import type { Process, Program } from "./Process.ts"

const signals: ReadonlyMap<string, Signal> = new Map(
  Object.entries(signalNumbers).flatMap(([name, number]) => {
    const signal = asSignal(name)
    return signal === undefined
      ? []
      : [[name, signal] as const, [name.slice(3), signal] as const, [String(number), signal] as const]
  })
)

function asSignal(name: string): Signal | undefined {
  return Object.hasOwn(signalNumbers, name) ? keysOf(signalNumbers).find((key) => key === name) : undefined
}

function keysOf<K extends string>(record: { readonly [P in K]: unknown }): ReadonlyArray<K> {
  const keys: Array<K> = []
  for (const key in record) keys.push(key)
  return keys
}

/** A signal by name (with or without SIG) or number. */
export const signalOf = (text: string): Signal | undefined => signals.get(text.toUpperCase())

/** `kill [-s signal | -signal] pid ...`; a negative pid is a group, 0 the caller's. `-0` only looks. */
export const kill: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const name = argv[0]
  let targets = argv.slice(1)
  let wanted = "TERM"
  if (targets[0] === "-s" || targets[0] === "-n") {
    wanted = targets[1] ?? ""
    targets = targets.slice(2)
  } else if (/^-./.test(targets[0] ?? "") && targets.length > 1) {
    wanted = (targets[0] ?? "").slice(1)
    targets = targets.slice(1)
  } else if (targets[0] === "-l") {
    return yield* output(
      process,
      name,
      `${Object.keys(signalNumbers)
        .map((signal) => signal.slice(3))
        .join("\n")}\n`
    )
  }
  if (targets[0] === "--") targets = targets.slice(1)
  const signal = signalOf(wanted)
  if (signal === undefined && wanted !== "0")
    return yield* fail(process, name, `invalid signal: ${wanted}`, 2)
  if (targets.length === 0)
    return yield* fail(
      process,
      name,
      "Usage: kill [-s sigspec | -signum | -sigspec] [pid | job]... or\nkill -l [exitstatus]",
      2
    )
  let status = 0
  for (const target of targets) {
    const problem = send(process, Number(target), signal)
    if (problem === undefined) continue
    status = 1
    yield* fail(process, name, problem)
  }
  return status
})

const send = (process: Process, pid: number, signal: Signal | undefined): string | undefined => {
  const { kernel } = process
  const group = pid === 0 ? process.group : -pid
  const targets = [...kernel.processes.values()].filter((other) =>
    pid > 0 ? other.pid === pid : other.group === group
  )
  if (targets.length === 0) return pid === 1 ? "Operation not permitted" : "No such process"
  const permitted = targets.filter((other) => process.uid === 0 || other.uid === process.uid)
  if (permitted.length === 0) return "Operation not permitted"
  if (signal !== undefined) for (const other of permitted) kernel.signal(other, signal)
  return undefined
}
