import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { RunEvent } from "../../src/cli/RunEvent.ts"
import { canRunContainers, fiberbox } from "./support.ts"

const decodeLine = Schema.decodeUnknownEffect(Schema.fromJsonString(RunEvent))
const linesOf = (out: string) => Effect.forEach(out.trimEnd().split("\n"), (line) => decodeLine(line))

/** What holds on every backend. */
const promises = (backend: "container" | "memory") => {
  const run = (options: ReadonlyArray<string>, command: ReadonlyArray<string>, stdin?: string | Uint8Array) =>
    fiberbox(
      ["run", "--backend", backend, ...options, "--", ...command],
      stdin === undefined ? {} : { stdin }
    )

  it.live("prints what the command prints and exits with 0", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run([], ["echo", "hello"])
      assert.deepStrictEqual({ code, err, out }, { code: 0, err: "", out: "hello\n" })
    })
  )

  it.live("keeps the outputs apart and passes the exit code on", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run([], ["sh", "-c", "echo o; echo e >&2; exit 7"])
      assert.deepStrictEqual({ code, err, out }, { code: 7, err: "e\n", out: "o\n" })
    })
  )

  it.live("passes standard input on, byte for byte, to its end", () =>
    Effect.gen(function* () {
      const bytes = Uint8Array.from({ length: 1_000_000 }, (_, index) => (index * 7919 + (index >> 8)) & 255)
      const { code, stdout } = yield* run([], ["cat"], bytes)
      assert.strictEqual(code, 0)
      assert.isTrue(stdout.equals(bytes), `${stdout.byteLength} bytes came back`)
    })
  )

  it.live("hands the command its arguments as they are, even those that look like options", () =>
    Effect.gen(function* () {
      const { code, out } = yield* run([], ["echo", "--json", "--", "-x", "a  b", "$HOME", "*"])
      assert.deepStrictEqual({ code, out }, { code: 0, out: "--json -- -x a  b $HOME *\n" })
    })
  )

  it.live("sets variables, passes on those that are set here, and nothing else of this environment", () =>
    Effect.gen(function* () {
      const options = ["-e", "A=1=2", "--env", "EMPTY=", "-e", "FROM_HERE"]
      const { code, out } = yield* fiberbox(["run", "--backend", backend, ...options, "--", "env"], {
        env: { FROM_HERE: "yes", NOT_ASKED_FOR: "secret" }
      })
      assert.strictEqual(code, 0)
      const lines = out.split("\n")
      assert.includeMembers(lines, ["A=1=2", "EMPTY=", "FROM_HERE=yes"])
      assert.notInclude(out, "secret")
    })
  )

  it.live("runs where it is told to", () =>
    Effect.gen(function* () {
      const { out } = yield* run(["--workdir", "/tmp"], ["sh", "-c", "pwd"])
      assert.strictEqual(out, "/tmp\n")
    })
  )

  it.live("says that a command is not found, with exit code 127", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run([], ["no-such-program"])
      assert.deepStrictEqual({ code, out }, { code: 127, out: "" })
      assert.match(err, /^fiberbox: cannot start no-such-program: not-found.*\n$/)
    })
  )

  it.live("says that a command cannot be started, with exit code 126", () =>
    Effect.gen(function* () {
      const { code, err } = yield* run(["-w", "/nowhere"], ["echo"])
      assert.strictEqual(code, 126)
      assert.match(err, /^fiberbox: cannot start echo: bad-cwd.*--workdir.*\n$/)
    })
  )

  it.live("ends a command at its time limit with exit code 124 and keeps what it wrote", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run(["--timeout", "300ms"], ["sh", "-c", "echo begun; sleep 60"])
      assert.deepStrictEqual(
        { code, err, out },
        { code: 124, err: "fiberbox: ended by --timeout after 0.3 s\n", out: "begun\n" }
      )
    })
  )

  it.live("says which option a refused limit came from, with exit code 125", () =>
    Effect.gen(function* () {
      const { code, err } = yield* run(["--memory", "9000t"], ["echo"])
      assert.strictEqual(code, 125)
      assert.match(err, /^fiberbox: .*\n$/)
      assert.include(err, "--memory")
    })
  )

  it.live("writes one JSON document a line with --json", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run(["--json"], ["sh", "-c", "echo o; echo e >&2; exit 3"])
      assert.deepStrictEqual({ code, err }, { code: 3, err: "" })
      const lines = yield* linesOf(out)
      assert.deepInclude(lines[0], { event: "created", backend, image: "host" })
      assert.deepInclude(lines[1], {
        event: "started",
        isolation: backend === "memory" ? "none" : "container"
      })
      assert.deepInclude(lines.at(-1), { event: "exited", exitCode: 3, timedOut: false })
      const text = (stream: string) =>
        lines
          .flatMap((line) =>
            line.event === "output" && line.stream === stream && "text" in line ? [line.text] : []
          )
          .join("")
      assert.deepStrictEqual([text("stdout"), text("stderr")], ["o\n", "e\n"])
    })
  )

  it.live("writes an error as the last line with --json", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* run(["--json"], ["no-such-program"])
      assert.deepStrictEqual({ code, err }, { code: 127, err: "" })
      const lines = yield* linesOf(out)
      assert.deepInclude(lines.at(-1), {
        event: "error",
        error: "SpawnFailed",
        exitCode: 127,
        outcome: "not-started",
        isRetryable: false
      })
      const last = lines.at(-1)
      assert.deepInclude(last !== undefined && "details" in last ? last.details : {}, {
        reason: "not-found",
        program: "no-such-program"
      })
    })
  )
}

describe("fiberbox run --backend memory", () => promises("memory"))

describe.runIf(canRunContainers)("fiberbox run", () => {
  promises("container")

  it.live("runs python", () =>
    Effect.gen(function* () {
      const { code, out } = yield* fiberbox(["run", "--", "python3", "-c", "print(2+2)"])
      assert.deepStrictEqual({ code, out }, { code: 0, out: "4\n" })
    })
  )

  it.live("gives the shell's number for a command that a signal ended", () =>
    Effect.gen(function* () {
      const { code } = yield* fiberbox(["run", "--", "sh", "-c", "kill -9 $$"])
      assert.strictEqual(code, 137)
    })
  )

  it.live("runs as the unprivileged user, and as the sandbox's root on request", () =>
    Effect.gen(function* () {
      const byDefault = yield* fiberbox(["run", "--", "id", "-u"])
      const asRoot = yield* fiberbox(["run", "--user", "root", "--", "id", "-u"])
      assert.deepStrictEqual([byDefault.out, asRoot.out], ["1000\n", "0\n"])
    })
  )

  it.live("enforces the limits it is given", () =>
    Effect.gen(function* () {
      const script = "import sys; x = bytearray(200 << 20); print('had', len(x) >> 20)"
      const command = ["--", "python3", "-c", script]
      const enough = yield* fiberbox(["run", "--memory", "512m", ...command])
      const tooLittle = yield* fiberbox(["run", "--memory", "64m", ...command])
      assert.strictEqual(enough.out, "had 200\n")
      assert.deepStrictEqual([tooLittle.code, tooLittle.out], [137, ""])
    })
  )
})
