/**
 * A program for tests to kill: a service of containers on a given port, in a
 * persistent instance below a given directory. Says `ready` once it serves.
 */
import { Effect, Layer } from "effect"
import * as Container from "../../src/container.ts"
import { InProcess } from "../../src/rpc.ts"
import { Server } from "../../src/server.ts"
import { onlyAlice } from "../rpc/support.ts"

const [base = "", port = "0"] = process.argv.slice(2)

const handlers = InProcess.client.pipe(
  Layer.provide(InProcess.actors({ onClose: "leave" })),
  Layer.provide(Container.parts({ baseDir: base, stateDir: `${base}/state` }))
)
const service = Server.layer({ port: Number(port), images: { host: true, roots: [] } }).pipe(
  Layer.provide(Layer.merge(handlers, onlyAlice))
)
const ready = Layer.effectDiscard(
  Effect.andThen(Server.ServerAddress, () => Effect.sync(() => process.stdout.write("ready\n")))
)

Effect.runFork(Layer.launch(Layer.provide(ready, service)))
