/**
 * Conformance: programs run to their end, and what may keep one from starting.
 */
import { Effect, Stream } from "effect"
import { InvalidResponse } from "../../domain/Errors.ts"
import type { CapturedOutput } from "../../domain/Output.ts"
import {
  maxArgumentBytes,
  maxArguments,
  maxEnvNames,
  maxNameBytes,
  maxPathBytes,
  maxStringBytes
} from "../../domain/Process.ts"
import type { RunError, RunOptions } from "../../services/Processes.ts"
import { area, holds, home, lines, noise, refused, same, unique, withSandbox } from "./Case.ts"
import { gather, population } from "./Programs.ts"

const commands = area("commands")

const running = commands({
  "both outputs and the exit code come back, apart": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const result = yield* sandbox.commands.run("echo out; echo err >&2")
      same([result.stdout, result.stderr, result.exitCode], ["out\n", "err\n", 0])
      same([result.truncated, result.droppedBytes], [false, 0])
      const { isolation, generation } = yield* sandbox.info
      same([result.isolation, result.generation], [isolation, generation])
    })
  ),

  "an exit code other than 0 is an error that carries what was said": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const error = yield* refused(sandbox.commands.run("echo a; echo b >&2; exit 7"), "CommandExit")
      same([error.exitCode, error.signal, error.stdout, error.stderr], [7, undefined, "a\n", "b\n"])
      same((yield* refused(sandbox.process.run(["false"]), "CommandExit")).exitCode, 1)
    })
  ),

  "an end by a signal names it": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const error = yield* refused(sandbox.commands.run("echo a; kill -9 $$"), "CommandExit")
      same([error.exitCode, error.signal, error.stdout], [137, "SIGKILL", "a\n"])
    })
  ),

  "an argument vector reaches the program as it is, no shell between": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const words = ["$HOME", "a  b", "*", "'", '"', "", "\\n", "ž\n", ";ls"]
      const { stdout } = yield* sandbox.process.run(["printf", "<%s>", ...words])
      same(stdout, words.map((word) => `<${word}>`).join(""))
    })
  ),

  "a file is neither copied nor moved to another name of itself": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const names = "echo kept > f; ln f hard; ln -s f soft; mkdir d"
      const tried = ["cp f f", "cp f hard", "cp f soft", "cp soft f", "cp f .", "mv f f", "mv f ."]
      const said = tried.map((command) => `${command} 2> /dev/null; echo $?`).join("; ")
      const { stdout } = yield* sandbox.commands.run(`mkdir same; cd same; ${names}; ${said}; cat f`)
      same(stdout, `${tried.map(() => "1\n").join("")}kept\n`)
    })
  ),

  "cp does not write through a link that leads nowhere, and rm -f misses nothing": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const tried = ["cp f far", "cp f near", "rm -f none f/x", "rm -f far"]
      const said = tried.map((command) => `${command} 2> /dev/null; echo $?`).join("; ")
      const { stdout } = yield* sandbox.commands.run(
        `mkdir links; cd links; echo f > f; ln -s none near; ln -s none/deeper far; ${said}; ls`
      )
      same(stdout, "1\n1\n0\n0\nf\nnear\n")
    })
  ),

  "mv refuses two names of one file and a link onto what it leads to, and rm goes on beside what it may not remove":
    withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const { stdout } = yield* sandbox.commands.run(
          "mkdir -p held/a held/b; cd held; echo f > f; ln -s f link; mv link f 2> /dev/null; echo $?;" +
            " ln f g; mv f g 2> /dev/null; echo $?; rm g;" +
            " touch a/kept; chmod 0 a; rm -rf ../held 2> /dev/null; echo $?; ls; chmod 755 a"
        )
        same(stdout, "1\n1\n1\na\n")
      })
    ),

  "a command line goes through the shell": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const { stdout } = yield* sandbox.commands.run('A="x y"; echo "$A" | cat; echo $HOME')
      same(stdout, `x y\n${home}\n`)
    })
  ),

  "the environment is the sandbox's, and the call's above it": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const { stdout } = yield* sandbox.process.run(["env"], { env: { B: "call", C: "a=b" } })
      const env = stdout.split("\n")
      for (const line of ["A=sandbox", "B=call", "C=a=b", `HOME=${home}`, "USER=user"]) {
        holds(env.includes(line), `the environment holds ${line}: ${stdout}`)
      }
      holds(
        env.some((line) => line.startsWith("PATH=/")),
        "there is a PATH"
      )
    }),
    { env: { A: "sandbox", B: "sandbox" } }
  ),

  "the working directory is home, or what was asked for": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      same((yield* sandbox.process.run(["pwd"])).stdout, `${home}\n`)
      same((yield* sandbox.process.run(["pwd"], { cwd: "/tmp" })).stdout, "/tmp\n")
      same((yield* sandbox.process.run(["pwd"], { user: "root" })).stdout, "/root\n")
    })
  ),

  "programs run as user, or as root when asked": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      same((yield* sandbox.process.run(["id", "-u"])).stdout, "1000\n")
      same((yield* sandbox.process.run(["id", "-g"])).stdout, "1000\n")
      same((yield* sandbox.process.run(["id", "-u"], { user: "root" })).stdout, "0\n")
    })
  ),

  "standard input is what was given, byte for byte, and otherwise nothing": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      same((yield* sandbox.process.run(["cat"])).stdout, "")
      same((yield* sandbox.process.run(["cat"], { stdin: "žluť\n" })).stdout, "žluť\n")
      same((yield* sandbox.process.run(["cat"], { stdin: "" })).stdout, "")
      const text = lines(700_000)
      holds((yield* sandbox.process.run(["cat"], { stdin: text })).stdout === text, "700 kB pass both ways")
    })
  ),

  "standard input may come as a stream": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const pieces = ["a", "b", "c\n"].map((piece) => new TextEncoder().encode(piece))
      const { stdout } = yield* sandbox.process.run(["cat"], { stdin: Stream.fromIterable(pieces) })
      same(stdout, "abc\n")
    })
  ),

  "standard input that breaks is not its end: the run fails with its error, and the program is ended":
    withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const begun = Stream.make(new TextEncoder().encode("half"))
        const broken = new InvalidResponse({ reason: "the source broke" })
        const stdin = Stream.concat(begun, Stream.fail(broken))
        const attempt = sandbox.commands.run(`cat; touch ${home}/whole; sleep 1000`, { stdin })
        same((yield* refused(attempt, "InvalidResponse")).reason, broken.reason)
        same(yield* sandbox.files.exists(`${home}/whole`), false)
        const running = (yield* sandbox.process.list).filter(({ exit }) => exit === undefined)
        same(running, [])
      })
    ),

  "a program that does not read its input ends all the same": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      same((yield* sandbox.process.run(["true"], { stdin: lines(300_000) })).exitCode, 0)
    })
  ),

  "large output comes whole and in order": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const text = lines(3_000_000)
      yield* sandbox.files.write(`${home}/big`, text)
      const { stdout } = yield* sandbox.process.run(["cat", `${home}/big`])
      holds(stdout === text, `${stdout.length} of ${text.length} characters, or others`)
    })
  ),

  "output above the bound is left out, counted and marked; the program goes on": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const result = yield* sandbox.commands.run(`echo 0123456789abcde; touch ${home}/after`, {
        maxOutputBytes: 10,
        keep: "head"
      })
      same([result.stdout, result.truncated, result.droppedBytes], ["0123456789", true, 6])
      same(result.gaps, [{ stream: "stdout", at: 10, bytes: 6 }])
      same(yield* sandbox.files.exists(`${home}/after`), true)
      const none = yield* sandbox.commands.run("echo x", { maxOutputBytes: 0 })
      same([none.stdout, none.droppedBytes], ["", 2])
    })
  ),

  "of much output both streams keep their beginning and their end, however it ends": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const said = "seq 200000; echo reason >&2"
      const whole = Array.from({ length: 200_000 }, (_, line) => `${line + 1}\n`).join("")
      const isCut = ({ stdout, stderr, truncated, droppedBytes, gaps }: CapturedOutput) => {
        same([stderr, truncated], ["reason\n", true])
        const [gap, ...others] = gaps
        same([gap?.stream, gap?.bytes, others], ["stdout", droppedBytes, []])
        const { at = 0 } = gap ?? {}
        holds(
          at >= 12_500 && whole.startsWith(stdout.slice(0, at)),
          "the beginning is what was written first"
        )
        holds(stdout.length - at >= 50_000 && whole.endsWith(stdout.slice(at)), "the end is what came last")
        same(stdout.length + droppedBytes, whole.length)
        holds(stdout.length + stderr.length <= 100_000, "the bound is kept")
      }
      const bound = { maxOutputBytes: 100_000 }
      isCut(yield* sandbox.commands.run(said, bound))
      isCut(yield* refused(sandbox.commands.run(`${said}; exit 1`, bound), "CommandExit"))
      const late = sandbox.commands.run(`${said}; sleep 1000`, { ...bound, timeoutMillis: 2000 })
      const {
        stdout = "",
        stderr = "",
        truncated = false,
        droppedBytes = 0,
        gaps = []
      } = yield* refused(late, "Timeout")
      isCut({ stdout, stderr, truncated, droppedBytes, gaps })
    })
  ),

  "a bound keeps what its policy says": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const kept = (keep: RunOptions["keep"], maxOutputBytes?: number) =>
        Effect.map(
          sandbox.commands.run("echo abcdefghijklmnopqrstuvwxyz; echo 0123456789 >&2", {
            keep,
            maxOutputBytes
          }),
          ({ stdout, stderr, droppedBytes }) => [stdout, stderr, droppedBytes]
        )
      same(yield* kept("head", 16), ["abcdefghijkl", "0123", 22])
      same(yield* kept("tail", 16), ["tuvwxyz\n", "3456789\n", 22])
      same(yield* kept("both", 16), ["abcdxyz\n", "0123789\n", 22])
      same(yield* kept("all"), ["abcdefghijklmnopqrstuvwxyz\n", "0123456789\n", 0])
      yield* refused(kept("all", 16), "InvalidArgument")
      yield* refused(kept("tail", 5 * 1024 * 1024), "InvalidArgument")
    })
  ),

  "events come in order: started, output without a gap, exited": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const events = yield* Stream.runCollect(sandbox.commands.stream("echo a; echo b >&2; echo c; exit 3"))
      same(events[0]?._tag, "Started")
      const last = events.at(-1)
      same(last?._tag === "Exited" ? [last.status, last.timedOut] : last, [
        { _tag: "Exited", code: 3 },
        false
      ])
      let cursor = 0
      for (const event of events.slice(1, -1)) {
        if (event._tag !== "Output") continue
        same(event.cursor, cursor)
        cursor += event.data.byteLength
      }
      same(last?._tag === "Exited" ? last.cursor : undefined, cursor)
      same(cursor, 6)
    })
  ),

  "output arrives while the program runs": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const first = yield* sandbox.commands.stream("echo now; sleep 1000").pipe(
        Stream.filter((event) => event._tag === "Output"),
        Stream.runHead
      )
      holds(first._tag === "Some", "there was output before the end")
    })
  ),

  "many programs at a time keep to themselves": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const numbers = Array.from({ length: 16 }, (_, index) => String(index))
      const results = yield* Effect.forEach(
        numbers,
        (number) => sandbox.commands.run(`echo ${number}; sleep 0.01; echo ${number}`),
        { concurrency: "unbounded" }
      )
      same(
        results.map((result) => result.stdout),
        numbers.map((number) => `${number}\n${number}\n`)
      )
    })
  ),

  "the end of the program is the end of the run, though a child keeps the output open": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const result = yield* sandbox.commands.run("sleep 1000 & echo done", { timeoutMillis: 20_000 })
      same(result.stdout, "done\n")
    })
  )
})

