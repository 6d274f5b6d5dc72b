import { assert, describe, it } from "@effect/vitest"
import { Cause, Schema } from "effect"
import { describe as describeCause, printable, toLine, usage } from "../../src/cli/Failure.ts"
import {
  BackendFailed,
  InvalidArgument,
  NotFound,
  SandboxError,
  SpawnFailed,
  Timeout,
  Unsupported
} from "../../src/domain/Errors.ts"

const failureOf = (error: unknown) => describeCause(Cause.fail(error))

describe("what is told of an error", () => {
  const exitCodes: ReadonlyArray<readonly [SandboxError, number]> = [
    [new SpawnFailed({ reason: "not-found", program: "x", detail: "" }), 127],
    [new SpawnFailed({ reason: "permission", program: "x", detail: "" }), 126],
    [new SpawnFailed({ reason: "not-executable", program: "x", detail: "" }), 126],
    [new SpawnFailed({ reason: "bad-cwd", program: "x", detail: "" }), 126],
    [new Timeout({ limit: "command", millis: 10, outcome: "unknown" }), 124],
    [new Timeout({ limit: "provision", millis: 10, outcome: "not-started" }), 125],
    [new NotFound({ kind: "image", id: "x" }), 125],
    [new Unsupported({ backend: "container", capability: "network-full", reason: "x" }), 125]
  ]
  for (const [error, exitCode] of exitCodes) {
    it(`exits with ${exitCode} for ${error._tag} ${"reason" in error ? error.reason : ""}`, () => {
      assert.strictEqual(failureOf(error).exitCode, exitCode)
    })
  }

  it("names the option that a bad value came from", () => {
    const error = new InvalidArgument({ field: "limits.memoryBytes", reason: "too much" })
    assert.strictEqual(failureOf(error).message, "--memory: too much")
    const env = new InvalidArgument({ field: "env.A", reason: "no NUL" })
    assert.strictEqual(failureOf(env).message, "--env.A: no NUL")
  })

  it("holds the error's own members, and its answers", () => {
    const error = new BackendFailed({
      backend: "container",
      operation: "start",
      reason: "no",
      outcome: "unknown"
    })
    const { details, ...told } = failureOf(error)
    assert.deepStrictEqual(details, {
      backend: "container",
      operation: "start",
      reason: "no",
      outcome: "unknown"
    })
    assert.deepInclude(told, {
      event: "error",
      error: "BackendFailed",
      isRetryable: false,
      outcome: "unknown"
    })
  })

  it("says of what nobody foresaw that it is a fault of ours", () => {
    const failure = describeCause(Cause.die(new Error("boom")))
    assert.deepInclude(failure, { error: "Internal", message: "internal error: boom", exitCode: 125 })
  })

  it.prop("is one line of text for every error there is", [SandboxError], ([error]) => {
    const line = toLine(failureOf(error))
    assert.match(line, /^fiberbox: [^\p{Cc}]*\n$/u)
    assert.deepStrictEqual(JSON.parse(JSON.stringify(failureOf(error))).error, error._tag)
  })
})

describe("text from a sandbox", () => {
  it("cannot steer the terminal, begin a line, or reverse the text", () => {
    assert.strictEqual(
      printable("a\u001b[2Jb\rc\nfiberbox: d\u009b1me\u202ef"),
      "a\\u001b[2Jb\\u000dc fiberbox: d\\u009b1me\\u202ef"
    )
  })

  it.prop("is otherwise left alone", [Schema.String], ([text]) => {
    const harmless = text.replace(/[^\p{L}\p{N} ]/gu, "").trimEnd()
    assert.strictEqual(printable(harmless), harmless)
  })

  it("is told with what to do about it", () => {
    assert.strictEqual(toLine(usage("no", "do this")), "fiberbox: no (do this)\n")
  })
})
