/**
 * Identifiers and names: what a sandbox, a process and an upload are called.
 *
 * A sandbox id carries its shard group (the host that runs it), because
 * placement must follow from the id alone. Process and upload ids are chosen by
 * the caller, so that a repeated request is recognised as the same one.
 */
import { Effect, Schema } from "effect"
import { SecureRandom } from "effect/crypto"

/** Identifies a sandbox: `sb_<group>_<26 base32 characters>` (128 random bits). */
export const SandboxId = Schema.String.check(
  Schema.isPattern(/^sb_[a-z0-9]{1,16}_[a-z2-7]{26}$/, {
    message: "a sandbox id looks like sb_<group>_<26 base32 characters>"
  })
).pipe(Schema.brand("SandboxId"))
export type SandboxId = typeof SandboxId.Type

/** The shard group a sandbox id belongs to. */
export const groupOf = (id: SandboxId): string => id.slice(3, id.lastIndexOf("_"))

/** The short name of a sandbox that was given none. */
export const slugOf = (id: SandboxId): string => id.slice(id.lastIndexOf("_") + 1, id.lastIndexOf("_") + 13)

/** Identifies a process within a sandbox; chosen by the caller, unique per machine. */
export const ProcessId = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9_.-]{1,64}$/, { message: "a process id is 1 to 64 of A-Z a-z 0-9 _ . -" })
).pipe(Schema.brand("ProcessId"))
export type ProcessId = typeof ProcessId.Type

/** Identifies one file upload in progress; chosen by the caller. */
export const UploadId = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9_.-]{1,64}$/, { message: "an upload id is 1 to 64 of A-Z a-z 0-9 _ . -" })
).pipe(Schema.brand("UploadId"))
export type UploadId = typeof UploadId.Type

/** Identifies a client's lease: chosen by the client, unguessable. */
export const LeaseId = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9_.-]{16,64}$/, { message: "a lease id is 16 to 64 of A-Z a-z 0-9 _ . -" })
).pipe(Schema.brand("LeaseId"))
export type LeaseId = typeof LeaseId.Type

/** Identifies one attempt to create a sandbox, so that it can be cancelled: chosen by the client, unguessable. */
export const AttemptId = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9_.-]{16,64}$/, { message: "an attempt id is 16 to 64 of A-Z a-z 0-9 _ . -" })
).pipe(Schema.brand("AttemptId"))
export type AttemptId = typeof AttemptId.Type

/** Identifies one reader of a process's output: chosen by the client. */
export const ReaderId = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9_.-]{1,64}$/, { message: "a reader id is 1 to 64 of A-Z a-z 0-9 _ . -" })
).pipe(Schema.brand("ReaderId"))
export type ReaderId = typeof ReaderId.Type

/** A sandbox name, unique among the sandboxes of one owner: a DNS label. */
export const SandboxName = Schema.String.check(
  Schema.isPattern(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, {
    message: "a name is 1 to 63 of a-z 0-9 -, and neither begins nor ends with -"
  })
).pipe(Schema.brand("SandboxName"))
export type SandboxName = typeof SandboxName.Type

/** Whoever owns sandboxes: that of an API key, the subject of a web token (see {@link tokenOwner}), or `local`. */
export const Owner = Schema.String.check(Schema.isBetweenLength(1, 512)).pipe(Schema.brand("Owner"))
export type Owner = typeof Owner.Type

/** The owner of everything an embedding program creates. */
export const localOwner: Owner = Owner.make("local")

const tokenPrefix = "jwt:"

/**
 * The owner that the subject of a web token is: `jwt:<issuer>/<subject>`, the issuer encoded as in a URL, and empty where the token
 * names none. So no issuer's subject is another's, nor that of a key, nor the operator.
 */
export const tokenOwner = (issuer: string, subject: string): string =>
  `${tokenPrefix}${encodeURIComponent(issuer)}/${subject}`

/** Owners of API keys: whoever is not the subject of a web token. */
export const KeyOwner = Owner.check(
  Schema.makeFilter(
    (owner) =>
      !owner.startsWith(tokenPrefix) ||
      `an owner that begins with ${tokenPrefix} is the subject of a web token`
  )
)

/** Which incarnation of a sandbox's machine: starts at 1; restart, start and restore advance it, resume keeps it. */
export const Generation = Schema.Natural.pipe(Schema.brand("Generation"))
export type Generation = typeof Generation.Type

/** A caller's key for a create request: the same key never makes a second sandbox. */
export const IdempotencyKey = Schema.String.check(Schema.isBetweenLength(1, 128)).pipe(
  Schema.brand("IdempotencyKey")
)
export type IdempotencyKey = typeof IdempotencyKey.Type

const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

/** RFC 4648 base32 in lower case, without padding. */
export const base32 = (bytes: Uint8Array): string => {
  let out = ""
  let bits = 0
  let value = 0
  for (const byte of bytes) {
    value = ((value << 8) | byte) & 0xffff
    bits += 8
    while (bits >= 5) {
      bits -= 5
      out += alphabet.charAt((value >> bits) & 31)
    }
  }
  return bits > 0 ? out + alphabet.charAt((value << (5 - bits)) & 31) : out
}

const random = Effect.fnUntraced(function* (bytes: number) {
  const secure = yield* SecureRandom.SecureRandom
  return base32(yield* secure.randomBytes(bytes))
})

/** A new sandbox id in a shard group. */
export const makeSandboxId = (group: string): Effect.Effect<SandboxId, never, SecureRandom.SecureRandom> =>
  Effect.map(random(16), (text) => SandboxId.make(`sb_${group}_${text}`))

/** A new process id. */
export const makeProcessId: Effect.Effect<ProcessId, never, SecureRandom.SecureRandom> = Effect.map(
  random(10),
  (text) => ProcessId.make(text)
)

/** A new lease id. */
export const makeLeaseId: Effect.Effect<LeaseId, never, SecureRandom.SecureRandom> = Effect.map(
  random(16),
  (text) => LeaseId.make(text)
)

/** A new reader id. */
export const makeReaderId: Effect.Effect<ReaderId, never, SecureRandom.SecureRandom> = Effect.map(
  random(10),
  (text) => ReaderId.make(text)
)

/** A new attempt id. */
export const makeAttemptId: Effect.Effect<AttemptId, never, SecureRandom.SecureRandom> = Effect.map(
  random(16),
  (text) => AttemptId.make(text)
)

/** Gives one id after the other that nobody else gives: all begin with the same random text, and end with a number. */
export const makeNumbering: Effect.Effect<() => string, never, SecureRandom.SecureRandom> = Effect.map(
  random(10),
  (text) => {
    let last = 0
    return () => `${text}-${(++last).toString(36)}`
  }
)
