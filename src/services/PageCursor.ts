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

/** The most bytes that the records of a page have together, as text; one more than that is a page by itself. */
const pageBytes = 1024 * 1024

/** How many of the records that follow each other make a page, by their sizes in bytes as far as they are asked for. */
export const fitting = (sizes: Iterable<number>, limit: number): number => {
  let count = 0
  let bytes = 0
  for (const size of sizes) {
    bytes += size
    if (count === limit || (count > 0 && bytes > pageBytes)) break
    count++
  }
  return count
}

/** A page of these records, and the cursor of the next where there are more. */
export const page = <A extends Place>(
  records: ReadonlyArray<A>,
  hasMore: boolean
): { readonly records: ReadonlyArray<A>; readonly next: string | undefined } => {
  const last = records.at(-1)
  return { records, next: hasMore && last !== undefined ? encode(last) : undefined }
}
