import { readFileSync } from "node:fs"
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { line, onRealTerminal } from "./realTerminal.ts"
import { documents, newName, ok, Served } from "./served.ts"
import { canRunContainers } from "./support.ts"

const created = Effect.gen(function* () {
  const name = newName()
  yield* ok(["create", "--name", name])
  return name
})

/** A terminal on which `fiberbox` runs and then the terminal is looked at; at the first prompt. */
const sitDown = Effect.fnUntraced(function* (args: ReadonlyArray<string>) {
  const terminal = yield* onRealTerminal(`${line(args)}; echo "co""de=$?"; stty -a | tr ';' '\\n'`)
  // Typed early it waits in the terminal; the echo tells that the shell inside took it.
  yield* terminal.type("bind 'set enable-bracketed-paste off'; PS1='in> '; echo re''ady\r")
  yield* terminal.shows("ready")
  yield* terminal.shows("in> ")
  return terminal
})

const program = `sh -c 'echo be""gun; exec sleep 600'`

/** The terminal's modes as a program of this machine has them: cooked. */
const isCooked = (screen: string): boolean =>
  ["icanon", "echo", "isig", "opost", "icrnl"].every((mode) => screen.split(/\s+/).includes(mode))

const processes = (name: string) => Effect.map(ok(["ps", "--json", name]), documents)

