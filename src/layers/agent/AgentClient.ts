/**
 * A client of the in-sandbox agent. Nothing that arrives is trusted: every
 * message is validated, an answer that does not fit the question ends the connection.
 *
 * Every call has a deadline and fails with {@link AgentTimeout} after it, with
 * {@link AgentLost} when the connection is gone, and with {@link AgentFailed} when the agent refuses.
 */
import { Effect, type Scope, Stream } from "effect"
import type { SecureRandom } from "effect/crypto"
import { entryBytes, maxListBytes } from "../../domain/FileSystem.ts"
import { traced } from "../../services/Tracing.ts"
import {
  type AgentError,
  AgentFailed,
  AgentLost,
  type AgentSession,
  AgentTimeout,
  type Connect,
  failureOf,
  type HelloOptions,
  type Opened,
  openSession
} from "./AgentSession.ts"
import { type AgentDuplex, type DialTarget, dialDuplex, type Listening, listenDuplex } from "./Duplex.ts"
import { maxSpawnBytes } from "./Frame.ts"
import { channelStream, request } from "./Inbox.ts"
import type { Message } from "./Message.ts"
import * as P from "./Protocol.ts"

/** Credit for a process's output that is read: two of the agent's largest frames in flight, and two being read. */
export const outputWindowBytes = 512 * 1024

/** Credit for output of which it is not known yet whether anybody reads it. */
export const firstWindowBytes = 16 * 1024

/** Events of a watch in flight. */
const watchWindowEvents = 1024

/** The most bytes one stdin, upload or write request carries. */
export const maxWriteBytes = 128 * 1024

/** Who acts: a user and group id inside the sandbox. */
export interface Ids {
  readonly uid: number
  readonly gid: number
}

/** A program to start. `env` holds complete `KEY=value` entries. */
export interface SpawnSpec extends Ids {
  readonly processId: string
  readonly argv: ReadonlyArray<string>
  readonly env: ReadonlyArray<string>
  readonly cwd: string
  readonly tty: { readonly rows: number; readonly cols: number } | undefined
  readonly stdin: boolean
  /** Capacity of the journal; 0 is the agent's default of 1 MiB. */
  readonly journalBytes: number
  /**
   * At most 256 bytes that the agent keeps with the process and lists. No part of what the id names: asked for again with
   * another label, it is the same process and keeps its first.
   */
  readonly label: string
  /** What {@link AgentClient.cancel} tells this start from another of the same id by. */
  readonly identity: number
  /** Milliseconds that it and its descendants may take; undefined: no limit. The agent enforces it later, and alone. */
  readonly limitMillis: number | undefined
}

/** A start that is taken back. */
export type Cancelled = Pick<SpawnSpec, "processId" | "identity">

/** What there was to kill, and whether nothing of it is left. */
export interface Killing {
  readonly treeGone: boolean
  readonly met: "nothing" | "descendants" | "program"
}

/** What a reader of a process receives: first `Spawned`, last `Exit`. */
export type ProcessMessage =
  | P.ReplyOf<"Spawned">
  | P.ReplyOf<"Output">
  | P.ReplyOf<"Truncated">
  | P.ReplyOf<"Exit">

