/**
 * Small programs that the shell also runs itself.
 */
import { Effect, Result } from "effect"
import { type Signal, signalNumbers } from "../../domain/Process.ts"
import { stat } from "./Files.ts"
import { allowed, encode, errorText } from "./Inode.ts"
import type { WriteFailure } from "./OpenFile.ts"
import { concat, type Process, type Program } from "./Process.ts"

/** Prints a message under a program's name, and gives an exit code. */
export const fail = (
  process: Process,
  name: string | undefined,
  message: string,
  code = 1
): Effect.Effect<number> => Effect.as(process.err(`${process.shellPrefix}${name ?? ""}: ${message}\n`), code)

const writeErrorText = (failure: WriteFailure): string =>
  failure === "broken-pipe"
    ? "Broken pipe"
    : failure === "bad-descriptor"
      ? "Bad file descriptor"
      : errorText[failure]

/** Writes to standard output; a failure is said, and is exit code 1. */
export const output = (
  process: Process,
  name: string | undefined,
  data: Uint8Array | string
): Effect.Effect<number> =>
  Effect.flatMap(process.write(1, typeof data === "string" ? encode(data) : data), (failure) =>
    failure === undefined ? Effect.succeed(0) : fail(process, name, `write error: ${writeErrorText(failure)}`)
  )

export const trueCommand: Program = () => Effect.succeed(0)
export const falseCommand: Program = () => Effect.succeed(1)

export const pwd: Program = (process, argv) => output(process, argv[0], `${process.cwd}\n`)

/** The program of coreutils: `-n`, `-e`, `-E`; backslashes mean something only with `-e`. */
export const echo: Program = (process, argv) => {
  let at = 1
  let newline = true
  let escapes = false
  for (; /^-[neE]+$/.test(argv[at] ?? ""); at++) {
    for (const flag of argv[at] ?? "") {
      if (flag === "n") newline = false
      if (flag === "e") escapes = true
      if (flag === "E") escapes = false
    }
  }
  return echoText(process, argv[0], argv.slice(at).join(" "), newline, escapes ? "gnu" : "none")
}

/** The shell's own, as dash has it: only `-n`, and backslashes always mean something. */
export const shellEcho: Program = (process, argv) => {
  const newline = argv[1] !== "-n"
  return echoText(process, argv[0], argv.slice(newline ? 1 : 2).join(" "), newline, "dash")
}

const echoText = (
  process: Process,
  name: string | undefined,
  text: string,
  newline: boolean,
  escapes: "none" | Escapes
): Effect.Effect<number> => {
  if (escapes === "none" || !text.includes("\\")) return output(process, name, newline ? `${text}\n` : text)
  const { bytes, stop } = unescapeBytes(text, escapes)
  return output(process, name, newline && !stop ? concat([bytes, Uint8Array.of(10)]) : bytes)
}

/** Whose escapes: GNU's programs know `\x41` and `\e`, dash does not. */
type Escapes = "gnu" | "dash"

const simpleEscapes: { readonly [char: string]: number } = {
  n: 10,
  t: 9,
  r: 13,
  a: 7,
  b: 8,
  f: 12,
  v: 11,
  "\\": 92,
  e: 27
}

/** Text with backslash escapes as bytes; `\c` ends it. */
const unescapeBytes = (
  text: string,
  escapes: Escapes
): { readonly bytes: Uint8Array; readonly stop: boolean } => {
  const pieces: Array<Uint8Array> = []
  let rest = text
  for (;;) {
    const match = /\\(?:x([0-9A-Fa-f]{1,2})|0?([0-7]{1,3})|([\s\S]))/.exec(rest)
    if (match === null) return { bytes: concat([...pieces, encode(rest)]), stop: false }
    pieces.push(encode(rest.slice(0, match.index)))
    rest = rest.slice(match.index + match[0].length)
    const [whole, hex, octal, char = ""] = match
    if (char === "c") return { bytes: concat(pieces), stop: true }
    if (escapes === "dash" && (hex !== undefined || char === "e")) {
      pieces.push(encode(whole))
      continue
    }
    const code =
      hex !== undefined
        ? Number.parseInt(hex, 16)
        : octal !== undefined
          ? Number.parseInt(octal, 8) & 255
          : simpleEscapes[char]
    pieces.push(code === undefined ? encode(whole) : Uint8Array.of(code))
  }
}

