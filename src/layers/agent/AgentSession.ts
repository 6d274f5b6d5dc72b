/**
 * One connection to an agent: its greeting, its channels and its end. What the
 * channels mean is the matter of AgentClient.ts.
 */
import { Context, Data, Deferred, Effect, type Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { type Alarms, makeAlarms } from "../../services/Alarms.ts"
import { type Budget, makeBudget } from "../../services/Budget.ts"
import { FrameDecoder, magic } from "./Frame.ts"
import {
  AgentHello,
  Close,
  decodeReply,
  Failed,
  type FailureCode,
  failureCode,
  firstAgentChannel,
  HostHello,
  protocolVersion,
  type Reply,
  type ReplyOf
} from "./Protocol.ts"

/** The connection is gone, or was never made; whatever was pending may or may not have happened. */
export class AgentLost extends Data.TaggedError("AgentLost")<{ readonly reason: string }> {
  override get message(): string {
    return `lost the agent: ${this.reason}`
  }
}

/** The agent refused a request. `detail` is the accepted offset for `gap`, `closed` and `busy`. */
export class AgentFailed extends Data.TaggedError("AgentFailed")<{
  readonly code: FailureCode
  readonly errno: number
  readonly detail: number
  readonly reason: string
}> {
  override get message(): string {
    return `${this.code}: ${this.reason}`
  }
}

/** No answer came within the deadline the caller gave. */
export class AgentTimeout extends Data.TaggedError("AgentTimeout")<{ readonly millis: number }> {
  override get message(): string {
    return `no answer within ${this.millis} ms`
  }
}

/** How any call can fail. */
export type AgentError = AgentLost | AgentFailed | AgentTimeout

/** Something that carries bytes both ways, already connected. */
export interface Transport {
  readonly write: (bytes: Uint8Array) => void
}

/** What a transport reports. `onClose` is called once, `onData` never after it. */
export interface TransportEvents {
  readonly onData: (bytes: Uint8Array) => void
  readonly onClose: (reason: string) => void
}

/** Makes a connection that lasts as long as the scope. */
export type Connect = (events: TransportEvents) => Effect.Effect<Transport, AgentLost, Scope.Scope>

/** Whoever waits on a channel. */
export interface Receiver {
  readonly receive: (reply: Reply) => void
  readonly lost: (error: AgentLost) => void
}

/** The agent's words for a refusal, as an error. */
export const failureOf = (reply: ReplyOf<"Failed">): AgentFailed =>
  new AgentFailed({
    code: failureCode(reply),
    errno: reply.errno,
    detail: reply.detail,
    reason: reply.message
  })

/**
 * How many readers of programs, files and directories there may be. The agent
 * has 1,024 channels; what these leave is for what starts, ends and lists programs.
 */
export const maxReaders = 768

/** What the windows of all channels of one connection may grow by, in bytes: full ones for 32 readers. */
const sessionWindowBytes = 16 * 1024 * 1024

/** What the windows of all connections may grow by. */
const Windows = Context.Reference<Budget>("fiberbox/layers/agent/Windows", {
  defaultValue: () => makeBudget(64 * 1024 * 1024)
})

/** The channels of one connection. */
export class AgentSession {
  /** For the deadlines of what is asked. */
  readonly alarms: Alarms
  /** What the windows of its channels may grow by. */
  readonly windows: Budget
  readonly #decoder = new FrameDecoder()
  readonly #receivers = new Map<number, Receiver>()
  readonly #watchers = new Set<(error: AgentLost) => void>()
  #transport: Transport | undefined
  #lost: AgentLost | undefined
  #lastChannel = 0
  #readers = 0

  constructor(alarms: Alarms, windows: Budget) {
    this.alarms = alarms
    this.windows = windows
  }

  /** What the transport is to report to. */
  readonly events: TransportEvents = {
    onData: (bytes) => {
      if (this.#lost !== undefined) return
      const broken = this.#decoder.push(bytes, this.#onFrame)
      if (broken !== undefined) this.lose(`the agent broke the protocol: ${broken}`)
    },
    onClose: (reason) => this.lose(reason)
  }

  /** Sends the greeting over a connected transport. */
  start(transport: Transport, hello: Buffer): void {
    this.#transport = transport
    transport.write(Buffer.concat([magic, hello]))
  }

  /** Takes a free channel for somebody, who is told at once if the connection is gone already. */
  open(receiver: Receiver): number {
    if (this.#lost !== undefined) {
      receiver.lost(this.#lost)
      return 0
    }
    do this.#lastChannel = (this.#lastChannel % (firstAgentChannel - 1)) + 1
    while (this.#receivers.has(this.#lastChannel))
    this.#receivers.set(this.#lastChannel, receiver)
    return this.#lastChannel
  }

  /** Takes the channel 0, or one the agent has opened. */
  adopt(channel: number, receiver: Receiver): void {
    if (this.#lost === undefined) this.#receivers.set(channel, receiver)
    else receiver.lost(this.#lost)
  }

  /** Counts one more reader, if there may be one more. */
  readonly admitReader: Effect.Effect<void, AgentFailed> = Effect.suspend(() => {
    if (this.#readers >= maxReaders) {
      const reason = `${maxReaders} readers of this sandbox are attached`
      return Effect.fail(new AgentFailed({ code: "resources", errno: 0, detail: 0, reason }))
    }
    this.#readers++
    return Effect.void
  })

  /** A reader has gone. */
  readonly dismissReader: Effect.Effect<void> = Effect.sync(() => {
    this.#readers--
  })

  /** Sends a frame; without effect once the connection is lost. */
  send(frame: Uint8Array): void {
    if (this.#lost === undefined) this.#transport?.write(frame)
  }

  /** The channel has ended: later frames on it are ignored. */
  forget(channel: number): void {
    this.#receivers.delete(channel)
  }

  /** Ends a channel from this side. */
  cancel(channel: number): void {
    if (this.#receivers.delete(channel)) this.send(Close.encode(channel, {}))
  }

  /** Ends the connection as far as everybody waiting is concerned. */
  lose(reason: string): void {
    if (this.#lost !== undefined) return
    const error = new AgentLost({ reason })
    this.#lost = error
    const waiting = [...this.#receivers.values()]
    this.#receivers.clear()
    for (const receiver of waiting) receiver.lost(error)
    for (const watcher of this.#watchers) watcher(error)
  }

  /** Completes when the connection is lost. */
  readonly closed: Effect.Effect<AgentLost> = Effect.callback((resume) => {
    if (this.#lost !== undefined) return resume(Effect.succeed(this.#lost))
    const watcher = (error: AgentLost) => resume(Effect.succeed(error))
    this.#watchers.add(watcher)
    return Effect.sync(() => this.#watchers.delete(watcher))
  })

  readonly #onFrame = (type: number, channel: number, payload: Buffer): void => {
    if (this.#lost !== undefined) return
    const reply = decodeReply(type, payload)
    if (reply === undefined) this.lose(`the agent broke the protocol: a malformed frame of type ${type}`)
    else this.#receivers.get(channel)?.receive(reply)
  }
}

/** How to greet an agent. */
export interface HelloOptions {
  /** The incarnation that is expected; any when absent. */
  readonly epoch?: string | undefined
  /** How long the agent shall wait for a host when this connection is gone before it ends the machine; 0 is for ever. */
  readonly leaseMillis: number
}

const anyEpoch = "0000000000000000"

/** A connection over which the greeting has been sent. */
export interface Opened {
  readonly session: AgentSession
  /**
   * The agent's answer to the greeting. Fails with {@link AgentLost} when there is no agent any more,
   * {@link AgentFailed} `stale-epoch` or `version` when it is another one; nothing can be asked of that.
   */
  readonly hello: Effect.Effect<ReplyOf<"AgentHello">, AgentError>
}

/** Connects and greets, without waiting for an answer: an agent that stands still accepts both. */
export const openSession: (
  connect: Connect,
  options: HelloOptions
) => Effect.Effect<Opened, AgentError, Scope.Scope | SecureRandom.SecureRandom> = Effect.fnUntraced(
  function* (connect, options) {
    const random = yield* SecureRandom.SecureRandom
    const nonce = Buffer.from(yield* random.randomBytes(8)).toString("hex")
    const session = new AgentSession(yield* makeAlarms, makeBudget(sessionWindowBytes, yield* Windows))
    const hello = yield* Deferred.make<ReplyOf<"AgentHello">, AgentError>()
    const transport = yield* connect(session.events)
    yield* Effect.addFinalizer(() => Effect.sync(() => session.lose("closed here")))
    const refuse = (error: AgentError) => {
      Deferred.doneUnsafe(hello, Effect.fail(error))
      session.lose(error.message)
    }
    session.adopt(0, {
      receive: (reply) => {
        session.forget(0)
        if (reply._tag === Failed.tag) return refuse(failureOf(reply))
        if (reply._tag === AgentHello.tag && reply.nonce === nonce && reply.version === protocolVersion) {
          Deferred.doneUnsafe(hello, Effect.succeed(reply))
        } else refuse(new AgentLost({ reason: "the agent did not return the greeting" }))
      },
      lost: (error) => {
        Deferred.doneUnsafe(hello, Effect.fail(error))
      }
    })
    session.start(
      transport,
      HostHello.encode(0, {
        version: protocolVersion,
        epoch: options.epoch ?? anyEpoch,
        nonce,
        leaseMillis: options.leaseMillis
      })
    )
    return { session, hello: Deferred.await(hello) }
  }
)
