/**
 * The token a service makes for its own user: kept in its state directory, so
 * that clients which outlive the service know the next one.
 */
import { Effect, FileSystem, Path, type PlatformError, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { BackendFailed } from "../domain/Errors.ts"
import { base32 } from "../domain/Ids.ts"
import { Instance } from "../services/Instance.ts"

/** What every such token looks like: `fbt_<256 random bits>`. */
const tokenPattern = /^fbt_[a-z2-7]{52}$/

const encoder = new TextEncoder()

const failed = (error: PlatformError.PlatformError) =>
  new BackendFailed({
    backend: "service",
    operation: "keep its token",
    reason: error.message,
    outcome: "not-started"
  })

/** The file's content, if it is a token that nobody else could read. */
const readOwn = Effect.fnUntraced(function* (file: string) {
  const fs = yield* FileSystem.FileSystem
  const info = yield* fs.stat(file)
  if (info.type !== "File" || (info.mode & 0o077) !== 0) return undefined
  const text = (yield* fs.readFileString(file)).trim()
  return tokenPattern.test(text) ? text : undefined
})

/** Written beside, then renamed: there is never half a token, nor one that others may read. */
const write = Effect.fnUntraced(function* (file: string, token: string) {
  const fs = yield* FileSystem.FileSystem
  const temporary = `${file}.new`
  yield* fs.remove(temporary, { force: true })
  yield* Effect.scoped(
    Effect.gen(function* () {
      const handle = yield* fs.open(temporary, { flag: "wx", mode: 0o600 })
      yield* handle.writeAll(encoder.encode(`${token}\n`))
      yield* handle.sync
    })
  )
  yield* fs.rename(temporary, file)
})

/**
 * The token in `<stateDir>/token` (mode 0600). A file that others can read, or
 * that holds no token, is replaced by a new one.
 */
export const localToken = Effect.gen(function* () {
  const { stateDir } = yield* Instance
  const path = yield* Path.Path
  const random = yield* SecureRandom.SecureRandom
  const file = path.join(stateDir, "token")
  const known = yield* Effect.orElseSucceed(readOwn(file), () => undefined)
  if (known !== undefined) return Redacted.make(known, { label: "token" })
  const token = `fbt_${base32(yield* random.randomBytes(32))}`
  yield* Effect.mapError(write(file, token), failed)
  return Redacted.make(token, { label: "token" })
})
