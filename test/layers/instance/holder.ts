// Run by a test as a process of its own: is an ephemeral instance below a directory until it is killed.
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import * as DirectoryInstance from "../../../src/layers/instance/DirectoryInstance.ts"
import { Instance } from "../../../src/services/Instance.ts"

const [, , baseDir = "."] = process.argv

const program = Effect.gen(function* () {
  const instance = yield* Instance
  yield* (yield* FileSystem.FileSystem).writeFileString(`${instance.stateDir}/left`, "something")
  yield* Console.log(instance.id)
  yield* Effect.never
}).pipe(
  Effect.provide(DirectoryInstance.layer({ baseDir })),
  Effect.provide(Layer.merge(NodeServices.layer, SecureRandom.layerWebCrypto))
)

NodeRuntime.runMain(program)
