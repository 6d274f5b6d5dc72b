import { execFileSync } from "node:child_process"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { documents, newName, ok, Served } from "./served.ts"
import { canRunContainers, eventually } from "./support.ts"

/** A sandbox and a directory here, both of a test's own. */
const created = Effect.gen(function* () {
  const { directory } = yield* Served
  const name = newName()
  yield* ok(["create", "--name", name])
  const here = join(directory, name)
  mkdirSync(here)
  return { name, here }
})

/** A tree with what trees have: links, an empty directory, programs, what may not be written to, strange names. */
const makeTree = (path: string): void => {
  mkdirSync(join(path, "a/b"), { recursive: true })
  mkdirSync(join(path, "empty"))
  writeFileSync(join(path, "a/b/program"), "#!/bin/sh\n", { mode: 0o755 })
  writeFileSync(join(path, "a/big"), Buffer.alloc(300_000, 7))
  writeFileSync(join(path, "nothing"), "")
  writeFileSync(join(path, "two words\u00e9"), "x")
  writeFileSync(join(path, "secret"), "s", { mode: 0o600 })
  symlinkSync("b/program", join(path, "a/link"))
  symlinkSync("/etc", join(path, "a/out"))
  mkdirSync(join(path, "fixed"))
  writeFileSync(join(path, "fixed/f"), "f")
  chmodSync(join(path, "fixed"), 0o555)
}

/** A tree as text: every path with what it is. */
const treeOf = (path: string, below = ""): ReadonlyArray<string> =>
  readdirSync(join(path, below), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const at = join(below, entry.name)
      if (entry.isSymbolicLink()) return [`${at} -> ${readlinkSync(join(path, at))}`]
      const mode = (statSync(join(path, at)).mode & 0o777).toString(8)
      if (entry.isDirectory()) return [`${at}/ ${mode}`, ...treeOf(path, at)]
      return [`${at} ${mode} ${readFileSync(join(path, at)).toString("base64").slice(0, 32)}`]
    })

/** Everything in a directory of a sandbox. */
const inside = (name: string, path: string) =>
  Effect.map(ok(["exec", name, "--", "ls", "-A", path]), (out) => (out === "" ? [] : out.split("\n")))