const limits = commands({
  "a command that runs into its time limit is ended, and says what it had written": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const error = yield* refused(
        sandbox.commands.run("echo before; echo wrong >&2; sleep 1000", { timeoutMillis: 1000 }),
        "Timeout"
      )
      same([error.limit, error.millis, error.stdout, error.stderr], ["command", 1000, "before\n", "wrong\n"])
    })
  ),

  "the same process id with the same content is the same process": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const processId = yield* unique("p")
      const command = `echo ran >> ${home}/log; echo out`
      const first = yield* sandbox.commands.run(command, { processId })
      const second = yield* sandbox.commands.run(command, { processId })
      same([second.processId, second.stdout], [first.processId, first.stdout])
      same(yield* sandbox.files.readText(`${home}/log`), "ran\n")
    })
  ),

  "the same process id with another content is a conflict, and touches nothing": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const processId = yield* unique("p")
      const process = yield* sandbox.commands.start("cat", { processId, stdin: true })
      const conflict = yield* refused(sandbox.commands.run("echo other", { processId }), "Conflict")
      same([conflict.kind, conflict.id], ["process", processId])
      yield* refused(sandbox.commands.start("cat", { processId, stdin: true, env: { A: "1" } }), "Conflict")
      yield* process.write("still here")
      yield* process.closeStdin
      same((yield* gather(process.events())).captured.stdout, "still here")
    })
  )
})

