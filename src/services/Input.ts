/**
 * Checks what a caller passed, before anything is done with it.
 */
import { Effect, Predicate, Schema, SchemaIssue } from "effect"
import { InvalidArgument } from "../domain/Errors.ts"
import { Text } from "../domain/Text.ts"

const format = SchemaIssue.makeFormatterStandardSchemaV1()

const toInvalidArgument = (root: string, error: Schema.SchemaError): InvalidArgument => {
  const issue = format(error.issue).issues[0]
  const path = (issue?.path ?? []).map((key) => String(typeof key === "object" ? key.key : key))
  return new InvalidArgument({
    field: [root, ...path].filter((part) => part !== "").join(".") || "options",
    reason: issue?.message ?? error.message
  })
}

/**
 * Decodes an argument by its schema. What does not fit is an
 * {@link InvalidArgument} whose `field` is `root` and the path to the bad part.
 */
export const decodeInput = <T, I>(schema: Schema.Codec<T, I>, root: string) => {
  const decode = Schema.decodeUnknownEffect(schema)
  return (input: unknown): Effect.Effect<T, InvalidArgument> =>
    Effect.mapError(decode(input), (error) => toInvalidArgument(root, error))
}

/** The options of a call, of which only that they are an object is looked at; what is left out is `{}`. */
export const optionsObject = <O extends object>(options: O): Effect.Effect<O, InvalidArgument> =>
  Predicate.isObject(options)
    ? Effect.succeed(options)
    : Effect.fail(new InvalidArgument({ field: "options", reason: "must be an object" }))

const decodeText = decodeInput(Text, "")
const encoder = new TextEncoder()

/** Bytes, or text as UTF-8. Anything else, and text that UTF-8 cannot carry, is an {@link InvalidArgument} of this field. */
export const decodeBytes =
  (field: string) =>
  (content: unknown): Effect.Effect<Uint8Array, InvalidArgument> => {
    if (content instanceof Uint8Array) return Effect.succeed(content)
    if (!Predicate.isString(content)) {
      return Effect.fail(new InvalidArgument({ field, reason: "must be text or a Uint8Array" }))
    }
    return decodeText(content).pipe(
      Effect.map((text) => encoder.encode(text)),
      Effect.mapError(({ reason }) => new InvalidArgument({ field, reason }))
    )
  }
