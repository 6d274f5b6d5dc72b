/**
 * Compares two checkouts: exec, stream and create, in rounds that take turns,
 * so that what the machine does meanwhile meets both.
 *
 *   node --conditions=fiberbox-source bench/compare.ts BEFORE AFTER [ROUNDS]
 *
 * Prints for each the ratio AFTER / BEFORE of every round's medians: the median
 * of the ratios and their spread. Below 1 is faster. Needs root, and that both are set up.
 */
import { spawnSync } from "node:child_process"
import { chmodSync, copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { Schema } from "effect"
import { median, statsOf } from "./shared/Stats.ts"

const [before, after, rounds = "10"] = process.argv.slice(2)

const Medians = Schema.fromJsonString(
  Schema.Struct({ exec: Schema.Finite, stream: Schema.Finite, create: Schema.Finite })
)
const kinds = ["exec", "stream", "create"] as const

/** Measures a checkout once. */
const measure = (checkout: string) => {
  const program = `${checkout}/bench/shared/compared-${process.pid}.ts`
  // Short, because a sandbox's socket has its address in there; and open, because a sandbox's root is nobody here.
  const directory = mkdtempSync("/var/tmp/fbc-")
  chmodSync(directory, 0o755)
  try {
    copyFileSync(fileURLToPath(new URL("./shared/compared.ts", import.meta.url)), program)
    const child = spawnSync(process.execPath, ["--conditions=fiberbox-source", program, directory], {
      cwd: checkout,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"]
    })
    return Schema.decodeUnknownSync(Medians)(child.stdout)
  } finally {
    rmSync(program, { force: true })
    rmSync(directory, { recursive: true, force: true })
  }
}

if (before === undefined || after === undefined || !/^[1-9]\d*$/.test(rounds)) {
  process.stderr.write("usage: compare.ts BEFORE AFTER [ROUNDS]\n")
  process.exit(2)
}

const ratios = { exec: [] as number[], stream: [] as number[], create: [] as number[] }
for (let round = 0; round < Number(rounds); round++) {
  // Whoever is first finds another machine than whoever is second: so that changes, too.
  const isSwapped = round % 2 === 1
  const first = measure(isSwapped ? after : before)
  const second = measure(isSwapped ? before : after)
  const [old, young] = isSwapped ? [second, first] : [first, second]
  for (const kind of kinds) ratios[kind].push(young[kind] / old[kind])
  const now = kinds.map((kind) => `${kind} ${old[kind].toFixed(3)} -> ${young[kind].toFixed(3)} ms`)
  process.stderr.write(`round ${round + 1}: ${now.join(", ")}\n`)
}
for (const kind of kinds) {
  const { min, max } = statsOf(ratios[kind])
  const [low, high] = [min, max].map((ratio) => ratio.toFixed(3))
  process.stdout.write(`${kind}: ${median(ratios[kind]).toFixed(3)} (${low} to ${high})\n`)
}
