/**
 * One promise of the contract, as a program that keeps or breaks it.
 *
 * Cases know no test framework: a case is an effect that succeeds when the
 * promise holds, fails with a typed error of the contract when an operation
 * went wrong, and dies with an `AssertionError` when an answer was not as it must be.
 */
import { deepStrictEqual, fail, ok, strictEqual } from "node:assert/strict"
import { Effect, Random, Result, type Scope } from "effect"
import type { Capability } from "../../domain/Capability.ts"
import type { SandboxError } from "../../domain/Errors.ts"
import type { Sandbox } from "../../services/Sandbox.ts"
import { type CreateOptions, Sandboxes } from "../../services/Sandboxes.ts"

/** The parts of the contract, as the suite is divided. */
export type Area =
  | "lifecycle"
  | "expiry"
  | "events"
  | "finding"
  | "commands"
  | "processes"
  | "trees"
  | "pty"
  | "files"
  | "directories"
  | "watch"
  | "metrics"
  | "refusals"

/** One promise every backend and transport must keep. */
export interface Case {
  readonly area: Area
  /** What is promised, as a sentence. */
  readonly name: string
  /** Capabilities the backend must declare for the promise to apply. */
  readonly needs: ReadonlyArray<Capability>
  /** Holds when it succeeds. Makes and removes its own sandboxes; needs a clock that runs. */
  readonly run: Effect.Effect<void, SandboxError, Sandboxes>
}

/** A program of a case. Its scope closes at the case's end. */
export type Body = Effect.Effect<unknown, SandboxError, Sandboxes | Scope.Scope>

/** Names the cases of one area. */
export const area =
  (name: Area) =>
  (cases: { readonly [promise: string]: Body }, needs: ReadonlyArray<Capability> = []): ReadonlyArray<Case> =>
    Object.entries(cases).map(([promise, body]) => ({
      area: name,
      name: promise,
      needs,
      run: Effect.asVoid(Effect.scoped(body))
    }))

/** A case on one new sandbox. */
export const withSandbox = (
  body: (sandbox: Sandbox) => Body,
  options?: CreateOptions
): Effect.Effect<void, SandboxError, Sandboxes | Scope.Scope> =>
  Effect.flatMap(Sandboxes.create(options), (sandbox) => Effect.asVoid(body(sandbox)))

/** Text that nobody else uses as a name or label. */
export const unique = (prefix: string): Effect.Effect<string> =>
  Effect.map(Random.nextIntBetween(0, 2 ** 48), (number) => `${prefix}-${number.toString(36)}`)

/** The error an operation must fail with; succeeding, or failing in another way, breaks the promise. */
export const refused = Effect.fnUntraced(function* <R, const Tag extends SandboxError["_tag"]>(
  effect: Effect.Effect<unknown, SandboxError, R>,
  ...tags: ReadonlyArray<Tag>
) {
  const expected = tags.join(" or ")
  const isExpected = (error: SandboxError): error is Extract<SandboxError, { readonly _tag: Tag }> =>
    tags.some((tag) => tag === error._tag)
  const result = yield* Effect.result(effect)
  if (Result.isSuccess(result)) return fail(`expected ${expected}, but it succeeded: ${show(result.success)}`)
  const error = result.failure
  return isExpected(error) ? error : fail(`expected ${expected}, but got ${error._tag}: ${error.message}`)
})

const show = (value: unknown): string => JSON.stringify(value) ?? String(value)

/** Checks that two values are the same, deeply; `what` names them in the difference that is shown. */
export const same = (actual: unknown, expected: unknown, what?: string): void =>
  what === undefined
    ? deepStrictEqual(actual, expected)
    : deepStrictEqual({ [what]: actual }, { [what]: expected })

/** Checks that two large byte strings are the same, without printing them. */
export const sameBytes = (actual: Uint8Array, expected: Uint8Array): void => {
  strictEqual(
    actual.byteLength,
    expected.byteLength,
    `${actual.byteLength} bytes instead of ${expected.byteLength}`
  )
  const at = actual.findIndex((byte, index) => byte !== expected[index])
  strictEqual(at, -1, `byte ${at} differs`)
}

/** Checks that something holds. */
export const holds = (condition: boolean, what: string): void => ok(condition, what)

/** Bytes that look random and are the same every time. */
export const noise = (size: number): Uint8Array => {
  let state = 0x2545f491
  return Uint8Array.from({ length: size }, () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state & 0xff
  })
}

/** Text of numbered lines, of about `size` bytes. */
export const lines = (size: number): string =>
  Array.from({ length: Math.ceil(size / 9) }, (_, line) => String(line).padStart(8, "0"))
    .join("\n")
    .concat("\n")

/** Where the default user lives. */
export const home = "/home/user"
