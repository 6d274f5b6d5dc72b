/**
 * Checks what a caller passed, before anything is done with it.
 */
import { Effect, Schema, SchemaIssue } from "effect"
import { InvalidArgument } from "../domain/Errors.ts"

const format = SchemaIssue.makeFormatterStandardSchemaV1()

const toInvalidArgument = (root: string, error: Schema.SchemaError): InvalidArgument => {
  const issue = format(error.issue).issues[0]
  const path = (issue?.path ?? []).map((key) => String(typeof key === "object" ? key.key : key))
  return new InvalidArgument({
    field: [root, ...path].filter((part) => part !== "").join("."),
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
