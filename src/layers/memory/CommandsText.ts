/**
 * Programs that pass bytes on: cat, head, tail, wc, tr, tee, yes, seq ...
 */
import { Effect, Result } from "effect"
import { fail, output } from "./CommandsBasic.ts"
import { decode, encode, errorText } from "./Inode.ts"
import { forAppending, forReading, forWriting, openPath } from "./OpenPath.ts"
import { concat, type Process, type Program } from "./Process.ts"

/** A descriptor no program uses itself. */
const inputFd = 9

/** Options such as `-n 3`, `-n3` or `-3`, and what is left. */
const parseOptions = (argv: ReadonlyArray<string>, withValue: string) => {
  const options = new Map<string, string>()
  const rest: Array<string> = []
  for (let at = 1; at < argv.length; at++) {
    const word = argv[at] ?? ""
    if (word === "--") {
      rest.push(...argv.slice(at + 1))
      break
    }
    if (!/^-[^-]/.test(word)) {
      rest.push(word)
      continue
    }
    if (/^-[0-9]+$/.test(word)) {
      options.set("n", word.slice(1))
      continue
    }
    for (let index = 1; index < word.length; index++) {
      const flag = word[index] ?? ""
      if (!withValue.includes(flag)) {
        options.set(flag, "")
        continue
      }
      options.set(flag, index + 1 < word.length ? word.slice(index + 1) : (argv[++at] ?? ""))
      break
    }
  }
  return { options, rest }
}

/** Calls a function with each piece of each named file (or of standard input), until it says to stop. The result is the exit code. */
const eachPiece = Effect.fnUntraced(function* (
  process: Process,
  name: string | undefined,
  paths: ReadonlyArray<string>,
  use: (data: Uint8Array, path: string) => Effect.Effect<boolean>
) {
  let status = 0
  for (const path of paths.length === 0 ? ["-"] : paths) {
    let fd = 0
    if (path !== "-") {
      const file = openPath(process, path, forReading)
      if (Result.isFailure(file)) {
        status = yield* fail(process, name, `${path}: ${errorText[file.failure.reason]}`)
        continue
      }
      fd = inputFd
      process.setFile(fd, file.success)
    }
    let more = true
    while (more) {
      const data = yield* process.read(fd)
      if (data.length === 0) break
      more = yield* use(data, path)
    }
    if (fd === inputFd) process.closeFile(fd)
    if (!more) break
  }
  return status
})

export const cat: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const { rest } = parseOptions(argv, "")
  let written = 0
  const status = yield* eachPiece(process, argv[0], rest, (data) =>
    Effect.map(output(process, argv[0], data), (code) => {
      written = code
      return code === 0
    })
  )
  return written === 0 ? status : written
})

const sizes: { readonly [unit: string]: number } = {
  "": 1,
  k: 1024,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  b: 512
}

const sizeOf = (text: string): number | undefined => {
  const match = /^[-+]?([0-9]+)([kKMGb]?)B?$/.exec(text)
  return match === null ? undefined : Number(match[1]) * (sizes[match[2] ?? ""] ?? 1)
}

/** `head [-n lines | -c bytes] [file ...]` */
export const head: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const { options, rest } = parseOptions(argv, "nc")
  const byBytes = options.get("c")
  const wanted = byBytes ?? options.get("n") ?? "10"
  let left = sizeOf(wanted)
  if (left === undefined)
    return yield* fail(
      process,
      argv[0],
      `invalid number of ${byBytes === undefined ? "lines" : "bytes"}: '${wanted}'`
    )
  if (left === 0) return 0
  let written = 0
  const status = yield* eachPiece(process, argv[0], rest, (data) => {
    const { taken, count } = byBytes === undefined ? takeLines(data, left ?? 0) : takeBytes(data, left ?? 0)
    left = (left ?? 0) - count
    return Effect.map(output(process, argv[0], taken), (code) => {
      written = code
      return code === 0 && (left ?? 0) > 0
    })
  })
  return written === 0 ? status : written
})

const takeBytes = (data: Uint8Array, left: number) => {
  const taken = data.subarray(0, left)
  return { taken, count: taken.length }
}

const takeLines = (data: Uint8Array, left: number) => {
  let count = 0
  for (let at = data.indexOf(10); at >= 0; at = data.indexOf(10, at + 1)) {
    count++
    if (count === left) return { taken: data.subarray(0, at + 1), count }
  }
  return { taken: data, count }
}

/** All of the named files, or of standard input, as one text; and the exit code so far. */
const gather = Effect.fnUntraced(function* (
  process: Process,
  name: string | undefined,
  paths: ReadonlyArray<string>
) {
  const chunks: Array<Uint8Array> = []
  const status = yield* eachPiece(process, name, paths, (data) => {
    chunks.push(data)
    return Effect.as(process.allocate(data.length), true)
  })
  return { data: concat(chunks), status }
})

const linesOf = (text: string): Array<string> => {
  const lines = text.split("\n")
  if (lines.at(-1) === "") lines.pop()
  return lines
}

const joinLines = (lines: ReadonlyArray<string>): string =>
  lines.length === 0 ? "" : `${lines.join("\n")}\n`