/** `printf format [arguments]`: %s %b %c %d %i %u %o %x %X %%, with width, precision and `-0+`; the format is reused while arguments are left. */
export const printf: Program = (process, argv) => printFormatted(process, argv, "gnu")

/** The shell's own. */
export const shellPrintf: Program = (process, argv) => printFormatted(process, argv, "dash")

const printFormatted = (
  process: Process,
  argv: ReadonlyArray<string>,
  escapes: Escapes
): Effect.Effect<number> => {
  const [, format = "", ...values] = argv
  const pieces: Array<Uint8Array> = []
  let bad: string | undefined
  let at = 0
  do {
    const before = at
    let literal = 0
    for (const match of format.matchAll(/%([-0+ ]*)([0-9]+|\*)?(?:\.([0-9]+))?([a-zA-Z%])/g)) {
      const [whole, flags = "", width, precision, kind = ""] = match
      const text = unescapeBytes(format.slice(literal, match.index), escapes)
      pieces.push(text.bytes)
      literal = match.index + whole.length
      if (kind === "%") {
        pieces.push(encode("%"))
        continue
      }
      const columns = width === "*" ? Number(values[at++] ?? 0) : Number(width ?? 0)
      const value = values[at++] ?? ""
      if ("diouxX".includes(kind) && !/^\s*([-+]?(0[xX][0-9a-fA-F]+|[0-9]+)|['"].)?$/.test(value)) bad = value
      pieces.push(pad(convert(kind, value, precision, escapes), columns, flags))
    }
    const rest = unescapeBytes(format.slice(literal), escapes)
    pieces.push(rest.bytes)
    if (rest.stop || at === before) break
  } while (at < values.length)
  const written = output(process, argv[0], concat(pieces))
  return bad === undefined
    ? written
    : Effect.flatMap(written, () => fail(process, argv[0], `${bad}: expected numeric value`))
}

const convert = (
  kind: string,
  value: string,
  precision: string | undefined,
  escapes: Escapes
): Uint8Array => {
  switch (kind) {
    case "s":
      return encode(precision === undefined ? value : value.slice(0, Number(precision)))
    case "b":
      return unescapeBytes(value, escapes).bytes
    case "c":
      return encode(value.slice(0, 1))
    case "o":
      return encode(integer(value).toString(8))
    case "x":
      return encode(integer(value).toString(16))
    case "X":
      return encode(integer(value).toString(16).toUpperCase())
    case "f":
      return encode(Number(value || 0).toFixed(Number(precision ?? 6)))
    default:
      return encode(String(integer(value)))
  }
}

const integer = (value: string): number =>
  /^['"]./.test(value)
    ? (value.codePointAt(1) ?? 0)
    : Math.trunc(Number(value.trim() === "" ? 0 : value)) || 0

const pad = (data: Uint8Array, columns: number, flags: string): Uint8Array => {
  if (data.length >= columns) return data
  const fill = new Uint8Array(columns - data.length).fill(
    flags.includes("0") && !flags.includes("-") ? 48 : 32
  )
  return concat(flags.includes("-") ? [data, fill] : [fill, data])
}

// --- test ---------------------------------------------------------------------

/** `test` and `[`: files, strings, integers, with `!`, `-a`, `-o` and parentheses. */
export const test: Program = (process, argv) => {
  const bracket = argv[0] === "["
  if (bracket && argv.at(-1) !== "]") return fail(process, "[", "missing ]", 2)
  const evaluator = new Conditions(process, argv.slice(1, bracket ? -1 : undefined))
  const result = evaluator.run()
  return evaluator.problem === undefined
    ? Effect.succeed(result ? 0 : 1)
    : fail(process, argv[0], evaluator.problem, 2)
}

class Conditions {
  problem: string | undefined = undefined
  private readonly process: Process
  private readonly words: ReadonlyArray<string>
  private at = 0

  constructor(process: Process, words: ReadonlyArray<string>) {
    this.process = process
    this.words = words
  }

  run(): boolean {
    if (this.words.length === 0) return false
    const result = this.or()
    if (this.at < this.words.length) this.problem ??= `unexpected operator`
    return result
  }

  private or(): boolean {
    let result = this.and()
    while (this.accept("-o")) result = this.and() || result
    return result
  }

  private and(): boolean {
    let result = this.not()
    while (this.accept("-a")) result = this.not() && result
    return result
  }

  private accept(word: string): boolean {
    if (this.words[this.at] !== word) return false
    this.at++
    return true
  }

  private not(): boolean {
    if (this.words.length - this.at > 1 && this.accept("!")) return !this.not()
    return this.primary()
  }

  private primary(): boolean {
    const [first = "", second = "", third] = this.words.slice(this.at, this.at + 3)
    if (third !== undefined && isBinary(second)) {
      this.at += 3
      return this.compare(first, second, third)
    }
    if (this.words.length - this.at >= 2 && /^-[bcdefghknprstuwxzLOGS]$/.test(first)) {
      this.at += 2
      return this.unary(first, second)
    }
    if (first === "(" && this.words.length - this.at > 1) {
      this.at++
      const result = this.or()
      if (!this.accept(")")) this.problem ??= "closing paren expected"
      return result
    }
    this.at++
    return first !== ""
  }

  private unary(operator: string, word: string): boolean {
    if (operator === "-z") return word === ""
    if (operator === "-n") return word !== ""
    if (operator === "-t") return this.process.files.get(Number(word))?.terminal === true
    const { process } = this
    const { tree } = process.kernel
    const path = process.absolute(word)
    if (operator === "-L" || operator === "-h") {
      const link = stat(tree, path, process.uid)
      return Result.isSuccess(link) && link.success.type === "symlink"
    }
    const found = tree.lookup(path, process.uid, true)
    if (word === "" || Result.isFailure(found)) return false
    const node = found.success.node
    switch (operator) {
      case "-f":
        return node.kind === "file"
      case "-d":
        return node.kind === "directory"
      case "-s":
        return node.kind !== "file" || node.size > 0
      case "-c":
        return node.kind === "device"
      case "-r":
        return allowed(node, process.uid, 4)
      case "-w":
        return allowed(node, process.uid, 2) && !node.frozen
      case "-x":
        return allowed(node, process.uid, 1)
      case "-O":
        return node.uid === process.uid
      case "-e":
        return true
      default:
        return false
    }
  }

  private compare(left: string, operator: string, right: string): boolean {
    switch (operator) {
      case "=":
      case "==":
        return left === right
      case "!=":
        return left !== right
      case "<":
        return left < right
      case ">":
        return left > right
      case "-nt":
      case "-ot":
        return operator === "-nt"
          ? this.modified(left) > this.modified(right)
          : this.modified(left) < this.modified(right)
    }
    const a = this.number(left)
    const b = this.number(right)
    return comparisons[operator]?.(a, b) ?? false
  }

  private number(text: string): number {
    if (!/^\s*[-+]?[0-9]+\s*$/.test(text)) this.problem ??= `Illegal number: ${text}`
    return Number(text)
  }

  private modified(path: string): number {
    const info = stat(this.process.kernel.tree, this.process.absolute(path), this.process.uid, true)
    return Result.isSuccess(info) ? info.success.modifiedAt : -1
  }
}

const comparisons: { readonly [operator: string]: (a: number, b: number) => boolean } = {
  "-eq": (a, b) => a === b,
  "-ne": (a, b) => a !== b,
  "-lt": (a, b) => a < b,
  "-le": (a, b) => a <= b,
  "-gt": (a, b) => a > b,
  "-ge": (a, b) => a >= b
}

const isBinary = (word: string): boolean =>
  ["=", "==", "!=", "<", ">", "-nt", "-ot"].includes(word) || comparisons[word] !== undefined

// --- signals --------------------------------------------------------------------

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
