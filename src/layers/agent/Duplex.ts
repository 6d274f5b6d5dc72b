/**
 * Connections into the machine and out of it: bytes both ways on one channel,
 * each direction with its own credit.
 */
import { Cause, Effect, Queue, type Scope, Semaphore, Stream } from "effect"
import {
  type AgentError,
  AgentLost,
  type AgentSession,
  AgentTimeout,
  failureOf,
  type Receiver
} from "./AgentSession.ts"
import { Inbox, request } from "./Inbox.ts"
import * as P from "./Protocol.ts"

/** One open connection. */
export interface AgentDuplex {
  /** What the other side sends, until it ends its direction. For one reader. */
  readonly incoming: Stream.Stream<Uint8Array, AgentError>
  /** Completes when the bytes are on their way; waits while the other side does not read. */
  readonly send: (data: Uint8Array) => Effect.Effect<void, AgentError>
  /** Ends this direction. Repeating it is no error. */
  readonly end: Effect.Effect<void>
  /** Ends both at once. */
  readonly close: Effect.Effect<void>
}

/** A TCP port of a loopback address inside. */
export interface DialTarget {
  readonly family: 4 | 6
  readonly port: number
}

/** A port inside on which programs are connected to the host. */
export interface Listening {
  readonly port: number
  /** Each connection, to be closed by whoever takes it. Those nobody takes are closed with the scope. */
  readonly connections: Stream.Stream<AgentDuplex, AgentLost>
}

const windowBytes = 256 * 1024

/** The sending half: what the agent has room for. */
class Outgoing {
  #credit = P.duplexWindowBytes
  #wake: (() => void) | undefined
  #over: AgentError | undefined
  #ended = false
  readonly #send: (frame: (channel: number) => Buffer) => void
  constructor(send: (frame: (channel: number) => Buffer) => void) {
    this.#send = send
  }

  #notify(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  grant(bytes: number): void {
    this.#credit += bytes
    this.#notify()
  }

  /** The channel is gone. */
  finish(error: AgentError | undefined): void {
    this.#over ??= error ?? new AgentLost({ reason: "the connection has ended" })
    this.#notify()
  }

  readonly #change: Effect.Effect<void> = Effect.callback((resume) => {
    this.#wake = () => resume(Effect.void)
    return Effect.sync(() => {
      this.#wake = undefined
    })
  })

  /** Sends as the credit allows; one write at a time. */
  readonly write = (data: Uint8Array): Effect.Effect<void, AgentError> =>
    Effect.suspend(() => {
      if (this.#over !== undefined) return Effect.fail(this.#over)
      if (this.#ended) return Effect.fail(new AgentLost({ reason: "this direction has been ended" }))
      const now = data.subarray(0, Math.min(this.#credit, P.duplexWindowBytes / 2))
      if (now.length > 0) this.#send((channel) => P.Data.encode(channel, { data: now }))
      this.#credit -= now.length
      const later = data.subarray(now.length)
      if (later.length === 0) return Effect.void
      return this.#credit > 0 ? this.write(later) : Effect.flatMap(this.#change, () => this.write(later))
    })

  readonly end: Effect.Effect<void> = Effect.sync(() => {
    if (this.#ended || this.#over !== undefined) return
    this.#ended = true
    this.#send((channel) => P.Eof.encode(channel, {}))
  })
}

interface Opened {
  readonly inbox: Inbox
  readonly duplex: AgentDuplex
}

const openDuplex = (session: AgentSession, open: (receiver: Receiver) => number): Opened => {
  const outgoing = new Outgoing((frame) => session.send(frame(inbox.channel)))
  const inbox = new Inbox(session, {
    open,
    isLast: (reply) => reply._tag === "End",
    cost: (reply) => (reply._tag === "Data" ? reply.data.length : 0),
    onCredit: (bytes) => outgoing.grant(bytes),
    onEnd: (error) => outgoing.finish(error),
    credit: windowBytes,
    deadlineMillis: undefined
  })
  const oneAtATime = Semaphore.makeUnsafe(1)
  const duplex: AgentDuplex = {
    incoming: Stream.fromPull(Effect.succeed(inbox.take)).pipe(
      Stream.filter((item) => item._tag === "Data"),
      Stream.map((item) => item.data)
    ),
    send: (data) => oneAtATime.withPermit(outgoing.write(data)),
    end: outgoing.end,
    close: Effect.andThen(
      inbox.close,
      Effect.sync(() => outgoing.finish(undefined))
    )
  }
  return { inbox, duplex }
}

const within = <A, E>(effect: Effect.Effect<A, E>, millis: number): Effect.Effect<A, E | AgentTimeout> =>
  Effect.timeoutOrElse(effect, {
    duration: millis,
    orElse: () => Effect.fail(new AgentTimeout({ millis }))
  })

/** Dials, and returns when the connection stands. */
export const dialDuplex = Effect.fnUntraced(function* (
  session: AgentSession,
  target: DialTarget,
  deadlineMillis: number
): Effect.fn.Return<AgentDuplex, AgentError, Scope.Scope> {
  const { inbox, duplex } = yield* Effect.acquireRelease(
    Effect.sync(() =>
      openDuplex(
        session,
        request(session, (channel) => P.Dial.encode(channel, { ...target, credit: windowBytes }))
      )
    ),
    (opened) => opened.duplex.close
  )
  const ended = () => Effect.fail(new AgentLost({ reason: "the agent ended the channel" }))
  const [, ...early] = yield* within(inbox.take, deadlineMillis).pipe(Effect.catchTag("Done", ended))
  const first = Stream.fromIterable(early).pipe(
    Stream.filter((item) => item._tag === "Data"),
    Stream.map((item) => item.data)
  )
  return { ...duplex, incoming: Stream.concat(first, duplex.incoming) }
})

/** Listens, and returns when connections may come. */
export const listenDuplex = Effect.fnUntraced(function* (
  session: AgentSession,
  port: number,
  deadlineMillis: number
): Effect.fn.Return<Listening, AgentError, Scope.Scope> {
  const connections = yield* Queue.make<AgentDuplex, AgentLost>()
  yield* Effect.addFinalizer(() =>
    Effect.flatMap(Queue.clear(connections), (waiting) => Effect.forEach(waiting, ({ close }) => close)).pipe(
      Effect.ignore
    )
  )
  let close = () => {}
  yield* Effect.addFinalizer(() => Effect.sync(() => close()))
  const listening = Effect.callback<number, AgentError>((resume) => {
    const channel = request(session, (opened) => P.Listen.encode(opened, { credit: windowBytes, port }))({
      receive: (reply) => {
        if (reply._tag === "Listening") return resume(Effect.succeed(reply.port))
        if (reply._tag === "Failed") return resume(Effect.fail(failureOf(reply)))
        if (reply._tag !== "Accepted")
          return session.lose(`the agent broke the protocol: ${reply._tag} of a listener`)
        // At once: its first bytes may be in the same piece of the stream.
        const adopt = (receiver: Receiver) => {
          session.adopt(reply.channel, receiver)
          return reply.channel
        }
        Queue.offerUnsafe(connections, openDuplex(session, adopt).duplex)
      },
      lost: (error) => {
        Queue.failCauseUnsafe(connections, Cause.fail(error))
        resume(Effect.fail(error))
      }
    })
    close = () => session.cancel(channel)
  })
  return { port: yield* within(listening, deadlineMillis), connections: Stream.fromQueue(connections) }
})
