import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { BackendFailed, Connection } from "../../src/domain/Errors.ts"
import { Generation, ProcessId, ReaderId, SandboxId, UploadId } from "../../src/domain/Ids.ts"
import type { ProcessInfo } from "../../src/domain/Process.ts"
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

const running = (argv: ReadonlyArray<string>): ProcessInfo => ({
  processId,
  generation: Generation.make(1),
  pid: 7,
  argv,
  user: "user",
  pty: false,
  startedAt: 1,
  oldest: 0,
  end: 0
})

/** The ids that are killed when a run of `sleep 5` fails, and what runs meanwhile. */
const killedBy = Effect.fnUntraced(function* (error: StartError, argv: ReadonlyArray<string>) {
  const killed: Array<string> = []
  const sandbox = makeSandbox(
    {
      ...absent,
      ExecProcess: () => Effect.fail(error),
      ListProcesses: () => Effect.succeed([running(argv)]),
      KillProcess: (payload) => Effect.sync(() => void killed.push(payload.processId))
    },
    sandboxId,
    ids,
    undefined
  )
  assert.strictEqual(yield* Effect.flip(sandbox.process.run(["sleep", "5"])), error)
  return killed
})

describe("a run that fails", () => {
  const lost = new Connection({ reason: "lost", outcome: "unknown" })
  const refused = new BackendFailed({ backend: "b", operation: "o", reason: "no", outcome: "not-started" })

  it.effect("ends its program when it may have begun, and no other of that id", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* killedBy(lost, ["sleep", "5"]), ["p"])
      assert.deepStrictEqual(yield* killedBy(lost, ["another"]), [])
    })
  )

  it.effect("looks for nothing when nothing has begun", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* killedBy(refused, ["sleep", "5"]), [])
    })
  )
})
