/**
 * A service of containers that is a program for tests to kill, on a given port,
 * in a persistent instance below a given directory. Says `ready` once it serves.
 *
 * What it takes for the time of day may be another than the machine's: so many
 * milliseconds later, at first by its third argument. A line of its standard
 * input that holds such a number sets it, which is answered with `set`; the
 * line `end` ends it in order. It dies with the program that holds its standard input.
 */
import { createInterface } from "node:readline"
import { Clock, Context, Effect, Fiber, Layer } from "effect"
import * as Container from "../../src/container.ts"
import { InProcess } from "../../src/rpc.ts"
import { Server } from "../../src/server.ts"
import { Backend } from "../../src/services/Backend.ts"
import { SandboxStore } from "../../src/services/SandboxStore.ts"
import type { Flaws } from "../model/lifeFlaws.ts"
import { onlyAlice } from "../rpc/support.ts"

/** Serves as the arguments of this program say, with something wrong if that is asked for. */
export const host = (flaws: Flaws = {}): void => {
  const [base = "", port = "0", later = "0"] = process.argv.slice(2)

  let laterMillis = Number(later)
  const real = Context.get(Context.empty(), Clock.Clock)
  const millis = () => real.currentTimeMillisUnsafe() + laterMillis
  const nanos = () => real.currentTimeNanosUnsafe() + BigInt(laterMillis) * 1_000_000n
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: real.monotonicTimeNanos,
    sleep: (duration) => real.sleep(duration)
  }

  const flawed = Layer.mergeAll(
    Layer.effect(
      Backend,
      Effect.map(Backend, (backend) => flaws.backend?.(backend) ?? backend)
    ),
    Layer.effect(
      SandboxStore,
      Effect.map(SandboxStore, (store) => flaws.store?.(store) ?? store)
    )
  )
  const handlers = InProcess.client.pipe(
    Layer.provide(InProcess.actors({ onClose: "leave" })),
    Layer.provide(Layer.provideMerge(flawed, Container.parts({ baseDir: base, stateDir: `${base}/state` })))
  )
  const service = Server.layer({ port: Number(port), images: { host: true, roots: [] } }).pipe(
    Layer.provide(Layer.merge(handlers, onlyAlice))
  )
  const ready = Layer.effectDiscard(
    Effect.andThen(Server.ServerAddress, () => Effect.sync(() => process.stdout.write("ready\n")))
  )

  const running = Effect.runFork(
    Effect.provideService(Layer.launch(Layer.provide(ready, service)), Clock.Clock, clock)
  )
  const input = createInterface({ input: process.stdin })
  // Whoever started it is gone.
  process.stdin.once("end", () => process.exit())
  input.on("line", (line) => {
    if (line === "end") {
      // Closed from within one of its own events it would go on reading, and keep this program alive.
      process.stdin.destroy()
      Effect.runFork(Fiber.interrupt(running))
      return
    }
    laterMillis = Number(line)
    process.stdout.write("set\n")
  })
}
