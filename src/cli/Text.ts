/**
 * Tables, times and sizes for people to read.
 */
import { printable } from "./Failure.ts"

/** Whether colours are welcome on standard output. */
export const coloured = (): boolean => process.stdout.isTTY === true && process.env.NO_COLOR === undefined

const colours: Readonly<Record<string, number>> = {
  running: 32,
  paused: 33,
  provisioning: 36,
  restarting: 36,
  stopping: 36,
  failed: 31,
  lost: 31,
  killed: 90,
  stopped: 90
}

/** A status, in its colour where colours are welcome. */
export const paintStatus = (status: string, text: string = status): string => {
  const colour = colours[status]
  return colour === undefined || !coloured() ? text : `\u001b[${colour}m${text}\u001b[0m`
}

/** Rows under headings, in columns as wide as they need to be; `paint` colours what is already as wide as it shall be. */
export const table = (
  headings: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  paint: (cell: string, column: number) => string = (cell) => cell
): string => {
  const clean = rows.map((row) => row.map(printable))
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...clean.map((row) => (row[column] ?? "").length))
  )
  const line = (cells: ReadonlyArray<string>, painted: (cell: string, column: number) => string) =>
    cells
      .map((cell, column) => {
        const padding = column === cells.length - 1 ? "" : " ".repeat((widths[column] ?? 0) - cell.length)
        return `${painted(cell, column)}${padding}`
      })
      .join("   ")
      .trimEnd()
  return [line(headings, (cell) => cell), ...clean.map((row) => line(row, paint))].join("\n")
}

/** Lines of names and values. */
export const fields = (pairs: ReadonlyArray<readonly [name: string, value: string | undefined]>): string => {
  const known = pairs.filter(([, value]) => value !== undefined && value !== "")
  const width = Math.max(...known.map(([name]) => name.length))
  return known.map(([name, value = ""]) => `${name.padEnd(width)}   ${printable(value)}`).join("\n")
}

const units = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000]
] as const

/** A length of time in its largest one or two units: `1h30m`, `45s`, `250ms`. What {@link parseDuration} takes. */
export const duration = (millis: number): string => {
  const first = units.findIndex(([, size]) => millis >= size)
  const [unit, size] = units[first] ?? ["ms", 1]
  if (unit === "ms" || unit === "s") return `${Math.round(millis / size)}${unit}`
  const [lesser, lesserSize] = units[first + 1] ?? ["s", 1000]
  const whole = Math.floor(millis / size)
  const rest = Math.floor((millis - whole * size) / lesserSize)
  return rest === 0 ? `${whole}${unit}` : `${whole}${unit}${rest}${lesser}`
}

/** A moment, to the second, as ISO 8601 has it. */
export const moment = (millis: number): string => new Date(millis).toISOString().replace(/\.\d+Z$/, "Z")

/** A size in units of 1024: `512m`, `1.5g`. What {@link parseSize} takes. */
export const size = (bytes: number): string => {
  const index = Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)))
  const amount = bytes / 1024 ** index
  return `${Number(amount.toFixed(amount < 10 ? 1 : 0))}${["", "k", "m", "g", "t"][index]}`
}

/** A command line as it could be typed, for people to recognise. */
export const commandLine = (argv: ReadonlyArray<string>): string =>
  argv.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ")
