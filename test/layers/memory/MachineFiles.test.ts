import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { WatchEvent } from "../../../src/domain/FileSystem.ts"
import { UploadId } from "../../../src/domain/Ids.ts"
import { layer } from "../../../src/layers/memory/MemoryBackend.ts"
import type { Machine } from "../../../src/services/Machine.ts"
import { bytes, home, provision, settle, sh } from "./support.ts"

const test = <E>(promise: string, body: (machine: Machine) => Effect.Effect<void, E>) =>
  it.effect(promise, () => provision().pipe(Effect.flatMap(body), Effect.scoped, Effect.provide(layer())))

const user = { mode: undefined, user: "user" } as const
const path = `${home}/sub/file`
const upload = UploadId.make("upload")

const read = (machine: Machine, at: string, offset = 0, length?: number) =>
  Effect.map(Stream.runCollect(machine.files.read(at, { offset, length, user: "user" })), (pieces) =>
    pieces.map((piece) => new TextDecoder().decode(piece)).join("")
  )

describe("an upload", () => {
  const write = (machine: Machine, offset: number, text: string, id = upload) =>
    machine.files.writeUpload(id, path, offset, bytes(text), user)

  test("is taken piece by piece, repeats acknowledged and gaps refused, and visible only when committed", (machine) =>
    Effect.gen(function* () {
      assert.deepInclude(yield* Effect.flip(write(machine, 3, "x")), {
        _tag: "InvalidArgument",
        field: "offset"
      })
      assert.strictEqual(yield* write(machine, 0, "abc"), 3)
      assert.strictEqual(yield* write(machine, 0, "abc"), 3)
      assert.strictEqual(yield* write(machine, 1, "bcd"), 4)
      assert.strictEqual((yield* Effect.flip(write(machine, 5, "x")))._tag, "InvalidArgument")
      assert.strictEqual((yield* sh(machine, "ls -A sub")).out, "")
      assert.deepInclude(yield* Effect.flip(machine.files.commitUpload(upload, 5)), {
        _tag: "InvalidArgument",
        field: "size"
      })
      yield* machine.files.commitUpload(upload, 4)
      yield* machine.files.commitUpload(upload, 4)
      assert.strictEqual(yield* read(machine, path), "abcd")
      assert.strictEqual((yield* Effect.flip(write(machine, 4, "more")))._tag, "Conflict")
    }))

  test("belongs to one path", (machine) =>
    Effect.gen(function* () {
      yield* write(machine, 0, "abc")
      const other = machine.files.writeUpload(upload, `${home}/other`, 0, bytes("abc"), user)
      assert.deepInclude(yield* Effect.flip(other), { _tag: "Conflict", kind: "upload" })
    }))

  test("that is aborted or left alone for a minute is forgotten, and its space free", (machine) =>
    Effect.gen(function* () {
      const used = Effect.map(machine.metrics, ({ diskBytes }) => diskBytes)
      yield* machine.files.makeDir(`${home}/sub`, user)
      const before = yield* used
      yield* write(machine, 0, "x".repeat(10_000))
      assert.isAbove((yield* used) ?? 0, before ?? 0)
      yield* machine.files.abortUpload(upload)
      yield* machine.files.abortUpload(upload)
      assert.strictEqual(yield* used, before)
      yield* write(machine, 0, "abc")
      yield* TestClock.adjust("61 seconds")
      assert.deepInclude(yield* Effect.flip(machine.files.commitUpload(upload, 3)), {
        _tag: "NotFound",
        kind: "upload"
      })
      assert.strictEqual(yield* used, before)
    }))

  it.effect("may go on where it was when the disk has room again", () =>
    Effect.gen(function* () {
      const machine = yield* provision({ limits: { diskBytes: 8 * 1024 * 1024, inodes: 1000 } })
      yield* sh(machine, "head -c 8300000 /dev/zero > filler")
      yield* write(machine, 0, "abc")
      const piece = "x".repeat(100_000)
      assert.deepInclude(yield* Effect.flip(write(machine, 3, piece)), {
        _tag: "FileFailed",
        reason: "no-space"
      })
      assert.strictEqual(yield* write(machine, 0, "abc"), 3)
      yield* sh(machine, "rm filler")
      assert.strictEqual(yield* write(machine, 3, piece), 100_003)
      yield* machine.files.commitUpload(upload, 100_003)
      assert.strictEqual(yield* read(machine, path), `abc${piece}`)
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  const cuts = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 30 }))).check(
    Schema.isMaxLength(12)
  )
  it.effect.prop("arrives the same, however its pieces overlap", [cuts], ([offsets]) =>
    Effect.gen(function* () {
      const machine = yield* provision()
      const content = "abcdefghijklmnopqrstuvwxyz0123"
      let received = 0
      for (const offset of [0, ...offsets, 30]) {
        const from = Math.min(offset, received)
        received = Math.max(received, yield* write(machine, from, content.slice(from, from + 7)))
      }
      while (received < 30) received = yield* write(machine, received, content.slice(received))
      yield* machine.files.commitUpload(upload, 30)
      assert.strictEqual(yield* read(machine, path), content)
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )
})

describe("reading", () => {
  test("gives a range, and in pieces what is large", (machine) =>
    Effect.gen(function* () {
      yield* machine.files.write(path, bytes("0123456789"), user)
      assert.strictEqual(yield* read(machine, path, 3, 4), "3456")
      assert.strictEqual(yield* read(machine, path, 8, 100), "89")
      assert.strictEqual(yield* read(machine, path, 100), "")
      yield* sh(machine, "head -c 300000 /dev/zero > large")
      const pieces = yield* Stream.runCollect(
        machine.files.read(`${home}/large`, { offset: 0, length: undefined, user: "user" })
      )
      assert.deepStrictEqual(
        pieces.map((piece) => piece.length),
        [131_072, 131_072, 37_856]
      )
    }))

  test("is for regular files that one may read", (machine) =>
    Effect.gen(function* () {
      const reason = (at: string) =>
        Effect.map(Effect.flip(read(machine, at)), (error) =>
          error._tag === "FileFailed" ? error.reason : error._tag
        )
      assert.strictEqual(yield* reason(home), "is-directory")
      assert.strictEqual(yield* reason("/dev/zero"), "not-regular")
      assert.strictEqual(yield* reason("/none"), "not-found")
      assert.strictEqual(yield* reason("/root/none"), "permission")
      assert.strictEqual(yield* reason("/etc/passwd/x"), "not-directory")
    }))
})

describe("the image", () => {
  test("is read-only, for root too", (machine) =>
    Effect.gen(function* () {
      const write = machine.files.write("/usr/bin/new", bytes("x"), { mode: 0o755, user: "root" })
      assert.deepInclude(yield* Effect.flip(write), { reason: "read-only" })
      const remove = machine.files.remove("/usr/bin/cat", { recursive: false, user: "root" })
      assert.deepInclude(yield* Effect.flip(remove), { reason: "read-only" })
      const chmod = machine.files.chmod("/bin/cat", 0o777, "root")
      assert.deepInclude(yield* Effect.flip(chmod), { reason: "read-only" })
      assert.strictEqual((yield* sh(machine, "echo x > /usr/bin/cat", { user: "root" })).code, 2)
    }))

  test("gives programs that can be copied and run", (machine) =>
    Effect.gen(function* () {
      assert.strictEqual(
        (yield* sh(machine, "cp /bin/echo mine; ./mine works; command -v ls")).out,
        "works\n/usr/bin/ls\n"
      )
    }))
})

describe("a watch", () => {
  const observe = Effect.fnUntraced(function* (machine: Machine, recursive: boolean, script: string) {
    const events: Array<WatchEvent> = []
    const fiber = yield* machine.files.watch(home, { recursive, user: "user" }).pipe(
      Stream.runForEach((event) => Effect.sync(() => events.push(event))),
      Effect.forkChild
    )
    yield* settle
    yield* sh(machine, script)
    yield* settle
    yield* Fiber.interrupt(fiber)
    return events
  })

  test("tells what happens in a directory, and in those below when asked", (machine) =>
    Effect.gen(function* () {
      const script = "echo a > a; mkdir d; echo b > d/b; mv a d/c; mv d/b b; rm b; rm -r d"
      assert.deepStrictEqual(yield* observe(machine, true, script), [
        { _tag: "Created", path: `${home}/a` },
        { _tag: "Modified", path: `${home}/a` },
        { _tag: "Created", path: `${home}/d` },
        { _tag: "Created", path: `${home}/d/b` },
        { _tag: "Modified", path: `${home}/d/b` },
        { _tag: "Renamed", from: `${home}/a`, to: `${home}/d/c` },
        { _tag: "Renamed", from: `${home}/d/b`, to: `${home}/b` },
        { _tag: "Removed", path: `${home}/b` },
        { _tag: "Removed", path: `${home}/d/c` },
        { _tag: "Removed", path: `${home}/d` }
      ])
      assert.deepStrictEqual(yield* observe(machine, false, "mkdir d; echo b > d/b; mv d/b .; mv b /tmp"), [
        { _tag: "Created", path: `${home}/d` },
        { _tag: "Created", path: `${home}/b` },
        { _tag: "Removed", path: `${home}/b` }
      ])
    }))

  test("says that events were lost, when nobody takes them", (machine) =>
    Effect.gen(function* () {
      const events: Array<WatchEvent> = []
      const fiber = yield* machine.files.watch(home, { recursive: false, user: "user" }).pipe(
        Stream.runForEach((event) =>
          Effect.suspend(() => (events.push(event) === 1 ? Effect.sleep(1000) : Effect.void))
        ),
        Effect.forkChild
      )
      yield* settle
      yield* sh(machine, "touch first")
      yield* settle
      yield* sh(machine, "i=0; while [ $i -lt 5000 ]; do echo > f$i; rm f$i; i=$((i+1)); done")
      yield* TestClock.adjust(2000)
      yield* Fiber.interrupt(fiber)
      // The two of `touch`, as many as are kept for a reader, and that there were more.
      assert.strictEqual(events.length, 2 + 4096 + 1)
      assert.deepStrictEqual(events.at(-1), { _tag: "Overflow" })
    }))
})
