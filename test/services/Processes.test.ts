import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { BackendFailed, Connection } from "../../src/domain/Errors.ts"
import { ProcessId, ReaderId, SandboxId, UploadId } from "../../src/domain/Ids.ts"
import type { ProcessSpec } from "../../src/domain/Process.ts"
import type { StartError } from "../../src/rpc/SandboxRpcs.ts"
import { makeSandbox } from "../../src/services/Sandbox.ts"
import { absent } from "./absent.ts"

const sandboxId = SandboxId.make("sb_local_aaaaaaaaaaaaaaaaaaaaaaaaaa")
const processId = ProcessId.make("p")
const ids = {
  process: () => processId,
  reader: () => ReaderId.make("r"),
  upload: () => UploadId.make("u")
}

/** The starts that are taken back when a run of `sleep 5` ends so. */
const takenBack = Effect.fnUntraced(function* (
  run: Effect.Effect<never, StartError>
): Effect.fn.Return<ReadonlyArray<Pick<ProcessSpec, "processId" | "argv">>> {
  const starts: Array<ProcessSpec> = []
  const sandbox = makeSandbox(
    {
      ...absent,
      ExecProcess: () => run,
      StartProcess: () => run,
      CancelProcess: (payload) => Effect.sync(() => void starts.push(payload.process))
    },
    sandboxId,
    ids,
    undefined
  )
  for (const call of [sandbox.process.run(["sleep", "5"]), sandbox.process.start(["sleep", "5"])]) {
    const fiber = yield* Effect.forkChild(call, { startImmediately: true })
    yield* Fiber.interrupt(fiber)
  }
  return starts.map(({ processId, argv }) => ({ processId, argv }))
})

describe("a program whose call does not come to its end", () => {
  const lost = new Connection({ reason: "lost", outcome: "unknown" })
  const refused = new BackendFailed({ backend: "b", operation: "o", reason: "no", outcome: "not-started" })
  const start: Pick<ProcessSpec, "processId" | "argv"> = { processId, argv: ["sleep", "5"] }

  it.effect("has its start taken back when the call is interrupted, or may have happened", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* takenBack(Effect.never), [start, start])
      assert.deepStrictEqual(yield* takenBack(Effect.fail(lost)), [start, start])
      assert.deepStrictEqual(yield* takenBack(Effect.die(new Error("a defect"))), [start, start])
    })
  )

  it.effect("is left alone when it is known that nothing was started", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* takenBack(Effect.fail(refused)), [])
    })
  )
})
