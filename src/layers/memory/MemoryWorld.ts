/**
 * Where in-memory machines live: outside of any service, so that a test can end
 * a service, cleanly or not, and let another one find what was left.
 */
import { Context, Effect, Layer } from "effect"
import type { SandboxId } from "../../domain/Ids.ts"
import type { FileTree } from "./FileTree.ts"
import type { RunningMachine } from "./RunningMachine.ts"

/** What is kept of a sandbox: its disk, and its machine while one runs. */
export interface SandboxHome {
  readonly disk: FileTree
  running: RunningMachine | undefined
}

/**
 * The world's state. Only the backend's own parts look into it.
 */
export class WorldState {
  readonly homes = new Map<SandboxId, SandboxHome>()
  /** Rises with every crash; services of an earlier epoch are dead. */
  epoch = 0

  running(sandboxId: SandboxId): RunningMachine | undefined {
    const machine = this.homes.get(sandboxId)?.running
    return machine?.exit === undefined ? machine : undefined
  }
}

/** The world. */
export class MemoryWorld extends Context.Service<
  MemoryWorld,
  {
    readonly state: WorldState
    /**
     * What `kill -9` of the service does: from now on nothing that was built on this world reaches it
     * any more: its calls fail, its finalizers change nothing. Machines live on, and a
     * service built afterwards finds them.
     */
    readonly crash: Effect.Effect<void>
  }
>()("fiberbox/layers/memory/MemoryWorld") {
  /** A new, empty world. When its scope closes, every machine in it ends. */
  static readonly layer: Layer.Layer<MemoryWorld> = Layer.effect(
    MemoryWorld,
    Effect.acquireRelease(
      Effect.sync(() => {
        const state = new WorldState()
        return MemoryWorld.of({
          state,
          crash: Effect.sync(() => {
            state.epoch++
            for (const { running } of state.homes.values()) running?.abandon()
          })
        })
      }),
      ({ state }) =>
        Effect.sync(() => {
          for (const { running } of state.homes.values()) {
            running?.end({ reason: "the world ended", outOfMemory: false })
          }
        })
    )
  )
}
