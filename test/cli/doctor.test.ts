import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { type Report, toText } from "../../src/cli/Doctor.ts"
import { canRunContainers, fiberbox } from "./support.ts"

const Check = Schema.Struct({
  name: Schema.String,
  status: Schema.Literals(["ok", "warning", "failed"]),
  detail: Schema.String,
  fix: Schema.optionalKey(Schema.String)
})
const ReportSchema = Schema.fromJsonString(
  Schema.Struct({
    ok: Schema.Boolean,
    defaultBackend: Schema.String,
    version: Schema.String,
    system: Schema.Array(Check),
    backends: Schema.Array(
      Schema.Struct({ backend: Schema.String, works: Schema.Boolean, checks: Schema.Array(Check) })
    )
  })
)

describe("fiberbox doctor", () => {
  it.live("tells as JSON which backends work, and exits by whether the default one does", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* fiberbox(["doctor", "--json"])
      assert.strictEqual(err, "")
      const report = yield* Schema.decodeUnknownEffect(ReportSchema)(out)
      const works = new Map(report.backends.map(({ backend, works }) => [backend, works]))
      assert.isTrue(works.get("memory"))
      assert.strictEqual(works.get(report.defaultBackend), report.ok)
      assert.strictEqual(code, report.ok ? 0 : 1)
      assert.include(report.system.map((check) => check.name).join(), "node")
    })
  )

  it.live.runIf(canRunContainers)("proves with a sandbox that containers work here", () =>
    Effect.gen(function* () {
      const { code, out } = yield* fiberbox(["doctor"])
      assert.match(out, /container \(default\): works/)
      assert.match(out, /✓ a sandbox +ran a program; isolation: container/)
      assert.strictEqual(code, 0)
    })
  )

  it.live.runIf(canRunContainers)("says what is missing, why, and the fix", () =>
    Effect.gen(function* () {
      const { code, out } = yield* fiberbox(["doctor"], { env: { PATH: "/nowhere" } })
      assert.match(out, /container \(default\): does not work/)
      assert.match(out, /✗ OCI runtime +runc cannot be run\n +Fix: .*install.*runc/)
      assert.match(out, /memory: works/)
      assert.strictEqual(code, 1)
    })
  )
})

describe("the doctor's report", () => {
  const report: Report = {
    ok: false,
    defaultBackend: "container",
    version: "1.2.3",
    system: [{ name: "node", status: "ok", detail: "v26" }],
    backends: [
      {
        backend: "container",
        works: false,
        checks: [{ name: "runtime", status: "failed", detail: "missing", fix: "install it" }]
      }
    ]
  }

  it("has each check on a line of its own and each fix below what it mends", () => {
    assert.deepStrictEqual(toText(report, false).split("\n"), [
      "fiberbox 1.2.3",
      "  ✓ node               v26",
      "",
      "container (default): does not work",
      "  ✗ runtime            missing",
      "                       Fix: install it"
    ])
  })

  it("has colours only where they are wanted", () => {
    assert.notInclude(toText(report, false), "\u001b")
    assert.include(toText(report, true), "\u001b[31m✗\u001b[0m")
  })
})
