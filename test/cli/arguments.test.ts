import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fiberbox } from "./support.ts"

describe("fiberbox", () => {
  it.live("explains itself", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* fiberbox(["--help"])
      assert.deepStrictEqual({ code, err }, { code: 0, err: "" })
      assert.match(out, /^ {2}run .*sandbox/m)
      assert.match(out, /^ {2}doctor /m)
    })
  )

  it.live("explains itself when asked for nothing", () =>
    Effect.gen(function* () {
      const [asked, unasked] = [yield* fiberbox(["--help"]), yield* fiberbox([])]
      assert.deepStrictEqual({ code: unasked.code, out: unasked.out }, { code: 0, out: asked.out })
    })
  )

  it.live("says its version", () =>
    Effect.gen(function* () {
      const { code, out } = yield* fiberbox(["--version"])
      assert.strictEqual(code, 0)
      assert.match(out, /^fiberbox v\d+\.\d+\.\d+\n$/)
    })
  )

  it.live("writes completions for a shell", () =>
    Effect.gen(function* () {
      const { code, out } = yield* fiberbox(["--completions", "bash"])
      assert.strictEqual(code, 0)
      assert.include(out, "complete -F")
      assert.include(out, "--memory")
    })
  )
})

const options = [
  "--backend",
  "--image",
  "--memory",
  "--cpus",
  "--pids",
  "--disk",
  "--inodes",
  "--timeout",
  "--network",
  "--env",
  "--user",
  "--workdir",
  "--tty",
  "--json"
]

/** Every other command, with something its help must say. */
const commands: ReadonlyArray<readonly [command: string, says: ReadonlyArray<string>]> = [
  ["create", ["--name", "--label", "--ttl", "--idle", "--restart", "--memory", "FIBERBOX_URL"]],
  ["ls", ["--label", "--all", "--status", "--quiet"]],
  ["info", ["<sandbox>"]],
  ["exec", ["--detach", "--env", "--timeout", "--tty", "<command...>"]],
  ["shell", ["--detach-keys", "FIBERBOX_DETACH_KEYS", "ctrl-p,ctrl-q"]],
  ["ps", ["<sandbox>"]],
  ["attach", ["--cursor", "--detach-keys", "--stdin"]],
  ["logs", ["--follow", "--cursor"]],
  ["cp", ["SANDBOX:path", "--user", "--quiet"]],
  ["events", ["--follow", "--after"]],
  ["start", []],
  ["stop", ["--grace"]],
  ["restart", []],
  ["pause", []],
  ["resume", []],
  ["ttl", ["--action", "--idle"]],
  ["kill", ["--all", "--label", "--yes"]],
  ["serve", ["--port", "--host", "--state-dir", "--backend", "--drain", "SIGTERM", "JWT_SECRET"]],
  ["keys mint", ["--owner", "--scope", "--label", "--ttl"]],
  ["keys ls", []],
  ["keys revoke", ["<key...>"]],
  ["audit", ["--follow", "--after"]],
  ["remains ls", []],
  ["remains adopt", ["--name", "--owner", "--image", "--memory", "<id>"]],
  ["remains rm", ["<id...>"]]
]

describe("help", () => {
  for (const [command, says] of commands) {
    it.live(`of fiberbox ${command} says what it does, with which options`, () =>
      Effect.gen(function* () {
        const { code, err, out } = yield* fiberbox([...command.split(" "), "--help"])
        assert.deepStrictEqual([code, err], [0, ""])
        for (const text of [`fiberbox ${command} `, ...says]) assert.include(out, text)
        if (command !== "shell") assert.include(out, "--json")
        if (command !== "serve") assert.include(out, "--url")
      })
    )
  }

  it.live("lists all of them, and says where sandboxes are and how to have completions", () =>
    Effect.gen(function* () {
      const { out } = yield* fiberbox(["--help"])
      for (const [command] of commands) assert.match(out, new RegExp(`^  ${command.split(" ")[0]}\\b`, "m"))
      for (const text of ["FIBERBOX_URL", "--completions bash", "zsh", "fish"]) assert.include(out, text)
      const completions = yield* fiberbox(["--completions", "zsh"])
      for (const text of ["--detach-keys", "revoke", "--state-dir"]) assert.include(completions.out, text)
    })
  )
})

