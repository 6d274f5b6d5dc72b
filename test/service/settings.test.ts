import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Redacted } from "effect"
import { offersHostImage, settings } from "../../src/service/Settings.ts"

const read = (env: Record<string, string>) => settings.parse(ConfigProvider.fromEnv({ env }))

const set = (value: object) =>
  Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined))

describe("the settings of a service", () => {
  it.effect("are all optional", () =>
    Effect.gen(function* () {
      const { perOwner, total, ...others } = yield* read({})
      assert.deepStrictEqual([set(others), set(perOwner ?? {}), set(total ?? {})], [{}, {}, {}])
    })
  )

  it.effect("come from the environment, in the notations of the command line", () =>
    Effect.gen(function* () {
      const read1 = yield* read({
        FIBERBOX_HOST: "0.0.0.0",
        FIBERBOX_PORT: "0",
        FIBERBOX_ALLOWED_HOSTS: "box.example.org, 10.0.0.7",
        FIBERBOX_BACKEND: "memory",
        FIBERBOX_ON_CLOSE: "leave",
        FIBERBOX_DRAIN: "1m30s",
        FIBERBOX_HOST_IMAGE: "true",
        FIBERBOX_IMAGE_ROOTS: "/srv/images:/opt/more",
        FIBERBOX_OWNER_MAX_SANDBOXES: "10",
        FIBERBOX_OWNER_MAX_MEMORY: "4g",
        FIBERBOX_MAX_CPUS: "7.5",
        FIBERBOX_LOG: "json",
        JWT_SECRET: "s".repeat(40),
        JWT_AUDIENCE: "boxes"
      })
      assert.deepInclude(read1, {
        host: "0.0.0.0",
        port: 0,
        allowedHosts: ["box.example.org", "10.0.0.7"],
        backend: "memory",
        onClose: "leave",
        drainMillis: 90_000,
        hostImage: true,
        imageRoots: ["/srv/images", "/opt/more"],
        log: "json"
      })
      assert.deepStrictEqual(set(read1.perOwner ?? {}), { sandboxes: 10, memoryBytes: 4 * 1024 ** 3 })
      assert.deepStrictEqual(set(read1.total ?? {}), { cpus: 7.5 })
      assert.strictEqual(read1.jwt?.audience, "boxes")
      assert.notInclude(String(read1.jwt?.secret), "sss")
      assert.strictEqual(read1.jwt && Redacted.value(read1.jwt.secret), "s".repeat(40))
    })
  )

  const wrong: ReadonlyArray<readonly [name: string, value: string]> = [
    ["FIBERBOX_PORT", "65536"],
    ["FIBERBOX_PORT", "http"],
    ["FIBERBOX_BACKEND", "cloud"],
    ["FIBERBOX_DRAIN", "soon"],
    ["FIBERBOX_MAX_MEMORY", "much"],
    ["FIBERBOX_LOG", "loud"],
    ["FIBERBOX_HOST_IMAGE", "perhaps"]
  ]
  for (const [name, value] of wrong) {
    it.effect(`refuse ${name}=${value}, and name it`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(read({ [name]: value }))
        assert.include(error.message, name)
      })
    )
  }

  it("offer the machine's own programs by themselves only where nobody else is served", () => {
    const jwt = { secret: Redacted.make("s".repeat(32)) }
    assert.deepStrictEqual(
      [
        {},
        { host: "::1" },
        { host: "0.0.0.0" },
        { jwt },
        { host: "0.0.0.0", hostImage: true },
        { hostImage: false }
      ].map(offersHostImage),
      [true, true, false, false, true, false]
    )
  })
})