/** A client of one agent over one connection. */
export interface AgentClient {
  /** The incarnation, as soon as the agent has answered the greeting: another one after a restart of the machine. */
  readonly greeted: (deadlineMillis: number) => Effect.Effect<string, AgentError>
  /** Completes with the reason when the connection is lost. */
  readonly closed: Effect.Effect<AgentLost>
  readonly ping: (deadlineMillis: number) => Effect.Effect<void, AgentError>
  /** Starts a program and reads its journal from the beginning, in one round trip. The deadline is for the start. */
  readonly run: (spec: SpawnSpec, deadlineMillis: number) => Stream.Stream<ProcessMessage, AgentError>
  /** Starts a program; its journal waits for whoever attaches. */
  readonly spawn: (spec: SpawnSpec, deadlineMillis: number) => Effect.Effect<P.ReplyOf<"Spawned">, AgentError>
  readonly attach: (
    processId: string,
    cursor: number,
    deadlineMillis: number,
    holds?: boolean
  ) => Stream.Stream<ProcessMessage, AgentError>
  readonly signal: (
    processId: string,
    signal: number,
    scope: P.SignalScope,
    deadlineMillis: number
  ) => Effect.Effect<void, AgentError>
  /** Kills the whole tree and waits for its end, at most `waitMillis`; returns whether nothing is left. */
  readonly kill: (
    processId: string,
    waitMillis: number,
    deadlineMillis: number
  ) => Effect.Effect<boolean, AgentError>
  /** Takes a start back: as {@link kill} what is there, and what is not is not started when it comes. */
  readonly cancel: (
    start: Cancelled,
    cause: keyof typeof P.endCauses,
    waitMillis: number,
    deadlineMillis: number
  ) => Effect.Effect<Killing, AgentError>
  /** Says how much of its limit a process has left. */
  readonly limit: (
    processId: string,
    leftMillis: number,
    deadlineMillis: number
  ) => Effect.Effect<void, AgentError>
  /** Offers bytes from an offset; returns the offset accepted up to, waiting while there is no room at all. */
  readonly writeStdin: (
    processId: string,
    offset: number,
    data: Uint8Array,
    deadlineMillis: number
  ) => Effect.Effect<number, AgentError>
  readonly closeStdin: (processId: string, deadlineMillis: number) => Effect.Effect<void, AgentError>
  readonly resize: (
    processId: string,
    rows: number,
    cols: number,
    deadlineMillis: number
  ) => Effect.Effect<void, AgentError>
  readonly processes: (
    deadlineMillis: number
  ) => Effect.Effect<ReadonlyArray<P.ReplyOf<"Process">>, AgentError>
  /** `length` {@link P.toTheEnd} reads to the end. The deadline is for the first bytes. */
  readonly read: (
    ids: Ids,
    path: string,
    offset: number,
    length: number,
    deadlineMillis: number
  ) => Stream.Stream<Uint8Array, AgentError>
  readonly watch: (
    ids: Ids,
    path: string,
    recursive: boolean,
    deadlineMillis: number
  ) => Stream.Stream<P.ReplyOf<"Ok"> | P.ReplyOf<"Event"> | P.ReplyOf<"Ended">, AgentError>
  readonly list: (
    ids: Ids,
    path: string,
    depth: number,
    limit: number,
    deadlineMillis: number
  ) => Effect.Effect<
    { readonly entries: ReadonlyArray<P.ReplyOf<"Entry">>; readonly truncated: boolean },
    AgentError
  >
  /** Any request that has one answer; the messages are those of Protocol.ts. */
  readonly call: <A extends object, Tag extends P.Reply["_tag"]>(
    request: Message<string, A>,
    value: A,
    answer: { readonly tag: Tag },
    deadlineMillis: number
  ) => Effect.Effect<P.ReplyOf<Tag>, AgentError>
  /** Connects to something that listens inside. */
  readonly dial: (
    target: DialTarget,
    deadlineMillis: number
  ) => Effect.Effect<AgentDuplex, AgentError, Scope.Scope>
  /** Listens on 127.0.0.1 inside, on port 0 for any free one, until the scope closes. */
  readonly listen: (port: number, deadlineMillis: number) => Effect.Effect<Listening, AgentError, Scope.Scope>
}

const isReply = <Tag extends P.Reply["_tag"]>(reply: P.Reply, tag: Tag): reply is P.ReplyOf<Tag> =>
  reply._tag === tag

const isProcessMessage = (item: P.Reply): item is ProcessMessage =>
  item._tag === "Output" || item._tag === "Exit" || item._tag === "Spawned" || item._tag === "Truncated"

const outputCost = (item: P.Reply): number =>
  item._tag === "Output" || item._tag === "Data" ? item.data.length : 0

/** What takes a channel for a question, and what becomes of that. */
type Ask<A> = (finish: (result: Effect.Effect<A, AgentError>) => void) => number

/** Asks, and waits until a deadline; a channel that is waited for no more is ended. `name` is what traces call it. */
const within = <A>(
  session: AgentSession,
  ask: Ask<A>,
  millis: number,
  name: string
): Effect.Effect<A, AgentError> =>
  Effect.callback<A, AgentError>((resume) => {
    let channel = 0
    const cancel = session.alarms.set(millis, () => {
      session.cancel(channel)
      resume(Effect.fail(new AgentTimeout({ millis })))
    })
    channel = ask((result) => {
      cancel()
      resume(result)
    })
    return Effect.sync(() => {
      cancel()
      session.cancel(channel)
    })
  }).pipe(traced(`Agent: ${name}`, { kind: "client" }))

/** An answer nobody asked for: whoever sends it is not our agent any more. */
const misfit = (session: AgentSession, reply: P.Reply): AgentLost => {
  const reason = `the agent broke the protocol: an unexpected ${reply._tag}`
  session.lose(reason)
  return new AgentLost({ reason })
}

