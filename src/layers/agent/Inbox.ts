/**
 * What has arrived on a streaming channel and was not yet taken, bounded by
 * the credit the agent was given: credit is renewed only for what a reader has
 * come back from, so a slow reader slows the program down.
 *
 * It begins small, since there are readers that never come back, and is doubled
 * when one does, as long as there are bytes left for that: in the connection to
 * one agent, so that no sandbox takes them from others, and in all.
 */
import { type Array as Arr, Cause, Effect, type Pull, Stream } from "effect"
import { tracedScope } from "../../services/Tracing.ts"
import { type AgentError, type AgentSession, AgentTimeout, failureOf, type Receiver } from "./AgentSession.ts"
import { Credit, type Reply, type ReplyOf } from "./Protocol.ts"

/** How a streaming channel behaves. */
export interface ChannelOptions {
  /** Takes a channel and returns its number: {@link request} one, or adopt one that the agent has opened. */
  readonly open: (receiver: Receiver) => number
  /** Whether this is the last message of the channel. */
  readonly isLast: (reply: Reply) => boolean
  /** What a message costs of the credit. */
  readonly cost: (reply: Reply) => number
  /** Told of credit the agent grants, on a channel that also sends. */
  readonly onCredit?: (bytes: number) => void
  /** Told that the channel is gone, on a channel that also sends. */
  readonly onEnd?: (error: AgentError | undefined) => void
  /** The credit to begin with. */
  readonly credit: number
  /** What it may grow to; default: it does not. */
  readonly mostCredit?: number
  /** How long the first message may take; undefined: whoever reads it bounds that. */
  readonly deadlineMillis: number | undefined
}

/** Opens a channel with a request. */
export const request =
  (session: AgentSession, encode: (channel: number) => Buffer) =>
  (receiver: Receiver): number => {
    const channel = session.open(receiver)
    session.send(encode(channel))
    return channel
  }

/** Messages of a channel other than refusals, which fail the stream. */
export type Item = Exclude<Reply, ReplyOf<"Failed">>

type Batch = Pull.Pull<Arr.NonEmptyReadonlyArray<Item>, AgentError>

/** One streaming channel as seen by its reader. */
export class Inbox {
  #items: Array<Item> = []
  #wake: (() => void) | undefined
  #end: Batch | undefined
  #taken = 0
  #window: number
  #arrived = () => {}
  readonly #session: AgentSession
  readonly #options: ChannelOptions
  readonly channel: number

  constructor(session: AgentSession, options: ChannelOptions) {
    this.#session = session
    this.#options = options
    this.#window = options.credit
    this.channel = options.open({
      receive: (reply) => this.#receive(reply),
      lost: (error) => this.#fail(error)
    })
    const millis = options.deadlineMillis
    if (millis === undefined || this.#end !== undefined) return
    this.#arrived = session.alarms.set(millis, () => this.#fail(new AgentTimeout({ millis })))
  }

  #fail(error: AgentError): void {
    this.#options.onEnd?.(error)
    this.#finish(Effect.fail(error))
  }

  #receive(reply: Reply): void {
    this.#arrived()
    if (reply._tag === "Failed") {
      this.#session.forget(this.channel)
      this.#fail(failureOf(reply))
      return
    }
    if (reply._tag === "Credit") {
      this.#options.onCredit?.(reply.bytes)
      return
    }
    if (reply._tag === "Eof") {
      // The other side ends its direction; ours goes on, so the channel stays.
      this.#finish(Cause.done())
      return
    }
    this.#items.push(reply)
    if (this.#options.isLast(reply)) {
      this.#session.forget(this.channel)
      this.#options.onEnd?.(undefined)
      this.#finish(Cause.done())
    } else this.#notify()
  }

  #finish(end: Batch): void {
    this.#end ??= end
    this.#notify()
  }

  #notify(): void {
    const wake = this.#wake
    this.#wake = undefined
    wake?.()
  }

  #renewCredit(): void {
    if (this.#taken * 2 < this.#window || this.#end !== undefined) return
    this.#session.send(Credit.encode(this.channel, { bytes: this.#taken + this.#growth() }))
    this.#taken = 0
  }

  /** What the window grows by now. */
  #growth(): number {
    const { mostCredit = 0 } = this.#options
    const growth = Math.min(this.#window, mostCredit - this.#window)
    if (growth <= 0 || !this.#session.windows.take(growth)) return 0
    this.#window += growth
    return growth
  }

  #next(): Batch | undefined {
    const [first, ...others] = this.#items
    if (first === undefined) return this.#end
    this.#items = []
    this.#taken += others.reduce((sum, item) => sum + this.#options.cost(item), this.#options.cost(first))
    return Effect.succeed([first, ...others] as const)
  }

  /** Everything that has arrived, at least one message; done after the last. */
  readonly take: Batch = Effect.suspend((): Batch => {
    this.#renewCredit()
    return (
      this.#next() ??
      Effect.callback<Arr.NonEmptyReadonlyArray<Item>, AgentError | Cause.Done>((resume) => {
        this.#wake = () => {
          const next = this.#next()
          if (next !== undefined) resume(next)
        }
        return Effect.sync(() => {
          this.#wake = undefined
        })
      })
    )
  })

  /** Tells the agent that nobody reads any more; without effect after the end. */
  readonly close: Effect.Effect<void> = Effect.sync(() => {
    this.#arrived()
    this.#session.windows.give(this.#window - this.#options.credit)
    this.#window = this.#options.credit
    this.#session.cancel(this.channel)
  })
}

/** Opens a streaming channel for as long as somebody reads the stream; `name` is what traces call it. */
export const channelStream = (
  session: AgentSession,
  name: string,
  options: ChannelOptions
): Stream.Stream<Item, AgentError> =>
  Stream.unwrap(
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => new Inbox(session, options)),
        (inbox) => inbox.close
      ).pipe(tracedScope(`Agent: ${name}`, { kind: "client" })),
      (inbox) => Stream.fromPull(Effect.succeed(inbox.take))
    )
  )
