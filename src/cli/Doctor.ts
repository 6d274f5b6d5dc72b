/**
 * `fiberbox doctor`: which backends work on this machine, what does not, why,
 * and how to mend it.
 *
 * What a backend needs is probed by the backend itself; here it is told.
 */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"

/** One thing that was looked at. A `warning` stands in nobody's way; `fix` says what to do. */
export interface Check {
  readonly name: string
  readonly status: "ok" | "warning" | "failed"
  readonly detail: string
  readonly fix?: string | undefined
}

/** What is known of one backend. */
export interface BackendReport {
  readonly backend: string
  /** Whether sandboxes can be made with it here: no check failed. */
  readonly works: boolean
  readonly checks: ReadonlyArray<Check>
}

/** What `fiberbox doctor --json` writes: one document. */
export interface Report {
  /** Whether the default backend works; the exit code is 0 then, otherwise 1. */
  readonly ok: boolean
  readonly defaultBackend: string
  readonly version: string
  readonly system: ReadonlyArray<Check>
  readonly backends: ReadonlyArray<BackendReport>
}

const marks = { ok: "✓", warning: "!", failed: "✗" } as const
const colours = { ok: 32, warning: 33, failed: 31 } as const

type Paint = (colour: number, text: string) => string
const plain: Paint = (_, text) => text
const ansi: Paint = (colour, text) => `\u001b[${colour}m${text}\u001b[0m`

const checkLines = (paint: Paint, check: Check): ReadonlyArray<string> => {
  const mark = paint(colours[check.status], marks[check.status])
  const line = `  ${mark} ${check.name.padEnd(18)} ${check.detail}`
  return check.fix === undefined ? [line] : [line, `    ${" ".repeat(18)} Fix: ${check.fix}`]
}

/** The report for a person to read. */
export const toText = (report: Report, coloured: boolean): string => {
  const paint = coloured ? ansi : plain
  const sections = report.backends.map(({ backend, checks, works }) => {
    const verdict = works ? paint(32, "works") : paint(31, "does not work")
    const isDefault = backend === report.defaultBackend ? " (default)" : ""
    return [`${backend}${isDefault}: ${verdict}`, ...checks.flatMap((check) => checkLines(paint, check))]
  })
  return [
    `fiberbox ${report.version}`,
    ...report.system.flatMap((check) => checkLines(paint, check)),
    ...sections.flatMap((lines) => ["", ...lines])
  ].join("\n")
}

const coloured = (): boolean => process.stdout.isTTY === true && process.env.NO_COLOR === undefined

const json = Flag.Boolean("json").pipe(
  Flag.withDescription("Write the report as one JSON document"),
  Flag.withDefault(false)
)

const examples = [
  { command: "fiberbox doctor", description: "See what works here" },
  {
    command: "fiberbox doctor --json | jq .ok",
    description: "Ask from a script; the exit code says the same"
  }
]

/** The command `doctor`. `examine` makes the report, `endWith` sets the exit code. */
export const makeDoctorCommand = <R>(
  examine: Effect.Effect<Report, never, R>,
  endWith: (exitCode: number) => Effect.Effect<void>
) =>
  Command.make(
    "doctor",
    { json },
    Effect.fnUntraced(function* ({ json }) {
      const report = yield* examine
      yield* Console.log(json ? JSON.stringify(report, null, 2) : toText(report, coloured()))
      yield* endWith(report.ok ? 0 : 1)
    })
  ).pipe(
    Command.withDescription("Say which backends work here, what does not, why, and the fix"),
    Command.withExamples(examples)
  )
