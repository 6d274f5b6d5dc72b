import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import {
  CreateRequest,
  defaultLimits,
  Env,
  ImageRef,
  RestartPolicy,
  resolveSpec,
  restartDelay,
  SandboxSpec
} from "../../src/domain/Sandbox.ts"

const policy = Arbitrary.schema(RestartPolicy)
const restart = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 })))

describe("restartDelay", () => {
  it.prop(
    "is positive, never above the maximum, never shorter than the one before",
    { policy, restart },
    (input) => {
      const delay = restartDelay(input.policy, input.restart)
      if (delay === undefined || input.policy._tag === "Never") return
      assert.isAbove(delay, 0)
      assert.isAtMost(delay, input.policy.maxMillis)
      assert.isAtLeast(restartDelay(input.policy, input.restart + 1) ?? Number.POSITIVE_INFINITY, delay)
    }
  )

  it.prop("never ends under `Always` and never begins under `Never`", { policy, restart }, (input) => {
    const delay = restartDelay(input.policy, input.restart)
    if (input.policy._tag === "Always") assert.isDefined(delay)
    if (input.policy._tag === "Never") assert.isUndefined(delay)
  })

  it.prop("ends after `maxRestarts` under `OnFailure`", { policy, restart }, (input) => {
    if (input.policy._tag !== "OnFailure") return
    const allowed = input.restart <= input.policy.maxRestarts
    assert.strictEqual(restartDelay(input.policy, input.restart) !== undefined, allowed)
  })

  it.prop("is the same for both kinds of policy while restarts are left", { policy, restart }, (input) => {
    if (input.policy._tag === "Never") return
    const { initialMillis, factor, maxMillis } = input.policy
    const backoff = { initialMillis, factor, maxMillis }
    assert.strictEqual(
      restartDelay({ _tag: "Always", ...backoff }, input.restart),
      restartDelay({ _tag: "OnFailure", maxRestarts: input.restart, ...backoff }, input.restart)
    )
  })

  it("grows by the factor from the initial wait", () => {
    const always = RestartPolicy.make({ _tag: "Always", initialMillis: 100, factor: 2, maxMillis: 1000 })
    const delays = [1, 2, 3, 4, 5, 6].map((n) => restartDelay(always, n))
    assert.deepStrictEqual(delays, [100, 200, 400, 800, 1000, 1000])
  })
})

describe("resolveSpec", () => {
  it.effect.prop(
    "makes a valid specification of every valid request, keeping all that was asked",
    { request: CreateRequest },
    ({ request }) =>
      Effect.gen(function* () {
        const spec = yield* Schema.decodeUnknownEffect(SandboxSpec)(resolveSpec(request))
        const inodes = Math.max(1, Math.min(defaultLimits.inodes, Math.floor(spec.limits.diskBytes / 8192)))
        const asked = withoutUndefined(request.limits ?? {})
        assert.deepStrictEqual(spec.limits, { ...defaultLimits, inodes, ...asked })
        assert.strictEqual(spec.image, request.image ?? "host")
        assert.deepStrictEqual(spec.network, request.network ?? "none")
        assert.deepStrictEqual(spec.env, request.env ?? {})
        assert.deepStrictEqual(spec.labels, request.labels ?? {})
        assert.deepStrictEqual(spec.ports, request.ports ?? [])
        assert.deepStrictEqual(spec.ttl, request.ttl)
        assert.deepStrictEqual(spec.idle, request.idle)
      })
  )
})

describe("schemas", () => {
  it("know an image reference when they see one", () => {
    for (const good of ["host", "dir:/srv/root", "debian:12", "ghcr.io/a/b@sha256:00"]) {
      assert.isTrue(Schema.is(ImageRef)(good), good)
    }
    for (const bad of ["", "-x", "/abs", "a b", "a\n", "ü", `a${"b".repeat(255)}`]) {
      assert.isFalse(Schema.is(ImageRef)(bad), JSON.stringify(bad))
    }
  })

  it("take no environment that execve could not", () => {
    const isEnv = Schema.is(Env)
    assert.isTrue(isEnv({ A: "", "with space": "a=b\nc" }))
    for (const bad of [{ "": "x" }, { "A=B": "x" }, { "A\0": "x" }, { A: "x\0" }]) {
      assert.isFalse(isEnv(bad), JSON.stringify(bad))
    }
  })

  it("take no limit that is 0, negative, broken or endless", () => {
    const accepts = (limits: unknown) => Schema.is(CreateRequest)({ limits })
    for (const name of ["memoryBytes", "cpus", "pids", "diskBytes", "inodes"]) {
      assert.isTrue(accepts({ [name]: 1 }), name)
      for (const bad of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
        assert.isFalse(accepts({ [name]: bad }), `${name} ${bad}`)
      }
      assert.strictEqual(accepts({ [name]: 0.5 }), name === "cpus", `${name} 0.5`)
    }
  })
})

const withoutUndefined = (record: object) =>
  Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined))
