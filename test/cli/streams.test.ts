/**
 * Standard streams of the command line that break, are full, or are somebody
 * else's: each says so, with a code of its own, and nothing is done by halves.
 */
import { spawn } from "node:child_process"
import { closeSync, openSync, writeFileSync } from "node:fs"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { join } from "node:path"
import type { Readable } from "node:stream"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, type Scope } from "effect"
import { newName, ok, Served } from "./served.ts"
import { bin } from "./support.ts"

interface Streams {
  /** A descriptor or connection; default: nothing to read. */
  readonly stdin?: number | Socket
  /** A descriptor; default: what is written is gathered. */
  readonly stdout?: number
}

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

const gather = (stream: Readable | null): (() => string) => {
  const chunks: Array<Buffer> = []
  stream?.on("data", (chunk: Buffer) => chunks.push(chunk))
  return () => Buffer.concat(chunks).toString()
}

/** Runs the real command line on these streams, to its end. */
const fiberbox = (args: ReadonlyArray<string>, { stdin, stdout }: Streams = {}) =>
  Effect.flatMap(Served, ({ token, url }) =>
    Effect.callback<Ended>((resume) => {
      const child = spawn(process.execPath, [bin, ...args], {
        stdio: [stdin ?? "ignore", stdout ?? "pipe", "pipe"],
        env: { ...process.env, FIBERBOX_URL: url, FIBERBOX_TOKEN: token }
      })
      const out = gather(child.stdout)
      const err = gather(child.stderr)
      child.on("close", (code) => resume(Effect.succeed({ code, out: out(), err: err() })))
      return Effect.sync(() => child.kill("SIGKILL"))
    })
  )

const opened = (path: string, flags: "r" | "w"): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => openSync(path, flags)),
    (descriptor) => Effect.sync(() => closeSync(descriptor))
  )

interface Connection {
  /** The end to read from. */
  readonly input: Socket
  readonly reset: Effect.Effect<void>
}

/** A connection that has brought a text, and can be reset. */
const bringing = (text: string): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.gen(function* () {
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => createServer({ pauseOnConnect: true })),
      (server) => Effect.sync(() => void server.close())
    )
    const listening = yield* Effect.callback<AddressInfo>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        if (address !== null && typeof address === "object") resume(Effect.succeed(address))
      })
    })
    const writer = connect(listening.port, "127.0.0.1")
    writer.write(text)
    writer.on("error", () => {})
    const input = yield* Effect.acquireRelease(
      Effect.callback<Socket>((resume) => {
        server.once("connection", (socket) => resume(Effect.succeed(socket.on("error", () => {}))))
      }),
      (socket) => Effect.sync(() => void socket.destroy())
    )
    return { input, reset: Effect.sync(() => void writer.resetAndDestroy()) }
  })

const created = Effect.gen(function* () {
  const name = newName()
  yield* ok(["create", "--name", name])
  return name
})

const inside = (name: string, path: string) => ok(["exec", "-n", name, "--", "cat", path])