const refusals = commands({
  "a program that does not exist is `not-found`": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      for (const program of ["no-such-program", "/no/such/program", `${home}/no-such-program`]) {
        const error = yield* refused(sandbox.process.run([program]), "SpawnFailed")
        same([error.reason, error.program], ["not-found", program])
      }
      yield* refused(sandbox.process.start(["no-such-program"]), "SpawnFailed")
      same(yield* sandbox.process.list, [])
    })
  ),

  "a file without the right to run it is `permission`": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      yield* sandbox.files.write(`${home}/plain`, "#!/bin/sh\n", { mode: 0o644 })
      same((yield* refused(sandbox.process.run([`${home}/plain`]), "SpawnFailed")).reason, "permission")
      same((yield* refused(sandbox.process.run([home]), "SpawnFailed")).reason, "permission")
    })
  ),

  "a file that is no program is `not-executable`": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      yield* sandbox.files.write(`${home}/junk`, noise(100), { mode: 0o755 })
      same((yield* refused(sandbox.process.run([`${home}/junk`]), "SpawnFailed")).reason, "not-executable")
    })
  ),

  "a script runs by its first line": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      yield* sandbox.files.write(`${home}/script`, "#!/bin/sh\necho script $1\n", { mode: 0o755 })
      same((yield* sandbox.process.run([`${home}/script`, "a"])).stdout, "script a\n")
    })
  ),

  "a working directory that is none is `bad-cwd`": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      for (const cwd of ["/no/such/directory", "/etc/passwd"]) {
        same((yield* refused(sandbox.process.run(["pwd"], { cwd }), "SpawnFailed")).reason, "bad-cwd")
      }
    })
  ),

  "the longest arguments that a kernel takes reach the program": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const one = "x".repeat(maxStringBytes)
      same((yield* sandbox.process.run(["printf", "%s", one])).stdout.length, maxStringBytes)
      const value = "y".repeat(maxStringBytes - "LONG=".length)
      const env = yield* sandbox.process.run(["env"], { env: { LONG: value } })
      holds(env.stdout.includes(`LONG=${value}\n`), "the environment is whole")
      const many = Array.from({ length: maxArguments - 100 }, () => "z")
      same((yield* sandbox.process.run(["printf", "%s", ...many])).stdout.length, many.length)
    })
  ),

  "an environment of very many names reaches the program, and one of too many is refused with the limit":
    withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const named = (count: number) =>
          Object.fromEntries(Array.from({ length: count }, (_, index) => [`N_${index}`, `${index}`]))
        // Some are left for those that every program has.
        const { stdout } = yield* sandbox.process.run(["env"], { env: named(maxEnvNames - 100) })
        same(stdout.split("\n").filter((line) => /^N_(\d+)=\1$/.test(line)).length, maxEnvNames - 100)
        const env = named(maxEnvNames + 1)
        const error = yield* refused(sandbox.process.run(["env"], { env }), "InvalidArgument")
        same(error.field, "process.env")
        holds(error.reason.includes(String(maxEnvNames)), error.reason)
        same((yield* sandbox.process.list).length, 1)
      })
    ),

  "what no kernel takes is refused with the limit and a way round it": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const one = "x".repeat(maxStringBytes + 1)
      const long = "n".repeat(maxNameBytes + 1)
      const cases: ReadonlyArray<readonly [Effect.Effect<unknown, RunError>, string, number, string]> = [
        [sandbox.process.run(["echo", one]), "process.argv", maxStringBytes, "standard input"],
        [sandbox.process.run([one]), "process.argv", maxStringBytes, "standard input"],
        [sandbox.process.run(["echo"], { env: { A: one } }), "process.env", maxStringBytes, "standard input"],
        [
          sandbox.process.run(["echo", ...Array.from({ length: maxArguments }, () => "")]),
          "process.argv",
          maxArguments,
          "standard input"
        ],
        [sandbox.process.run([`/bin/${long}`]), "process.argv", maxNameBytes, "shorter"],
        [sandbox.process.run(["/a".repeat(2048)]), "process.argv", maxPathBytes, "shorter"],
        [sandbox.process.run(["echo"], { cwd: `/${long}` }), "process.cwd", maxNameBytes, "shorter"],
        [sandbox.process.run(["echo"], { cwd: "/a".repeat(2048) }), "process.cwd", maxPathBytes, "shorter"]
      ]
      for (const [attempt, field, limit, way] of cases) {
        const error = yield* refused(attempt, "InvalidArgument")
        same(error.field, field)
        holds(error.reason.includes(String(limit)) && error.reason.includes(way), error.reason)
      }
      yield* refused(sandbox.process.start(["echo", one]), "InvalidArgument")
      same(yield* sandbox.process.list, [])
    })
  ),

  "arguments that no kernel takes are refused before anything starts": withSandbox(
    Effect.fnUntraced(function* (sandbox) {
      const huge = "x".repeat(10 * maxArgumentBytes)
      const cases = [
        sandbox.process.run(["echo", huge]),
        sandbox.process.run(["echo", ...Array.from({ length: 100 }, () => "y".repeat(100_000))]),
        sandbox.process.run(["echo"], { env: { A: huge } }),
        sandbox.process.run(["echo", "a\0b"]),
        sandbox.process.run(["echo"], { env: { "A=B": "c" } }),
        sandbox.process.run(["echo"], { env: { "": "c" } }),
        sandbox.process.run(["echo"], { cwd: "relative" }),
        sandbox.process.run(["echo"], { processId: "no spaces" }),
        sandbox.process.run(["echo"], { timeoutMillis: 0 }),
        sandbox.process.run(["echo"], { journalBytes: 1 }),
        sandbox.process.run(["echo"], { maxOutputBytes: -1 }),
        sandbox.process.run(["echo"], { idleMillis: 0 })
      ]
      for (const attempt of cases) yield* refused(attempt, "InvalidArgument")
      same(yield* sandbox.process.list, [])
    })
  )
})

const counted = commands(
  {
    "a time limit ends every descendant": withSandbox(
      Effect.fnUntraced(function* (sandbox) {
        const before = yield* population(sandbox)
        const command = "setsid sleep 1000 & (sleep 1000 &) ; sleep 1000"
        yield* refused(sandbox.commands.run(command, { timeoutMillis: 200 }), "Timeout")
        same(yield* population(sandbox), before)
      })
    )
  },
  ["metrics"]
)

export const commandCases = [...running, ...limits, ...refusals, ...counted]