const callOn =
  (session: AgentSession): AgentClient["call"] =>
  (request, value, answer, deadlineMillis) =>
    within(
      session,
      (finish) => {
        const channel = session.open({
          receive: (reply) => {
            // A start goes on as an attachment, which nobody wants here.
            if (reply._tag === "Spawned") session.cancel(channel)
            else session.forget(channel)
            if (isReply(reply, answer.tag)) return finish(Effect.succeed(reply))
            if (reply._tag === "Failed") return finish(Effect.fail(failureOf(reply)))
            finish(Effect.fail(misfit(session, reply)))
          },
          lost: (error) => finish(Effect.fail(error))
        })
        session.send(request.encode(channel, value))
        return channel
      },
      deadlineMillis,
      request.tag
    )

/** What a process in a list has at most, in bytes. */
const processBytes = 2048

/** Collects a list that ends with `End`, or at {@link maxListBytes}. */
const collectOn =
  (session: AgentSession) =>
  <A extends object, Tag extends P.Reply["_tag"]>(
    request: Message<string, A>,
    value: A,
    item: { readonly tag: Tag },
    deadlineMillis: number,
    sizeOf: (item: P.ReplyOf<Tag>) => number
  ) =>
    within<{ readonly items: Array<P.ReplyOf<Tag>>; readonly truncated: boolean }>(
      session,
      (finish) => {
        const items: Array<P.ReplyOf<Tag>> = []
        let bytes = 0
        const end = (result: Parameters<typeof finish>[0]) => {
          session.forget(channel)
          finish(result)
        }
        const channel = session.open({
          receive: (reply) => {
            if (isReply(reply, item.tag)) {
              items.push(reply)
              bytes += sizeOf(reply)
              if (bytes < maxListBytes) return
              session.cancel(channel)
              finish(Effect.succeed({ items, truncated: true }))
            } else if (reply._tag === "End") end(Effect.succeed({ items, truncated: reply.truncated }))
            else if (reply._tag === "Failed") end(Effect.fail(failureOf(reply)))
            else end(Effect.fail(misfit(session, reply)))
          },
          lost: (error) => finish(Effect.fail(error))
        })
        session.send(request.encode(channel, value))
        return channel
      },
      deadlineMillis,
      request.tag
    )

/** A limit as the wire has it: one that is longer than 49 days is none to the agent. */
const wireMillis = (millis: number | undefined): number => {
  const whole = Math.ceil(millis ?? 0)
  return whole < P.noLimit ? whole : 0
}

const spawnFields = (spec: SpawnSpec, credit: number) => ({
  credit,
  identity: spec.identity,
  limitMillis: wireMillis(spec.limitMillis),
  label: spec.label,
  flags: (spec.tty === undefined ? 0 : P.spawnFlags.tty) | (spec.stdin ? P.spawnFlags.stdin : 0),
  uid: spec.uid,
  gid: spec.gid,
  rows: spec.tty?.rows ?? 0,
  cols: spec.tty?.cols ?? 0,
  journalBytes: spec.journalBytes,
  argc: spec.argv.length,
  envc: spec.env.length,
  strings: [spec.processId, spec.cwd, ...spec.argv, ...spec.env]
})

/** Larger than any frame: the agent would end the connection over it. */
const isTooLong = (spec: SpawnSpec): boolean =>
  [...spec.argv, ...spec.env, spec.cwd].reduce((sum, text) => sum + 4 + Buffer.byteLength(text), 1024) >
  maxSpawnBytes

const tooLong = new AgentFailed({ code: "too-long", errno: 7, detail: 0, reason: "argument list too long" })

/** A stream of one who only reads; such ones leave channels to others. */
const asReader = <A>(session: AgentSession, stream: Stream.Stream<A, AgentError>) =>
  Stream.unwrap(
    Effect.as(
      Effect.acquireRelease(session.admitReader, () => session.dismissReader),
      stream
    )
  )

const processStream = (
  session: AgentSession,
  name: string,
  open: (channel: number) => Buffer,
  deadlineMillis: number
): Stream.Stream<ProcessMessage, AgentError> =>
  channelStream(session, name, {
    open: request(session, open),
    isLast: (reply) => reply._tag === "Exit",
    cost: outputCost,
    credit: firstWindowBytes,
    mostCredit: outputWindowBytes,
    deadlineMillis
  }).pipe(Stream.filter(isProcessMessage))

