/**
 * Arguments of the wrong type: what a caller passes can fail an operation, and
 * can never break it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Option, Predicate, Schema, Stream } from "effect"
import { InvalidArgument, SandboxError } from "../../src/domain/Errors.ts"
import { Memory } from "../../src/memory.ts"
import { Fiberbox } from "../../src/promise.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"

/** What no operation takes as its first argument. */
const neverRight: ReadonlyArray<unknown> = [5, -1, Number.NaN, 10n, true, Symbol("s"), () => 1, "lone \ud800"]

const junk: ReadonlyArray<unknown> = [
  ...neverRight,
  null,
  new Date(0),
  /x/,
  ["/x", 5, null],
  { as: 5, mode: "x", stdin: 7, offset: -1, recursive: "yes", timeoutMillis: {}, env: [5], size: 1, ttl: 1 },
  { maxOutputBytes: "many", keep: "some", depth: null, limit: 1.5, user: "nobody", cwd: 5, argv: "ls" },
  { processId: 7, background: "x", action: 1, labels: 5, image: 1, graceMillis: "1", after: null, once: 0 },
  "\0",
  ""
]

type Operation = (...args: ReadonlyArray<unknown>) => unknown

/** Every operation of a handle, also those of its parts. */
const operationsOf = (handle: object, prefix = ""): ReadonlyArray<readonly [name: string, Operation]> =>
  Object.entries(handle).flatMap(
    ([name, member]: [string, unknown]): ReadonlyArray<readonly [string, Operation]> => {
      if (Predicate.isFunction(member)) {
        return [[prefix + name, (...args) => Reflect.apply(member, undefined, args)]]
      }
      if (!Predicate.isObject(member) || Effect.isEffect(member) || Stream.isStream(member)) return []
      return operationsOf(member, `${prefix}${name}.`)
    }
  )

/** What an operation is called with: junk in every place. */
const calls = junk.flatMap(
  (one): ReadonlyArray<ReadonlyArray<unknown>> => [
    [one],
    ["/home/user/f", one],
    ["/home/user/f", "text", one],
    [one, one, one]
  ]
)

const isNeverRight = ([first]: ReadonlyArray<unknown>) => neverRight.some((one) => Object.is(one, first))

const show = (args: ReadonlyArray<unknown>) => args.map(String).join(", ")

const isEffect = (value: unknown): value is Effect.Effect<unknown, unknown> => Effect.isEffect(value)
const isStream = (value: unknown): value is Stream.Stream<unknown, unknown> => Stream.isStream(value)

/** Carries an operation out, for a moment: some of what is passed is right by chance. */
const attempt = (operation: Operation, args: ReadonlyArray<unknown>) =>
  Effect.suspend(() => {
    const answer = operation(...args)
    if (isStream(answer)) return Effect.asVoid(Stream.runHead(answer))
    return isEffect(answer) ? Effect.asVoid(answer) : Effect.die(new Error("no effect"))
  }).pipe(Effect.timeoutOption("50 millis"), Effect.exit)

const isSandboxError = Schema.is(SandboxError)

describe("arguments of the wrong type", () => {
  it.live(
    "fail every operation of the facade with a typed error, and are no defect",
    () =>
      Effect.gen(function* () {
        const sandboxes = yield* Sandboxes
        const sandbox = yield* sandboxes.create()
        const process = yield* sandbox.process.start(["sleep", "1000"], { stdin: true })
        const pty = yield* sandbox.pty.open({ argv: ["sleep", "1000"], size: { rows: 2, cols: 2 } })
        for (const handle of [sandboxes, sandbox, process, pty]) {
          for (const [name, operation] of operationsOf(handle)) {
            for (const args of calls) {
              const exit = yield* Effect.scoped(attempt(operation, args))
              const what = `${name}(${show(args)})`
              if (Exit.isSuccess(exit)) {
                assert.isFalse(isNeverRight(args), `${what} succeeds`)
                continue
              }
              const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
              assert.isTrue(isSandboxError(error), `${what}: ${Cause.pretty(exit.cause)}`)
              if (isNeverRight(args)) assert.instanceOf(error, InvalidArgument, what)
            }
          }
        }
      }).pipe(Effect.scoped, Effect.provide(Memory.layer())),
    60_000
  )

  it.live(
    "reject every promise with a typed error",
    () =>
      Effect.promise(async () => {
        await using fiberbox = await Fiberbox.open({ backend: "memory" })
        await using sandbox = await fiberbox.create()
        const process = await sandbox.process.start(["sleep", "1000"], { stdin: true })
        const { close: _, ...operations } = fiberbox
        for (const handle of [operations, sandbox, process]) {
          const { kill: _, ...rest } = Object.fromEntries(Object.entries(handle))
          for (const [name, operation] of operationsOf(rest)) {
            if (nullary.has(name)) continue
            for (const args of calls) {
              const what = `${name}(${show(args)})`
              const thrown = await rejectionOf(operation, args)
              if (thrown === undefined) assert.isFalse(isNeverRight(args), `${what} succeeds`)
              else assert.isTrue(isSandboxError(thrown), `${what}: ${String(thrown)}`)
              if (isNeverRight(args)) assert.instanceOf(thrown, InvalidArgument, what)
            }
          }
        }
      }),
    60_000
  )
})

/** Effects of the facade, which take nothing but a signal. */
const nullary: ReadonlySet<string> = new Set([
  "info",
  "start",
  "restart",
  "pause",
  "resume",
  "metrics",
  "process.list",
  "wait",
  "closeStdin"
])

/** What a call is rejected with within a moment, if it is. */
const rejectionOf = async (operation: Operation, args: ReadonlyArray<unknown>): Promise<unknown> => {
  const answer = operation(...args)
  const isItems = Predicate.hasProperty(answer, Symbol.asyncIterator)
  const items = isItems ? (answer as AsyncIterable<unknown>)[Symbol.asyncIterator]() : undefined
  const settled = Promise.resolve(items === undefined ? answer : items.next()).then(
    () => undefined,
    (error: unknown) => error
  )
  const moment = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 50))
  const rejection = await Promise.race([settled, moment])
  await items?.return?.()
  return rejection
}
