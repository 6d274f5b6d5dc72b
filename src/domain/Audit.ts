/**
 * The audit: who did what to which sandbox, when, and with what outcome.
 *
 * An entry holds no secret on purpose: no environment, no content of files, no
 * input and no output. The arguments of programs are in it, cut short, since
 * they are what was done; whoever passes secrets as arguments shows them to
 * every program in the sandbox as well.
 */
import { Schema } from "effect"
import { Owner, SandboxId } from "./Ids.ts"
import { Timestamp } from "./Sandbox.ts"

/** The longest text of a detail, in characters; what is longer is cut there. */
export const maxDetail = 256
/** The most arguments of a program that are kept. */
export const maxArguments = 16

const Text = Schema.String.check(Schema.isMaxLength(maxDetail))

/** What of a request an entry tells. */
export const AuditDetails = Schema.Struct({
  /** Of a program: its first {@link maxArguments} arguments. */
  argv: Schema.optional(Schema.Array(Text).check(Schema.isMaxLength(maxArguments))),
  user: Schema.optional(Text),
  processId: Schema.optional(Text),
  /** Of a file operation; of a renaming, where from. */
  path: Schema.optional(Text),
  /** Of a change of status: start, stop, kill, ... */
  command: Schema.optional(Text),
  /** Of a new sandbox. */
  image: Schema.optional(Text),
  name: Schema.optional(Text),
  /** Of an operation on keys: the key's id, and whom it is for. */
  key: Schema.optional(Text),
  keyOwner: Schema.optional(Text)
})
export type AuditDetails = typeof AuditDetails.Type

/** One thing that somebody did, or tried to. */
export const AuditEntry = Schema.Struct({
  /** Its number: 1, 2, 3, ... */
  sequence: Schema.Natural,
  /** When the call came, in milliseconds since the epoch. */
  at: Timestamp,
  /** How long it took until it was answered. */
  durationMillis: Schema.Finite,
  /** Who: `key <id>`, a token's subject, or `local`. */
  caller: Schema.String,
  /** On whose behalf. */
  owner: Owner,
  /** The operation of the contract. */
  operation: Schema.String,
  sandboxId: Schema.optional(SandboxId),
  /** `ok`, the tag of the error, `interrupted` when the caller gave up, or `defect`. */
  outcome: Schema.String,
  details: Schema.optional(AuditDetails),
  /** So many more calls by the same caller, of the same operation and outcome, that came in a flood and are not told one by one. */
  repeats: Schema.optional(Schema.Natural)
})
export type AuditEntry = typeof AuditEntry.Type
