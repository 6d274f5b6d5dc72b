import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Option } from "effect"
import { copiedNames } from "../../../src/layers/container/EtcFiles.ts"
import { hostBase, pointsBase } from "../../../src/layers/container/HostImage.ts"

const root = process.getuid?.() === 0

const inCache = <A, E>(
  body: (cache: string, fs: FileSystem.FileSystem) => Effect.Effect<A, E, FileSystem.FileSystem>
): Effect.Effect<void, unknown> =>
  Effect.scoped(
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      yield* body(yield* fs.makeTempDirectoryScoped({ prefix: "fiberbox-image-" }), fs)
    })
  ).pipe(Effect.provide(NodeServices.layer))

describe("the list of the host's /etc", () => {
  it.each([
    "shadow",
    "shadow-",
    "gshadow",
    "passwd",
    "ssh",
    "sudoers",
    "npmrc",
    "pip.conf",
    "gitconfig",
    "profile.d",
    "environment",
    "hosts",
    "hostname",
    "machine-id",
    "krb5.keytab",
    "ssl",
    "letsencrypt",
    "docker",
    "cron.d",
    "javascript-secrets"
  ])("does not let %s through", (name) => {
    assert.isFalse(copiedNames.some((pattern) => pattern.test(name)))
  })
})

describe.runIf(root)("the host image's base layer", () => {
  it.live("holds a user called user, no host account, no secret, and a writable home and tmp", () =>
    inCache((cache, fs) =>
      Effect.gen(function* () {
        const base = yield* hostBase(cache)
        const passwd = yield* fs.readFileString(`${base}/etc/passwd`)
        assert.include(passwd, "user:x:1000:1000:")
        const etc = yield* fs.readDirectory(`${base}/etc`)
        for (const name of ["shadow", "gshadow", "ssh", "sudoers", "npmrc", "gitconfig"])
          assert.notInclude(etc, name)
        assert.isFalse(yield* fs.exists(`${base}/etc/ssl/private`))
        assert.strictEqual((yield* fs.stat(`${base}/tmp`)).mode & 0o7777, 0o1777)
        assert.deepStrictEqual((yield* fs.stat(`${base}/home/user`)).uid, Option.some(1000))
        assert.strictEqual(yield* fs.readLink(`${base}/bin`), "usr/bin")
        assert.deepStrictEqual(yield* fs.readDirectory(`${base}/usr`), [])
      })
    )
  )

  it.live("is made once, by whoever asks first", () =>
    inCache((cache, fs) =>
      Effect.gen(function* () {
        const [first, second] = yield* Effect.all([hostBase(cache), hostBase(cache)], { concurrency: 2 })
        assert.strictEqual(first, second)
        assert.lengthOf(yield* fs.readDirectory(cache), 1)
      })
    )
  )

  it.live("has a sibling for directory images that adds mount points and a home only", () =>
    inCache((cache, fs) =>
      Effect.gen(function* () {
        const points = yield* pointsBase(cache)
        assert.sameMembers(yield* fs.readDirectory(points), [
          ".fiberbox",
          "dev",
          "home",
          "proc",
          "sys",
          "tmp"
        ])
      })
    )
  )
})
