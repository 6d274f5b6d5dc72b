/**
 * What a caller passes that an Effect program would pass as something else: a
 * signal to give up by, and bytes that come over time.
 */
import { Effect, Predicate, Stream } from "effect"
import { InvalidArgument } from "../domain/Errors.ts"

/** What every call can be given besides. */
export interface CallOptions {
  /** Aborting it gives the call up: what was begun is undone, processes are killed, and the promise is rejected with its reason. */
  readonly signal?: AbortSignal | undefined
}

/**
 * Bytes that come over time: a web stream, a Node stream, an async generator.
 * Text is encoded as UTF-8. It is read as fast as the sandbox takes it. What it
 * throws gives up the call it was passed to, which is rejected with that.
 */
export type ByteSource = AsyncIterable<string | Uint8Array> | ReadableStream<Uint8Array>

/** The arguments of a call as the facade takes them, and what may end the call early. */
export interface Arguments {
  readonly values: ReadonlyArray<unknown>
  readonly signal: AbortSignal | undefined
}

const encoder = new TextEncoder()

const toBytes = (chunk: unknown): Effect.Effect<Uint8Array, InvalidArgument> => {
  if (typeof chunk === "string") return Effect.succeed(encoder.encode(chunk))
  if (chunk instanceof Uint8Array) return Effect.succeed(chunk)
  const reason = `a source yields strings or Uint8Array, not ${chunk === null ? "null" : typeof chunk}`
  return Effect.fail(new InvalidArgument({ field: "source", reason }))
}

const isAsyncIterable = (value: unknown): value is AsyncIterable<unknown> =>
  Predicate.hasProperty(value, Symbol.asyncIterator) && Predicate.isFunction(value[Symbol.asyncIterator])

const isWebStream = (value: unknown): value is ReadableStream<unknown> =>
  value instanceof ReadableStream || (Predicate.hasProperty(value, "getReader") && !isAsyncIterable(value))

const chunksOf = (value: unknown): Stream.Stream<unknown, unknown> | undefined => {
  const onError = (error: unknown) => error
  // Not as an iterable: that one would not be cancelled while a read waits.
  if (isWebStream(value)) return Stream.fromReadableStream({ evaluate: () => value, onError })
  return isAsyncIterable(value) ? Stream.fromAsyncIterable(value, onError) : undefined
}

/** The stream of what a caller passed; a source that fails gives up the call and never ends by itself. */
const toStream = (value: unknown, giveUp: (reason: unknown) => void): Stream.Stream<Uint8Array> | undefined =>
  chunksOf(value)?.pipe(
    Stream.mapEffect(toBytes),
    Stream.catch((error) =>
      Stream.fromEffectDrain(
        Effect.andThen(
          Effect.sync(() => giveUp(error)),
          Effect.never
        )
      )
    )
  )

/** Only what was written as `{ ... }`: bytes, sources and signals are values. */
export const isOptions = (value: unknown): value is Readonly<Record<string, unknown>> =>
  Predicate.isObject(value) &&
  [Object.prototype, null].includes(Object.getPrototypeOf(value)) &&
  !isAsyncIterable(value)

/**
 * Takes the signal out of the last argument, and replaces sources, there and
 * among the arguments, by streams. A signal that is none counts as one that was aborted with `InvalidArgument`.
 */
export const toArguments = (values: ReadonlyArray<unknown>): Arguments => {
  const broken = new AbortController()
  let sources = 0
  const convert = (value: unknown): unknown => {
    const stream = toStream(value, (reason) => broken.abort(reason))
    if (stream === undefined) return value
    sources += 1
    return stream
  }
  const { rest, signal } = takeSignal(values)
  const converted = rest.map((value) =>
    isOptions(value)
      ? Object.fromEntries(Object.entries(value).map(([name, option]) => [name, convert(option)]))
      : convert(value)
  )
  const signals = sources === 0 ? [] : [broken.signal]
  if (signal !== undefined) signals.push(signal)
  return { values: converted, signal: signals.length < 2 ? signals[0] : AbortSignal.any(signals) }
}

const takeSignal = (
  values: ReadonlyArray<unknown>
): { readonly rest: ReadonlyArray<unknown>; readonly signal: AbortSignal | undefined } => {
  const last = values.at(-1)
  if (!isOptions(last) || !("signal" in last)) return { rest: values, signal: undefined }
  const { signal, ...options } = last
  const rest = [...values.slice(0, -1), options]
  if (signal === undefined || signal instanceof AbortSignal) return { rest, signal }
  const refused = new InvalidArgument({ field: "signal", reason: "must be an AbortSignal" })
  return { rest, signal: AbortSignal.abort(refused) }
}
