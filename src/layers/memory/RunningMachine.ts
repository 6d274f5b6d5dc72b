/**
 * A running in-memory machine, as the world keeps it: it lives on when the
 * service that made it is gone, and another one may take it over.
 */
import { Deferred, Duration, Effect } from "effect"
import { Connection, SandboxFailed } from "../../domain/Errors.ts"
import type { Generation, SandboxId } from "../../domain/Ids.ts"
import type { MachineExit } from "../../services/Machine.ts"
import type { Kernel } from "./Kernel.ts"
import { Uploads } from "./Uploads.ts"

/** How a connection to a machine ends while something waits on it. */
export type Cut = Connection | SandboxFailed

export class RunningMachine {
  readonly sandboxId: SandboxId
  readonly kernel: Kernel
  readonly uploads: Uploads
  readonly memoryLimitBytes: number
  private readonly leaseMillis: number | undefined
  /** Services that hold it. */
  private holders = 0
  exit: MachineExit | undefined = undefined
  private readonly exitSignal = Deferred.makeUnsafe<MachineExit>()
  private readonly waiting = new Set<(cut: Cut) => void>()

  /** `leaseMillis` is how long it lives on without a service; undefined is for ever. */
  constructor(sandboxId: SandboxId, kernel: Kernel, leaseMillis: number | undefined) {
    this.sandboxId = sandboxId
    this.kernel = kernel
    kernel.isHeld = () => this.holders > 0
    this.leaseMillis = leaseMillis
    this.memoryLimitBytes = kernel.limits.memoryBytes
    this.uploads = new Uploads(kernel.tree)
  }

  get generation(): Generation {
    return this.kernel.generation
  }

  get exited(): Effect.Effect<MachineExit> {
    return Deferred.await(this.exitSignal)
  }

  /** A service takes it. */
  hold(): void {
    this.holders++
  }

  /** A service lets go of it; without any, its lease begins to run. */
  release(): void {
    this.holders = Math.max(0, this.holders - 1)
    if (this.holders === 0) this.beginLease()
  }

  /** All services are gone at once. */
  abandon(): void {
    this.disconnect("the service was killed")
    this.holders = 0
    this.beginLease()
  }

  private beginLease(): void {
    this.kernel.abandoned()
    if (this.leaseMillis === undefined || this.exit !== undefined) return
    this.kernel.fork(
      Effect.map(this.kernel.clock.sleep(Duration.millis(this.leaseMillis)), () => {
        if (this.holders === 0) this.end({ reason: "its service is gone", outOfMemory: false })
      })
    )
  }

  /** The error of operations on a machine that has ended. */
  gone(outcome: SandboxFailed["outcome"]): SandboxFailed {
    const reason = this.exit?.reason ?? "the machine has ended"
    return new SandboxFailed({ sandboxId: this.sandboxId, reason, outcome })
  }

  /** Ends the machine; its disk stays. */
  end(exit: MachineExit): void {
    if (this.exit !== undefined) return
    this.exit = exit
    // First the connections, so that no reader takes the death of the machine for the end of its program.
    this.cutAll(this.gone("unknown"))
    this.kernel.shutdown()
    this.uploads.clear()
    Deferred.doneUnsafe(this.exitSignal, Effect.succeed(exit))
  }

  /** Drops all connections. */
  disconnect(reason: string): void {
    this.cutAll(new Connection({ reason, outcome: "unknown" }))
  }

  private cutAll(cut: Cut): void {
    const waiting = [...this.waiting]
    this.waiting.clear()
    for (const tell of waiting) tell(cut)
  }

  /** Is told once when the connection is cut; returns what takes that back. */
  onCut(tell: (cut: Cut) => void): () => void {
    this.waiting.add(tell)
    return () => this.waiting.delete(tell)
  }

  /** Fails when the connection is cut, and never succeeds. */
  readonly cut: Effect.Effect<never, Cut> = Effect.callback((resume) => {
    if (this.exit !== undefined) return resume(Effect.fail(this.gone("unknown")))
    const forget = this.onCut((cut) => resume(Effect.fail(cut)))
    return Effect.sync(forget)
  })
}