describe.runIf(canRunContainers)("fiberbox shell in a real terminal", () => {
  layer(Served.layer("container"), { excludeTestServices: true })((it) => {
    it.effect("is a login shell on a terminal of this kind and size, and its exit code is passed on", () =>
      Effect.gen(function* () {
        const terminal = yield* sitDown(["shell", yield* created])
        yield* terminal.type("tty; stty size; echo $TERM; shopt -q login_shell && echo lo''gin; pwd\r")
        yield* terminal.shows(/\/dev\/pts\/\d+\r\n24 80\r\nxterm-256color\r\nlogin\r\n\/home\/user\r\n/)
        yield* terminal.type("exit 7\r")
        yield* terminal.shows("code=7")
        yield* terminal.ended
        assert.isTrue(isCooked(terminal.screen().split("code=7")[1] ?? ""), terminal.screen())
      }).pipe(Effect.scoped)
    )

    it.effect("shows colours and movements as they are sent", () =>
      Effect.gen(function* () {
        const terminal = yield* sitDown(["shell", yield* created])
        yield* terminal.type("printf '\\033[1;31mred\\033[0m\\033[5;10H\\342\\234\\223 %s\\n' do''ne\r")
        yield* terminal.shows("\u001b[1;31mred\u001b[0m\u001b[5;10H\u2713 done\r\n")
        yield* terminal.type("touch f; mkdir d; ls --color=auto\r")
        yield* terminal.shows(/\u001b\[01;34md\u001b\[0m/)
        yield* terminal.type("exit\r")
        yield* terminal.shows("code=0")
      }).pipe(Effect.scoped)
    )

    it.effect("lets the size follow, and programs hear of it", () =>
      Effect.gen(function* () {
        const terminal = yield* sitDown(["shell", yield* created])
        yield* terminal.type("trap 'stty size' WINCH; echo se''t\r")
        yield* terminal.shows("set")
        yield* terminal.resize(50, 132)
        // Bash runs a trap when the next command has ended.
        yield* terminal.type("\r")
        yield* terminal.shows("50 132")
        yield* terminal.type("exit\r")
        yield* terminal.shows("code=0")
      }).pipe(Effect.scoped)
    )

    it.effect("gives Ctrl-C to the program that runs, not to the shell nor to fiberbox", () =>
      Effect.gen(function* () {
        const terminal = yield* sitDown(["shell", yield* created])
        // The program itself says that it has begun: the terminal is its own by then.
        yield* terminal.type(`${program}\r`)
        yield* terminal.shows("begun")
        yield* terminal.type("\u0003")
        yield* terminal.shows("^C")
        yield* terminal.type("echo en''ded $?\r")
        yield* terminal.shows("ended 130")
        yield* terminal.type("\u0004")
        yield* terminal.shows("code=0")
      }).pipe(Effect.scoped)
    )

    it.effect("has job control: Ctrl-Z, jobs, bg, fg", () =>
      Effect.gen(function* () {
        const terminal = yield* sitDown(["shell", yield* created])
        yield* terminal.type(`${program}\r`)
        yield* terminal.shows("begun")
        yield* terminal.type("\u001a")
        yield* terminal.shows(/\[1\]\+ +Stopped +sh -c/)
        yield* terminal.type("bg; jobs\r")
        yield* terminal.shows(/\[1\]\+ +Running +sh -c [^\r]*&/)
        yield* terminal.type("fg\r")
        yield* terminal.shows("exec sleep 600'\r\n")
        yield* terminal.press("\u0003", "in> ")
        yield* terminal.type("jobs; echo no''ne; exit 0\r")
        yield* terminal.shows(/exit 0\r\nnone\r\n/)
        yield* terminal.shows("code=0")
      }).pipe(Effect.scoped)
    )

    it.effect("is left with Ctrl-P Ctrl-Q, goes on, and is found again as it was", () =>
      Effect.gen(function* () {
        const name = yield* created
        const terminal = yield* sitDown(["shell", name])
        // A full-screen program's doings are undone, though that goes on.
        yield* terminal.type("HERE=still; printf '\\033[?1049h\\033[?25l'; echo he''re\r")
        yield* terminal.shows("here")
        yield* terminal.type("\u0010\u0011")
        yield* terminal.shows("\u001b[?25h\u001b[?1049l")
        const again = yield* terminal.shows(/fiberbox attach \S+ \S+ --cursor \d+/)
        yield* terminal.shows("code=0")
        yield* terminal.ended
        assert.isTrue(isCooked(terminal.screen().split("code=0")[1] ?? ""))

        const back = yield* onRealTerminal(`${line(again.split(" ").slice(1))}; echo "co""de=$?"`)
        yield* back.resize(30, 100)
        yield* back.type("\rstty size; echo $HERE\r")
        yield* back.shows(/30 100\r\nstill\r\n/)
        yield* back.type("exit 3\r")
        yield* back.shows("code=3")
      }).pipe(Effect.scoped)
    )

    it.effect("can be left with other keys, and then Ctrl-P is a key like any other", () =>
      Effect.gen(function* () {
        const name = yield* created
        const terminal = yield* sitDown(["shell", "--detach-keys", "ctrl-],d", name])
        yield* terminal.type("echo fir''st\r")
        yield* terminal.shows("first")
        yield* terminal.type("\u0010\r")
        yield* terminal.shows("first")
        yield* terminal.type("\u001dx\u001dd")
        yield* terminal.shows("left it running")
        yield* terminal.shows("code=0")
        const [process] = yield* processes(name)
        assert.notProperty(process, "exit")
      }).pipe(Effect.scoped)
    )

    it.effect("told to end by SIGTERM, ends what runs in it and puts the terminal back", () =>
      Effect.gen(function* () {
        const name = yield* created
        const terminal = yield* sitDown(["shell", name])
        yield* terminal.type("printf '\\033[?2004h\\033[?1000h'; echo busy; trap '' TERM; sleep 600\r")
        yield* terminal.shows("busy\r\n")
        const [child] = readFileSync(`/proc/${terminal.pid}/task/${terminal.pid}/children`, "utf8").split(" ")
        process.kill(Number(child), "SIGTERM")
        yield* terminal.shows("\u001b[?1000l")
        yield* terminal.shows(/code=(143|137)/)
        yield* terminal.ended
        assert.isTrue(isCooked(terminal.screen().split("code=1")[1] ?? ""))
        const [inside] = yield* processes(name)
        assert.property(inside, "exit")
      }).pipe(Effect.scoped)
    )

    it.effect("runs another program, as root where asked", () =>
      Effect.gen(function* () {
        const name = yield* created
        const command = ["shell", "-u", "root", "-w", "/tmp", name, "--", "sh", "-c", "id -u; pwd; exit 4"]
        const terminal = yield* onRealTerminal(`${line(command)}; echo "co""de=$?"`)
        yield* terminal.shows(/0\r\n\/tmp\r\n/)
        yield* terminal.shows("code=4")
      }).pipe(Effect.scoped)
    )

    it.effect("says what is the matter, on a terminal as it was: no sandbox, a stopped one", () =>
      Effect.gen(function* () {
        const nobody = yield* onRealTerminal(`${line(["shell", "nobody"])}; echo "co""de=$?"; stty -a`)
        yield* nobody.shows("no sandbox nobody (`fiberbox ls` lists them)\r\n")
        yield* nobody.shows("code=125")
        yield* nobody.ended
        const name = yield* created
        yield* ok(["stop", "--grace", "50ms", name])
        const stopped = yield* onRealTerminal(`${line(["shell", name])}; echo "co""de=$?"`)
        yield* stopped.shows("`fiberbox start` starts it")
        yield* stopped.shows("code=125")
      }).pipe(Effect.scoped)
    )

    it.effect("needs a terminal", () =>
      Effect.gen(function* () {
        const { run } = yield* Served
        const { code, err } = yield* run(["shell", "any"])
        assert.strictEqual(code, 125)
        assert.match(err, /a shell needs a terminal.*fiberbox exec/)
      })
    )

    it.effect("kill --all asks, and takes no for an answer", () =>
      Effect.gen(function* () {
        const name = yield* created
        const label = newName()
        const marked = newName()
        yield* ok(["create", "--name", marked, "-l", `k=${label}`])
        const kill = line(["kill", "--label", `k=${label}`])
        const no = yield* onRealTerminal(`${kill}; echo "co""de=$?"`)
        yield* no.shows(`Kill 1 sandbox (${marked}) for good?`)
        yield* no.type("n")
        yield* no.shows("code=1")
        assert.include(yield* ok(["ls"]), marked)
        const yes = yield* onRealTerminal(`${kill}; echo "co""de=$?"`)
        yield* yes.shows("for good?")
        yield* yes.type("y")
        yield* yes.shows("code=0")
        const left = yield* ok(["ls"])
        assert.notInclude(left, marked)
        assert.include(left, name)
      }).pipe(Effect.scoped)
    )
  })
})
