/**
 * A service of containers as a program of its own, so that its memory is nobody else's.
 */
import { Console, Effect, Layer } from "effect"
import { Container } from "../../src/container.ts"
import { InProcess } from "../../src/rpc.ts"
import { Server } from "../../src/server.ts"
import { onlyAlice, serving } from "./support.ts"

const [baseDir = ""] = process.argv.slice(2)

const service = InProcess.client.pipe(
  Layer.provide(InProcess.actors({ onClose: "kill" })),
  Layer.provide(Container.parts({ baseDir }))
)
const announced = Layer.effectDiscard(
  Effect.flatMap(Server.ServerAddress, ({ url }) => Console.log(url))
).pipe(Layer.provide(serving()), Layer.provide(Layer.merge(service, onlyAlice)))

const ended = Effect.callback<void>((resume) => {
  process.once("SIGTERM", () => resume(Effect.void))
})
await Effect.runPromise(Effect.scoped(Effect.andThen(Layer.build(announced), ended)))
