/**
 * Uploads that are given up: nothing of them comes later.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { UploadId } from "../../src/domain/Ids.ts"
import { SandboxClient } from "../../src/services/SandboxClient.ts"
import { memory } from "./support.ts"

describe("an upload", () => {
  it.live("that was aborted before its first piece arrives is not begun", () =>
    Effect.gen(function* () {
      const client = Context.get(yield* Layer.build(memory), SandboxClient)
      const { id: sandboxId } = yield* client.CreateSandbox({ request: {}, detached: true })
      const uploadId = UploadId.make("an-upload-of-a-test")
      const piece = { sandboxId, uploadId, path: "/home/user/file", offset: 0, data: new Uint8Array(10) }
      yield* client.AbortUpload({ sandboxId, uploadId })
      const error = yield* Effect.flip(client.WriteUpload(piece))
      assert.containSubset(error, { _tag: "Conflict", kind: "upload", outcome: "not-started" })
      const commit = client.CommitUpload({ sandboxId, uploadId, size: 10 })
      assert.strictEqual((yield* Effect.flip(commit))._tag, "NotFound")
      assert.strictEqual(
        yield* client.WriteUpload({ ...piece, uploadId: UploadId.make("another-upload-of-it") }),
        10
      )
    }).pipe(Effect.scoped)
  )
})
