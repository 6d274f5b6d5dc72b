/**
 * Conformance: what is measured, and what is refused.
 */
import { Effect, Stream } from "effect"
import type { Capability } from "../../domain/Capability.ts"
import type { CreateOptions } from "../../services/Sandboxes.ts"
import { Sandboxes } from "../../services/Sandboxes.ts"
import { area, type Case, holds, refused, same, unique, withSandbox } from "./Case.ts"
import { untilOutput } from "./Programs.ts"

export const metricCases = area("metrics")(
  {
    "metrics tell the limits and count what runs": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const before = yield* sandbox.metrics
        same(before.memoryLimitBytes, 128 * 1024 * 1024)
        holds(
          before.memoryBytes >= 0 && before.memoryBytes <= before.memoryLimitBytes,
          "memory is within its limit"
        )
        const process = yield* sandbox.commands.start("sleep 1000 & echo up; sleep 1000")
        yield* untilOutput(process)
        const during = yield* sandbox.metrics
        holds(during.pids >= before.pids + 2, `more processes: ${before.pids}, then ${during.pids}`)
        holds(during.cpuMillis >= before.cpuMillis && during.at >= before.at, "time does not go back")
        yield* process.kill
        same((yield* sandbox.metrics).pids, before.pids)
      }),
      { limits: { memoryBytes: 128 * 1024 * 1024 } }
    )
  },
  ["metrics"]
)

const refusals = area("refusals")

/** That a request is refused in this way, and nothing of it is left. */
const leavesNothing = (
  request: (label: { readonly labels: Record<string, string> }) => CreateOptions,
  ...tags: ReadonlyArray<"InvalidArgument" | "NotFound" | "Unsupported">
) =>
  Effect.gen(function* () {
    const batch = yield* unique("refused")
    const options = request({ labels: { batch } })
    const error = yield* refused(Sandboxes.create(options), ...tags)
    same(error.outcome, "not-started")
    const page = yield* Sandboxes.list({
      labels: { batch },
      statuses: ["provisioning", "running", "failed", "killed"]
    })
    same(page.sandboxes, [])
    return error
  })

const basic = refusals({
  "a limit of nothing is refused": Effect.gen(function* () {
    for (const limit of ["memoryBytes", "cpus", "pids", "diskBytes", "inodes"]) {
      for (const value of [0, -1]) {
        const error = yield* leavesNothing(
          (label) => ({ ...label, limits: { [limit]: value } }),
          "InvalidArgument"
        )
        same(error._tag === "InvalidArgument" ? error.field : error, `limits.${limit}`)
      }
    }
  }),

  "a limit above what the machine has is refused": Effect.gen(function* () {
    yield* leavesNothing(
      (label) => ({ ...label, limits: { memoryBytes: 2 ** 52 } }),
      "InvalidArgument",
      "Unsupported"
    )
    yield* leavesNothing(
      (label) => ({ ...label, limits: { cpus: 100_000 } }),
      "InvalidArgument",
      "Unsupported"
    )
  }),

  "an image that does not exist is not found": Effect.gen(function* () {
    const unknown = yield* leavesNothing((label) => ({ ...label, image: "no-such-image" }), "NotFound")
    same(unknown._tag === "NotFound" ? unknown.kind : unknown, "image")
    // A service need not offer the directories of its computer.
    yield* leavesNothing((label) => ({ ...label, image: "dir:/no/such" }), "NotFound", "Unsupported")
  }),

  "a request that is malformed names the part that is": Effect.gen(function* () {
    const bad: ReadonlyArray<readonly [field: string, options: CreateOptions]> = [
      ["env.A=B", { env: { "A=B": "c" } }],
      ["env.A", { env: { A: "b\0" } }],
      ["image", { image: "not an image" }],
      ["ports.0", { ports: [65_536] }],
      ["startCommand", { startCommand: "" }],
      ["name", { name: "Not A Name" }],
      ["ttl.afterMillis", { ttl: { afterMillis: 0, action: "kill" } }]
    ]
    for (const [field, options] of bad) {
      const error = yield* leavesNothing((label) => ({ ...options, ...label }), "InvalidArgument")
      same(error._tag === "InvalidArgument" ? error.field : error, field)
    }
  }),

  "an option that makes no sense is refused": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      same((yield* refused(sandbox.stop({ graceMillis: -1 }), "InvalidArgument")).field, "graceMillis")
      same(
        (yield* refused(sandbox.waitForReady({ timeoutMillis: 0 }), "InvalidArgument")).field,
        "timeoutMillis"
      )
      const events = Stream.runDrain(sandbox.events({ after: -1 }))
      same((yield* refused(events, "InvalidArgument")).field, "after")
      same((yield* sandbox.info).status, "running")
    })
  ),

  "an update that is malformed changes nothing": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const before = yield* sandbox.info
      for (const update of [{ ports: [0] }, { env: { "A=B": "c" } }, { startCommand: "" }]) {
        yield* refused(sandbox.update({ labels: { a: "b" }, ...update }), "InvalidArgument")
      }
      same(yield* sandbox.info, before)
    })
  )
})

/** Requests that need a capability which this backend may lack. */
const demands: ReadonlyArray<readonly [needs: Capability, options: CreateOptions]> = [
  ["limit-memory", { limits: { memoryBytes: 64 * 1024 * 1024 } }],
  ["limit-cpus", { limits: { cpus: 0.5 } }],
  ["limit-pids", { limits: { pids: 32 } }],
  ["limit-disk", { limits: { diskBytes: 64 * 1024 * 1024 } }],
  ["limit-inodes", { limits: { inodes: 1000 } }],
  ["network-none", { network: "none" }],
  ["network-full", { network: "full" }],
  ["network-allow", { network: { allow: ["example.test"] } }]
]

/** What a backend that lacks some capabilities must refuse rather than ignore. */
export const unsupportedCases = (capabilities: ReadonlySet<Capability>): ReadonlyArray<Case> =>
  demands
    .filter(([needs]) => !capabilities.has(needs))
    .flatMap(([needs, options]) =>
      refusals({
        [`what cannot be enforced is refused, not ignored: ${needs}`]: leavesNothing(
          (label) => ({ ...options, ...label }),
          "Unsupported"
        )
      })
    )

export const refusalCases = basic
