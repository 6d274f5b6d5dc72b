import { execFile } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Runs a program to its end; its output, or a defect with all it said. */
const run = (program: string, args: ReadonlyArray<string>, cwd: string) =>
  Effect.callback<string>((resume) => {
    const env = { ...process.env, NODE_OPTIONS: "" }
    execFile(program, args, { cwd, env, maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) =>
      resume(
        error === null
          ? Effect.succeed(stdout)
          : Effect.die(new Error(`${error.message}\n${stdout}\n${stderr}`))
      )
    )
  })

/** A project of a user that has installed the package as it would be published. */
const project: Effect.Effect<string, never, Scope.Scope> = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "fiberbox-package-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const modules = join(directory, "node_modules")
  mkdirSync(join(modules, "fiberbox"), { recursive: true })
  const packed = yield* run("npm", ["pack", "--silent", "--pack-destination", directory], root)
  const tarball = packed.trim().split("\n").at(-1) ?? ""
  yield* run("tar", ["-xzf", tarball, "--strip-components=1", "-C", "node_modules/fiberbox"], directory)
  for (const name of readdirSync(join(root, "node_modules"))) {
    if (!name.startsWith(".")) symlinkSync(join(root, "node_modules", name), join(modules, name))
  }
  const built = join(root, "native/build")
  if (existsSync(built)) cpSync(built, join(modules, "fiberbox/native/build"), { recursive: true })
  writeFileSync(join(directory, "package.json"), '{ "type": "module", "private": true }')
  return directory
})

describe("the published package", () => {
  it.live(
    "has a command that runs, and runs the examples as they are",
    () =>
      Effect.gen(function* () {
        const directory = yield* project
        const command = join(directory, "node_modules/fiberbox/bin/fiberbox.js")
        const said = yield* run(
          process.execPath,
          [command, "run", "--backend", "memory", "--", "echo", "hello"],
          directory
        )
        assert.strictEqual(said, "hello\n")
        const example = join(directory, "example.ts")
        cpSync(join(root, "examples/08_testing_with_memory.ts"), example)
        assert.include(yield* run(process.execPath, [example], dirname(example)), "compiled a program")
      }).pipe(Effect.scoped),
    120_000
  )
})