/** A program that turns lines into lines. */
const lineProgram = (
  withValue: string,
  convert: (lines: Array<string>, options: ReadonlyMap<string, string>) => ReadonlyArray<string>
): Program =>
  Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
    const { options, rest } = parseOptions(argv, withValue)
    const { data, status } = yield* gather(process, argv[0], rest)
    const written = yield* output(process, argv[0], joinLines(convert(linesOf(decode(data)), options)))
    return written === 0 ? status : written
  })

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** `sort [-n] [-r] [-u]` */
export const sort: Program = lineProgram("kt", (lines, options) => {
  const sorted = lines.sort((a, b) =>
    options.has("n")
      ? (Number.parseFloat(a) || 0) - (Number.parseFloat(b) || 0) || compare(a, b)
      : compare(a, b)
  )
  if (options.has("r")) sorted.reverse()
  return options.has("u") ? sorted.filter((line, index) => line !== sorted[index - 1]) : sorted
})

/** `uniq [-c]` */
export const uniq: Program = lineProgram("", (lines, options) => {
  const groups: Array<{ readonly line: string; count: number }> = []
  for (const line of lines) {
    const last = groups.at(-1)
    if (last?.line === line) last.count++
    else groups.push({ line, count: 1 })
  }
  return groups.map(({ line, count }) => (options.has("c") ? `${String(count).padStart(7)} ${line}` : line))
})

export const tac: Program = lineProgram("", (lines) => lines.reverse())
export const rev: Program = lineProgram("", (lines) => lines.map((line) => [...line].reverse().join("")))

/** `tail [-n lines | -n +line | -c bytes] [file ...]` */
export const tail: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const { options, rest } = parseOptions(argv, "nc")
  const bytes = options.get("c")
  const wanted = bytes ?? options.get("n") ?? "10"
  const count = sizeOf(wanted)
  if (count === undefined) return yield* fail(process, argv[0], `invalid number: '${wanted}'`)
  const { data, status } = yield* gather(process, argv[0], rest)
  const lines = linesOf(decode(data))
  const piece =
    bytes !== undefined
      ? data.subarray(wanted.startsWith("+") ? count - 1 : Math.max(0, data.length - count))
      : encode(
          joinLines(wanted.startsWith("+") ? lines.slice(count - 1) : count === 0 ? [] : lines.slice(-count))
        )
  const written = yield* output(process, argv[0], piece)
  return written === 0 ? status : written
})

interface Counts {
  lines: number
  words: number
  bytes: number
}

const countOf = (counts: Counts, data: Uint8Array, inWord: boolean): boolean => {
  let within = inWord
  counts.bytes += data.length
  for (const byte of data) {
    if (byte === 10) counts.lines++
    const blank = byte === 32 || (byte >= 9 && byte <= 13)
    if (!blank && !within) counts.words++
    within = !blank
  }
  return within
}

/** `wc [-l] [-w] [-c] [file ...]`, in columns as GNU's. */
export const wc: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const { options, rest } = parseOptions(argv, "")
  const rows: Array<{ readonly name: string; readonly counts: Counts }> = []
  let inWord = false
  const status = yield* eachPiece(process, argv[0], rest, (data, path) => {
    if (rows.at(-1)?.name !== path) {
      rows.push({ name: path, counts: { lines: 0, words: 0, bytes: 0 } })
      inWord = false
    }
    const row = rows.at(-1)
    if (row !== undefined) inWord = countOf(row.counts, data, inWord)
    return Effect.succeed(true)
  })
  // Empty files give no piece.
  const named = (rest.length === 0 ? ["-"] : rest).flatMap((name) => {
    const row = rows.find((one) => one.name === name)
    if (row !== undefined) return [row]
    return status === 0 ? [{ name, counts: { lines: 0, words: 0, bytes: 0 } }] : []
  })
  const total = { lines: 0, words: 0, bytes: 0 }
  for (const { counts } of named) {
    total.lines += counts.lines
    total.words += counts.words
    total.bytes += counts.bytes
  }
  const all = !["l", "w", "c", "m"].some((option) => options.has(option))
  const columnsOf = (counts: Counts): ReadonlyArray<number> => [
    ...(all || options.has("l") ? [counts.lines] : []),
    ...(all || options.has("w") ? [counts.words] : []),
    ...(all || options.has("c") || options.has("m") ? [counts.bytes] : [])
  ]
  const single = columnsOf(total).length === 1 && named.length <= 1
  const width = single ? 1 : rest.length === 0 ? 7 : String(total.bytes).length
  const line = (counts: Counts, name: string) =>
    `${columnsOf(counts)
      .map((count) => String(count).padStart(width))
      .join(" ")}${name === "-" ? "" : ` ${name}`}\n`
  const lines = named.map(({ counts, name }) => line(counts, name))
  if (rest.length > 1) lines.push(line(total, "total"))
  const written = yield* output(process, argv[0], lines.join(""))
  return written === 0 ? status : written
})

