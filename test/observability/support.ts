/**
 * A tracer that keeps every span.
 */
import { Layer, Option, Tracer } from "effect"

/** The spans of a test, and the tracer that makes them. */
export const recorder = () => {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = Tracer.nativeTracer.span(options)
      spans.push(span)
      return span
    }
  })
  return { spans, layer: Layer.succeed(Tracer.Tracer, tracer) }
}

const parentId = (span: Tracer.Span) => Option.getOrUndefined(span.parent)?.spanId

/** The names from a span to the innermost below it, by the first child each. */
export const chainFrom = (spans: ReadonlyArray<Tracer.Span>, root: Tracer.Span): Array<Tracer.Span> => {
  const child = spans.find((span) => parentId(span) === root.spanId)
  return child === undefined ? [root] : [root, ...chainFrom(spans, child)]
}

/** When a span began and ended, in nanoseconds. */
export const times = ({ status }: Tracer.Span): readonly [from: bigint, to: bigint] => [
  status.startTime,
  status._tag === "Ended" ? status.endTime : -1n
]
