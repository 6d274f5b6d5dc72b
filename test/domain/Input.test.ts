import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { AttachOptions, ProcessSpec, PtySize, SandboxPath } from "../../src/domain/Process.ts"
import { CreateRequest, UpdateRequest } from "../../src/domain/Sandbox.ts"
import { decodeInput } from "../../src/services/Input.ts"

const create = decodeInput(CreateRequest, "")
const process = decodeInput(ProcessSpec, "process")

/** What was wrong with an input that must be refused. */
const refusal = <T, E>(effect: Effect.Effect<T, E>) => Effect.flip(effect)

describe("bad input", () => {
  const cases: ReadonlyArray<readonly [what: string, input: unknown, field: string, reason: RegExp]> = [
    ["no memory", { limits: { memoryBytes: 0 } }, "limits.memoryBytes", /greater than 0/],
    ["half a process", { limits: { pids: 1.5 } }, "limits.pids", /int/i],
    ["a malformed name", { name: "No!" }, "name", /a-z 0-9/],
    ["a port that is none", { ports: [80, 70_000] }, "ports.1", /65535/],
    ["an environment name with =", { env: { "A=B": "c" } }, "env.A=B", /no =/],
    ["an action nobody knows", { ttl: { afterMillis: 1, action: "explode" } }, "ttl.action", /kill/],
    ["text for a number", { limits: { cpus: "2" } }, "limits.cpus", /number/i],
    ["an empty start command", { startCommand: "" }, "startCommand", /length/]
  ]
  for (const [what, input, field, reason] of cases) {
    it.effect(`such as ${what} is an InvalidArgument that names the field`, () =>
      Effect.gen(function* () {
        const error = yield* refusal(create(input))
        assert.strictEqual(error._tag, "InvalidArgument")
        assert.strictEqual(error.field, field)
        assert.match(error.reason, reason)
        assert.strictEqual(error.outcome, "not-started")
      })
    )
  }

  it.effect("names the argument it was part of", () =>
    Effect.gen(function* () {
      const bad = yield* refusal(process({ processId: "p", argv: ["a", "b\0"] }))
      assert.strictEqual(bad.field, "process.argv.1")
      const size = yield* refusal(decodeInput(PtySize, "size")({ rows: 0, cols: 80 }))
      assert.strictEqual(size.field, "size.rows")
      const attach = yield* refusal(decodeInput(AttachOptions, "attach")({ cursor: -1 }))
      assert.strictEqual(attach.field, "attach.cursor")
      const path = yield* refusal(decodeInput(SandboxPath, "path")("relative"))
      assert.strictEqual(path.field, "path")
      const update = yield* refusal(decodeInput(UpdateRequest, "update")({ env: { "": "x" } }))
      assert.isTrue(update.field.startsWith("update.env"), update.field)
    })
  )

  it.effect("of a wholly other kind is refused too", () =>
    Effect.gen(function* () {
      for (const input of [null, 1, "x", []]) {
        assert.strictEqual((yield* refusal(create(input)))._tag, "InvalidArgument")
      }
    })
  )
})

describe("good input", () => {
  it.effect("comes back as it is, without what the schema does not know", () =>
    Effect.gen(function* () {
      const request = { name: "a-b", limits: { cpus: 0.5 }, env: { A: "1" }, network: { allow: ["x.test"] } }
      assert.deepStrictEqual(yield* create({ ...request, stray: true }), yield* create(request))
      assert.strictEqual((yield* create(request)).name, "a-b")
    })
  )
})
