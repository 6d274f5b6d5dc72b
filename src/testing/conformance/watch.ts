/**
 * Conformance: what happens below a watched directory.
 */
import { type Cause, Deferred, Effect, Fiber, Queue, Schedule, Stream } from "effect"
import type { WatchEvent } from "../../domain/FileSystem.ts"
import type { FileOperationError } from "../../rpc/SandboxRpcs.ts"
import type { Sandbox } from "../../services/Sandbox.ts"
import { area, holds, home, refused, same, withSandbox } from "./Case.ts"

const root = `${home}/watched`

const show = (event: WatchEvent): string => {
  switch (event._tag) {
    case "Renamed":
      return `${event._tag} ${event.from} ${event.to}`
    case "Overflow":
      return event._tag
    case "Ended":
      return `${event._tag} ${event.reason}`
    default:
      return `${event._tag} ${event.path}`
  }
}

/** The events below a directory, from a moment on at which the watch is known to be in place. */
const watching = Effect.fnUntraced(function* (sandbox: Sandbox, recursive: boolean, path = root) {
  const queue = yield* Queue.unbounded<string, FileOperationError | Cause.Done>()
  yield* sandbox.files
    .watch(path, { recursive })
    .pipe(Stream.map(show), Stream.runIntoQueue(queue), Effect.forkScoped)
  // Nothing says when the watch is in place, so something is done until it is seen.
  const nudge = `${path}/nudge`
  const nudging = yield* sandbox.files
    .makeDir(nudge)
    .pipe(
      Effect.andThen(sandbox.files.remove(nudge)),
      Effect.andThen(Effect.sleep(2)),
      Effect.forever,
      Effect.forkScoped
    )
  yield* Effect.orDie(Queue.take(queue))
  yield* Fiber.interrupt(nudging)
  const events = Stream.filter(Stream.fromQueue(queue), (event) => !event.includes("/nudge"))
  return {
    /** All events up to one. */
    until: (last: string) => Stream.runCollect(Stream.takeUntil(events, (event) => event === last)),
    /** All events to the end of the watch, which must come by itself. */
    toTheEnd: Stream.runCollect(events)
  }
})

/** Checks that events came in this order, others between them or not. */
const inOrder = (events: ReadonlyArray<string>, expected: ReadonlyArray<string>) => {
  let at = -1
  for (const one of expected) {
    const next = events.indexOf(one, at + 1)
    holds(next > at, `expected ${one} in ${events.join(", ")}`)
    at = next
  }
}

/** That a watch of the root ends, and why, when this is done. */
const ends = (before: string, act: string, reason: string, path = root) =>
  withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      yield* sandbox.files.makeDir(root)
      yield* sandbox.commands.run(before)
      const flat = yield* watching(sandbox, false, path)
      const whole = yield* watching(sandbox, true, path)
      yield* sandbox.commands.run(act)
      same((yield* flat.toTheEnd).at(-1), `Ended ${reason}`)
      same((yield* whole.toTheEnd).at(-1), `Ended ${reason}`)
    })
  )