/** The client's operations over an open connection. */
const makeClient = ({ session, hello }: Opened): AgentClient => {
  const call = callOn(session)
  const collect = collectOn(session)
  const done = <A extends object>(request: Message<string, A>, value: A, deadlineMillis: number) =>
    Effect.asVoid(call(request, value, P.Ok, deadlineMillis))
  return {
    greeted: (millis) =>
      Effect.timeoutOrElse(
        Effect.map(hello, ({ epoch }) => epoch),
        { duration: millis, orElse: () => Effect.fail(new AgentTimeout({ millis })) }
      ),
    closed: session.closed,
    call,
    ping: (deadline) => done(P.Ping, {}, deadline),
    run: (spec, deadline) =>
      isTooLong(spec)
        ? Stream.fail(tooLong)
        : processStream(
            session,
            "Spawn",
            (channel) => P.Spawn.encode(channel, spawnFields(spec, firstWindowBytes)),
            deadline
          ),
    spawn: (spec, deadline) =>
      isTooLong(spec) ? Effect.fail(tooLong) : call(P.Spawn, spawnFields(spec, 0), P.Spawned, deadline),
    attach: (processId, cursor, deadline, holds = true) =>
      asReader(
        session,
        processStream(
          session,
          "Attach",
          (channel) => P.Attach.encode(channel, { processId, cursor, credit: firstWindowBytes, holds }),
          deadline
        )
      ),
    signal: (processId, signal, scope, deadline) =>
      done(P.SendSignal, { processId, signal, scope: P.signalScopes[scope] }, deadline),
    kill: (processId, waitMillis, deadline) =>
      Effect.map(call(P.Kill, { processId, waitMillis }, P.Killed, deadline), (reply) => reply.treeGone),
    cancel: ({ processId, identity }, cause, waitMillis, deadline) =>
      Effect.map(
        call(P.Cancel, { processId, identity, cause: P.endCauses[cause], waitMillis }, P.Killed, deadline),
        ({ treeGone, met }) => ({ treeGone, met: P.met[met] ?? "nothing" })
      ),
    limit: (processId, leftMillis, deadline) =>
      done(P.Limit, { processId, leftMillis: wireMillis(leftMillis) }, deadline),
    writeStdin: (processId, offset, data, deadline) =>
      Effect.map(
        call(P.Stdin, { processId, offset, data: data.subarray(0, maxWriteBytes) }, P.Offset, deadline),
        (reply) => reply.offset
      ),
    closeStdin: (processId, deadline) => done(P.StdinClose, { processId }, deadline),
    resize: (processId, rows, cols, deadline) => done(P.Resize, { processId, rows, cols }, deadline),
    processes: (deadline) =>
      Effect.map(
        collect(P.Processes, {}, P.Process, deadline, () => processBytes),
        ({ items }) => items
      ),
    read: ({ uid, gid }, path, offset, length, deadlineMillis) =>
      asReader(
        session,
        channelStream(session, "Read", {
          open: request(session, (channel) =>
            P.Read.encode(channel, { uid, gid, offset, length, credit: firstWindowBytes, path })
          ),
          isLast: (reply) => reply._tag === "End",
          cost: outputCost,
          credit: firstWindowBytes,
          mostCredit: outputWindowBytes,
          deadlineMillis
        })
      ).pipe(
        Stream.filter((item) => item._tag === "Data"),
        Stream.map((item) => item.data)
      ),
    watch: ({ uid, gid }, path, recursive, deadlineMillis) =>
      channelStream(session, "Watch", {
        open: request(session, (channel) =>
          P.Watch.encode(channel, { uid, gid, recursive, credit: watchWindowEvents, path })
        ),
        isLast: (reply) => reply._tag === "Ended",
        cost: (reply) => (reply._tag === "Event" ? 1 : 0),
        credit: watchWindowEvents,
        deadlineMillis
      }).pipe(Stream.filter((item) => item._tag === "Ok" || item._tag === "Event" || item._tag === "Ended")),
    list: ({ uid, gid }, path, depth, limit, deadline) =>
      Effect.map(
        collect(
          P.List,
          { uid, gid, path, depth, limit },
          P.Entry,
          deadline,
          (entry) => entryBytes + path.length + entry.path.length
        ),
        ({ items, truncated }) => ({ entries: items, truncated })
      ),
    dial: (target, deadline) => dialDuplex(session, target, deadline),
    listen: (port, deadline) => listenDuplex(session, port, deadline)
  }
}

/**
 * Connects to an agent; the connection lasts as long as the scope. Succeeds before the agent has answered, so
 * that one can be connected to that stands still: what is asked meanwhile, it finds when it goes on.
 */
export const connectAgent = (
  connect: Connect,
  options: HelloOptions
): Effect.Effect<AgentClient, AgentError, Scope.Scope | SecureRandom.SecureRandom> =>
  Effect.map(openSession(connect, options), makeClient)
