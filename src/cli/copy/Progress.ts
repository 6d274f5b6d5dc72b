/**
 * How far a copy has come, on one line of a terminal.
 */
import { Clock, Effect, type Scope } from "effect"
import { write } from "../Stdio.ts"
import { duration, size } from "../Text.ts"
import type { Listener } from "./Tree.ts"

const barCells = 24

/** The line for so many bytes of so many after so long. */
export const progressLine = (copied: number, total: number | undefined, millis: number): string => {
  const rate = millis === 0 ? 0 : (copied * 1000) / millis
  const speed = `${size(Math.round(rate))}/s`
  if (total === undefined || total === 0) return `${size(copied)}   ${speed}`
  const share = Math.min(1, copied / total)
  const full = Math.round(share * barCells)
  const bar = `${"█".repeat(full)}${"░".repeat(barCells - full)}`
  const left = rate === 0 || share === 1 ? "" : `   ${duration(((total - copied) / rate) * 1000)} left`
  return `${String(Math.floor(share * 100)).padStart(3)}% ${bar} ${size(copied)} of ${size(total)}   ${speed}${left}`
}

/** Somebody to be told of a copy, who shows it while the scope lives where `shown`, beginning after a moment. */
export const progress = (shown: boolean): Effect.Effect<Listener, never, Scope.Scope> =>
  Effect.gen(function* () {
    let copied = 0
    let total: number | undefined
    let isOnScreen = false
    const begun = yield* Clock.currentTimeMillis
    const show = Effect.gen(function* () {
      const line = progressLine(copied, total, (yield* Clock.currentTimeMillis) - begun)
      isOnScreen = true
      const room = Math.max(20, (process.stderr.columns ?? 80) - 1)
      yield* write("stderr", `\r${line.slice(0, room)}\u001b[K`)
    })
    if (shown) {
      yield* Effect.addFinalizer(() =>
        isOnScreen ? Effect.ignore(write("stderr", "\r\u001b[K")) : Effect.void
      )
      yield* Effect.forkScoped(
        Effect.ignore(
          Effect.andThen(
            Effect.sleep("200 millis"),
            Effect.forever(Effect.andThen(show, Effect.sleep("100 millis")))
          )
        )
      )
    }
    return {
      total: (bytes) => {
        total = bytes
      },
      copied: (bytes) => {
        copied += bytes
      }
    }
  })
