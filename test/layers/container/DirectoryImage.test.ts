import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { Backend } from "../../../src/services/Backend.ts"
import { Base, backend, canRun, everything, leftovers, sandbox, sh, specOf } from "./support.ts"

/** A directory with a shell, cat and what they are linked against, owned by the host's root. */
const shellImage = Effect.fnUntraced(function* (path: string) {
  const fs = yield* FileSystem.FileSystem
  const script = `
    set -e
    mkdir -p "$1/bin" "$1/data"
    for program in sh cat touch stat; do cp -L "$(command -v $program)" "$1/bin/"; done
    for library in $(ldd "$1"/bin/* | grep -o '/[^ :)]*\\.so[^ )]*' | sort -u); do
      mkdir -p "$1$(dirname "$library")"
      cp -L "$library" "$1$library"
    done
    echo from-the-image > "$1/data/file"`
  const child = yield* ChildProcess.make("sh", ["-c", script, "sh", path], { stderr: "inherit" })
  yield* Stream.runDrain(child.stdout)
  assert.strictEqual(yield* child.exitCode, 0)
  return yield* fs.realPath(path)
}, Effect.scoped)

const offered = backend({ container: { directoryImages: true } })

describe.runIf(canRun)("a directory as image", () => {
  layer(everything, { excludeTestServices: true })((it) => {
    it.effect("is the sandbox's root, owned by its root, and is never changed", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const image = yield* shellImage(`${(yield* Base).path}/image`)
        const { machine } = yield* sandbox(specOf({ image: `dir:${image}` }))
        const { out } = yield* sh(
          machine,
          "cat /data/file; echo changed > /data/file; cat /data/file",
          "root"
        )
        assert.strictEqual(out, "from-the-image\nchanged\n")
        assert.strictEqual((yield* sh(machine, "stat -c %u /data/file /bin/sh")).out, "0\n0\n")
        assert.strictEqual((yield* sh(machine, "touch /home/user/x /tmp/x && echo made")).out, "made\n")
        assert.strictEqual(yield* fs.readFileString(`${image}/data/file`), "from-the-image\n")
        assert.notInclude((yield* sh(machine, "cat /etc/passwd 2>&1")).out, "root:")
      }).pipe(Effect.scoped, Effect.provide(offered))
    )

    it.effect("is unsupported where its file system cannot show it with other owners", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(sandbox(specOf({ image: "dir:/sys/kernel" })))
        assert.deepInclude(error, { _tag: "Unsupported", capability: "idmapped-mount" })
        assert.deepStrictEqual(yield* leftovers, [])
      }).pipe(Effect.scoped, Effect.provide(offered))
    )

    it.effect("must exist, be absolute, and have no colon", () =>
      Effect.gen(function* () {
        const tag = (image: string) =>
          Effect.map(Effect.flip(sandbox(specOf({ image }))), (error) => error._tag)
        assert.strictEqual(yield* tag("dir:/no/such/directory"), "NotFound")
        assert.strictEqual(yield* tag("dir:/etc/passwd"), "NotFound")
        assert.strictEqual(yield* tag("dir:etc"), "InvalidArgument")
        assert.strictEqual(yield* tag("dir:/a:/b"), "InvalidArgument")
      }).pipe(Effect.scoped, Effect.provide(offered))
    )

    it.effect("is offered only below the listed directories, wherever links lead", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const { path } = yield* Base
        yield* fs.makeDirectory(`${path}/listed/image`, { recursive: true })
        yield* fs.makeDirectory(`${path}/listed-not`, { recursive: true })
        yield* fs.symlink("/etc", `${path}/listed/out`)
        yield* fs.symlink(`${path}/listed/image`, `${path}/in`)
        const validate = (image: string) => {
          const spec = specOf({ image: `dir:${image}` })
          return Effect.flatMap(Backend, (backend) => Effect.exit(backend.validate(spec)))
        }
        const seen = Effect.fnUntraced(function* (image: string) {
          const exit = yield* validate(image)
          return exit._tag === "Success"
            ? "offered"
            : String(
                exit.cause.reasons.map((reason) => (reason._tag === "Fail" ? reason.error._tag : reason._tag))
              )
        })
        const answers = Effect.forEach(
          ["listed/image", "listed", "in", "listed-not", "listed/out", "listed/../listed-not", "listed/none"],
          (image) => seen(`${path}/${image}`)
        )
        const some = yield* Effect.provide(
          answers,
          backend({ container: { directoryImages: [`${path}/listed`] } })
        )
        assert.deepStrictEqual(some, [
          "offered",
          "offered",
          "offered",
          "NotFound",
          "NotFound",
          "NotFound",
          "NotFound"
        ])
        const none = yield* Effect.provide(answers, backend({ container: { directoryImages: [] } }))
        assert.deepStrictEqual(new Set(none), new Set(["Unsupported"]))
      }).pipe(Effect.scoped)
    )
  })
})
