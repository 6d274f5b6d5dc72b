/**
 * The store of sandboxes in memory: for tests, and for backends whose machines
 * do not outlive the program anyway.
 */
import { Clock, Effect, Layer, Schema } from "effect"
import { BackendFailed, Conflict } from "../../domain/Errors.ts"
import type { EventBody, SandboxEvent } from "../../domain/Event.ts"
import { type IdempotencyKey, type Owner, SandboxId } from "../../domain/Ids.ts"
import type { ListRequest, Timestamp } from "../../domain/Sandbox.ts"
import type { Status } from "../../domain/Status.ts"
import * as PageCursor from "../../services/PageCursor.ts"
import { type Admission, usageOf } from "../../services/Quotas.ts"
import { keptIn, type SandboxRecord, SandboxStore, tombstonesKept } from "../../services/SandboxStore.ts"

/** A store that is empty at first and gone with the layer. */
export const layer: Layer.Layer<SandboxStore> = Layer.effect(
  SandboxStore,
  Effect.sync(() => make())
)

interface Entry {
  readonly record: SandboxRecord
  /** The newest, in order; see {@link keptIn}. */
  readonly events: ReadonlyArray<SandboxEvent>
}

const make = (): SandboxStore["Service"] => {
  /** The killed stand apart: there may be many more of them than of those that live. */
  const living = new Map<SandboxId, Entry>()
  const killed = new Map<SandboxId, Entry>()
  const byKey = new Map<string, SandboxId>()

  const entry = (id: SandboxId): Entry | undefined => living.get(id) ?? killed.get(id)

  const among = (
    entries: ReadonlyMap<SandboxId, Entry>,
    keep: (record: SandboxRecord) => boolean
  ): ReadonlyArray<SandboxRecord> => {
    const found: Array<SandboxRecord> = []
    for (const { record } of entries.values()) if (keep(record)) found.push(record)
    return found
  }

  const put = (record: SandboxRecord, at: Timestamp, bodies: ReadonlyArray<EventBody>) => {
    const earlier = entry(record.id)
    const before = earlier?.events ?? []
    const last = before.at(-1)?.sequence ?? 0
    const events = bodies.map((body, index): SandboxEvent => {
      const { id: sandboxId, generation } = record
      return { sandboxId, sequence: last + 1 + index, generation, at, body }
    })
    const kept = events.length === 0 ? before : [...before, ...events].slice(-keptIn(record.status))
    if (!isAlive(record)) living.delete(record.id)
    const entries = isAlive(record) ? living : killed
    entries.set(record.id, { record, events: kept })
    const free = earlier?.record.idempotencyKey
    if (free !== undefined) byKey.delete(keyOf(record.owner, free))
    if (record.idempotencyKey !== undefined) byKey.set(keyOf(record.owner, record.idempotencyKey), record.id)
    return events
  }

  const usage = (keep: (record: SandboxRecord) => boolean) =>
    usageOf(
      among(living, keep).map(({ spec, expiresAt }) => ({
        limits: spec.limits,
        killedAtEnd: spec.ttl?.action === "kill",
        expiresAt
      }))
    )

  const bySlug = (owner: Owner, slug: string): SandboxRecord | undefined =>
    among(living, (record) => record.slug === slug && record.owner === owner)[0]

  const ofKey = (owner: Owner, key: IdempotencyKey): SandboxRecord | undefined => {
    const id = byKey.get(keyOf(owner, key))
    return id === undefined ? undefined : entry(id)?.record
  }

  const create = Effect.fnUntraced(function* (record: SandboxRecord, admission?: Admission) {
    const { idempotencyKey: key, owner, slug } = record
    const before = key === undefined ? undefined : ofKey(owner, key)
    if (before !== undefined) {
      if (before.requestDigest === record.requestDigest) return { record: before, existed: true }
      const reason = "the same key was used for another request"
      return yield* new Conflict({ kind: "idempotency-key", id: before.id, reason })
    }
    const holder = bySlug(owner, slug)
    if (holder !== undefined) {
      return yield* new Conflict({ kind: "name", id: slug, reason: `it is the name of ${holder.id}` })
    }
    if (entry(record.id) !== undefined) return yield* failed("create", `${record.id} exists`)
    // From here to the end nothing else runs.
    const refusal = admission?.({
      owner: usage((other) => other.owner === owner),
      service: usage(() => true)
    })
    if (refusal !== undefined) return yield* refusal
    put(record, record.createdAt, [{ _tag: "Created" }])
    return { record, existed: false }
  })

  const save = (record: SandboxRecord, bodies: ReadonlyArray<EventBody>) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      entry(record.id) === undefined
        ? Effect.fail(failed("save", `there is no record of ${record.id}`))
        : Effect.succeed(put(record, now, bodies))
    )

  const list = Effect.fnUntraced(function* (owner: Owner, request: ListRequest) {
    const limit = request.limit ?? PageCursor.defaultPageSize
    const isListed = matching(owner, request, yield* PageCursor.decode(request.cursor))
    const found = [
      ...among(living, isListed),
      ...(request.statuses?.includes("killed") === true ? among(killed, isListed) : [])
    ]
    found.sort(inOrder)
    const count = PageCursor.fitting(sizesOf(found), limit)
    return PageCursor.page(found.slice(0, count), found.length > count)
  })

  /** The time before which whoever was killed is one too many; nobody, while there are few. */
  const overBudget = (): number =>
    killed.size < tombstonesKept
      ? Number.NEGATIVE_INFINITY
      : (Array.from(killed.values(), ({ record }) => killedAtOf(record)).sort((a, b) => b - a)[
          tombstonesKept - 1
        ] ?? Number.NEGATIVE_INFINITY)

  return {
    create,
    save,
    list,
    get: (id) => Effect.sync(() => entry(id)?.record),
    byKey: (owner, key) => Effect.sync(() => ofKey(owner, key)),
    find: (owner, idOrName) =>
      Effect.sync(() => {
        const byId = isId(idOrName) ? entry(idOrName)?.record : undefined
        return byId?.owner === owner ? byId : bySlug(owner, idOrName)
      }),
    alive: Effect.sync(() => [...among(living, () => true)].sort(inOrder)),
    count: Effect.sync(() => {
      const counts = new Map<Status, number>()
      for (const { record } of living.values())
        counts.set(record.status, (counts.get(record.status) ?? 0) + 1)
      return counts
    }),
    known: (ids) =>
      Effect.sync(() => {
        const records = ids.map((id) => entry(id)?.record).filter((record) => record !== undefined)
        return new Map(records.map(({ id, killedAt }) => [id, { killedAt }]))
      }),
    events: (id, after, limit) =>
      Effect.sync(() => (entry(id)?.events ?? []).filter(({ sequence }) => sequence > after).slice(0, limit)),
    purge: (killedBefore, except = []) =>
      Effect.sync(() => {
        const before = Math.max(killedBefore, overBudget())
        const old = among(killed, (record) => killedAtOf(record) < before && !except.includes(record.id))
        for (const { id, idempotencyKey, owner } of old) {
          killed.delete(id)
          if (idempotencyKey !== undefined) byKey.delete(keyOf(owner, idempotencyKey))
        }
        return old.length
      })
  }
}

