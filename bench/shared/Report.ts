/** A run's figures as the tables people read. */
import type { Machine } from "./Machine.ts"
import type { Row } from "./Measurement.ts"
import { statsOf } from "./Stats.ts"

/** Everything a run found, as it is kept. */
export interface Results {
  /** When it began, as ISO 8601 in UTC. */
  readonly date: string
  readonly machine: Machine
  /** The load of the minute before it began. */
  readonly load: number
  readonly measurements: ReadonlyArray<{
    readonly id: string
    readonly title: string
    readonly about: string
    readonly rows: ReadonlyArray<Row>
  }>
}

const columns = ["", "n", "min", "median", "p95", "p99", "max", "", "aim"]

/** Three digits, and all of those before the point. */
const figure = (value: number): string =>
  Math.abs(value) >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString()

const aimOf = ({ aim }: Row, median: number): string => {
  if (aim === undefined) return ""
  const reached = aim.side === "at most" ? median <= aim.value : median >= aim.value
  return `${aim.side} ${figure(aim.value)}: ${reached ? "reached" : "missed"}`
}

const cellsOf = (row: Row): ReadonlyArray<string> => {
  const { count, min, median, p95, p99, max } = statsOf(row.samples)
  const figures = count === 1 ? ["", figure(median), "", "", ""] : [min, median, p95, p99, max].map(figure)
  return [row.name, String(count), ...figures, row.unit, aimOf(row, median)]
}

/** Cells aligned in columns, which Markdown and a terminal show alike; the figures to the right. */
const table = (rows: ReadonlyArray<Row>): string => {
  const lines = [columns, ...rows.map(cellsOf)]
  const isFigure = (column: number) => column >= 1 && column <= 6
  const widths = columns.map((_, i) => Math.max(3, ...lines.map((cells) => cells[i]?.length ?? 0)))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${widths.map((width, i) => (isFigure(i) ? (cells[i] ?? "").padStart(width) : (cells[i] ?? "").padEnd(width))).join(" | ")} |`
  const rule = widths.map((width, i) => (isFigure(i) ? `${"-".repeat(width - 1)}:` : "-".repeat(width)))
  return [line(columns), line(rule), ...lines.slice(1).map(line)].join("\n")
}

const describeMachine = ({ date, load, machine }: Results): string => {
  const programs = Object.entries(machine.programs)
  const installed = programs.flatMap(([name, version]) => (version === null ? [] : [`${name} ${version}`]))
  const missing = programs.flatMap(([name, version]) => (version === null ? [name] : []))
  return [
    `${date.slice(0, 10)}. ${machine.processors} × ${machine.processor}, ${machine.memoryGiB} GiB of memory, Linux ${machine.kernel}, ` +
      `control groups ${machine.controlGroups}, disks on ${machine.fileSystem}, Node ${machine.node}, ${installed.join(", ")}.` +
      ` Load before: ${load.toFixed(2)}.`,
    ...(missing.length === 0 ? [] : [`Not installed, so not measured: ${missing.join(", ")}.`])
  ].join("\n")
}

/** A section for each measurement. */
export const sections = (results: Results): string =>
  [
    describeMachine(results),
    ...results.measurements.map(({ title, about, rows }) => `## ${title}\n\n${about}\n\n${table(rows)}`)
  ].join("\n\n")

/** `RESULTS.md`: the tables, and how they came to be. */
export const document = (results: Results, raw: string): string =>
  [
    "# Measurements",
    `Made by \`npm run bench\`; every sample is in [${raw}](${raw}). Medians are compared with the aims; no sample is left out.`,
    `${sections(results)}\n`
  ].join("\n\n")