/** `seq [first [step]] last` */
export const seq: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const numbers = argv.slice(1).map(Number)
  if (numbers.length === 0 || numbers.length > 3 || numbers.some(Number.isNaN)) {
    return yield* fail(process, argv[0], "invalid operand")
  }
  const last = numbers.at(-1) ?? 0
  const first = numbers.length > 1 ? (numbers[0] ?? 1) : 1
  const step = numbers.length > 2 ? (numbers[1] ?? 1) : 1
  if (step === 0) return yield* fail(process, argv[0], "invalid Zero increment value: '0'")
  let text = ""
  for (let value = first; step > 0 ? value <= last : value >= last; value += step) {
    text += `${value}\n`
    if (text.length < 32 * 1024) continue
    const code = yield* output(process, argv[0], text)
    if (code !== 0) return code
    text = ""
  }
  return yield* output(process, argv[0], text)
})

export const yes: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const line = `${argv.length > 1 ? argv.slice(1).join(" ") : "y"}\n`
  const block = encode(line.repeat(Math.max(1, Math.floor(8192 / line.length))))
  for (;;) {
    const code = yield* output(process, argv[0], block)
    if (code !== 0) return code
    // An endless program must not starve what would end it.
    yield* Effect.yieldNow
  }
})

export const tee: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const { options, rest } = parseOptions(argv, "")
  let status = 0
  let fd = 10
  for (const path of rest) {
    const file = openPath(process, path, options.has("a") ? forAppending : forWriting)
    if (Result.isSuccess(file)) process.setFile(fd++, file.success)
    else status = yield* fail(process, argv[0], `${path}: ${errorText[file.failure.reason]}`)
  }
  const read = yield* eachPiece(process, argv[0], [], (data) =>
    Effect.gen(function* () {
      for (let at = 10; at < fd; at++) yield* process.write(at, data)
      return (yield* output(process, argv[0], data)) === 0
    })
  )
  return status === 0 ? read : status
})

/** The characters of a `tr` set: ranges, escapes and the classes used most. */
const setOf = (text: string): ReadonlyArray<string> => {
  const named = text
    .replaceAll("[:upper:]", "A-Z")
    .replaceAll("[:lower:]", "a-z")
    .replaceAll("[:digit:]", "0-9")
    .replaceAll("[:alpha:]", "A-Za-z")
    .replaceAll("[:alnum:]", "A-Za-z0-9")
    .replaceAll("[:space:]", " \t\n\r\v\f")
  const chars = [
    ...named.replace(
      /\\(n|t|r|0|\\)/g,
      (_, char: string) => ({ n: "\n", t: "\t", r: "\r", "0": "\0" })[char] ?? char
    )
  ]
  const set: Array<string> = []
  for (let at = 0; at < chars.length; at++) {
    const from = chars[at] ?? ""
    const to = chars[at + 1] === "-" ? chars[at + 2] : undefined
    if (to === undefined) {
      set.push(from)
      continue
    }
    for (let code = from.codePointAt(0) ?? 0; code <= (to.codePointAt(0) ?? 0); code++)
      set.push(String.fromCodePoint(code))
    at += 2
  }
  return set
}

/** `tr [-d] [-s] set1 [set2]` */
export const tr: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const { options, rest } = parseOptions(argv, "")
  const from = setOf(rest[0] ?? "")
  const to = setOf(rest[1] ?? "")
  const chosen = new Set(from)
  const table = new Map(from.map((char, index) => [char, to[index] ?? to.at(-1) ?? char]))
  let written = 0
  const status = yield* eachPiece(process, argv[0], [], (data) => {
    let last = ""
    const text = [...decode(data)].flatMap((char) => {
      if (options.has("d")) return chosen.has(char) !== options.has("c") ? [] : [char]
      const mapped = table.get(char) ?? char
      const squeezed =
        options.has("s") && mapped === last && (to.length === 0 ? chosen.has(char) : table.has(char))
      last = mapped
      return squeezed ? [] : [mapped]
    })
    return Effect.map(output(process, argv[0], text.join("")), (code) => {
      written = code
      return code === 0
    })
  })
  return written === 0 ? status : written
})

/** `grep [-vciqn] [-e pattern] pattern [file ...]`: the pattern is taken as plain text, with `^`, `$` and `.`. */
export const grep: Program = Effect.fnUntraced(function* (process: Process, argv: ReadonlyArray<string>) {
  const { options, rest } = parseOptions(argv, "e")
  const [pattern = "", ...paths] = options.has("e") ? [options.get("e") ?? "", ...rest] : rest
  const source = pattern.replace(/[*+?(){}|[\]\\]/g, "\\$&")
  const expression = new RegExp(
    options.has("F") ? source.replace(/[.^$]/g, "\\$&") : source,
    options.has("i") ? "i" : ""
  )
  const { data, status } = yield* gather(process, argv[0], paths)
  const found = linesOf(decode(data)).flatMap((line, index) =>
    expression.test(line) !== options.has("v") ? [options.has("n") ? `${index + 1}:${line}` : line] : []
  )
  if (!options.has("q")) {
    yield* output(process, argv[0], options.has("c") ? `${found.length}\n` : joinLines(found))
  }
  return status !== 0 ? 2 : found.length > 0 ? 0 : 1
})
