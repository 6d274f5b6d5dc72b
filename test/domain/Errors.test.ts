import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Duration, Schema } from "effect"
import {
  Api,
  CommandExit,
  Outcome,
  ResourceExhausted,
  SandboxError,
  SpawnFailed,
  Timeout
} from "../../src/domain/Errors.ts"

const tagOf = (member: (typeof SandboxError.members)[number]) => member.fields._tag.schema.literal

describe("every error", () => {
  for (const member of SandboxError.members) {
    it.prop(`${tagOf(member)} says what, whether to retry, and whether it happened`, [member], ([error]) => {
      assert.strictEqual(error._tag, tagOf(member))
      assert.isBoolean(error.isRetryable)
      assert.isTrue(Schema.is(Outcome)(error.outcome), String(error.outcome))
      assert.isString(error.message)
      if (error._tag !== "Api") assert.isNotEmpty(error.message)
    })
  }

  it.prop(
    "that took effect is not offered for a blind retry",
    [Arbitrary.schema(SandboxError)],
    ([error]) => {
      // A remote's own status decides for Api; a wait may always be repeated.
      if (error._tag === "Api" || (error._tag === "Timeout" && error.limit === "wait")) return
      if (error.outcome === "completed") assert.isFalse(error.isRetryable)
    }
  )

  it("has a tag and an identifier of its own", () => {
    const tags = SandboxError.members.map(tagOf)
    assert.strictEqual(new Set(tags).size, tags.length)
    for (const member of SandboxError.members) {
      assert.strictEqual(member.identifier, `fiberbox/domain/Errors/${tagOf(member)}`)
    }
  })
})

describe("messages and answers", () => {
  it("of a command's exit hold the end of what it said", () => {
    const exit = new CommandExit({ exitCode: 2, stdout: "", stderr: `${"x".repeat(5000)}\nbad flag\n` })
    assert.match(exit.message, /exited with code 2: x+\nbad flag$/)
    assert.isBelow(exit.message.length, 2100)
    const killed = new CommandExit({ exitCode: 137, signal: "SIGKILL", stdout: "", stderr: "" })
    assert.strictEqual(killed.message, "the command was ended by SIGKILL")
  })

  it("of a timeout name the limit", () => {
    const timeout = new Timeout({ limit: "command", millis: 50, outcome: "unknown" })
    assert.strictEqual(timeout.message, "the command limit of 50 ms has passed")
    assert.isFalse(timeout.isRetryable)
    assert.isTrue(new Timeout({ limit: "wait", millis: 50, outcome: "unknown" }).isRetryable)
  })

  it("of a remote's answer follow its status", () => {
    const api = (status: number) => new Api({ status, message: "m", body: "", outcome: "unknown" })
    assert.deepStrictEqual(
      [400, 404, 429, 500, 503].map((status) => api(status).isRetryable),
      [false, false, true, true, true]
    )
  })

  it("of a failed start are retryable only when resources were short", () => {
    const failed = (reason: SpawnFailed["reason"]) => new SpawnFailed({ reason, program: "p", detail: "" })
    assert.isTrue(failed("resources").isRetryable)
    assert.isFalse(failed("not-found").isRetryable)
    assert.strictEqual(failed("not-found").message, "cannot start p: not-found")
  })

  it("of an exhausted resource say when to come back, where that is known", () => {
    const waiting = new ResourceExhausted({ resource: "disk", reason: "full", retryAfterMillis: 1500 })
    assert.deepStrictEqual(waiting.retryAfter, Duration.millis(1500))
    assert.isUndefined(new ResourceExhausted({ resource: "disk", reason: "full" }).retryAfter)
  })
})
