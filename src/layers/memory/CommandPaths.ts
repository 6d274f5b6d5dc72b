/**
 * What programs about files have in common: their arguments and complaints.
 */
import { Effect, Result } from "effect"
import { fail } from "./CommandsBasic.ts"
import { errorText, type FsFailure, type FsResult } from "./Inode.ts"
import type { Process } from "./Process.ts"

/** Flags (their letters) and the rest. */
interface Arguments {
  readonly flags: string
  readonly rest: ReadonlyArray<string>
}

/** Tells flags from the rest. */
export const parse = (argv: ReadonlyArray<string>): Arguments => {
  const words = argv.slice(1)
  const options = words.filter((word) => /^-[^-]/.test(word))
  return {
    flags: options.map((option) => option.slice(1)).join(""),
    rest: words.filter((word) => !/^-[^-]/.test(word) && word !== "--")
  }
}

/** Does something with each path, saying what failed. */
export const each = Effect.fnUntraced(function* (
  process: Process,
  name: string | undefined,
  paths: ReadonlyArray<string>,
  what: string,
  act: (path: string) => FsResult<unknown>,
  missing?: string
) {
  if (paths.length === 0) return yield* fail(process, name, "missing operand")
  let status = 0
  for (const path of paths) {
    const at = process.absolute(path)
    const result = act(at)
    if (Result.isSuccess(result)) continue
    const { failure } = result
    const isMissing = missing !== undefined && failure.reason === "not-found" && failure.path === at
    status = yield* complain(process, name, `${isMissing ? missing : what} '${path}'`, failure)
  }
  return status
})

/** Says why a file operation failed. */
export const complain = (
  process: Process,
  name: string | undefined,
  what: string,
  failure: FsFailure
): Effect.Effect<number> => fail(process, name, `${what}: ${errorText[failure.reason]}`)

/** A path's last name. */
export const lastName = (path: string): string => {
  const trimmed = path.replace(/\/+$/, "")
  return trimmed.slice(trimmed.lastIndexOf("/") + 1)
}
