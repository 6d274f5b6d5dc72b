/**
 * Connections into the machine: bytes both ways on one channel, each direction with its own credit.
 */
import { Effect, type Scope, Semaphore, Stream } from "effect"
import { type AgentError, AgentLost, type AgentSession, AgentTimeout } from "./AgentSession.ts"
import { Inbox } from "./Inbox.ts"
import * as P from "./Protocol.ts"

/** One open connection into the machine. */
export interface AgentDuplex {
  /** What the other side sends, until it ends its direction. For one reader. */
  readonly incoming: Stream.Stream<Uint8Array, AgentError>
  /** Completes when the bytes are on their way; waits while the other side does not read. */
  readonly send: (data: Uint8Array) => Effect.Effect<void, AgentError>
  /** Ends this direction. Repeating it is no error. */
  readonly end: Effect.Effect<void>
}

const windowBytes = 256 * 1024

/** The sending half: what the agent has room for. */
class Outgoing {
  #credit = P.duplexWindowBytes
  #wake: (() => void) | undefined
  #ended = false
  readonly #session: AgentSession
  readonly #channel: () => number
  constructor(session: AgentSession, channel: () => number) {
    this.#session = session
    this.#channel = channel
  }
  grant(bytes: number): void {
    this.#credit += bytes
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }
  readonly #room: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.#credit > 0) return resume(Effect.void)
    this.#wake = () => resume(Effect.void)
    return Effect.sync(() => {
      this.#wake = undefined
    })
  })
  /** Sends as the credit allows. */
  readonly write = (data: Uint8Array): Effect.Effect<void, AgentError> =>
    Effect.suspend(() => {
      if (this.#ended) return Effect.fail(new AgentLost({ reason: "this direction has been ended" }))
      const now = data.subarray(0, Math.min(this.#credit, P.duplexWindowBytes / 2))
      if (now.length > 0) this.#session.send(P.Data.encode(this.#channel(), { data: now }))
      this.#credit -= now.length
      const later = data.subarray(now.length)
      return later.length === 0 ? Effect.void : Effect.flatMap(this.#room, () => this.write(later))
    })
  readonly end: Effect.Effect<void> = Effect.sync(() => {
    if (this.#ended) return
    this.#ended = true
    this.#session.send(P.Eof.encode(this.#channel(), {}))
  })
}

/** Dials, and returns when the connection stands. */
export const dialDuplex = Effect.fnUntraced(function* (
  session: AgentSession,
  target: {
    readonly kind: keyof typeof P.dialKinds
    readonly port: number
    readonly path: string
    readonly uid: number
    readonly gid: number
  },
  deadlineMillis: number
): Effect.fn.Return<AgentDuplex, AgentError, Scope.Scope> {
  const outgoing = new Outgoing(session, () => inbox.channel)
  const inbox: Inbox = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new Inbox(session, {
          open: (channel, credit) =>
            P.Dial.encode(channel, { ...target, credit, kind: P.dialKinds[target.kind] }),
          isLast: (reply) => reply._tag === "End",
          cost: (reply) => (reply._tag === "Data" ? reply.data.length : 0),
          onCredit: (bytes) => outgoing.grant(bytes),
          credit: windowBytes,
          deadlineMillis
        })
    ),
    (opened) => opened.close
  )
  const late = Effect.fail(new AgentTimeout({ millis: deadlineMillis }))
  const [, ...early] = yield* Effect.timeoutOrElse(inbox.take, {
    duration: deadlineMillis,
    orElse: () => late
  }).pipe(
    Effect.catchTag("Done", () => Effect.fail(new AgentLost({ reason: "the agent ended the channel" })))
  )
  const oneAtATime = yield* Semaphore.make(1)
  return {
    incoming: Stream.concat(Stream.fromIterable(early), Stream.fromPull(Effect.succeed(inbox.take))).pipe(
      Stream.filter((item) => item._tag === "Data"),
      Stream.map((item) => item.data)
    ),
    send: (data) =>
      oneAtATime.withPermit(
        Effect.raceFirst(outgoing.write(data), Effect.flatMap(session.closed, Effect.fail))
      ),
    end: outgoing.end
  }
})
