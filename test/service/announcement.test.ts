import { chmodSync, chownSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FileSystem, Layer, Redacted, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import * as DirectoryInstance from "../../src/layers/instance/DirectoryInstance.ts"
import { announce, find } from "../../src/service/Announcement.ts"
import { localToken } from "../../src/service/LocalToken.ts"

const temporary = Effect.flatMap(FileSystem.FileSystem, (fs) =>
  fs.makeTempDirectoryScoped({ prefix: "fb-service-" })
)
const token = Redacted.make("secret-token")
const service = { url: "http://127.0.0.1:7777", token }

const promise = <E>(
  name: string,
  body: (base: string) => Effect.Effect<void, E, NodeServices.NodeServices | Scope.Scope>
) => it.effect(name, () => Effect.flatMap(temporary, body).pipe(Effect.provide(NodeServices.layer)))

describe("a service on this computer", () => {
  promise("is found by its user, with its token, until it ends", (base) =>
    Effect.gen(function* () {
      assert.isUndefined(yield* find(base))
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* announce(base, service)
          const found = yield* find(base)
          assert.deepStrictEqual(
            [found?.url, found && Redacted.value(found.token)],
            [service.url, "secret-token"]
          )
          assert.strictEqual(statSync(`${base}/service.json`).mode & 0o777, 0o600)
        })
      )
      assert.isUndefined(yield* find(base))
      assert.deepStrictEqual(yield* (yield* FileSystem.FileSystem).readDirectory(base), [])
    })
  )

  promise(
    "is found in the place of one that began before, which does not take it away when it ends",
    (base) =>
      Effect.gen(function* () {
        const later = { ...service, url: "http://127.0.0.1:8888" }
        const first = yield* Scope.make()
        yield* Scope.provide(announce(base, service), first)
        yield* announce(base, later)
        yield* Scope.close(first, Exit.void)
        assert.strictEqual((yield* find(base))?.url, later.url)
      })
  )

  promise("leaves no token behind of services that were killed while they announced themselves", (base) =>
    Effect.gen(function* () {
      const half = (pid: number) => `${base}/service.json.${pid}`
      writeFileSync(half(2 ** 22 + 1), '{"token":"secret')
      writeFileSync(half(process.ppid), '{"token":"being written')
      yield* announce(base, service)
      assert.deepStrictEqual((yield* (yield* FileSystem.FileSystem).readDirectory(base)).sort(), [
        "service.json",
        `service.json.${process.ppid}`
      ])
    })
  )

  const spoiled: ReadonlyArray<readonly [string, (file: string) => void]> = [
    ["others may read", (file) => chmodSync(file, 0o640)],
    ["others may write", (file) => chmodSync(file, 0o602)],
    ["is no announcement", (file) => writeFileSync(file, "{}")],
    ["names a process that does not live", (file) => rewrite(file, { pid: 2 ** 22 + 1 })],
    [
      "names a process of the same number that was born at another time",
      (file) => rewrite(file, { born: "1" })
    ]
  ]
  for (const [what, spoil] of spoiled) {
    promise(`is not believed from a file that ${what}`, (base) =>
      Effect.gen(function* () {
        yield* announce(base, service)
        spoil(`${base}/service.json`)
        assert.isUndefined(yield* find(base))
      })
    )
  }

  promise("is not believed through a link", (base) =>
    Effect.gen(function* () {
      const real = `${base}/real`
      yield* announce(real, service)
      symlinkSync(`${real}/service.json`, `${base}/service.json`)
      assert.isUndefined(yield* find(base))
      assert.isDefined(yield* find(real))
    })
  )

  if (process.geteuid?.() === 0) {
    promise("is not believed from a file of another user", (base) =>
      Effect.gen(function* () {
        yield* announce(base, service)
        chownSync(`${base}/service.json`, 1234, 1234)
        assert.isUndefined(yield* find(base))
      })
    )
  }
})

describe("the token of a service", () => {
  const tokenOf = (stateDir: string) =>
    Effect.map(localToken, Redacted.value).pipe(
      Effect.provide(
        DirectoryInstance.layer({ stateDir }).pipe(Layer.provideMerge(SecureRandom.layerWebCrypto)),
        { local: true }
      )
    )

  promise("is the same at the next start, in a file of its user alone", (base) =>
    Effect.gen(function* () {
      const first = yield* tokenOf(base)
      assert.match(first, /^fbt_[a-z2-7]{52}$/)
      assert.strictEqual(yield* tokenOf(base), first)
      assert.strictEqual(readFileSync(`${base}/token`, "utf8"), `${first}\n`)
      assert.strictEqual(statSync(`${base}/token`).mode & 0o777, 0o600)
    })
  )

  promise("is another one when somebody else could have read or written the file", (base) =>
    Effect.gen(function* () {
      const first = yield* tokenOf(base)
      chmodSync(`${base}/token`, 0o644)
      const second = yield* tokenOf(base)
      assert.notStrictEqual(second, first)
      writeFileSync(`${base}/token`, "chosen-by-somebody")
      assert.match(yield* tokenOf(base), /^fbt_/)
    })
  )
})

/** Changes a member of the announcement, its mode untouched. */
const rewrite = (file: string, change: object) => {
  const content: unknown = JSON.parse(readFileSync(file, "utf8"))
  writeFileSync(file, JSON.stringify({ ...(typeof content === "object" ? content : {}), ...change }))
}
