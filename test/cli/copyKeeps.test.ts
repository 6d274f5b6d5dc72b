/**
 * What a copy keeps: names, permission bits, times, hard links, holes; and that
 * it says what it cannot keep.
 */
import { execFileSync } from "node:child_process"
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { join } from "node:path"
import { assert, describe, layer, vi } from "@effect/vitest"
import { Effect } from "effect"
import { newName, ok, Served } from "./served.ts"
import { canRunContainers } from "./support.ts"

/** Each of these tests runs several commands. */
vi.setConfig({ testTimeout: 120_000 })

/** A sandbox and a directory here, both of a test's own. */
const created = Effect.gen(function* () {
  const { directory } = yield* Served
  const name = newName()
  yield* ok(["create", "--name", name])
  const here = join(directory, name)
  mkdirSync(here)
  return { name, here }
})

const MiB = 1024 * 1024

const names = [
  "-rf",
  "--",
  "a\nb",
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

/** Microseconds of the last change. */
const changed = (path: string): bigint => lstatSync(path, { bigint: true }).mtimeNs / 1000n

const kept = (backend: "memory" | "container") =>
  layer(Served.layer(backend), { excludeTestServices: true, timeout: "60 seconds" })(
    `a copy into and out of a sandbox (${backend})`,
    (it) => {
      it.effect("keeps every name", () =>
        Effect.gen(function* () {
          const { here, name } = yield* created
          mkdirSync(join(here, "in"))
          for (const each of names) writeFileSync(join(here, "in", each), each)
          yield* ok(["cp", join(here, "in"), `${name}:d`])
          yield* ok(["cp", `${name}:d`, join(here, "out")])
          assert.sameMembers(readdirSync(join(here, "out")), names)
          for (const each of names) assert.strictEqual(readFileSync(join(here, "out", each), "utf8"), each)
        })
      )

      it.effect("keeps permission bits, whatever the umask, and brings no one's rights out", () =>
        Effect.gen(function* () {
          const { here, name } = yield* created
          mkdirSync(join(here, "in"))
          const modes = [0o600, 0o666, 0o777, 0o000, 0o4755, 0o2711]
          const nameOf = (mode: number) => mode.toString(8)
          for (const mode of modes) {
            writeFileSync(join(here, "in", nameOf(mode)), "x")
            chmodSync(join(here, "in", nameOf(mode)), mode)
          }
          mkdirSync(join(here, "in/shared"))
          chmodSync(join(here, "in/shared"), 0o1777)
          yield* ok(["cp", "-u", "root", join(here, "in"), `${name}:d`])
          if (backend === "container") {
            const stat = [
              "exec",
              "-n",
              "-u",
              "root",
              name,
              "--",
              "stat",
              "-c",
              "%a",
              "d/4755",
              "d/2711",
              "d/shared"
            ]
            assert.strictEqual(yield* ok(stat), "4755\n2711\n1777")
          }
          yield* ok(["cp", "-u", "root", `${name}:d`, join(here, "out")])
          for (const mode of modes) {
            assert.strictEqual(statSync(join(here, "out", nameOf(mode))).mode & 0o7777, mode & 0o777)
          }
          assert.strictEqual(statSync(join(here, "out/shared")).mode & 0o7777, 0o1777)
        })
      )

      it.effect("keeps times of files, directories and links", () =>
        Effect.gen(function* () {
          const { here, name } = yield* created
          mkdirSync(join(here, "in/d"), { recursive: true })
          writeFileSync(join(here, "in/d/f"), "x")
          symlinkSync("f", join(here, "in/d/l"))
          const paths = ["d/f", "d/l", "d", "."]
          paths.forEach((path, index) => {
            lutimesSync(join(here, "in", path), 1, 1_234_567_890.123456 + index * 1000)
          })
          yield* ok(["cp", join(here, "in"), `${name}:t`])
          yield* ok(["cp", `${name}:t`, join(here, "out")])
          yield* ok(["cp", `${name}:t/d/f`, join(here, "single")])
          for (const path of paths) {
            assert.strictEqual(changed(join(here, "out", path)), changed(join(here, "in", path)), path)
          }
          assert.strictEqual(changed(join(here, "single")), changed(join(here, "in/d/f")))
        })
      )

      it.effect("keeps the names of one file together", () =>
        Effect.gen(function* () {
          const { here, name } = yield* created
          mkdirSync(join(here, "in/d"), { recursive: true })
          writeFileSync(join(here, "in/a"), "one")
          linkSync(join(here, "in/a"), join(here, "in/b"))
          linkSync(join(here, "in/a"), join(here, "in/d/c"))
          writeFileSync(join(here, "in/other"), "one")
          yield* ok(["cp", join(here, "in"), `${name}:h`])
          yield* ok(["exec", "-n", name, "--", "sh", "-c", "echo two > h/a; cat h/b h/d/c h/other"])
          yield* ok(["cp", `${name}:h`, join(here, "out")])
          const inode = (path: string) => statSync(join(here, "out", path)).ino
          assert.strictEqual(inode("b"), inode("a"))
          assert.strictEqual(inode("d/c"), inode("a"))
          assert.notStrictEqual(inode("other"), inode("a"))
          assert.strictEqual(readFileSync(join(here, "out/d/c"), "utf8"), "two\n")
        })
      )

      it.effect("keeps holes", () =>
        Effect.gen(function* () {
          const { here, name } = yield* created
          const size = (backend === "container" ? 40 : 8) * MiB
          const file = openSync(join(here, "in"), "w")
          writeSync(file, "begin", 0)
          writeSync(file, "middle", 5 * MiB + 123)
          ftruncateSync(file, size)
          closeSync(file)
          yield* ok(["cp", join(here, "in"), `${name}:s`])
          if (backend === "container") {
            const blocks = yield* ok(["exec", "-n", name, "--", "stat", "-c", "%b", "s"])
            assert.isBelow(Number(blocks) * 512, MiB)
          }
          yield* ok(["cp", `${name}:s`, join(here, "out")])
          const { blocks, size: copied } = statSync(join(here, "out"))
          assert.strictEqual(copied, size)
          assert.isBelow(blocks * 512, MiB)
          execFileSync("cmp", [join(here, "in"), join(here, "out")])
        })
      )

      it.effect("refuses each name that is no UTF-8, says which, and copies the rest", () =>
        Effect.gen(function* () {
          const { run } = yield* Served
          const { here, name } = yield* created
          mkdirSync(join(here, "in"))
          const strange = (text: string) =>
            Buffer.concat([Buffer.from(`${join(here, "in")}/`), Buffer.from(text, "latin1")])
          writeFileSync(strange("a\xffb"), "1")
          writeFileSync(strange("a\xfeb"), "2")
          writeFileSync(join(here, "in/good"), "3")
          symlinkSync(Buffer.from("\xff", "latin1"), join(here, "in/link"))
          const { code, err } = yield* run(["cp", join(here, "in"), `${name}:n`])
          assert.strictEqual(code, 125)
          for (const escaped of ["a\\xfeb", "a\\xffb", "link"]) {
            assert.include(err, `fiberbox: refused ${escaped}: `)
          }
          assert.strictEqual(yield* ok(["exec", "-n", name, "--", "ls", "-A", "n"]), "good")
        })
      )
    }
  )

kept("memory")
describe.runIf(canRunContainers)("in a container", () => {
  kept("container")

  layer(Served.layer("container"), { excludeTestServices: true, timeout: "60 seconds" })("names", (it) => {
    it.effect("that are no UTF-8 inside are refused, one by one, and the rest comes out", () =>
      Effect.gen(function* () {
        const { run } = yield* Served
        const { here, name } = yield* created
        const script = 'mkdir d; : > "d/$(printf "a\\\\377")"; : > "d/$(printf "a\\\\376")"; : > d/good'
        yield* ok(["exec", "-n", name, "--", "sh", "-c", script])
        const { code, err } = yield* run(["cp", `${name}:d`, join(here, "out")])
        assert.strictEqual(code, 125)
        assert.include(err, "fiberbox: refused a\\xfe: ")
        assert.include(err, "fiberbox: refused a\\xff: ")
        assert.deepStrictEqual(readdirSync(join(here, "out")), ["good"])
      })
    )
  })
})
