/**
 * What a service counts and measures of itself, in Effect's metric registry:
 * at `/metrics` as Prometheus text, and by OTLP where that is configured.
 *
 * No metric has a label that names an owner or a sandbox: their number would
 * have no bound.
 */
import { Effect, Metric } from "effect"
import { Status } from "../domain/Status.ts"

/** One metric for each value of a label, made when it is first needed. The values must be few. */
const family = <M>(make: (key: string) => M): ((key: string) => M) => {
  const members = new Map<string, M>()
  return (key) => {
    const known = members.get(key)
    if (known !== undefined) return known
    const made = make(key)
    members.set(key, made)
    return made
  }
}

const counter = (name: string, description: string, attributes: Record<string, string> = {}) =>
  Metric.counter(name, { description, incremental: true, attributes })

/** Seconds, from a tenth of a millisecond to ten minutes. */
const seconds = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 600
]

/** Calls that ended, by operation. */
export const calls = family((operation) =>
  counter("fiberbox_calls_total", "Calls of the contract that ended, whatever their outcome", { operation })
)

/** Calls that failed, by the tag of their error (`interrupted` and `defect` among them). */
export const callErrors = family((error) =>
  counter("fiberbox_call_errors_total", "Calls of the contract that failed, by the tag of their error", {
    error
  })
)

/** How long calls took, in seconds; of a stream, to its end. */
export const callSeconds = family((operation) =>
  Metric.histogram("fiberbox_call_seconds", {
    description: "How long calls took; a stream until its end",
    boundaries: seconds,
    attributes: { operation }
  })
)

const callsRunning = Metric.gauge("fiberbox_calls_running", {
  description: "Calls of the contract that are being answered"
})

/** Sets how many calls are being answered. */
export const setCallsRunning = (calls: number): Effect.Effect<void> => Metric.update(callsRunning, calls)

/** Sandboxes created. */
export const creates = counter("fiberbox_creates_total", "Sandboxes created")
/** Programs started. */
export const execs = counter("fiberbox_execs_total", "Programs started")
/** Bytes of output read by callers. */
export const outputBytes = counter(
  "fiberbox_output_bytes_total",
  "Bytes of output of programs that callers read"
)
/** Bytes of files that callers `read` and have `written`. */
export const fileBytes = family((direction) =>
  counter("fiberbox_file_bytes_total", "Bytes of files, read or written", { direction })
)
/** Machines started again by a restart policy. */
export const restarts = counter("fiberbox_restarts_total", "Restarts scheduled by restart policies")
/** Machines that ended by themselves. */
export const machineDeaths = counter("fiberbox_machine_deaths_total", "Machines that ended by themselves")
/** Leases that nobody renewed in time. */
export const leaseLapses = counter("fiberbox_lease_lapses_total", "Leases that lapsed")
/** Tokens that were refused. */
export const refusedTokens = counter(
  "fiberbox_refused_tokens_total",
  "Missing, forged, expired and revoked tokens"
)
/** Sandboxes refused by a quota. */
export const quotaRefusals = counter("fiberbox_quota_refusals_total", "Sandboxes refused by a quota")

/** Of killed ones only a memory is left. */
const present = Status.literals.filter((status) => status !== "killed")

const sandboxes = family((status) =>
  Metric.gauge("fiberbox_sandboxes", { description: "Sandboxes by status", attributes: { status } })
)

/** Sets how many sandboxes there are of each status. */
export const setSandboxes = Effect.fnUntraced(function* (found: ReadonlyMap<string, number>) {
  for (const status of present) yield* Metric.update(sandboxes(status), found.get(status) ?? 0)
})

const memory = family((kind) =>
  Metric.gauge("fiberbox_process_memory_bytes", {
    description: "Memory of the service's own process",
    attributes: { kind }
  })
)

/** Sets how much memory the service itself uses. */
export const setMemory = Effect.suspend(() => {
  const { rss, heapUsed, external } = process.memoryUsage()
  return Effect.forEach(
    Object.entries({ rss, heap: heapUsed, external }),
    ([kind, bytes]) => Metric.update(memory(kind), bytes),
    { discard: true }
  )
})
