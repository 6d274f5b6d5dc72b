/**
 * Spans of the inner parts of a call, made only when somebody traces: where
 * no tracer was installed they cost a look at the context.
 */
import { Context, Effect, type Fiber, type Scope, Stream, Tracer } from "effect"

/** Whether a tracer was installed for what a fiber does. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  Context.getOrUndefined(fiber.context, Tracer.Tracer) !== undefined

const quick = { captureStackTrace: false } as const

/** A span around an effect, if somebody traces. */
export const traced =
  (name: string, options: Tracer.SpanOptionsNoTrace = {}) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiber((fiber) =>
      isTraced(fiber)
        ? Effect.useSpan(name, options, (span) => Effect.withParentSpan(effect, span, quick))
        : effect
    )

/** A span that lasts as long as the scope, and around `effect` as its parent, if somebody traces. */
export const tracedScope =
  (name: string, options: Tracer.SpanOptionsNoTrace = {}) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Scope.Scope> =>
    Effect.withFiber(
      (fiber): Effect.Effect<A, E, R | Scope.Scope> =>
        isTraced(fiber)
          ? Effect.flatMap(Effect.makeSpanScoped(name, options), (span) =>
              Effect.withParentSpan(effect, span, quick)
            )
          : effect
    )

/** The stream, with a span that lasts as long as the scope as its parent, if somebody traces. */
export const tracedStream =
  (name: string, options: Tracer.SpanOptionsNoTrace = {}) =>
  <A, E, R>(
    stream: Stream.Stream<A, E, R>
  ): Effect.Effect<Stream.Stream<A, E, R | Exclude<R, Tracer.ParentSpan>>, never, Scope.Scope> =>
    Effect.withFiber((fiber) =>
      isTraced(fiber)
        ? Effect.map(Effect.makeSpanScoped(name, options), (span) =>
            Stream.provideService(stream, Tracer.ParentSpan, span)
          )
        : Effect.succeed(stream)
    )