describe("fiberbox run --help", () => {
  it.live("names every option, the exit codes, and examples", () =>
    Effect.gen(function* () {
      const { code, out } = yield* fiberbox(["run", "--help"])
      assert.strictEqual(code, 0)
      for (const option of options) assert.include(out, `  ${option}`)
      for (const exitCode of [124, 125, 126, 127]) assert.include(out, `${exitCode}:`)
      assert.include(out, "fiberbox run -- python3 -c 'print(2+2)'")
    })
  )
})

/** Arguments that are wrong, and what the one line about them must say. */
const wrong: ReadonlyArray<readonly [args: string, says: RegExp]> = [
  ["info", /no sandbox is named/],
  ["exec dev", /no command to run.*fiberbox exec SANDBOX -- echo hello/],
  ["exec dev ls -l", /put -- before the command, as in `fiberbox exec SANDBOX -- ls -l`/],
  ["ttl dev soon", /time "soon" is wrong: expected a duration/],
  ["create --restart sometimes", /--restart "sometimes" is wrong: expected never/],
  ["create --port 70000", /--port "70000" is wrong/],
  ["ls --label x", /--label "x" is wrong: expected KEY=VALUE/],
  ["attach dev --detach-keys q,ww", /--detach-keys "q,ww" is wrong: expected keys/],
  ["logs dev p --cursor x", /--cursor "x" is wrong: expected 0 or a number of bytes, or end/],
  ["keys mint --scope all", /--scope "all" is wrong.*admin/],
  ["cp dev:x", /a copy needs a source and a target/],
  ["frob", /there is no command "frob"/],
  ["run", /no command to run.*fiberbox run -- echo hello/],
  ["run --", /no command to run/],
  ["run ls -l", /unknown option -l.*put -- before the command/],
  ["run --memroy 1g -- ls", /unknown option --memroy; did you mean --memory\?/],
  ["run --memory -- ls", /--memory needs a value/],
  ["run --memory 0 -- ls", /--memory "0" is wrong: expected a size such as 512m/],
  ["run --memory=-1 -- ls", /--memory "-1" is wrong/],
  ["run --cpus none -- ls", /--cpus "none" is wrong: expected a number/],
  ["run --pids 1.5 -- ls", /--pids "1.5" is wrong: expected a whole number/],
  ["run --disk big -- ls", /--disk "big" is wrong/],
  ["run --inodes 0 -- ls", /--inodes "0" is wrong/],
  ["run --timeout soon -- ls", /--timeout "soon" is wrong: expected a duration/],
  ["run --network ful -- ls", /--network "ful" is wrong: expected none, full, or allow:/],
  ["run --env =x -- ls", /--env "=x" is wrong: expected NAME=value/],
  ["run --env NOT_SET_ANYWHERE -- ls", /--env "NOT_SET_ANYWHERE" is wrong/],
  ["run --user daemon -- ls", /--user "daemon" is wrong.*user/],
  ["run --backend docker -- ls", /--backend "docker" is wrong.*container/]
]

describe("bad arguments", () => {
  for (const [args, says] of wrong) {
    it.live(`fiberbox ${args}: one line that says what is wrong, exit code 125`, () =>
      Effect.gen(function* () {
        const { code, err, out } = yield* fiberbox(args.split(" "))
        assert.deepStrictEqual({ code, out }, { code: 125, out: "" })
        assert.match(err, /^fiberbox: [^\n]*\n$/)
        assert.match(err, says)
      })
    )
  }

  it.live("are told as JSON where JSON is asked for", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* fiberbox(["run", "--json", "--memory", "0", "--", "ls"])
      assert.deepStrictEqual({ code, err }, { code: 125, err: "" })
      assert.deepInclude(JSON.parse(out), { event: "error", error: "Usage", exitCode: 125 })
    })
  )
})
