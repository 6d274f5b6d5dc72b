/**
 * Small programs that the shell also runs itself.
 */
import { Effect } from "effect"
import { encode, errorText } from "./Inode.ts"
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
