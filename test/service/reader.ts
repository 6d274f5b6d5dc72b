/**
 * A program that reads the endless output of one in a sandbox, for tests to
 * stop. Says `reading` when the first bytes have come.
 */
import { Console, Effect, Stream } from "effect"
import { SandboxesClient } from "../../src/client.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"

const [url = "", token = ""] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const sandbox = yield* Sandboxes.createDetached()
  const output = sandbox.process.stream(["yes"], { timeoutMillis: "none" })
  let said = false
  yield* Stream.runForEach(output, () => {
    if (said) return Effect.void
    said = true
    return Console.log("reading")
  })
}).pipe(Effect.provide(SandboxesClient.layer({ url, token })))

await Effect.runPromise(program)
