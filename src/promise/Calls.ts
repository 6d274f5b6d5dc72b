/**
 * Runs effects as promises, and streams as async iterables, on one runtime.
 */
import { Cause, Effect, Exit, Fiber, type ManagedRuntime, Pull, Queue, Stream } from "effect"
import { holdProcess } from "./Alive.ts"

/**
 * What comes over time, read with `for await`. Nothing happens before it is
 * read, and every reading does it anew. What is not read is not produced: a
 * program whose output nobody takes waits. Leaving the loop, or `return()`, ends what produces it.
 */
export interface Items<A> extends AsyncIterable<A, void, undefined> {
  readonly [Symbol.asyncIterator]: () => AsyncGenerator<A, void, undefined>
  /** One reading of it as a web stream; cancelling that ends what produces it. */
  readonly toReadableStream: () => ReadableStream<A>
}

/** Runs what was lifted. */
export interface Calls {
  /** Runs an effect; aborting the signal interrupts it, and the promise settles when everything it held has been let go. */
  readonly run: <A>(effect: Effect.Effect<A, unknown>, signal: AbortSignal | undefined) => Promise<A>
  /** The items of a stream. */
  readonly items: <A>(stream: Stream.Stream<A, unknown>, signal: AbortSignal | undefined) => Items<A>
  /** Runs what lets something go; there is nothing left to let go once the runtime was closed. */
  readonly release: (effect: Effect.Effect<unknown, unknown>) => Promise<void>
}

const closed = () => new DOMException("this Fiberbox is closed", "AbortError")

/** How many items are taken from a stream ahead of its reader. */
const ahead = 16

/** Calls on a runtime until it is closed. */
export const makeCalls = (
  runtime: ManagedRuntime.ManagedRuntime<never, unknown>,
  isClosed: () => boolean
): Calls => {
  /** While somebody waits for the end of a fiber, the program goes on. */
  const exitOf = <A>(effect: Effect.Effect<A, unknown>, signal?: AbortSignal) =>
    holdProcess(() => runtime.runPromiseExit(effect, { signal }))

  /** What a failed call throws: the typed error itself, the signal's reason, or the defect as an `Error`. */
  const thrownBy = (cause: Cause.Cause<unknown>, signal: AbortSignal | undefined): unknown => {
    if (signal?.aborted === true && Cause.hasInterrupts(cause)) return signal.reason
    if (Cause.hasInterruptsOnly(cause) || (isClosed() && !Cause.hasFails(cause))) return closed()
    const thrown = Cause.squash(cause)
    return thrown instanceof Error ? thrown : new Error(`unexpected: ${String(thrown)}`, { cause: thrown })
  }

  const check = (signal: AbortSignal | undefined) => {
    signal?.throwIfAborted()
    if (isClosed()) throw closed()
  }

  const run: Calls["run"] = async (effect, signal) => {
    check(signal)
    const exit = await exitOf(effect, signal)
    if (Exit.isSuccess(exit)) return exit.value
    throw thrownBy(exit.cause, signal)
  }

  const iterate = <A>(stream: Stream.Stream<A, unknown>, signal: AbortSignal | undefined) => {
    let producer: Fiber.Fiber<void, unknown> | undefined
    let stopped = false
    const stop = async () => {
      stopped = true
      const running = producer
      if (running !== undefined) await holdProcess(() => Effect.runPromise(Fiber.interrupt(running)))
    }
    async function* read(): AsyncGenerator<A, void, undefined> {
      check(signal)
      const queue = Effect.runSync(Queue.bounded<A, unknown>(ahead))
      // One fiber for the whole reading: what a stream forks lives as long as the fiber that pulls it.
      producer = runtime.runFork(Stream.runIntoQueue(stream, queue), { signal })
      try {
        while (true) {
          const exit = await exitOf(Queue.takeAll(queue))
          if (Exit.isSuccess(exit)) {
            for (const item of exit.value) {
              signal?.throwIfAborted()
              yield item
            }
          } else if (stopped || Pull.isDoneCause(exit.cause)) return
          else throw thrownBy(exit.cause, signal)
        }
      } finally {
        await stop()
      }
    }
    return stoppable(read(), stop)
  }

  return {
    run,
    items: (stream, signal) => {
      const iterator = () => iterate(stream, signal)
      return {
        [Symbol.asyncIterator]: iterator,
        toReadableStream: () => ReadableStream.from(iterator())
      }
    },
    release: async (effect) => {
      if (!isClosed()) await run(effect, undefined)
    }
  }
}

/** A generator whose `return` does not wait for a pending `next`: `stop` ends that. */
const stoppable = <A>(
  generator: AsyncGenerator<A, void, undefined>,
  stop: () => Promise<void>
): AsyncGenerator<A, void, undefined> => {
  const self: AsyncGenerator<A, void, undefined> = {
    next: () => generator.next(),
    return: async (value) => {
      await stop()
      return generator.return(value)
    },
    throw: async (error) => {
      await stop()
      return generator.throw(error)
    },
    [Symbol.asyncIterator]: () => self,
    [Symbol.asyncDispose]: async () => {
      await self.return()
    }
  }
  return self
}
