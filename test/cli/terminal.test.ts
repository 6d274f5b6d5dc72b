import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  baseDirectory,
  canRunContainers,
  eventually,
  instanceIn,
  leftOf,
  startOnTerminal
} from "./support.ts"

const asItWas = "icanon=1 echo=1 isig=1 opost=1"

/** `fiberbox run` with a shell script on a terminal of its own. */
const onTerminal = (script: string, options: ReadonlyArray<string> = []) =>
  startOnTerminal(["run", ...options, "--", "sh", "-c", script])

describe.runIf(canRunContainers)("fiberbox run at a terminal", () => {
  it.live("gives the command a terminal of the same size and kind", () =>
    Effect.gen(function* () {
      const terminal = yield* onTerminal("test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM")
      const { code, out } = yield* terminal.ended
      assert.deepStrictEqual({ code, out }, { code: 0, out: "24 80\r\nxterm-256color\r\n" })
      assert.strictEqual(yield* terminal.modes, asItWas)
    }).pipe(Effect.scoped)
  )

  it.live("lets the size follow", () =>
    Effect.gen(function* () {
      const script = 'trap "stty size; exit" WINCH; echo ready; while :; do sleep 0.01; done'
      const terminal = yield* onTerminal(script)
      yield* terminal.shows("ready")
      yield* terminal.resize(50, 132)
      yield* terminal.shows("50 132")
      assert.strictEqual((yield* terminal.ended).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("gives keys to the command at once and unchanged, Ctrl-C and Ctrl-D too", () =>
    Effect.gen(function* () {
      const script = "stty raw -echo; echo ready; head -c 6 | od -An -tx1"
      const terminal = yield* onTerminal(script)
      yield* terminal.shows("ready")
      yield* terminal.type("\u0003\u0004\u001a\u0011a\r")
      yield* terminal.shows("03 04 1a 11 61 0d")
      assert.strictEqual((yield* terminal.ended).code, 0)
      assert.strictEqual(yield* terminal.modes, asItWas)
    }).pipe(Effect.scoped)
  )

  it.live("lets Ctrl-C interrupt the program inside, not the sandbox", () =>
    Effect.gen(function* () {
      const script =
        "trap 'echo interrupted' INT; sh -c 'echo ready; exec sleep 600'; echo still here; read -r line; echo $line"
      const terminal = yield* onTerminal(script)
      yield* terminal.shows("ready")
      yield* terminal.type("\u0003")
      yield* terminal.shows(/interrupted\r\nstill here/)
      yield* terminal.type("typed\r")
      yield* terminal.shows(/typed\r\ntyped\r\n/)
      assert.strictEqual((yield* terminal.ended).code, 0)
    }).pipe(Effect.scoped)
  )

  it.live("shows colours and cursor movements as the program sends them", () =>
    Effect.gen(function* () {
      const shown = "\u001b[31mred\u001b[0m\u001b[2J\u001b[5;10H\u2713\n\nlines"
      const terminal = yield* onTerminal(`stty -opost; printf '${shown.replaceAll("\n", "\\n")}'`)
      const { out } = yield* terminal.ended
      assert.strictEqual(out, shown)
    }).pipe(Effect.scoped)
  )

  it.live("passes the exit code on and restores the terminal after a failure too", () =>
    Effect.gen(function* () {
      const failed = yield* onTerminal("exit 9")
      assert.strictEqual((yield* failed.ended).code, 9)
      assert.strictEqual(yield* failed.modes, asItWas)
      const refused = yield* startOnTerminal(["run", "--", "no-such-program"])
      const { code, out } = yield* refused.ended
      assert.strictEqual(code, 127)
      assert.include(out, "not-found")
      assert.strictEqual(yield* refused.modes, asItWas)
    }).pipe(Effect.scoped)
  )

  it.live("restores the terminal and leaves nothing when it is told to end by SIGTERM", () =>
    Effect.gen(function* () {
      const baseDir = yield* baseDirectory
      const script = "trap '' TERM; echo pid; sleep 600.987654321"
      const terminal = yield* startOnTerminal(["run", "--", "sh", "-c", script], { baseDir })
      const id = yield* instanceIn(baseDir)
      yield* terminal.shows("pid")
      yield* terminal.terminate
      assert.strictEqual((yield* terminal.ended).code, 143)
      assert.strictEqual(yield* terminal.modes, asItWas)
      assert.deepStrictEqual(leftOf(baseDir, id, "600.987654321"), [])
    }).pipe(Effect.scoped)
  )

  it.live("leaves nothing when the terminal goes away", () =>
    Effect.gen(function* () {
      const baseDir = yield* baseDirectory
      const script = "trap '' HUP; echo ready; sleep 600.123456789"
      const terminal = yield* startOnTerminal(["run", "--", "sh", "-c", script], { baseDir })
      const id = yield* instanceIn(baseDir)
      yield* terminal.shows("ready")
      yield* terminal.signal("SIGKILL")
      yield* eventually(() => (leftOf(baseDir, id, "600.123456789").length === 0 ? true : undefined))
    }).pipe(Effect.scoped)
  )

  it.live("gives no terminal with --no-tty", () =>
    Effect.gen(function* () {
      const terminal = yield* onTerminal("test -t 0; echo $?; test -t 1; echo $?", ["--no-tty"])
      const { out } = yield* terminal.ended
      assert.strictEqual(out, "1\r\n1\r\n")
    }).pipe(Effect.scoped)
  )
})