layer(Served.layer("memory"), { excludeTestServices: true })("fiberbox cp", (it) => {
  it.effect("brings a file in and out, byte for byte, with its permissions", () =>
    Effect.gen(function* () {
      const { here, name } = yield* created
      const bytes = Buffer.from(
        Uint8Array.from({ length: 3_000_001 }, (_, index) => (index * 7919 + (index >> 8)) & 255)
      )
      writeFileSync(join(here, "in"), bytes, { mode: 0o750 })
      yield* ok(["cp", join(here, "in"), `${name}:sub/dir/x`])
      yield* ok(["cp", `${name}:/home/user/sub/dir/x`, join(here, "out")])
      assert.isTrue(readFileSync(join(here, "out")).equals(bytes))
      assert.strictEqual(statSync(join(here, "out")).mode & 0o777, 0o750)
      assert.deepStrictEqual(readdirSync(here).sort(), ["in", "out"])
      assert.deepStrictEqual(yield* inside(name, "sub/dir"), ["x"])
    })
  )

  it.effect("brings a directory in and out with everything in it", () =>
    Effect.gen(function* () {
      const { here, name } = yield* created
      makeTree(join(here, "tree"))
      const [told] = documents(yield* ok(["cp", "--json", join(here, "tree"), `${name}:`]))
      assert.deepInclude(told, { to: `${name}:`, files: 6, bytes: 300_013, skipped: [] })
      yield* ok(["cp", `${name}:tree`, join(here, "back")])
      assert.deepStrictEqual(treeOf(join(here, "back")), treeOf(join(here, "tree")))
      assert.deepStrictEqual(yield* inside(name, "."), ["tree"])
    })
  )

  it.effect("puts a source into a directory that exists, its entries with /. , and several sources", () =>
    Effect.gen(function* () {
      const { here, name } = yield* created
      makeTree(join(here, "tree"))
      writeFileSync(join(here, "f"), "f")
      yield* ok(["cp", join(here, "tree"), join(here, "f"), `${name}:`])
      assert.deepStrictEqual(yield* inside(name, "."), ["f", "tree"])
      yield* ok(["cp", `${join(here, "tree")}/.`, `${name}:`])
      assert.includeMembers([...(yield* inside(name, "."))], ["a", "empty", "f", "tree"])
      mkdirSync(join(here, "into/a"), { recursive: true })
      writeFileSync(join(here, "into/a/mine"), "kept")
      yield* ok(["cp", `${name}:tree/.`, join(here, "into")])
      assert.strictEqual(readFileSync(join(here, "into/a/mine"), "utf8"), "kept")
      assert.includeMembers([...treeOf(join(here, "into"))], [...treeOf(join(here, "tree"))])
    })
  )

  it.effect("copies from one sandbox to another", () =>
    Effect.gen(function* () {
      const [one, two] = [yield* created, yield* created]
      makeTree(join(one.here, "tree"))
      yield* ok(["cp", join(one.here, "tree"), `${one.name}:tree`])
      yield* ok(["cp", `${one.name}:tree`, `${two.name}:/tmp/copy`])
      yield* ok(["cp", `${two.name}:/tmp/copy`, join(two.here, "tree")])
      assert.deepStrictEqual(treeOf(join(two.here, "tree")), treeOf(join(one.here, "tree")))
    })
  )

  it.effect("takes standard input and gives standard output with -", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const { name } = yield* created
      const bytes = Buffer.alloc(1_000_000, "0123456789")
      assert.strictEqual((yield* run(["cp", "-", `${name}:/tmp/x`], { stdin: bytes })).code, 0)
      const { code, err, stdout } = yield* run(["cp", `${name}:/tmp/x`, "-"])
      assert.deepStrictEqual([code, err], [0, ""])
      assert.isTrue(stdout.equals(bytes))
      yield* run(["cp", "-", `${name}:/tmp/empty`], { stdin: "" })
      assert.strictEqual((yield* run(["cp", `${name}:/tmp/empty`, "-"])).out, "")
    })
  )

  it.effect("writes to a device or a link's file as that, and makes no file in their place", () =>
    Effect.gen(function* () {
      const { here, name } = yield* created
      yield* ok(["cp", "-", `${name}:f`], { stdin: "new" })
      yield* ok(["cp", `${name}:f`, "/dev/null"])
      assert.isTrue(statSync("/dev/null").isCharacterDevice())
      writeFileSync(join(here, "file"), "old")
      symlinkSync("file", join(here, "link"))
      yield* ok(["cp", `${name}:f`, join(here, "link")])
      assert.deepStrictEqual(treeOf(here), ["file 644 bmV3", "link -> file"])
    })
  )

  it.effect("says what is wrong, and changes nothing", () =>
    Effect.gen(function* () {
      const { run } = yield* Served
      const { here, name } = yield* created
      writeFileSync(join(here, "f"), "f")
      mkdirSync(join(here, "d"))
      yield* ok(["cp", join(here, "f"), `${name}:f`])
      for (const [args, says] of [
        [["a", "b"], /none of these paths is in a sandbox/],
        [[`${name}:none`, here], /^fiberbox: none: no such file or directory/],
        [[join(here, "none"), `${name}:`], /none: no such file or directory/],
        [[join(here, "d"), `${name}:f`], /\/home\/user\/f exists and is not a directory/],
        [[`${name}:f`, join(here, "no/such/place")], /no\/such\/.*: no such file or directory/],
        [["-", `${name}:`], /standard input has no name/],
        [[`${name}:.`, "-"], /a directory cannot go to standard output/],
        [[join(here, "f"), join(here, "d"), `${name}:f`], /several sources need a directory/],
        [["nobody:x", here], /no sandbox nobody/],
        [[join(here, "f"), `${name}:/etc/f`], /\/etc\/f: permission/]
      ] as const) {
        const { code, err, out } = yield* run(["cp", ...args], { stdin: "x" })
        assert.deepStrictEqual([code, out], [125, ""], args.join(" "))
        assert.match(err, says)
        assert.match(err, /^fiberbox: [^\n]*\n$/)
      }
      assert.deepStrictEqual(readdirSync(here).sort(), ["d", "f"])
      assert.deepStrictEqual(yield* inside(name, "."), ["f"])
    })
  )

  it.effect("interrupted on the way in, leaves what was there before and nothing else", () =>
    Effect.gen(function* () {
      const served = yield* Served
      const { here, name } = yield* created
      yield* ok(["cp", "-", `${name}:f`], { stdin: "before" })
      const file = yield* served.start(["cp", "-", `${name}:f`], { open: true })
      file.stdin.write(Buffer.alloc(1_000_000, 1))
      // It has arrived when it has been read from the pipe.
      yield* eventually(() => (file.stdin.writableLength === 0 ? true : undefined))
      yield* file.signal("SIGINT")
      assert.strictEqual((yield* file.ended).code, 130)
      assert.strictEqual(yield* ok(["cp", `${name}:f`, "-"]), "before")

      // The second file is so large (and takes no room here) that the copy is certainly interrupted before its end.
      mkdirSync(join(here, "tree"))
      writeFileSync(join(here, "tree/a"), "a")
      execFileSync("truncate", ["-s", "8G", join(here, "tree/b")])
      const tree = yield* served.start(["cp", join(here, "tree"), `${name}:new`], { open: true })
      const begun = Effect.map(inside(name, "."), (found) =>
        found.some((entry) => entry.startsWith(".fiberbox-"))
      )
      while (!(yield* begun)) yield* Effect.sleep("10 millis")
      yield* tree.signal("SIGTERM")
      assert.strictEqual((yield* tree.ended).code, 143)
      assert.deepStrictEqual(yield* inside(name, "."), ["f"])
    }).pipe(Effect.scoped)
  )
})

