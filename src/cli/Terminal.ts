/**
 * This process's terminal, handed to a program in a sandbox: every key goes
 * inside untouched, the size follows, and at the end it is as it was.
 */
import { spawnSync } from "node:child_process"
import { Effect, Queue, type Scope, Stream } from "effect"
import type { PtySize } from "../domain/Process.ts"

/** Whether a person sits at both ends. */
export const isInteractive = (): boolean => process.stdin.isTTY === true && process.stdout.isTTY === true

const clamp = (cells: number | undefined, fallback: number): number =>
  cells === undefined || cells < 1 ? fallback : Math.min(cells, 1000)

/** The terminal's size now; 24 by 80 where there is none. */
export const size: Effect.Effect<PtySize> = Effect.sync(() => ({
  rows: clamp(process.stdout.rows, 24),
  cols: clamp(process.stdout.columns, 80)
}))

/** The size after each change of it (SIGWINCH). Only the latest counts when the reader is slow. */
export const resizes: Stream.Stream<PtySize> = Stream.callback<void>(
  (queue) => {
    const changed = () => Queue.offerUnsafe(queue, undefined)
    return Effect.acquireRelease(
      Effect.sync(() => process.stdout.on("resize", changed)),
      () => Effect.sync(() => process.stdout.off("resize", changed))
    )
  },
  { bufferSize: 1, strategy: "sliding" }
).pipe(Stream.mapEffect(() => size))

/** Fails for a terminal that is gone, and then there is nothing to set. */
const setRaw = (on: boolean) =>
  Effect.ignore(
    Effect.try(() => {
      if (process.stdin.isTTY) process.stdin.setRawMode(on)
    })
  )

/**
 * Raw mode until the scope closes; nothing where standard input is no terminal.
 *
 * Node's raw mode leaves the output side on: a newline from a full-screen
 * program would move the cursor to the first column, so stty turns that off too.
 * Node itself restores the terminal when the process ends in any other way.
 */
export const raw: Effect.Effect<void, never, Scope.Scope> = Effect.asVoid(
  Effect.acquireRelease(
    Effect.andThen(
      setRaw(true),
      Effect.sync(
        () =>
          process.stdin.isTTY &&
          spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"], timeout: 1000 })
      )
    ),
    () => setRaw(false)
  )
)

/** What a program needs to know of the terminal, from this process's environment. */
export const environment = (): Record<string, string> => {
  const { TERM = "xterm", COLORTERM } = process.env
  return COLORTERM === undefined ? { TERM } : { TERM, COLORTERM }
}
