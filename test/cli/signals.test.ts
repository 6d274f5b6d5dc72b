import { availableParallelism, loadavg } from "node:os"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  baseDirectory,
  canRunContainers,
  type Ended,
  instanceIn,
  leftOf,
  type Running,
  start
} from "./support.ts"

/** A second, and longer on a machine that is busy with other things. */
const aSecond = (): number => 1000 * Math.max(1, (loadavg()[0] ?? 1) / availableParallelism())

/** A duration that no other process on this machine sleeps for. */
let marks = 0
const newMark = () => `600.${process.pid}${++marks}`

interface Case {
  readonly running: Running
  /** Waits for the end, and checks that nothing of the instance is on this machine any more. */
  readonly leavesNothing: Effect.Effect<Ended & { readonly millis: number }>
  readonly mark: string
}

/** Runs a command in which `MARK` stands for an argument that only its processes have. */
const running = Effect.fnUntraced(function* (command: string, args: ReadonlyArray<string> = []) {
  const baseDir = yield* baseDirectory
  const mark = newMark()
  const script = command.replaceAll("MARK", mark)
  const child = yield* start(["run", ...args, "--", "sh", "-c", script], { baseDir, open: true })
  const id = yield* instanceIn(baseDir)
  const begun = { at: performance.now() }
  const result: Case = {
    running: {
      ...child,
      signal: (signal) =>
        Effect.andThen(
          Effect.sync(() => {
            begun.at = performance.now()
          }),
          child.signal(signal)
        )
    },
    leavesNothing: Effect.map(child.ended, (ended) => {
      const millis = performance.now() - begun.at
      assert.deepStrictEqual(leftOf(baseDir, id, mark), [])
      return { ...ended, millis }
    }),
    mark
  }
  return result
})

describe.runIf(canRunContainers)("fiberbox run, told to end,", () => {
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
    ["SIGQUIT", 131]
  ] as const) {
    it.live(`by ${signal}: is gone within a second with exit code ${code} and leaves nothing`, () =>
      Effect.gen(function* () {
        const { leavesNothing, running: child } = yield* running("echo ready; exec sleep MARK")
        yield* child.shows("ready")
        yield* child.signal(signal)
        const ended = yield* leavesNothing
        assert.strictEqual(ended.code, code)
        assert.isBelow(ended.millis, aSecond())
      }).pipe(Effect.scoped)
    )
  }

  it.live("takes along programs that ignore it and programs that detached themselves", () =>
    Effect.gen(function* () {
      const command =
        "trap '' INT TERM HUP; (setsid sleep MARK &) ; nohup sleep MARK & echo ready; sleep MARK"
      const { leavesNothing, running: child } = yield* running(command)
      yield* child.shows("ready")
      yield* child.signal("SIGINT")
      const ended = yield* leavesNothing
      assert.strictEqual(ended.code, 130)
      assert.isBelow(ended.millis, aSecond())
    }).pipe(Effect.scoped)
  )

  it.live(
    "lets the command end by itself: its last words and its exit code pass",
    () =>
      Effect.gen(function* () {
        const command = "trap 'echo tidied up; exit 5' INT; echo ready; while :; do sleep 0.01; done"
        const { leavesNothing, running: child } = yield* running(command)
        yield* child.shows("ready")
        yield* child.signal("SIGINT")
        const ended = yield* leavesNothing
        assert.deepStrictEqual([ended.code, ended.out], [5, "ready\ntidied up\n"])
      }).pipe(Effect.scoped),
    // It has 0.3 s for that, which may be short on a busy machine.
    { retry: 3 }
  )

  it.live("leaves nothing either when it is told again and again", () =>
    Effect.gen(function* () {
      const { leavesNothing, running: child } = yield* running("trap '' INT; echo ready; sleep MARK")
      yield* child.shows("ready")
      yield* child.signal("SIGINT")
      yield* child.signal("SIGINT")
      yield* child.signal("SIGTERM")
      const ended = yield* leavesNothing
      // Signals that are sent at once may arrive in any order.
      assert.include([130, 143], ended.code)
    }).pipe(Effect.scoped)
  )

  it.live("with --json: says so in the last line", () =>
    Effect.gen(function* () {
      const { leavesNothing, running: child } = yield* running("trap '' INT; echo ready; sleep MARK", [
        "--json"
      ])
      yield* child.shows("ready")
      yield* child.signal("SIGINT")
      const ended = yield* leavesNothing
      const last: unknown = JSON.parse(ended.out.trimEnd().split("\n").at(-1) ?? "")
      assert.deepInclude(last, { event: "error", error: "Interrupted", exitCode: 130 })
    }).pipe(Effect.scoped)
  )

  it.live("while the sandbox is being made: leaves nothing", () =>
    Effect.gen(function* () {
      // `running` returns as soon as the instance's directory is there, before any machine is.
      const { leavesNothing, running: child } = yield* running("exec sleep MARK")
      yield* child.signal("SIGINT")
      const ended = yield* leavesNothing
      assert.strictEqual(ended.code, 130)
      assert.isBelow(ended.millis, 2 * aSecond())
    }).pipe(Effect.scoped)
  )

  it.live("while nobody reads its output: is gone all the same", () =>
    Effect.gen(function* () {
      const { leavesNothing, running: child } = yield* running("exec yes MARK")
      yield* child.shows("600.")
      yield* child.stopReading
      yield* child.signal("SIGTERM")
      const ended = yield* leavesNothing
      assert.strictEqual(ended.code, 143)
      assert.isBelow(ended.millis, 2 * aSecond())
    }).pipe(Effect.scoped)
  )
})

describe.runIf(canRunContainers)("fiberbox run, ended by itself,", () => {
  it.live("leaves nothing of what the command started", () =>
    Effect.gen(function* () {
      const { leavesNothing } = yield* running(
        "(setsid sleep MARK &); nohup sleep MARK >/dev/null 2>&1 & exit 4"
      )
      const ended = yield* leavesNothing
      assert.strictEqual(ended.code, 4)
    }).pipe(Effect.scoped)
  )

  it.live(
    "when its reader goes away: ends as a program does that SIGPIPE ends, says so, and leaves nothing",
    () =>
      Effect.gen(function* () {
        const { leavesNothing, running: child } = yield* running("exec yes MARK")
        yield* child.shows("600.")
        yield* child.hangUp
        const ended = yield* leavesNothing
        const said = "fiberbox: standard output: broken pipe: nobody reads it any more\n"
        assert.deepStrictEqual([ended.code, ended.err], [141, said])
      }).pipe(Effect.scoped)
  )
})
