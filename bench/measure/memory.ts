import { Effect } from "effect"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { atMost, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { proportional, snapshot } from "../shared/Memory.ts"
import { containers, processesOf, processList } from "../shared/Sandboxing.ts"

const count = 100

/** After this long the kernel has freed what it frees late. */
const settle = Effect.andThen(
  Effect.sleep("3 seconds"),
  Effect.sync(() => globalThis.gc?.())
)

const agentsOf = (sandbox: Sandbox) =>
  processesOf(processList(sandbox)).reduce((total, pid) => total + proportional(pid), 0)

const many = (size: number) => Effect.replicateEffect(Sandboxes.create(), size, { concurrency: 4 })

const round = Effect.gen(function* () {
  yield* settle
  const before = snapshot()
  const sandboxes = yield* many(count)
  yield* settle
  const after = snapshot()
  const each = (name: keyof typeof before) => (after[name] - before[name]) / count
  const agent = sandboxes.reduce((total, sandbox) => total + agentsOf(sandbox), 0) / count
  const kernel = each("slab") + each("kernel")
  const machine = -each("available")
  return {
    agent,
    kernel,
    unreclaimableSlab: each("unreclaimableSlab"),
    slab: each("slab"),
    both: agent + kernel,
    machine,
    ownResident: each("ownResident"),
    ownHeap: each("ownHeap")
  }
}).pipe(Effect.scoped)

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const rounds = yield* Effect.gen(function* () {
    yield* Effect.scoped(many(count))
    return yield* Effect.replicateEffect(round, Math.min(settings.runs ?? 3, 10))
  }).pipe(Effect.provide(containers(settings)))
  const of = (name: keyof (typeof rounds)[number]) => rounds.map((one) => one[name])
  return [
    row("agent and kernel together", "kB", of("both"), atMost(1024)),
    row("agent: its part of memory (PSS of all its processes)", "kB", of("agent")),
    row("kernel: slab, stacks, page tables, per-processor data", "kB", of("kernel")),
    row("of that: slab", "kB", of("slab")),
    row("of that: slab that cannot be reclaimed", "kB", of("unreclaimableSlab")),
    row("the machine's MemAvailable, the service included", "kB", of("machine")),
    row("the service: resident set", "kB", of("ownResident")),
    row("the service: JavaScript heap in use", "kB", of("ownHeap"))
  ]
})

export const measurement: Measurement = {
  title: "Memory of an idle sandbox",
  about: `Differences between before and after ${count} sandboxes, divided by ${count}; one sample a round, after a first round that does not count. 1 kB is 1024 bytes.`,
  measure
}
