/**
 * `npm run bench`: measures fiberbox beside other ways to run a program in a
 * sandbox, shows a table, and keeps the raw figures.
 *
 *   npm run bench                              everything; writes results/ and RESULTS.md
 *   npm run bench -- --only exec,interrupt     some of it; writes nothing
 *   npm run bench -- --runs 100                as often, where a measurement is cheap; writes nothing
 *   npm run bench -- --out DIRECTORY           writes there, also what is not everything
 *   npm run bench -- --json                    the raw figures on standard output instead of tables
 *
 * Needs root, as containers do. All it makes lies in one directory, and it
 * fails when anything is left of it.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { NodeRuntime } from "@effect/platform-node"
import { DateTime, Effect, Schema } from "effect"
import { isMeasurementId, type MeasurementId, measurements } from "./measurements.ts"
import { inventory, leftovers } from "./shared/Leftovers.ts"
import { describeMachine, load, quietLoad } from "./shared/Machine.ts"
import { Row } from "./shared/Measurement.ts"
import { run } from "./shared/Program.ts"
import { document, type Results, sections } from "./shared/Report.ts"

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url))

const ids = Object.keys(measurements).filter(isMeasurementId)

const usage = `usage: npm run bench -- [--only ID,...] [--runs N] [--out DIRECTORY] [--json]\nIDs: ${ids.join(", ")}`

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    runs: { type: "string" },
    out: { type: "string" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false }
  }
})

const say = (text: string) => Effect.sync(() => process.stderr.write(`${text}\n`))

const Measured = Schema.fromJsonString(
  Schema.Struct({ title: Schema.String, about: Schema.String, rows: Schema.Array(Row) })
)

/** Short, because a sandbox's socket has its address in there; and open, because a sandbox's root is nobody here. */
const workplace = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = mkdtempSync("/var/tmp/fbb-")
    chmodSync(directory, 0o755)
    return directory
  }),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const measureOne = Effect.fnUntraced(function* (id: MeasurementId, workplace: string) {
  yield* say(`measuring ${id} ...`)
  const directory = `${workplace}/${ids.indexOf(id)}`
  mkdirSync(directory)
  const runs = options.runs === undefined ? [] : [options.runs]
  const { stdout } = yield* run([process.execPath, "--expose-gc", file("one.ts"), id, directory, ...runs], {
    keepBytes: Number.POSITIVE_INFINITY
  })
  return [{ id, ...(yield* Schema.decodeEffect(Measured)(stdout)) }]
})

/** One that fails does not take the others' figures with it, but the run has failed. */
const orNothing = (error: Error) =>
  Effect.andThen(
    say(error.message),
    Effect.sync(() => {
      process.exitCode = 1
      return []
    })
  )

const measureAll = Effect.fnUntraced(function* (chosen: ReadonlyArray<MeasurementId>) {
  const directory = yield* workplace
  const machine = yield* describeMachine(directory)
  const date = DateTime.formatIso(yield* DateTime.now)
  const before = load()
  if (before > quietLoad)
    yield* say(
      `the machine is busy (load ${before.toFixed(2)}): these figures tell of other programs as well`
    )
  const measured = yield* Effect.forEach(chosen, (id) => Effect.catch(measureOne(id, directory), orNothing))
  const results: Results = { date, machine, load: before, measurements: measured.flat() }
  return results
}, Effect.scoped)

/** The raw figures, and beside them the tables; gives where those are. */
const keep = (results: Results, directory: string): string => {
  const raw = `results/${results.date.slice(0, 16).replace(":", "")}Z.json`
  const tables = join(directory, "RESULTS.md")
  mkdirSync(join(directory, "results"), { recursive: true })
  writeFileSync(join(directory, raw), `${JSON.stringify(results)}\n`)
  writeFileSync(tables, document(results, raw))
  return tables
}

const program = Effect.gen(function* () {
  const chosen = options.only?.split(",") ?? ids
  const countable = options.runs === undefined || /^[1-9]\d*$/.test(options.runs)
  if (options.help || !countable || !chosen.every(isMeasurementId)) {
    yield* say(usage)
    process.exitCode = options.help ? 0 : 2
    return
  }
  const before = inventory()
  const results = yield* measureAll(chosen)
  const complete = results.measurements.length === ids.length && options.runs === undefined
  const place = options.out ?? (complete ? import.meta.dirname : undefined)
  if (place !== undefined) yield* say(`written to ${keep(results, place)}`)
  process.stdout.write(options.json ? `${JSON.stringify(results)}\n` : `\n${sections(results)}\n`)
  const left = yield* leftovers(before)
  if (left.length > 0) {
    yield* say(`left behind (or begun by others meanwhile):\n  ${left.join("\n  ")}`)
    process.exitCode = 1
  }
})

NodeRuntime.runMain(program)
