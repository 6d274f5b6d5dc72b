/**
 * Acknowledgements that wait until what they acknowledge was taken.
 *
 * Effect's client acknowledges what has been put into a stream's queue, and a
 * full queue holds up the whole connection: a program that makes a call for
 * each item it reads would wait for an answer that is stuck behind its own
 * output. Here a queue has no bound and the service sends the next chunk only
 * when the reader has taken the one before, so a slow reader holds two chunks
 * and nobody up.
 */
import { type Cause, Context, Effect, Fiber, Queue, type Scope, Stream } from "effect"
import { RpcClient, RpcMessage } from "effect/rpc"
import type { QueueOptions } from "./Carried.ts"

/** Where a stream's request notes its id. */
interface Slot {
  id: RpcMessage.RequestId | undefined
}

const CurrentSlot = Context.Reference<Slot | undefined>("fiberbox/rpc/remote/CurrentSlot", {
  defaultValue: () => undefined
})

/** A queue that takes whatever comes. */
export const queued: QueueOptions = { asQueue: true, streamBufferSize: Number.MAX_SAFE_INTEGER }

type Protocol = RpcClient.Protocol["Service"]
type Message = Parameters<Protocol["send"]>[1]
type Ack = Extract<Message, { readonly _tag: "Ack" }>

/** The parts of one connection that hold acknowledgements back. */
export interface Acknowledgements {
  readonly protocol: Protocol
  readonly generateRequestId: () => RpcMessage.RequestId
  /** The stream of a call made with {@link queued}. */
  readonly stream: <A, E>(
    call: Effect.Effect<Queue.Dequeue<A, E | Cause.Done>, never, Scope.Scope>
  ) => Stream.Stream<A, E>
}

/** Wraps the protocol of one connection. */
export const makeAcknowledgements = (inner: Protocol): Acknowledgements => {
  /** By request: an acknowledgement that waits for its reader, or a reader that was there before it. */
  const held = new Map<string | number, { readonly clientId: number; readonly ack: Ack } | "taken">()
  let lastId = 0

  const release = (id: RpcMessage.RequestId) => {
    const waiting = held.get(id)
    if (waiting === undefined || waiting === "taken") {
      held.set(id, "taken")
      return Effect.void
    }
    held.delete(id)
    return Effect.ignore(inner.send(waiting.clientId, waiting.ack))
  }

  const protocol = RpcClient.Protocol.of({
    ...inner,
    send: (clientId, message, transferables) => {
      if (message._tag !== "Ack") return inner.send(clientId, message, transferables)
      if (held.get(message.requestId) === "taken") {
        held.delete(message.requestId)
        return inner.send(clientId, message)
      }
      held.set(message.requestId, { clientId, ack: message })
      return Effect.void
    }
  })

  return {
    protocol,
    generateRequestId: () => {
      const id = RpcMessage.RequestId(++lastId)
      const slot = Fiber.getCurrent()?.getRef(CurrentSlot)
      if (slot !== undefined) slot.id = id
      return id
    },
    stream: (call) =>
      Stream.scoped(
        Stream.fromPull(
          Effect.gen(function* () {
            const slot: Slot = { id: undefined }
            const queue = yield* Effect.provideService(call, CurrentSlot, slot)
            const { id } = slot
            if (id === undefined) return yield* Effect.die(new Error("a streaming call made no request"))
            yield* Effect.addFinalizer(() => Effect.sync(() => held.delete(id)))
            return Effect.tap(Queue.takeAll(queue), () => release(id))
          })
        )
      )
  }
}
