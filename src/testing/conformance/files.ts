/**
 * Conformance: the content of files.
 */
import { Deferred, Effect, Fiber, Stream } from "effect"
import { maxChunkBytes, maxUploads } from "../../domain/FileSystem.ts"
import { area, holds, home, noise, refused, same, sameBytes, withSandbox } from "./Case.ts"

const files = area("files")

/** Names that a system may take for something else, or two of them for one. */
const strangeNames = [
  "-rf",
  "--",
  "a\nb",
  "a\r",
  "\ufeffmark",
  "mark",
  "e\u0301",
  "é",
  "é".repeat(127),
  "x".repeat(255),
  " ",
  "\t",
  "...",
  "a\\b",
  "*",
  "🐎",
  "\u202etxt",
  "\u0001"
]

const contents = files({
  "bytes come back as they were written, whatever they are and however many": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      const every = Uint8Array.from({ length: 256 }, (_, byte) => byte)
      const sizes = [0, 1, maxChunkBytes - 1, maxChunkBytes, maxChunkBytes + 1, 3_000_000]
      for (const content of [every, ...sizes.map(noise)]) {
        yield* files.write(`${home}/bytes`, content)
        sameBytes(yield* files.read(`${home}/bytes`), content)
        same((yield* files.stat(`${home}/bytes`)).size, content.byteLength)
      }
    })
  ),

  "a durable write, whole or in pieces, is one that comes back": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      for (const content of [noise(100), noise(3 * maxChunkBytes)]) {
        yield* files.write(`${home}/durable`, content, { durable: true })
        sameBytes(yield* files.read(`${home}/durable`), content)
      }
    })
  ),

  "text is UTF-8": withSandbox(
    Effect.fnUntraced(function* ({ files, process }) {
      const text = "žluťoučký\nkůň 🐎\u0000"
      yield* files.write(`${home}/text`, text)
      same(yield* files.readText(`${home}/text`), text)
      same((yield* process.run(["cat", `${home}/text`])).stdout, text)
    })
  ),

  "every text comes back, and what UTF-8 cannot carry is refused": withSandbox(
    Effect.fnUntraced(function* ({ files, process }) {
      const texts = [
        "",
        "\ufeff",
        "\ufeffmark",
        "a\ufeffb",
        "\0",
        "a\r\nb\r\n",
        "\r",
        "e\u0301é",
        "\ud834\udd1e",
        "\uffff\ufffd"
      ]
      for (const text of texts) {
        yield* files.write(`${home}/text`, text)
        same(yield* files.readText(`${home}/text`), text)
        same((yield* process.run(["cat", `${home}/text`])).stdout, text)
        same((yield* process.run(["cat"], { stdin: text })).stdout, text)
      }
      for (const text of ["\ud834", "a\udd1eb", "\udd1e\ud834"]) {
        yield* refused(files.write(`${home}/lone`, text), "InvalidArgument")
        yield* refused(files.write(`${home}/${text}`, "x"), "InvalidArgument")
        yield* refused(process.run(["cat"], { stdin: text }), "InvalidArgument")
        yield* refused(process.run(["echo", text]), "InvalidArgument")
        yield* refused(process.run(["echo"], { env: { A: text } }), "InvalidArgument")
      }
      same((yield* files.list(home)).entries.length, 1)
    })
  ),

  "every name comes back, and names that look the same are not": withSandbox(
    Effect.fnUntraced(function* ({ files, process }) {
      const names = [...strangeNames].sort()
      for (const name of names) yield* files.write(`${home}/d/${name}`, name)
      same(
        (yield* files.list(`${home}/d`)).entries.map(({ path }) => path.slice(`${home}/d/`.length)).sort(),
        names
      )
      for (const name of names) {
        same(yield* files.readText(`${home}/d/${name}`), name)
        same((yield* process.run(["cat", `${home}/d/${name}`])).stdout, name)
      }
    })
  ),

  "what programs write can be read, and what is written programs can read": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      yield* commands.run(`printf 'a\\0b' > ${home}/from-inside`)
      same(yield* files.readText(`${home}/from-inside`), "a\0b")
      yield* files.write(`${home}/sub/to-inside`, "hello")
      same((yield* commands.run("cat sub/to-inside")).stdout, "hello")
    })
  ),

  "a range is what lies in it, and no more than there is": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      yield* files.write(`${home}/range`, "0123456789")
      const range = (offset?: number, length?: number) => files.readText(`${home}/range`, { offset, length })
      same(yield* range(3, 4), "3456")
      same(yield* range(8, 100), "89")
      same(yield* range(7), "789")
      same(yield* range(undefined, 2), "01")
      same(yield* range(10), "")
      same(yield* range(1000, 5), "")
      same(yield* range(0, 0), "")
    })
  ),

  "a large file streams in bounded pieces, forwards from anywhere": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      const content = noise(2_000_000)
      yield* files.write(`${home}/large`, content)
      const pieces = yield* Stream.runCollect(files.stream(`${home}/large`, { offset: 500_000 }))
      holds(pieces.length > 1, "it does not come in one piece")
      sameBytes(Uint8Array.from(Buffer.concat(pieces)), content.subarray(500_000))
    })
  ),

  "reading more than was bargained for is refused": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      yield* files.write(`${home}/large`, noise(100_000))
      yield* refused(files.read(`${home}/large`, { maxBytes: 50_000 }), "ResourceExhausted")
      same((yield* files.read(`${home}/large`, { maxBytes: 100_000 })).byteLength, 100_000)
    })
  ),

  "a stream is written as it comes, and seen only when it has ended": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      const path = `${home}/streamed`
      yield* files.write(path, "old")
      const content = noise(700_000)
      const pieces = [content.subarray(0, 10), content.subarray(10, 400_000), content.subarray(400_000)]
      const stream = Stream.fromIterable(pieces).pipe(
        Stream.tap(() => Effect.map(files.readText(path), (seen) => same(seen, "old")))
      )
      // What is read in between must not fail: a failure of the test, not of the write.
      yield* files.writeStream(path, Stream.orDie(stream), { mode: 0o600 })
      sameBytes(yield* files.read(path), content)
      same((yield* files.stat(path)).mode, 0o600)
      yield* files.writeStream(path, Stream.empty)
      same(yield* files.readText(path), "")
    })
  ),

  "a stream that fails leaves the old content and nothing beside it": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      const path = `${home}/dir/kept`
      yield* files.write(path, "old")
      const broken = Stream.concat(Stream.succeed(noise(300_000)), Stream.fail("broken" as const))
      const error = yield* Effect.match(files.writeStream(path, broken), {
        onSuccess: () => "succeeded",
        onFailure: (error) => error
      })
      same(error, "broken")
      same(yield* files.readText(path), "old")
      const { entries } = yield* files.list(`${home}/dir`)
      same(
        entries.map((entry) => entry.path),
        [path]
      )
    })
  ),

  "a write replaces the file whole; who had it open keeps the old one": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      const path = `${home}/atomic`
      yield* files.write(path, "old\n")
      const reader = yield* commands.start(`exec 3<${path}; echo open; read go; cat <&3`, { stdin: true })
      yield* reader.events().pipe(
        Stream.filter((event) => event._tag === "Output"),
        Stream.runHead
      )
      yield* files.write(path, "new\n")
      yield* reader.write("go\n")
      yield* reader.exit
      const events = yield* Stream.runCollect(reader.events())
      const text = events.map((event) =>
        event._tag === "Output" ? new TextDecoder().decode(event.data) : ""
      )
      same(text.join(""), "open\nold\n")
      same(yield* files.readText(path), "new\n")
    })
  ),

  "several files are written in order, up to the one that fails": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      yield* files.writeMany([
        { path: `${home}/many/a`, content: "a" },
        { path: `${home}/many/b`, content: noise(200_000), mode: 0o600 }
      ])
      same(yield* files.readText(`${home}/many/a`), "a")
      same((yield* files.stat(`${home}/many/b`)).mode, 0o600)
      const failing = files.writeMany([
        { path: `${home}/many/c`, content: "c" },
        { path: home, content: "d" },
        { path: `${home}/many/e`, content: "e" }
      ])
      same((yield* refused(failing, "FileFailed")).reason, "is-directory")
      same([yield* files.exists(`${home}/many/c`), yield* files.exists(`${home}/many/e`)], [true, false])
    })
  ),

  "any number of large files can be written at one time": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      const contents = Array.from({ length: 100 }, (_, n) => noise(maxChunkBytes + 1 + n))
      const write = (content: Uint8Array, n: number) => files.write(`${home}/many/${n}`, content)
      yield* Effect.forEach(contents, write, { concurrency: "unbounded", discard: true })
      const { entries } = yield* files.list(`${home}/many`)
      same(
        entries.map(({ size }) => size).sort((a, b) => a - b),
        contents.map(({ byteLength }) => byteLength)
      )
    })
  ),

  "more streams into files than a sandbox takes are refused as such, and one that ends makes room":
    withSandbox(
      Effect.fnUntraced(function* ({ files }) {
        const one = Effect.fnUntraced(function* (n: number) {
          const begun = yield* Deferred.make<void>()
          const open = Stream.fromEffect(Effect.andThen(Deferred.succeed(begun, undefined), Effect.never))
          const content = Stream.concat(Stream.succeed(noise(10)), open)
          const fiber = yield* Effect.forkScoped(files.writeStream(`${home}/open-${n}`, content))
          yield* Effect.raceFirst(Deferred.await(begun), Effect.asVoid(Effect.exit(Fiber.join(fiber))))
          return fiber
        })
        const fibers = yield* Effect.forEach(
          Array.from({ length: maxUploads }, (_, n) => n),
          one
        )
        for (const fiber of fibers) holds(fiber.pollUnsafe() === undefined, "one of the first has ended")
        const more = files.writeStream(`${home}/more`, Stream.succeed(noise(10)))
        same((yield* refused(more, "ResourceExhausted")).resource, "uploads")
        yield* Effect.forEach(fibers.slice(0, 1), Fiber.interrupt)
        yield* more
        yield* Effect.forEach(fibers, Fiber.interrupt, { concurrency: "unbounded" })
        same(
          (yield* files.list(home)).entries.map(({ path }) => path).filter((path) => path !== `${home}/more`),
          []
        )
      })
    )
})