layer(Served.layer("memory"), { excludeTestServices: true })("standard streams that break", (it) => {
  it.effect("a directory as standard input is an error, and the command is ended", () =>
    Effect.gen(function* () {
      const stdin = yield* opened("/", "r")
      const { code, err, out } = yield* fiberbox(["run", "--", "sh", "-c", "cat; echo whole"], { stdin })
      assert.deepStrictEqual([code, out], [125, ""])
      assert.match(err, /^fiberbox: standard input: .*directory.*\n$/)
    })
  )

  it.effect(
    "a connection that is reset is not the end of a file: nothing is put in the place of the old",
    () =>
      Effect.gen(function* () {
        const name = yield* created
        const { directory } = yield* Served
        writeFileSync(join(directory, "old"), "old")
        yield* ok(["cp", join(directory, "old"), `${name}:file`])
        const { input, reset } = yield* bringing("half")
        const running = yield* Effect.forkChild(fiberbox(["cp", "-", `${name}:file`], { stdin: input }), {
          startImmediately: true
        })
        yield* reset
        const { code, err } = yield* Fiber.join(running)
        assert.strictEqual(code, 125)
        assert.match(err, /^fiberbox: standard input: connection reset by peer\n$/)
        assert.strictEqual(yield* inside(name, "file"), "old")
        assert.strictEqual(yield* ok(["exec", "-n", name, "--", "ls", "-A"]), "file")
      })
  )

  it.effect("a connection that is reset is not the end of a command's input", () =>
    Effect.gen(function* () {
      const name = yield* created
      const { input, reset } = yield* bringing("half")
      const script = "cat > begun; echo yes > whole"
      const running = yield* Effect.forkChild(
        fiberbox(["exec", name, "--", "sh", "-c", script], { stdin: input })
      )
      const { run } = yield* Served
      const begun = run(["exec", "-n", name, "--", "cat", "begun"])
      yield* Effect.repeat(begun, { until: ({ out }) => out === "half" })
      yield* reset
      const { code, err } = yield* Fiber.join(running)
      assert.strictEqual(code, 125)
      assert.match(err, /^fiberbox: standard input: connection reset by peer\n$/)
      assert.strictEqual(yield* ok(["exec", "-n", name, "--", "ls", "-A"]), "begun")
    })
  )

  it.effect("a sandbox whose id cannot be told is not left behind", () =>
    Effect.gen(function* () {
      const stdout = yield* opened("/dev/full", "w")
      for (const more of [[], ["--json"]]) {
        const name = newName()
        const { code, err } = yield* fiberbox(["create", "--name", name, ...more], { stdout })
        assert.deepStrictEqual([code, err.includes("no space left on device")], [125, true])
        assert.notInclude((yield* fiberbox(["ls"])).out, name)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("what standard output does not take is an error with its reason", () =>
    Effect.gen(function* () {
      const name = yield* created
      const { directory } = yield* Served
      writeFileSync(join(directory, "full"), "x".repeat(1000))
      yield* ok(["cp", join(directory, "full"), `${name}:x`])
      const stdout = yield* opened("/dev/full", "w")
      const said = "fiberbox: standard output: no space left on device\n"
      for (const args of [
        ["run", "--", "echo", "x"],
        ["run", "--json", "--", "echo", "x"],
        ["exec", name, "--", "echo", "x"],
        ["cp", `${name}:x`, "-"],
        ["ls"]
      ]) {
        const { code, err } = yield* fiberbox(args, { stdout })
        assert.deepStrictEqual({ args, code, err }, { args, code: 125, err: said })
      }
    })
  )

  it.effect("what a file here does not take is an error with its name and reason", () =>
    Effect.gen(function* () {
      const name = yield* created
      const { directory } = yield* Served
      writeFileSync(join(directory, "y"), "y")
      yield* ok(["cp", join(directory, "y"), `${name}:y`])
      const { code, err } = yield* fiberbox(["cp", `${name}:y`, "/dev/full"])
      assert.deepStrictEqual([code, err], [125, "fiberbox: /dev/full: no space left on device\n"])
    })
  )

  for (const option of ["-n", "--no-stdin"]) {
    it.effect(`with ${option} a command leaves the input of a loop to the loop`, () =>
      Effect.gen(function* () {
        const { token, url } = yield* Served
        const loop = `while read -r line; do "$NODE" "$BIN" run ${option} -- sh -c "cat; echo got $line"; done`
        const { code, out } = yield* Effect.callback<Ended>((resume) => {
          const env = { NODE: process.execPath, BIN: bin, FIBERBOX_URL: url, FIBERBOX_TOKEN: token }
          const child = spawn("sh", ["-c", `printf 'a\\nb\\nc\\n' | ${loop}`], {
            stdio: ["ignore", "pipe", "inherit"],
            env: { ...process.env, ...env }
          })
          const out = gather(child.stdout)
          child.on("close", (code) => resume(Effect.succeed({ code, out: out(), err: "" })))
          return Effect.sync(() => child.kill("SIGKILL"))
        })
        assert.deepStrictEqual([code, out], [0, "got a\ngot b\ngot c\n"])
      })
    )
  }
})
