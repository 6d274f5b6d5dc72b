/**
 * The place of an actor's one machine: filled, watched, emptied.
 */
import { Clock, Effect, Exit, Scope } from "effect"
import { monotonicMillis } from "../Alarms.ts"
import type { Machine, MachineExit } from "../Machine.ts"

/** The machine a sandbox has at the moment, if any. */
export interface MachineSlot {
  readonly machine: () => Machine | undefined
  /** How long it has been there, in milliseconds; 0 without one. */
  readonly heldMillis: () => number
  /** Gets a machine and keeps it; when getting it fails or is interrupted, nothing is kept. */
  readonly fill: <E, R>(
    machine: Effect.Effect<Machine, E, R>
  ) => Effect.Effect<void, E, Exclude<R, Scope.Scope>>
  /** Closes the way to the machine, which is of no use any more: calls under way fail for this reason. */
  readonly giveUp: (reason: string) => Effect.Effect<void>
  /** Why this machine was given up, if it was. */
  readonly whyGivenUp: (machine: Machine) => string | undefined
  /** Forgets the machine while `use` runs and closes the service's end of it after that. */
  readonly empty: <A, E, R>(use: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

interface Held {
  readonly machine: Machine
  readonly since: number
  readonly scope: Scope.Closeable
}

/**
 * An empty slot in the present scope, whose closing leaves the machine
 * running. `onDeath` is called when the machine that is in the slot ends.
 */
export const makeMachineSlot = Effect.fnUntraced(function* (
  onDeath: (machine: Machine, exit: MachineExit) => Effect.Effect<void>
) {
  const actor = yield* Effect.scope
  const clock = yield* Clock.Clock
  let held: Held | undefined
  let givenUp: { readonly machine: Machine; readonly reason: string } | undefined

  const watch = (mine: Held) =>
    Effect.flatMap(mine.machine.exited, (exit) =>
      Effect.suspend(() => (held === mine ? onDeath(mine.machine, exit) : Effect.void))
    )

  const slot: MachineSlot = {
    machine: () => held?.machine,
    heldMillis: () => (held === undefined ? 0 : monotonicMillis(clock) - held.since),
    fill: (from) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const scope = yield* Scope.fork(actor)
          const machine = yield* restore(Scope.provide(from, scope)).pipe(
            Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
          )
          held = { machine, scope, since: monotonicMillis(clock) }
          yield* Effect.forkIn(watch(held), actor)
        })
      ),
    giveUp: (reason) =>
      Effect.suspend(() => {
        if (held === undefined) return Effect.void
        givenUp = { machine: held.machine, reason }
        return Scope.close(held.scope, Exit.void)
      }),
    whyGivenUp: (machine) => (givenUp?.machine === machine ? givenUp.reason : undefined),
    empty: (use) =>
      Effect.suspend(() => {
        const last = held
        held = undefined
        return last === undefined ? use : Effect.ensuring(use, Scope.close(last.scope, Exit.void))
      })
  }
  return slot
})
