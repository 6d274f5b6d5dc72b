/**
 * Who may do what at a service: scopes, and the keys that carry them.
 */
import { Schema } from "effect"
import { KeyOwner, Owner } from "./Ids.ts"
import { Millis, Timestamp } from "./Sandbox.ts"

/**
 * What a token allows: `read` looks (info, lists, events, output, files),
 * `exec` also creates, runs and changes, `admin` also manages keys and the
 * service. Each includes those before it.
 */
export const AccessScope = Schema.Literals(["read", "exec", "admin"])
export type AccessScope = typeof AccessScope.Type

/** Whether a token of scope `held` may do what needs `needed`. */
export const allows = (held: AccessScope, needed: AccessScope): boolean =>
  AccessScope.literals.indexOf(held) >= AccessScope.literals.indexOf(needed)

/** Names a key: 10 base32 characters; not secret. */
export const KeyId = Schema.String.check(
  Schema.isPattern(/^[a-z2-7]{10}$/, { message: "the id of a key is 10 of a-z 2-7" })
).pipe(Schema.brand("KeyId"))
export type KeyId = typeof KeyId.Type

/** What may be told of a key. Times are milliseconds since the epoch. */
export const KeyInfo = Schema.Struct({
  id: KeyId,
  /** Whose sandboxes its bearer sees and makes. */
  owner: Owner,
  scope: AccessScope,
  /** What it is for, in its maker's words. */
  label: Schema.String,
  createdAt: Timestamp,
  /** To the minute. */
  lastUsedAt: Schema.optional(Timestamp),
  /** From then on it is refused; without it never. */
  expiresAt: Schema.optional(Timestamp)
})
export type KeyInfo = typeof KeyInfo.Type

/** A key to be made. */
export const MintRequest = Schema.Struct({
  owner: KeyOwner,
  scope: AccessScope,
  label: Schema.optional(Schema.String.check(Schema.isMaxLength(256))),
  /** How long it is good for; left out: until it is revoked. */
  ttlMillis: Schema.optional(Millis)
})
export type MintRequest = typeof MintRequest.Type

/** A key just made: the only time that its secret is told. */
export const MintedKey = Schema.Struct({ info: KeyInfo, token: Schema.RedactedFromValue(Schema.String) })
export type MintedKey = typeof MintedKey.Type
