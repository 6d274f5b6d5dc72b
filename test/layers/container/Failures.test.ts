import { assert, describe, it } from "@effect/vitest"
import { fromHelper, runtimeMessage } from "../../../src/layers/container/Failures.ts"

describe("the host helper's last line", () => {
  it.each([
    ["unsupported\tidmapped-mount\tInvalid argument\n", "Unsupported", { capability: "idmapped-mount" }],
    ["noise\nexhausted\tdisk\tNo space left on device\n", "ResourceExhausted", { resource: "disk" }],
    ["invalid\tids\tnot a number\n", "InvalidArgument", { field: "ids" }],
    ["failed\t/x\tNo such file\n", "BackendFailed", { reason: "/x: No such file", outcome: "not-started" }]
  ] as const)("becomes a typed error: %j", (stderr, tag, fields) => {
    const error = fromHelper(stderr)
    assert.strictEqual(error?._tag, tag)
    assert.deepInclude(error, fields)
  })

  it("is no error of ours when it is something else", () => {
    for (const text of ["", "Segmentation fault", "a\tb", "other\ta\tb"]) assert.isUndefined(fromHelper(text))
  })
})

describe("the runtime's log", () => {
  it("gives the last error's message, unescaped", () => {
    const log = [
      '{"level":"warning","msg":"signal: killed","time":"t"}',
      '{"level":"error","msg":"runc run failed: exec \\"/x\\": no such file","time":"t"}',
      ""
    ].join("\n")
    assert.strictEqual(runtimeMessage(log), 'runc run failed: exec "/x": no such file')
    assert.isUndefined(runtimeMessage(""))
  })
})
