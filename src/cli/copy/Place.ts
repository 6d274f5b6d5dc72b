/**
 * Where files are copied from and to: this machine or a sandbox, behind one
 * interface, so that one copy does for every direction.
 */
import type { Effect, Stream } from "effect"
import type { FileOperationError } from "../../rpc/SandboxRpcs.ts"
import type { RunError } from "../../services/Processes.ts"
import type { Refused } from "../Failure.ts"

/** What is at a path. */
export interface Entry {
  readonly type: "file" | "directory" | "symlink" | "special"
  /** Bytes of a file. */
  readonly size: number
  readonly mode: number
  readonly modified: Modified
  /** Which file it is, where it has several names. */
  readonly file?: string | undefined
  /** Where a symbolic link points; missing where that is no UTF-8. */
  readonly target?: string | undefined
}

/** When something was last changed. */
export interface Modified {
  /** Milliseconds since the epoch. */
  readonly millis: number
  /** Nanoseconds beyond them. */
  readonly nanos: number
}

/** An entry of a directory. */
export interface NamedEntry extends Entry {
  readonly name: string
}

/** The entries of a directory, and the names of those that cannot be told, because they are no UTF-8: their bytes, escaped. */
export interface Listing {
  readonly entries: ReadonlyArray<NamedEntry>
  readonly unnamed: ReadonlyArray<string>
}

/** How a file operation can fail, on either side. */
export type PlaceError = Refused | FileOperationError | RunError

/** A tree of files. Paths are absolute. */
export interface Place {
  /** What a path leads to, symbolic links followed; nothing when it leads nowhere. */
  readonly find: (path: string) => Effect.Effect<Entry | undefined, PlaceError>
  /** The entries of a directory, themselves: links are not followed. */
  readonly list: (path: string) => Effect.Effect<Listing, PlaceError>
  readonly read: (path: string) => Stream.Stream<Uint8Array, PlaceError>
  /** Replaces a file whole: an interrupted write leaves what was there before. Blocks of zeros become holes. */
  readonly write: (
    path: string,
    content: Stream.Stream<Uint8Array, PlaceError>,
    like: Pick<Entry, "mode" | "modified"> | undefined
  ) => Effect.Effect<void, PlaceError>
  /** Makes a directory; one that exists is no error, anything else in its place is. */
  readonly makeDir: (path: string, mode: number) => Effect.Effect<void, PlaceError>
  readonly chmod: (path: string, mode: number) => Effect.Effect<void, PlaceError>
  /** Makes a symbolic link, in place of a file or link. */
  readonly link: (path: string, target: string) => Effect.Effect<void, PlaceError>
  /** Gives a file that was written another name, in place of a file or link. */
  readonly hardLink: (from: string, to: string) => Effect.Effect<void, PlaceError>
  /** Sets when something was last changed; of a link, of the link itself. */
  readonly setModified: (path: string, modified: Modified) => Effect.Effect<void, PlaceError>
  readonly rename: (from: string, to: string) => Effect.Effect<void, PlaceError>
  /** Removes a whole tree, if it is there. */
  readonly remove: (path: string) => Effect.Effect<void, PlaceError>
}

/** One end of a copy, as it is written on the command line. */
export type End =
  | { readonly _tag: "Stdio" }
  | { readonly _tag: "Local"; readonly path: string }
  | { readonly _tag: "Inside"; readonly sandbox: string; readonly path: string }

/** `-`, a path of this machine, or `SANDBOX:path`. A path that holds a colon is told from the latter by `./` before it. */
export const parseEnd = (text: string): End => {
  if (text === "-") return { _tag: "Stdio" }
  const sandbox = /^([A-Za-z0-9_-]+):/.exec(text)?.[1]
  return sandbox === undefined
    ? { _tag: "Local", path: text }
    : { _tag: "Inside", sandbox, path: text.slice(sandbox.length + 1) }
}
