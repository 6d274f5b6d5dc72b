/**
 * Where a page of sandboxes ended: the place of its last one in the order of
 * lists, as the opaque text that callers hand back.
 */
import { Effect, Schema } from "effect"
import { InvalidArgument } from "../domain/Errors.ts"
import { SandboxId } from "../domain/Ids.ts"
import { Timestamp } from "../domain/Sandbox.ts"

/** Place of a sandbox in the order of lists: by creation, then by id. */
export const Place = Schema.Struct({ createdAt: Timestamp, id: SandboxId })
export type Place = typeof Place.Type

const Cursor = Schema.StringFromBase64Url.pipe(Schema.decodeTo(Schema.fromJsonString(Place)))

/** How many sandboxes a page holds when the request does not say. */
export const defaultPageSize = 100

/** The cursor of a place. */
export const encode = ({ createdAt, id }: Place): string => Schema.encodeSync(Cursor)({ createdAt, id })

const notACursor = new InvalidArgument({
  field: "cursor",
  reason: "must be the `next` of a page before, as it was given"
})

/** The place of a cursor; undefined without one. A text that is no cursor is `InvalidArgument`, never the first page. */
export const decode = (cursor: string | undefined): Effect.Effect<Place | undefined, InvalidArgument> =>
  cursor === undefined
    ? Effect.succeed(undefined)
    : Effect.mapError(Schema.decodeEffect(Cursor)(cursor), () => notACursor)

/** One page and the cursor of the next, from the records of a page and at least one more where there are more. */
export const page = <A extends Place>(
  records: ReadonlyArray<A>,
  limit: number
): { readonly records: ReadonlyArray<A>; readonly next: string | undefined } => {
  const kept = records.slice(0, limit)
  const last = kept.at(-1)
  return { records: kept, next: records.length > limit && last !== undefined ? encode(last) : undefined }
}