const rights = files({
  "a new file has the usual mode and belongs to who wrote it; a replaced one keeps its mode": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      const path = `${home}/owned`
      yield* files.write(path, "a")
      const { mode, uid, gid, type } = yield* files.stat(path)
      same({ mode, uid, gid, type }, { mode: 0o644, uid: 1000, gid: 1000, type: "file" })
      yield* files.chmod(path, 0o750)
      yield* files.write(path, "b")
      same((yield* files.stat(path)).mode, 0o750)
      yield* files.write("/root/owned", "a", { as: "root" })
      same((yield* files.stat("/root/owned", { as: "root" })).uid, 0)
    })
  ),

  "user may not touch what is root's, and root may": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      yield* files.write("/root/secret", "s", { as: "root", mode: 0o600 })
      const attempts = [
        files.read("/root/secret"),
        files.write("/root/mine", "x"),
        files.write("/etc/mine", "x"),
        files.makeDir("/etc/mine"),
        files.remove("/etc/passwd"),
        files.rename("/etc/passwd", `${home}/passwd`),
        files.chmod("/etc/passwd", 0o777)
      ]
      for (const attempt of attempts) same((yield* refused(attempt, "FileFailed")).reason, "permission")
      same(yield* files.readText("/root/secret", { as: "root" }), "s")
      yield* files.write(`${home}/closed`, "c", { mode: 0o000 })
      same((yield* refused(files.read(`${home}/closed`), "FileFailed")).reason, "permission")
      same(yield* files.readText(`${home}/closed`, { as: "root" }), "c")
    })
  ),

  "only regular files have content": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      same((yield* refused(files.read("/dev/zero"), "FileFailed")).reason, "not-regular")
      same(
        (yield* refused(files.write("/dev/null", "x", { as: "root" }), "FileFailed")).reason,
        "not-regular"
      )
      same((yield* refused(files.read(home), "FileFailed")).reason, "is-directory")
      same((yield* refused(files.write(home, "x"), "FileFailed")).reason, "is-directory")
      same((yield* files.stat("/dev/null")).type, "device")
    })
  ),

  "links are followed to read and to write, but not in a circle": withSandbox(
    Effect.fnUntraced(function* ({ files, commands }) {
      yield* files.write(`${home}/real`, "real")
      yield* commands.run("ln -s real link; ln -s b a; ln -s a b; ln -s nowhere dangling")
      same(yield* files.readText(`${home}/link`), "real")
      for (const path of [`${home}/a`, `${home}/a/x`]) {
        const attempts = [files.read(path), files.write(path, "x"), files.makeDir(`${path}/y`)]
        for (const attempt of attempts) same((yield* refused(attempt, "FileFailed")).reason, "symlink-loop")
      }
      same((yield* refused(files.read(`${home}/dangling`), "FileFailed")).reason, "not-found")
      const link = yield* files.stat(`${home}/a`)
      same([link.type, link.target], ["symlink", "b"])
    })
  ),

  "a path that is none is refused before anything is done": withSandbox(
    Effect.fnUntraced(function* ({ files }) {
      for (const path of ["", "relative", "a/b", "/a\0b", `/${"x".repeat(4096)}`]) {
        const attempts = [
          files.read(path),
          files.write(path, "x"),
          files.write(path, noise(200_000)),
          files.stat(path),
          files.list(path),
          files.makeDir(path),
          files.remove(path),
          files.chmod(path, 0o644),
          files.rename(`${home}/a`, path)
        ]
        for (const attempt of attempts) yield* refused(attempt, "InvalidArgument")
      }
      const long = `${home}/${"x".repeat(256)}`
      same((yield* refused(files.write(long, "x"), "FileFailed")).reason, "name-too-long")
      yield* refused(files.write(`${home}/a`, "x", { mode: 0o10000 }), "InvalidArgument")
      yield* refused(files.read("/etc/passwd", { offset: -1 }), "InvalidArgument")
      yield* refused(files.read("/etc/passwd", { length: 0.5 }), "InvalidArgument")
      same(yield* files.exists(`${home}/a`), false)
    })
  )
})

export const fileCases = [...contents, ...rights]
