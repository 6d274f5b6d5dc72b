import { spawn } from "node:child_process"
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { canRunContainers } from "../cli/support.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

interface Result {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** Runs an example as a user would. */
const run = (name: string): Effect.Effect<Result> =>
  Effect.callback((resume) => {
    const child = spawn(process.execPath, ["--conditions=fiberbox-source", `examples/${name}.ts`], {
      cwd: root,
      env: { ...process.env, NODE_OPTIONS: "" }
    })
    let out = ""
    let err = ""
    child.stdout.on("data", (data: Buffer) => {
      out += data.toString()
    })
    child.stderr.on("data", (data: Buffer) => {
      err += data.toString()
    })
    child.on("close", (code) => resume(Effect.succeed({ code, out, err })))
    return Effect.sync(() => child.kill("SIGTERM"))
  })

/** What each example prints, line by line. */
const examples: Readonly<
  Record<string, { readonly needs: "container" | "memory"; readonly prints: ReadonlyArray<RegExp | string> }>
> = {
  "01_quickstart": {
    needs: "container",
    prints: [
      /^created {3}sb_local_[a-z2-7]{26}$/,
      "printed   4   (isolation: container)",
      /^wrote {5}I am user \(uid 1000\) on \S+$/,
      /^wrote {5}I see \d processes, myself included$/,
      /^holds {5}\/home\/user\/a\.py, \/home\/user\/facts\.txt$/,
      "removed   nothing of it is left"
    ]
  },
  "02_two_backends": {
    needs: "container",
    prints: [
      "hello",
      "ada",
      "grace",
      "exit code 3",
      "/home/user/names/a.txt 4",
      "/home/user/names/b.txt 6",
      "the same on both"
    ]
  },
  "03_streaming": {
    needs: "container",
    prints: [
      "started under container",
      /^stdout: "line 1\\n/,
      /.*/,
      'ended: {"_tag":"Exited","code":4}',
      "read at least 1000000 bytes of an endless program: true",
      "counted 100000 lines"
    ]
  },
  "04_background_and_attach": {
    needs: "container",
    prints: [
      "read up to byte 16, then stopped reading; it still runs",
      'it ended with {"_tag":"Exited","code":0}',
      'what was missed: "got three\\nbye\\n"',
      "sleeping programs left after the kill: 0"
    ]
  },
  "05_errors": {
    needs: "container",
    prints: [
      'exit 7, stdout "half\\n", stderr "oops\\n"',
      "not-found, outcome not-started",
      'the command limit, after "begun\\n"',
      "/home/user/nothing.txt: not-found",
      /^cannot .* while paused$/,
      /^limits\.memoryBytes: .*greater than 0$/
    ]
  },
  "06_files": {
    needs: "container",
    prints: [
      "hello from a script",
      "big: 8388608 bytes",
      "ten of them: ..........",
      "streamed back: 8388608 bytes",
      "file      /home/user/project/README.md",
      "directory /home/user/project/bin",
      "file      /home/user/project/bin/hello",
      "file      /home/user/project/data.bin",
      "still there: false",
      /^\/etc\/passwd: (permission|read-only)$/
    ]
  },
  "07_supervision": {
    needs: "memory",
    prints: [
      "1: Created",
      "2: provisioning -> running (machine 1)",
      "3: the machine died: power failure",
      "the call: power failure (outcome unknown)",
      "5: restart 1 in 50 ms",
      "machine 2 after 1 restart, with its disk: unfinished",
      "7: provisioning -> running (machine 2)",
      "8: running -> killed (machine 2)"
    ]
  },
  "08_testing_with_memory": {
    needs: "memory",
    prints: [
      "succeeds after a minute that nobody waited for: compiled a program",
      "tries again while there is no room: compiled a program",
      "says what failed when the machine dies: SandboxFailed, may be tried again: false"
    ]
  },
  "10_promise": {
    needs: "container",
    prints: [
      "printed hello",
      'exit 7 after "half\\n", completed',
      'first output begins with "line 0\\n"',
      "given up: TimeoutError",
      'sorted "one\\nthree\\ntwo\\n"',
      'ended with {"_tag":"Exited","code":0}',
      'said "hello ada\\nhello grace\\n"',
      "left: 0"
    ]
  }
}

describe("the examples", () => {
  it("are all held to what they print", () => {
    const files = readdirSync(`${root}/examples`).filter((name) => name.endsWith(".ts"))
    assert.deepStrictEqual(
      files.map((name) => name.replace(/\.ts$/, "")).sort(),
      Object.keys(examples).sort()
    )
  })

  for (const [name, { needs, prints }] of Object.entries(examples)) {
    it.live.runIf(needs === "memory" || canRunContainers)(`${name} runs and prints what it says`, () =>
      Effect.gen(function* () {
        const { code, err, out } = yield* run(name)
        assert.deepStrictEqual({ code, err }, { code: 0, err: "" }, out)
        // How output is cut into events is the kernel's affair; what is printed between is not.
        const lines = out.trimEnd().split("\n")
        const unmet = prints.filter(
          (expected) =>
            !lines.some((line) => (typeof expected === "string" ? line === expected : expected.test(line)))
        )
        assert.deepStrictEqual(unmet, [], out)
      })
    )
  }
})
