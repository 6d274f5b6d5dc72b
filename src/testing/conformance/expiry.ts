/**
 * Conformance: times to live and idle times, with each action.
 */
import { Effect, Stream } from "effect"
import type { ExpiryAction } from "../../domain/Sandbox.ts"
import type { Status } from "../../domain/Status.ts"
import type { Sandbox } from "../../services/Sandbox.ts"
import { Sandboxes } from "../../services/Sandboxes.ts"
import { area, holds, refused, same, withSandbox } from "./Case.ts"
import { eventually } from "./Programs.ts"

const expiry = area("expiry")
const outcome: { readonly [A in ExpiryAction]: Status } = { kill: "killed", stop: "stopped", pause: "paused" }

/** Waits for a status as somebody who only watches; asking the sandbox itself would keep it from being idle. */
const reaches = (sandbox: Sandbox, status: Status) =>
  eventually(Sandboxes.get(sandbox.id), (info) => info.status === status)

const expired = (sandbox: Sandbox, what: "ttl" | "idle") =>
  Effect.map(Stream.runCollect(sandbox.events({ once: true })), (events) =>
    holds(
      events.some(({ body }) => body._tag === "Expired" && body.what === what),
      `an event says that the ${what} has passed`
    )
  )

const ttl = (action: ExpiryAction) =>
  withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const set = yield* sandbox.setExpiry({ ttl: { afterMillis: 50, action } })
      holds(set.expiresAt !== undefined, "it says when it expires")
      yield* reaches(sandbox, outcome[action])
      yield* expired(sandbox, "ttl")
    })
  )

const idle = (action: ExpiryAction) =>
  withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      yield* sandbox.setExpiry({ idle: { afterMillis: 50, action } })
      yield* reaches(sandbox, outcome[action])
      yield* expired(sandbox, "idle")
    })
  )

const basic = expiry({
  "a sandbox is killed when its time to live has passed": ttl("kill"),
  "a sandbox is killed when it has been idle": idle("kill"),

  "a time to live counts from the creation": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const { createdAt, expiresAt } = yield* sandbox.info
      same(expiresAt, createdAt + 3_600_000)
    }),
    { ttl: { afterMillis: 3_600_000, action: "kill" } }
  ),

  "a new time to live counts from now, and null removes it": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const before = yield* sandbox.info
      const longer = yield* sandbox.setExpiry({ ttl: { afterMillis: 7_200_000, action: "stop" } })
      holds((longer.expiresAt ?? 0) >= (before.expiresAt ?? 0) + 3_600_000, "it is later now")
      same(longer.spec.ttl, { afterMillis: 7_200_000, action: "stop" })
      const removed = yield* sandbox.setExpiry({ ttl: null })
      same([removed.expiresAt, removed.spec.ttl], [undefined, undefined])
    }),
    { ttl: { afterMillis: 3_600_000, action: "kill" } }
  ),

  "setting one limit leaves the other": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const set = yield* sandbox.setExpiry({ idle: { afterMillis: 7_200_000, action: "kill" } })
      same(set.spec.ttl, { afterMillis: 3_600_000, action: "kill" })
      same(set.spec.idle, { afterMillis: 7_200_000, action: "kill" })
      const removed = yield* sandbox.setExpiry({ idle: null })
      same([removed.spec.ttl, removed.spec.idle], [{ afterMillis: 3_600_000, action: "kill" }, undefined])
    }),
    { ttl: { afterMillis: 3_600_000, action: "kill" } }
  ),

  "a limit that is none is refused": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      for (const afterMillis of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
        yield* refused(sandbox.setExpiry({ ttl: { afterMillis, action: "kill" } }), "InvalidArgument")
      }
      same((yield* sandbox.info).spec.ttl, undefined)
    })
  )
})

const stopping = expiry(
  {
    "a sandbox is stopped when its time to live has passed": ttl("stop"),
    "a sandbox is stopped when it has been idle": idle("stop")
  },
  ["stop"]
)

const pausing = expiry(
  {
    "a sandbox is paused when its time to live has passed": ttl("pause"),
    "a sandbox is paused when it has been idle": idle("pause")
  },
  ["pause"]
)

export const expiryCases = [...basic, ...stopping, ...pausing]
