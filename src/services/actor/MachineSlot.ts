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
    empty: (use) =>
      Effect.suspend(() => {
        const last = held
        held = undefined
        return last === undefined ? use : Effect.ensuring(use, Scope.close(last.scope, Exit.void))
      })
  }
  return slot
})
