/**
 * How every command is carried out: it is told to end by signals, what goes
 * wrong is told in one line or one document, and it ends with an exit code.
 */
import { Cause, Effect, Option } from "effect"
import type { Sandboxes } from "../services/Sandboxes.ts"
import { sandboxes } from "./Connect.ts"
import { report } from "./Program.ts"
import type { ConnectionOptions } from "./SharedFlags.ts"
import { type Control, underSignals } from "./Signals.ts"
import { endWith, OutputClosed, outputClosedCode, write } from "./Stdio.ts"

/** Signals end what does not run a program of its own. */
const noProgram: Control = { forward: () => Option.none(), exitCode: () => undefined }

/** Ends with a command's exit code, or tells why it failed and ends with that one's. */
export const conclude = <E, R>(
  { json }: { readonly json: boolean },
  main: Effect.Effect<number | void, E, R>
): Effect.Effect<void, never, R> =>
  main.pipe(
    Effect.map((code) => code ?? 0),
    Effect.catchCause((cause) =>
      Cause.squash(cause) instanceof OutputClosed ? Effect.succeed(outputClosedCode) : report(json, cause)
    ),
    Effect.flatMap(endWith)
  )

/** Carries out a command that gives its exit code, or nothing for 0; signals interrupt it. */
export const perform = <E, R>(
  options: { readonly json: boolean },
  main: Effect.Effect<number | void, E, R>
): Effect.Effect<void, never, R> =>
  conclude(
    options,
    underSignals(
      Effect.map(main, (code) => code ?? 0),
      noProgram
    )
  )

/** Carries out a command on the sandboxes that its options mean; `before` may refuse it while nothing is connected yet. */
export const performOn = <E, R, E2 = never, R2 = never>(
  options: ConnectionOptions & { readonly json: boolean },
  main: Effect.Effect<number | void, E, R | Sandboxes>,
  before: Effect.Effect<void, E2, R2> = Effect.void
) => perform(options, Effect.andThen(before, Effect.provide(main, sandboxes(options))))

/** Writes one line of text. */
export const writeText = (line: string) => write("stdout", `${line}\n`)

/** Writes one JSON document as a line. */
export const writeJson = (document: unknown) => write("stdout", `${JSON.stringify(document)}\n`)

/** Writes a remark to a person; nothing where documents are asked for. */
export const remark = ({ json }: { readonly json: boolean }, text: string) =>
  json ? Effect.void : write("stderr", `fiberbox: ${text}\n`)

/** With nobody there to read, there is nobody to tell. */
const isTellable = <E>(error: E): error is Exclude<E, OutputClosed> => !(error instanceof OutputClosed)

/**
 * Does the same with each of several things, one after the other. What fails is
 * told and the others are done all the same; the exit code is that of the first failure.
 */
export const performEach = <A, E, R>(
  { json }: { readonly json: boolean },
  all: ReadonlyArray<A>,
  f: (one: A) => Effect.Effect<void, E, R>
) =>
  Effect.gen(function* () {
    let exitCode = 0
    for (const one of all) {
      const code = yield* f(one).pipe(
        Effect.as(0),
        Effect.catchIf(isTellable, (error) => report(json, Cause.fail(error)))
      )
      if (exitCode === 0) exitCode = code
    }
    return exitCode
  })
