// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is the shell's syntax, too.
import { spawnSync } from "node:child_process"
import { mkdtempSync, realpathSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { layer } from "../../../src/layers/memory/MemoryBackend.ts"
import { bytes, exited, home, program, provision, run, sh } from "./support.ts"

/** What scripts write to standard output, with their exit codes where these are not 0. */
const scripts: {
  readonly [promise: string]: ReadonlyArray<readonly [script: string, out: string, code?: number]>
} = {
  "runs lists, and stops where && and || say": [
    ["echo a; echo b", "a\nb\n"],
    ["true && echo yes || echo no", "yes\n"],
    ["false && echo yes || echo no", "no\n"],
    ["false || false || echo third", "third\n"],
    ["! true", "", 1],
    ["echo a # a comment\necho b#c", "a\nb#c\n"]
  ],
  "passes data through pipes of any length": [
    ["echo a | cat | cat | wc -c", "2\n"],
    ["seq 100000 | tail -n 1", "100000\n"],
    ["yes | head -n 2", "y\ny\n"],
    ["printf 'b\\na\\n' | sort | tr a-z A-Z", "A\nB\n"],
    ["exit 3 | true", "", 0],
    ["true | exit 3", "", 3]
  ],
  redirects: [
    ["echo x > f; echo y >> f; cat < f", "x\ny\n"],
    ["{ echo out; echo err >&2; } 2>&1 | wc -l", "2\n"],
    ["echo gone > /dev/null; ls /none 2> e; wc -l < e", "1\n"],
    ["ls /none > f 2>&1; grep -c none f", "1\n"],
    ["echo x > /no/such/dir", "", 2],
    ["cat < /no/such/file", "", 2],
    ["exec > f; echo hidden; exec >&2; cat f >&2; test -s f", ""],
    ["cat <<E\nhello $HOME $((1+1))\nE", `hello ${home} 2\n`],
    ["cat <<'E'\n$HOME\nE\necho after", "$HOME\nafter\n"],
    ['while read line; do echo "<$line>"; done <<E\na b\nc\nE', "<a b>\n<c>\n"]
  ],
  "quotes and expands": [
    ["x='a  b'; echo $x; echo \"$x\"; echo '$x'", "a b\na  b\n$x\n"],
    ["echo a\\ b \"a\\\"b\" 'it'\\''s'", "a b a\"b it's\n"],
    ["n=four; echo ${u:-default} ${HOME:+set} ${#n}", "default set 4\n"],
    ["f=a/b.c.d; echo ${f##*/} ${f%.*} ${f%%.*} ${f#*/}", "b.c.d a/b.c a/b b.c.d\n"],
    ["echo ${v:=assigned} $v", "assigned assigned\n"],
    ['set -- a \'b c\'; for i in "$@"; do echo "<$i>"; done; echo $#', "<a>\n<b c>\n2\n"],
    ["echo $(echo a; echo b) `echo c`", "a b c\n"],
    ["echo \"$(printf 'a\\n\\n')\" | wc -l", "1\n"],
    ["echo $((7 / 2)) $((7 % 3)) $((-2 * 3)) $((1 << 4)) $((3 > 2 && 0))", "3 1 -6 16 0\n"],
    ["x=4; echo $((x * 2 + 1)) $((x += 1)) $x", "9 5 5\n"],
    ["touch a1 a2 b1; echo a* [ab]1 ?2 z* 'a*'", "a1 a2 a1 b1 a2 z* a*\n"],
    ["false; echo $?; true; echo $?", "1\n0\n"],
    ["echo ~ ~/x", `${home} ${home}/x\n`]
  ],
  "knows conditions, loops, cases and functions": [
    ["if [ -d /tmp ] && ! [ -e /none ]; then echo yes; else echo no; fi", "yes\n"],
    ["i=0; while [ $i -lt 3 ]; do i=$((i+1)); [ $i = 2 ] && continue; echo $i; done", "1\n3\n"],
    ["for i in 1 2 3; do for j in a b; do [ $i = 2 ] && break 2; echo $i$j; done; done", "1a\n1b\n"],
    ["until [ -f done ]; do touch done; echo once; done", "once\n"],
    ["case abc.txt in *.md) echo md;; a*|b*) echo text;; esac", "text\n"],
    ["f() { local x=in; echo $1 $x; return 3; }; x=out; f arg; echo $? $x", "arg in\n3 out\n"],
    ["f() { exit 4; }; f; echo never", "", 4]
  ],
  "keeps a subshell's changes in it": [
    ["x=1; (x=2; cd /tmp; echo $x; pwd); echo $x; pwd", `2\n/tmp\n1\n${home}\n`],
    ["(exit 5); echo $?", "5\n"],
    ['echo a | read x; echo "<$x>"', "<>\n"],
    ["X=1 env | grep '^X='; echo \"<$X>\"", "X=1\n<>\n"],
    ["export Y=2; sh -c 'echo $Y'", "2\n"]
  ],
  "runs things in the background, and waits for them": [
    ["(sleep 0.01; echo late) & echo early; wait; echo done", "early\nlate\ndone\n"],
    ["(exit 7) & wait $!", "", 7],
    ["sleep 1000 & kill $!; wait $!; echo $?", "143\n"]
  ],
  "does at the end what a trap says": [
    ["trap 'echo bye' EXIT; echo hi; exit 2", "hi\nbye\n", 2],
    ["trap 'echo caught' TERM; kill $$; echo on", "caught\non\n"],
    ["trap '' TERM; kill $$; echo still here", "still here\n"]
  ],
  "stops at a failure when told so": [
    ["set -e; false; echo never", "", 1],
    ["set -e; if false; then :; fi; false || true; ! true; echo here", "here\n"],
    ["set -u; echo $undefined; echo never", "", 2]
  ],
  "says what cannot be run": [
    ["nosuch", "", 127],
    ["touch f; ./f", "", 126],
    ["/tmp", "", 126],
    ["nosuch; echo $?", "127\n"],
    ["if true; then", "", 2],
    ["echo 'open", "", 2]
  ]
}

/** Runs a script with the real shell of this computer, in an empty home. */
const real = (script: string) => {
  const directory = mkdtempSync(join(tmpdir(), "sh-"))
  const env = { PATH: "/usr/bin:/bin", HOME: directory }
  const { stdout, status, signal } = spawnSync("/bin/sh", ["-c", script], {
    cwd: directory,
    env,
    timeout: 10_000
  })
  rmSync(directory, { recursive: true, force: true })
  return [stdout.toString().replaceAll(directory, home), status ?? signal]
}

const hasDash = process.platform === "linux" && realpathSync("/bin/sh").endsWith("dash")

describe.runIf(hasDash)("the expectations", () => {
  for (const [promise, cases] of Object.entries(scripts)) {
    it(`are those of a real shell, which ${promise}`, () => {
      for (const [script, out, code = 0] of cases) {
        assert.deepStrictEqual([script, ...real(script)], [script, out, code])
      }
    })
  }
})

describe("the shell", () => {
  for (const [promise, cases] of Object.entries(scripts)) {
    it.live(promise, () =>
      Effect.gen(function* () {
        const machine = yield* provision()
        for (const [script, out, code = 0] of cases) {
          const result = yield* sh(machine, `mkdir -p w; cd w; rm -rf *; cd; ${script}`)
          assert.deepStrictEqual([script, result.out, result.code], [script, out, code], result.err)
          yield* sh(machine, "rm -rf *")
        }
      }).pipe(Effect.scoped, Effect.provide(layer()))
    )
  }

  it.effect("names itself and the problem on standard error", () =>
    Effect.gen(function* () {
      const machine = yield* provision()
      const errors = yield* Effect.forEach(["nosuch", "cat /none", "cd /none", "exit 1 )"], (script) =>
        sh(machine, script)
      )
      assert.deepStrictEqual(
        errors.map(({ err }) => err),
        [
          "sh: 1: nosuch: not found\n",
          "cat: /none: No such file or directory\n",
          "sh: 1: cd: can't cd to /none\n",
          'sh: 1: Syntax error: ")" unexpected\n'
        ]
      )
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("runs a script's file by its first line, and refuses it without the right", () =>
    Effect.gen(function* () {
      const machine = yield* provision()
      const options = { mode: 0o755, user: "user" } as const
      yield* machine.files.write(
        `${home}/tool`,
        bytes('#!/bin/sh -e\necho $0 $# "$1"\nfalse\necho never\n'),
        options
      )
      assert.deepStrictEqual(yield* run(machine, program([`${home}/tool`, "a b"])), {
        out: `${home}/tool 1 a b\n`,
        err: "",
        status: exited(1)
      })
      assert.deepStrictEqual((yield* sh(machine, "PATH=$HOME:$PATH; tool x")).out, `${home}/tool 1 x\n`)
      yield* machine.files.chmod(`${home}/tool`, 0o644, "user")
      const refused = yield* Effect.flip(run(machine, program([`${home}/tool`])))
      assert.deepInclude(refused, { _tag: "SpawnFailed", reason: "permission" })
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.effect("knows enough Python for the first example, and says what it does not know", () =>
    Effect.gen(function* () {
      const machine = yield* provision()
      const python = (text: string) => run(machine, program(["python3", "-c", text]))
      assert.deepStrictEqual((yield* python("print(2 + 2)")).out, "4\n")
      assert.deepStrictEqual(
        (yield* python(
          "# sums\nprint(7 // 2, -7 // 2, 2 ** 10, 7 % 3)\nprint('a' + \"b\", 'x' * 3); print()"
        )).out,
        "3 -4 1024 1\nab xxx\n\n"
      )
      const failed = yield* python("import os")
      assert.deepStrictEqual(failed.status, exited(1))
      assert.include(failed.err, "import os")
      assert.include((yield* python("print(1 // 0)")).err, "ZeroDivisionError")
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )
})