export const watchCases = area("watch")(
  {
    "a watch tells what is made, changed, renamed and removed, in order": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.files.makeDir(root)
        const { until } = yield* watching(sandbox, false)
        yield* sandbox.commands.run(
          `cd ${root}; echo a > new; echo b >> new; mv new moved; rm moved; mkdir end`
        )
        inOrder(yield* until(`Created ${root}/end`), [
          `Created ${root}/new`,
          `Modified ${root}/new`,
          `Renamed ${root}/new ${root}/moved`,
          `Removed ${root}/moved`
        ])
      })
    ),

    "a watch sees below its directory only when told so": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.files.makeDir(`${root}/sub/deep`)
        const flat = yield* watching(sandbox, false)
        const whole = yield* watching(sandbox, true)
        yield* sandbox.commands.run(`mkdir ${root}/sub/deep/new ${root}/end`)
        inOrder(yield* whole.until(`Created ${root}/end`), [
          `Created ${root}/sub/deep/new`,
          `Created ${root}/end`
        ])
        const seen = yield* flat.until(`Created ${root}/end`)
        holds(!seen.includes(`Created ${root}/sub/deep/new`), `seen from above: ${seen.join(", ")}`)
      })
    ),

    "a watch ends with an event when its directory is removed": ends("true", `rm -r ${root}`, "removed"),

    "a watch ends with an event when its directory is removed while a program stands in it": ends(
      `(cd ${root}; sleep 300 > /dev/null 2>&1) &`,
      `rm -r ${root}`,
      "removed"
    ),

    "a watch ends with an event when its directory is moved": ends("true", `mv ${root} ${root}2`, "moved"),

    "a watch ends with an event when a directory above it is moved": ends(
      `mkdir -p ${root}/a/b`,
      `mv ${root}/a ${root}/c`,
      "moved",
      `${root}/a/b`
    ),

    "a watch ends with an event when its directory is replaced": ends(
      `mkdir ${home}/other`,
      `mv ${root} ${root}2; mv ${home}/other ${root}`,
      "moved"
    ),

    "a watch ends with an event when a link on its way is pointed elsewhere": ends(
      `mkdir ${root}/a ${root}/b; ln -s a ${root}/link`,
      `rm ${root}/link; ln -s b ${root}/link`,
      "removed",
      `${root}/link`
    ),

    "directories that are moved keep being watched, under their new names": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.files.makeDir(`${root}/a/deep`)
        const { until } = yield* watching(sandbox, true)
        const steps = ["mv a b", "mkdir b/deep/1", "mv b c", "mkdir c/deep/2", "mv c/deep d", "mkdir d/3"]
        yield* sandbox.commands.run(`cd ${root}; ${steps.join("; ")}; mkdir end`)
        same(yield* until(`Created ${root}/end`), [
          `Renamed ${root}/a ${root}/b`,
          `Created ${root}/b/deep/1`,
          `Renamed ${root}/b ${root}/c`,
          `Created ${root}/c/deep/2`,
          `Renamed ${root}/c/deep ${root}/d`,
          `Created ${root}/d/3`,
          `Created ${root}/end`
        ])
      })
    ),

    "a directory that is moved out is watched no more, and one that is moved in tells what is in it":
      withSandbox(
        Effect.fnUntraced(function* (sandbox) {
          yield* sandbox.files.makeDir(`${root}/a/deep`)
          const { until } = yield* watching(sandbox, true)
          const steps = [`mv a ${home}/out`, `mv ${home}/else/unseen ${home}/out`, `rmdir ${home}/out/deep`]
          yield* sandbox.commands.run(
            `mkdir -p ${home}/else/unseen; cd ${root}; ${steps.join("; ")}; mv ${home}/out back; mkdir end`
          )
          same(yield* until(`Created ${root}/end`), [
            `Removed ${root}/a`,
            `Created ${root}/back`,
            `Created ${root}/back/unseen`,
            `Created ${root}/end`
          ])
        })
      ),

    "a write of fiberbox's own has one event, under its own name": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const { files } = sandbox
        const large = new Uint8Array(300_000)
        yield* files.makeDir(root)
        const { until } = yield* watching(sandbox, true)
        yield* files.write(`${root}/small`, "1")
        yield* files.write(`${root}/small`, "2")
        yield* files.write(`${root}/large`, large)
        yield* files.write(`${root}/large`, large)
        yield* files.write(`${root}/new/file`, "1")
        yield* Effect.exit(
          files.writeStream(`${root}/half`, Stream.concat(Stream.succeed(large), Stream.die("no")))
        )
        yield* files.makeDir(`${root}/end`)
        same(yield* until(`Created ${root}/end`), [
          `Created ${root}/small`,
          `Modified ${root}/small`,
          `Created ${root}/large`,
          `Modified ${root}/large`,
          `Created ${root}/new`,
          `Created ${root}/new/file`,
          `Created ${root}/end`
        ])
      })
    ),

    "writing to an open file is told under the name it has then": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.files.write(`${root}/d/file`, "")
        const { until } = yield* watching(sandbox, true)
        const steps = ["exec 3>>d/file", "mv d e", "mv e/file f", "echo 1 >&3", "rm f", "echo 2 >&3"]
        yield* sandbox.commands.run(`cd ${root}; ${steps.join("; ")}; mkdir end`)
        same(yield* until(`Created ${root}/end`), [
          `Renamed ${root}/d ${root}/e`,
          `Renamed ${root}/e/file ${root}/f`,
          `Modified ${root}/f`,
          `Removed ${root}/f`,
          `Created ${root}/end`
        ])
      })
    ),

    "more watches than a sandbox has are refused as such, and one that ends makes room": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.files.makeDir(root)
        const one = Effect.fnUntraced(function* () {
          const begun = yield* Deferred.make<void>()
          const seen = Stream.runForEach(sandbox.files.watch(root), () => Deferred.succeed(begun, undefined))
          const fiber = yield* Effect.forkScoped(seen)
          const nudge = Effect.andThen(sandbox.files.write(`${root}/nudge`, ""), Effect.sleep(2))
          const nudging = yield* Effect.forkScoped(Effect.forever(nudge))
          yield* Effect.raceFirst(Deferred.await(begun), Effect.asVoid(Effect.exit(Fiber.join(fiber))))
          yield* Fiber.interrupt(nudging)
          return fiber
        })
        const fibers = yield* Effect.forEach(Array.from({ length: 16 }), one)
        for (const fiber of fibers) holds(fiber.pollUnsafe() === undefined, "one of the first 16 has ended")
        const error = yield* refused(Stream.runDrain(sandbox.files.watch(root)), "ResourceExhausted")
        same(error.resource, "watches")
        yield* Fiber.interrupt(fibers[0] ?? (yield* one()))
        // A service hears of the end of a reader a little later.
        yield* Effect.repeat(one(), {
          schedule: Schedule.spaced(20),
          until: (fiber) => fiber.pollUnsafe() === undefined
        })
      })
    ),

    "only a directory that is there can be watched": withSandbox(
      Effect.fnUntraced(function* ({ files }) {
        yield* files.write(`${root}/file`, "")
        const none = yield* refused(Stream.runDrain(files.watch(`${root}/none`)), "FileFailed")
        same(none.reason, "not-found")
        const file = yield* refused(Stream.runDrain(files.watch(`${root}/file`)), "FileFailed")
        same(file.reason, "not-directory")
      })
    )
  },
  ["watch"]
)
