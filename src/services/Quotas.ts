/**
 * Quotas: how much an owner's sandboxes, and those of all owners, may take
 * together. A sandbox counts with its limits from its creation until it is
 * killed, stopped or not: a stopped one may be started at any time.
 *
 * They are checked where a sandbox is recorded, in the same transaction, so no
 * two creations slip through together.
 */
import { Context, Schema } from "effect"
import { PolicyDenied, ResourceExhausted } from "../domain/Errors.ts"
import type { Owner } from "../domain/Ids.ts"
import type { Limits } from "../domain/Sandbox.ts"

const amount = Schema.optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)))

/** The most that sandboxes may take together; what is left out is without bound. */
export const Quota = Schema.Struct({
  /** How many that are not killed. */
  sandboxes: amount,
  /** The sum of their memory limits, in bytes. */
  memoryBytes: amount,
  /** The sum of their processor limits. */
  cpus: amount,
  /** The sum of their limits of processes. */
  pids: amount,
  /** The sum of their disk limits, in bytes. */
  diskBytes: amount
})
export type Quota = typeof Quota.Type

/** What sandboxes take together. */
export interface Usage extends Required<{ readonly [K in keyof Quota]: number }> {
  /** When the first of them will be killed by its own time limit; undefined when none will. */
  readonly freesAt: number | undefined
}

/** What is taken at the moment of a creation, by its owner and by all. */
export interface Usages {
  readonly owner: Usage
  readonly service: Usage
}

/** Decides over a creation by what is taken; undefined lets it through. */
export type Admission = (usages: Usages) => ResourceExhausted | PolicyDenied | undefined

/** The quotas of a service. */
export interface QuotaSettings {
  /** Of each owner. */
  readonly perOwner: Quota
  /** Of all owners together. */
  readonly service: Quota
}

/** The quotas in force; an embedding program has none. */
export const Quotas = Context.Reference<QuotaSettings>("fiberbox/services/Quotas", {
  defaultValue: () => ({ perOwner: {}, service: {} })
})

/** Nothing taken. */
export const noUsage: Usage = {
  sandboxes: 0,
  memoryBytes: 0,
  cpus: 0,
  pids: 0,
  diskBytes: 0,
  freesAt: undefined
}

const names: { readonly [K in keyof Quota]-?: string } = {
  sandboxes: "sandboxes",
  memoryBytes: "memory",
  cpus: "processors",
  pids: "processes",
  diskBytes: "disk"
}
const kinds = ["sandboxes", "memoryBytes", "cpus", "pids", "diskBytes"] as const

/** Sums of processors are not exact. */
const tolerance = 1e-9

const isBounded = (quota: Quota): boolean => kinds.some((kind) => quota[kind] !== undefined)

/** The first kind of which there is not enough left. */
const lacking = (quota: Quota, used: Usage | undefined, wanted: Omit<Usage, "freesAt">) =>
  kinds.find(
    (kind) => (used?.[kind] ?? 0) + wanted[kind] > (quota[kind] ?? Number.POSITIVE_INFINITY) + tolerance
  )

/** Decides over the creation of a sandbox with these limits, at a time in milliseconds; undefined when there are no quotas. */
export const admission = (
  { perOwner, service }: QuotaSettings,
  owner: Owner,
  limits: Limits,
  now: number
): Admission | undefined => {
  if (!isBounded(perOwner) && !isBounded(service)) return undefined
  const wanted = { ...limits, sandboxes: 1 }
  const tooLarge = lacking(perOwner, undefined, wanted) ?? lacking(service, undefined, wanted)
  if (tooLarge !== undefined) {
    const most = Math.min(
      perOwner[tooLarge] ?? Number.POSITIVE_INFINITY,
      service[tooLarge] ?? Number.POSITIVE_INFINITY
    )
    const denied = new PolicyDenied({
      policy: "quota",
      reason: `${wanted[tooLarge]} ${names[tooLarge]} is more than all sandboxes together may take, ${most}`
    })
    return () => denied
  }
  const exhausted = (resource: string, reason: string, { freesAt }: Usage) =>
    new ResourceExhausted({
      resource,
      reason,
      retryAfterMillis: freesAt === undefined ? undefined : Math.max(0, freesAt - now)
    })
  return (usages) => {
    const own = lacking(perOwner, usages.owner, wanted)
    if (own !== undefined) {
      const reason = `${owner} has ${usages.owner[own]} of ${perOwner[own]}, and the new sandbox takes ${wanted[own]}`
      return exhausted(names[own], reason, usages.owner)
    }
    const all = lacking(service, usages.service, wanted)
    // What others take is nobody's business.
    return all === undefined
      ? undefined
      : exhausted(names[all], "the service has none left for another sandbox", usages.service)
  }
}

/** Adds up what sandboxes take. */
export const usageOf = (
  sandboxes: Iterable<{
    readonly limits: Limits
    readonly killedAtEnd: boolean
    readonly expiresAt: number | undefined
  }>
): Usage => {
  let usage = noUsage
  for (const { limits, killedAtEnd, expiresAt } of sandboxes) {
    const freesAt = killedAtEnd ? expiresAt : undefined
    usage = {
      sandboxes: usage.sandboxes + 1,
      memoryBytes: usage.memoryBytes + limits.memoryBytes,
      cpus: usage.cpus + limits.cpus,
      pids: usage.pids + limits.pids,
      diskBytes: usage.diskBytes + limits.diskBytes,
      freesAt: freesAt === undefined ? usage.freesAt : Math.min(freesAt, usage.freesAt ?? freesAt)
    }
  }
  return usage
}