describe.runIf(canRunContainers)("fiberbox cp with containers", () => {
  layer(Served.layer("container"), { excludeTestServices: true })((it) => {
    it.effect("brings a directory in and out with everything in it, as its user's", () =>
      Effect.gen(function* () {
        const { here, name } = yield* created
        makeTree(join(here, "tree"))
        yield* ok(["cp", join(here, "tree"), `${name}:`])
        assert.match(
          yield* ok(["exec", name, "--", "ls", "-l", "tree/a"]),
          /^l\S+ +1 user user .* link -> b\/program$/m
        )
        assert.strictEqual(yield* ok(["exec", name, "--", "find", "tree", "!", "-user", "user"]), "")
        yield* ok(["cp", `${name}:tree`, join(here, "back")])
        assert.deepStrictEqual(treeOf(join(here, "back")), treeOf(join(here, "tree")))
        yield* ok(["cp", "-u", "root", join(here, "tree/nothing"), `${name}:/etc/`])
        assert.strictEqual(yield* ok(["exec", name, "--", "stat", "-c", "%U", "/etc/nothing"]), "root")
      })
    )

    it.effect("interrupted on the way out, leaves no part of a file or directory here", () =>
      Effect.gen(function* () {
        const served = yield* Served
        const { here, name } = yield* created
        writeFileSync(join(here, "f"), "before")
        yield* ok(["exec", name, "--", "sh", "-c", "mkdir d; echo a > d/a; truncate -s 1900M d/b"])
        for (const [from, to] of [
          ["d/b", "f"],
          ["d/b", "new"],
          ["d", "newdir"]
        ] as const) {
          const copy = yield* served.start(["cp", `${name}:${from}`, join(here, to)], { open: true })
          yield* eventually(() =>
            readdirSync(here).some((entry) => entry.startsWith(".fiberbox-")) ? true : undefined
          )
          yield* copy.signal("SIGINT")
          assert.strictEqual((yield* copy.ended).code, 130)
          assert.deepStrictEqual(readdirSync(here), ["f"])
        }
        assert.strictEqual(readFileSync(join(here, "f"), "utf8"), "before")
      }).pipe(Effect.scoped)
    )

    it.effect("brings 64 MB in and out unchanged", () =>
      Effect.gen(function* () {
        const { here, name } = yield* created
        const big = join(here, "big")
        execFileSync("sh", ["-c", `head -c 64000000 /dev/urandom > ${big}`])
        yield* ok(["cp", big, `${name}:big`])
        yield* ok(["cp", `${name}:big`, `${big}.back`])
        execFileSync("cmp", [big, `${big}.back`])
        assert.isTrue(existsSync(`${big}.back`))
      })
    )

    it.effect("shows how far it has come at a terminal, and in one line what it did", () =>
      Effect.gen(function* () {
        const { onRealTerminal, line } = yield* Effect.promise(() => import("./realTerminal.ts"))
        const { here, name } = yield* created
        yield* ok(["exec", name, "--", "sh", "-c", "truncate -s 400m b"])
        const terminal = yield* onRealTerminal(line(["cp", `${name}:b`, join(here, "b")]))
        yield* terminal.shows(/\d+% [█░]{24} \S+ of 400m {3}\S+\/s/)
        yield* terminal.shows(`${name}:b → ${join(here, "b")}: 1 file, 400m`)
        assert.strictEqual(yield* terminal.ended, 0)
        execFileSync("rm", [join(here, "b")])
      }).pipe(Effect.scoped)
    )
  })
})
