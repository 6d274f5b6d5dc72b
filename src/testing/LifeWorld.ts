/**
 * Where random programs of a sandbox's life happen: what they need of a backend
 * and its service besides `Sandboxes`, and what a world shows of itself.
 */
import type { Effect, Exit } from "effect"
import type { SandboxError } from "../domain/Errors.ts"
import type { SandboxId } from "../domain/Ids.ts"
import type { Sandboxes } from "../services/Sandboxes.ts"
import type { Fault } from "./LifeCommands.ts"

/** A call that somebody waits for. */
export interface Asked<A> {
  /** Lets it go on for so many of the world's small steps. */
  readonly some: (moment: number) => Effect.Effect<void>
  /**
   * Waits for its answer, no longer than so many milliseconds: undefined if there is none by then. A call whose
   * service was killed may be answered with a `Connection` of unknown outcome.
   */
  readonly answer: (millis: number) => Effect.Effect<Exit.Exit<A, SandboxError> | undefined>
  /** Interrupts it, as its caller may, and waits no longer than that until it has ended: by an answer, if there was one before. */
  readonly giveUp: (millis: number) => Effect.Effect<Exit.Exit<A, SandboxError> | undefined>
}

/** What is there of one sandbox, whatever its record says. */
export interface Found {
  readonly id: SandboxId
  /** The machine that runs; undefined when there is none and only a disk or remains are left. */
  readonly machine:
    | {
        readonly generation: number
        /** Whether its programs stand still. */
        readonly isPaused: boolean
        /** The command lines of all processes in it that are a program's, as they are in the world: not as an agent tells. */
        readonly programs: ReadonlyArray<string>
      }
    | undefined
}

/** Two clocks, in milliseconds. */
export interface Now {
  /** What has really passed since the world began. */
  readonly elapsed: number
  /** What the service takes for the time of day: since the epoch. */
  readonly wall: number
}

/** A service with a backend, made for one random program. */
export interface World {
  /** The unit of all limits, in milliseconds; the wait before a restart too. */
  readonly unitMillis: number
  /** The longest that any call may take, in milliseconds, whatever has gone wrong. */
  readonly callMillis: number
  /** The longest that anything may be out of order when nothing goes wrong any more, in milliseconds. */
  readonly orderMillis: number
  /** Begins to ask the service that runs at the moment. */
  readonly ask: <A>(
    call: (sandboxes: Sandboxes["Service"]) => Effect.Effect<A, SandboxError>
  ) => Effect.Effect<Asked<A>>
  /** Makes something go wrong; `id` is the sandbox that the fault is about, if one is known. What a world cannot do it leaves. */
  readonly strike: (fault: Fault, id: SandboxId | undefined) => Effect.Effect<void>
  /** Ends every fault that lasts. */
  readonly heal: Effect.Effect<void>
  /** Lets time pass. */
  readonly wait: (millis: number) => Effect.Effect<void>
  readonly now: Effect.Effect<Now>
  /** All that is there of any sandbox, found without asking the service. */
  readonly census: Effect.Effect<ReadonlyArray<Found>>
}
