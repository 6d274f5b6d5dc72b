/**
 * Conformance: what happens below a watched directory.
 */
import { Effect, Fiber, Queue, Stream } from "effect"
import type { WatchEvent } from "../../domain/FileSystem.ts"
import type { Sandbox } from "../../services/Sandbox.ts"
import { area, holds, home, refused, same, withSandbox } from "./Case.ts"

const root = `${home}/watched`

const pathOf = (event: WatchEvent): string =>
  event._tag === "Renamed" ? event.to : event._tag === "Overflow" ? "" : event.path
const show = (event: WatchEvent): string =>
  event._tag === "Renamed" ? `${event._tag} ${event.from} ${event.to}` : `${event._tag} ${pathOf(event)}`

/** The events below the root, from a moment on at which the watch is known to be in place. */
const watching = Effect.fnUntraced(function* (sandbox: Sandbox, recursive: boolean) {
  const queue = yield* Queue.unbounded<WatchEvent>()
  yield* sandbox.files.watch(root, { recursive }).pipe(
    Stream.runForEach((event) => Queue.offer(queue, event)),
    Effect.forkScoped
  )
  // Nothing says when the watch is in place, so something is done until it is seen.
  const nudge = sandbox.files
    .makeDir(`${root}/nudge`)
    .pipe(
      Effect.andThen(sandbox.files.remove(`${root}/nudge`)),
      Effect.andThen(Effect.sleep(2)),
      Effect.forever,
      Effect.forkScoped
    )
  const nudging = yield* nudge
  yield* Queue.take(queue)
  yield* Fiber.interrupt(nudging)
  return (last: string) =>
    Stream.fromQueue(queue).pipe(
      Stream.filter((event) => !pathOf(event).startsWith(`${root}/nudge`)),
      Stream.map(show),
      Stream.takeUntil((event) => event === last),
      Stream.runCollect
    )
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

export const watchCases = area("watch")(
  {
    "a watch tells what is made, changed, renamed and removed, in order": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        yield* sandbox.files.makeDir(root)
        const events = yield* watching(sandbox, false)
        yield* sandbox.commands.run(
          `cd ${root}; echo a > new; echo b >> new; mv new moved; rm moved; mkdir end`
        )
        const seen = yield* events(`Created ${root}/end`)
        inOrder(seen, [
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
        inOrder(yield* whole(`Created ${root}/end`), [`Created ${root}/sub/deep/new`, `Created ${root}/end`])
        const seen = yield* flat(`Created ${root}/end`)
        holds(!seen.includes(`Created ${root}/sub/deep/new`), `seen from above: ${seen.join(", ")}`)
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