const failed = (operation: string, reason: string): BackendFailed =>
  new BackendFailed({ backend: "store", operation, reason, outcome: "not-started" })

const isId = Schema.is(SandboxId)

const isAlive = (record: SandboxRecord): boolean => record.status !== "killed"

const killedAtOf = ({ killedAt }: SandboxRecord): number => killedAt ?? Number.POSITIVE_INFINITY

const keyOf = (owner: Owner, key: IdempotencyKey): string => JSON.stringify([owner, key])

/** The sizes of records, roughly, each as it is asked for. */
function* sizesOf(records: ReadonlyArray<SandboxRecord>) {
  for (const record of records) yield JSON.stringify(record).length
}

const inOrder = (a: PageCursor.Place, b: PageCursor.Place): number =>
  a.createdAt - b.createdAt || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

/** Which records a list request asks for, after a place. */
const matching = (
  owner: Owner,
  { labels = {}, statuses }: ListRequest,
  place: PageCursor.Place | undefined
): ((record: SandboxRecord) => boolean) => {
  const wanted = Object.entries(labels)
  return (record) =>
    record.owner === owner &&
    (statuses === undefined || statuses.includes(record.status)) &&
    wanted.every(([key, value]) => record.spec.labels[key] === value) &&
    (place === undefined || inOrder(place, record) < 0)
}
