/**
 * The store of sandboxes in memory: for tests, and for backends whose machines
 * do not outlive the program anyway.
 */
import { Clock, Effect, Layer, Option } from "effect"
import { BackendFailed, Conflict } from "../../domain/Errors.ts"
import type { EventBody, SandboxEvent } from "../../domain/Event.ts"
import type { Owner, SandboxId } from "../../domain/Ids.ts"
import type { ListRequest, Timestamp } from "../../domain/Sandbox.ts"
import * as PageCursor from "../../services/PageCursor.ts"
import { type Admission, usageOf } from "../../services/Quotas.ts"
import { eventsKept, type SandboxRecord, SandboxStore } from "../../services/SandboxStore.ts"

/** A store that is empty at first and gone with the layer. */
export const layer: Layer.Layer<SandboxStore> = Layer.effect(
  SandboxStore,
  Effect.sync(() => make())
)

interface Entry {
  readonly record: SandboxRecord
  /** The newest {@link eventsKept}, in order. */
  readonly events: ReadonlyArray<SandboxEvent>
}

const make = (): SandboxStore["Service"] => {
  const entries = new Map<SandboxId, Entry>()

  const records = (keep: (record: SandboxRecord) => boolean): ReadonlyArray<SandboxRecord> =>
    Array.from(entries.values(), (entry) => entry.record)
      .filter(keep)
      .sort(inOrder)

  const put = (record: SandboxRecord, at: Timestamp, bodies: ReadonlyArray<EventBody>) => {
    const before = entries.get(record.id)?.events ?? []
    const last = before.at(-1)?.sequence ?? 0
    const events = bodies.map((body, index): SandboxEvent => {
      const { id: sandboxId, generation } = record
      return { sandboxId, sequence: last + 1 + index, generation, at, body }
    })
    entries.set(record.id, { record, events: [...before, ...events].slice(-eventsKept) })
    return events
  }

  const usage = (keep: (record: SandboxRecord) => boolean) =>
    usageOf(
      records((record) => isAlive(record) && keep(record)).map(({ spec, expiresAt }) => ({
        limits: spec.limits,
        killedAtEnd: spec.ttl?.action === "kill",
        expiresAt
      }))
    )

  const create = Effect.fnUntraced(function* (record: SandboxRecord, admission?: Admission) {
    const { idempotencyKey: key, owner, slug } = record
    const mine = records((other) => other.owner === owner)
    const before = mine.find((other) => key !== undefined && other.idempotencyKey === key)
    if (before !== undefined) {
      if (before.requestDigest === record.requestDigest) return { record: before, existed: true }
      const reason = "the same key was used for another request"
      return yield* new Conflict({ kind: "idempotency-key", id: before.id, reason })
    }
    const holder = mine.find((other) => other.slug === slug && isAlive(other))
    if (holder !== undefined) {
      return yield* new Conflict({ kind: "name", id: slug, reason: `it is the name of ${holder.id}` })
    }
    if (entries.has(record.id)) return yield* failed("create", `${record.id} exists`)
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
      entries.has(record.id)
        ? Effect.succeed(put(record, now, bodies))
        : Effect.fail(failed("save", `there is no record of ${record.id}`))
    )

  return {
    create,
    save,
    get: (id) => Effect.sync(() => entries.get(id)?.record),
    find: (owner, idOrName) =>
      Effect.sync(() => {
        const answers = (record: SandboxRecord) =>
          record.id === idOrName || (record.slug === idOrName && isAlive(record))
        return records((record) => record.owner === owner && answers(record))[0]
      }),
    list: (owner, request) =>
      Effect.sync(() => {
        const limit = request.limit ?? PageCursor.defaultPageSize
        return PageCursor.page(records(isListed(owner, request)), limit)
      }),
    alive: Effect.sync(() => records(isAlive)),
    events: (id, after, limit) =>
      Effect.sync(() =>
        (entries.get(id)?.events ?? []).filter((event) => event.sequence > after).slice(0, limit)
      ),
    purge: (killedBefore) =>
      Effect.sync(() => {
        const old = records(({ killedAt }) => killedAt !== undefined && killedAt < killedBefore)
        for (const record of old) entries.delete(record.id)
        return old.length
      })
  }
}

const failed = (operation: string, reason: string): BackendFailed =>
  new BackendFailed({ backend: "store", operation, reason, outcome: "not-started" })

const isAlive = (record: SandboxRecord): boolean => record.status !== "killed"

const inOrder = (a: PageCursor.Place, b: PageCursor.Place): number =>
  a.createdAt - b.createdAt || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

const isListed = (owner: Owner, request: ListRequest): ((record: SandboxRecord) => boolean) => {
  const { statuses } = request
  const labels = Object.entries(request.labels ?? {})
  const cursor = Option.getOrUndefined(PageCursor.decode(request.cursor))
  return (record) =>
    record.owner === owner &&
    (statuses === undefined ? isAlive(record) : statuses.includes(record.status)) &&
    labels.every(([key, value]) => record.spec.labels[key] === value) &&
    (cursor === undefined || inOrder(cursor, record) < 0)
}
