/**
 * A directory and all that are missing above it, for this program's user alone.
 *
 * One after the other: Node's own recursion does not end where a directory
 * takes no entries and says that they are missing, as `/proc` does.
 */
import { Effect, type FileSystem, type PlatformError } from "effect"

const isMissing = ({ reason }: PlatformError.PlatformError) => reason._tag === "NotFound"
const isThere = ({ reason }: PlatformError.PlatformError) => reason._tag === "AlreadyExists"

const above = (path: string): string => path.replace(/\/+[^/]*\/*$/, "")

/** As `mkdir -p -m 700`. What is there already stays as it is, and must be a directory. */
export const makeDirectories = (
  fs: FileSystem.FileSystem,
  path: string
): Effect.Effect<void, PlatformError.PlatformError> => {
  const make = fs.makeDirectory(path, { mode: 0o700 })
  const parent = above(path)
  return make.pipe(
    Effect.catchIf(isMissing, (error) =>
      parent === "" ? Effect.fail(error) : Effect.andThen(makeDirectories(fs, parent), make)
    ),
    Effect.catchIf(isThere, (error) =>
      Effect.flatMap(fs.stat(path), ({ type }) => (type === "Directory" ? Effect.void : Effect.fail(error)))
    )
  )
}
