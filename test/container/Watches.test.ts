/**
 * Random programs of file operations, watched on both backends: they tell the same.
 */

import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, type Cause, Context, Effect, Layer, Queue, Schema, Stream } from "effect"
import type { WatchEvent } from "../../src/domain/FileSystem.ts"
import { Memory } from "../../src/memory.ts"
import type { Sandbox } from "../../src/services/Sandbox.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { canRun, service, temporary } from "./support.ts"

/** Below the directory of a program; `w` is watched, `out` is not. */
const paths = [
  "w",
  "w/a",
  "w/a/b",
  "w/a/f",
  "w/a/b/g",
  "w/c",
  "w/c/f",
  "w/f",
  "out",
  "out/a",
  "out/f"
] as const
const Path = Schema.Literals(paths)

const ofFiles = ["write", "makeDir", "rename", "remove", "close", "open"] as const
const ofPrograms = [
  "append",
  "truncate",
  "mv",
  "rm",
  "ln",
  "link",
  "cp",
  "touch",
  "mkdir",
  "rmdir",
  "held"
] as const
const acts = [...ofFiles, ...ofPrograms] as const

const Step = Schema.Struct({
  act: Schema.Literals(acts),
  from: Path,
  to: Path
})
type Step = typeof Step.Type

/**
 * Whether the step could be done is part of what must be the same. What is left of a directory of which not all
 * may be removed is not promised: a program that closes directories removes none as a whole.
 */
const perform = ({ files, commands }: Sandbox, base: string, { act, from, to }: Step, recursive: boolean) => {
  const a = `${base}/${from}`
  const b = `${base}/${to}`
  const done = <E>(effect: Effect.Effect<unknown, E>) =>
    Effect.match(effect, { onSuccess: () => true, onFailure: () => false })
  const sh = (script: string) => done(commands.run(script))
  switch (act) {
    case "write":
      return done(files.write(a, "content"))
    case "makeDir":
      return done(files.makeDir(a))
    case "rename":
      return done(files.rename(a, b))
    case "remove":
      return done(files.remove(a, { recursive }))
    case "close":
      return done(files.chmod(a, 0))
    case "open":
      return done(files.chmod(a, 0o755))
    case "append":
      return sh(`echo more >> ${a}`)
    case "truncate":
      return sh(`: > ${a}`)
    case "rm":
      return sh(`rm -rf ${a}`)
    case "link":
      return sh(`ln -s ${a} ${b}`)
    case "held":
      return sh(`exec 3>> ${a} && mv ${a} ${b} && echo more >&3`)
    default:
      return sh(`${act} ${a} ${act === "mv" || act === "ln" || act === "cp" ? b : ""}`)
  }
}

const show =
  (base: string) =>
  (event: WatchEvent): string => {
    const short = (path: string) => path.replace(base, "")
    switch (event._tag) {
      case "Renamed":
        return `Renamed ${short(event.from)} ${short(event.to)}`
      case "Overflow":
        return "Overflow"
      case "Ended":
        return `Ended ${event.reason}`
      default:
        return `${event._tag} ${short(event.path)}`
    }
  }

/**
 * What the kernel leaves open: changes of one file in a row may be told once, and the entries of a directory
 * that is moved in or removed as a whole come in any order.
 */
const normalised = (events: ReadonlyArray<string>): ReadonlyArray<string> => {
  const found: Array<Array<string>> = []
  for (const event of events) {
    const run = found.at(-1)
    if (run?.at(-1) === event && event.startsWith("Modified")) continue
    const kind = event.split(" ")[0] ?? ""
    if (run?.[0]?.startsWith(kind) === true && (kind === "Created" || kind === "Removed")) run.push(event)
    else found.push([event])
  }
  return found.flatMap((run) => run.sort())
}

const watching = Effect.fnUntraced(function* (
  sandbox: Sandbox,
  base: string,
  path: string,
  recursive: boolean
) {
  const queue = yield* Queue.unbounded<string, unknown | Cause.Done>()
  yield* sandbox.files
    .watch(`${base}/${path}`, { recursive })
    .pipe(Stream.map(show(base)), Stream.runIntoQueue(queue), Effect.forkScoped)
  const nudge = `${base}/${path}/nudge`
  const seen = Effect.flatMap(Queue.size(queue), (size) => (size > 0 ? Effect.void : Effect.fail("not yet")))
  yield* sandbox.files
    .makeDir(nudge)
    .pipe(
      Effect.andThen(sandbox.files.remove(nudge)),
      Effect.andThen(Effect.sleep(1)),
      Effect.andThen(seen),
      Effect.retry({ while: (error) => error === "not yet" })
    )
  return Stream.fromQueue(queue).pipe(
    Stream.filter((event) => !event.includes("/nudge")),
    Stream.takeUntil((event) => event.startsWith("Ended") || event === `Created /${path}/end`),
    Stream.runCollect,
    Effect.map(normalised)
  )
})

/** What three watches tell of a program, and which of its steps could be done. */
const told = Effect.fnUntraced(function* (sandbox: Sandbox, base: string, steps: ReadonlyArray<Step>) {
  yield* sandbox.files.makeDir(`${base}/w/a/b`)
  yield* sandbox.files.makeDir(`${base}/out`)
  const flat = yield* watching(sandbox, base, "w", false)
  const whole = yield* watching(sandbox, base, "w", true)
  const inner = yield* watching(sandbox, base, "w/a", true)
  const open = steps.every(({ act }) => act !== "close")
  const done = yield* Effect.forEach(steps, (step) => perform(sandbox, base, step, open))
  yield* sandbox.commands.run(`chmod 755 ${base}/w ${base}/w/a`).pipe(Effect.ignore)
  yield* sandbox.files.makeDir(`${base}/w/a/end`).pipe(Effect.ignore)
  yield* sandbox.files.makeDir(`${base}/w/end`)
  return { done, inner: yield* inner, whole: yield* whole, flat: yield* flat }
}, Effect.scoped)

describe.runIf(canRun)("watches", () => {
  it.live(
    "tell the same of any program of file operations, in memory and in a container",
    () =>
      Effect.gen(function* () {
        const base = yield* temporary
        const sandboxIn = <E>(layer: Layer.Layer<Sandboxes, E>) =>
          Effect.flatMap(Layer.build(layer), (context) => Context.get(context, Sandboxes).create())
        const container = yield* sandboxIn(service(base))
        const memory = yield* sandboxIn(Memory.layer())
        let count = 0
        yield* Arbitrary.checkEffect(
          Arbitrary.schema(Schema.Array(Step)),
          (steps) =>
            Effect.gen(function* () {
              const at = `/home/user/${++count}`
              const [real, modelled] = yield* Effect.all(
                [told(container, at, steps), told(memory, at, steps)],
                {
                  concurrency: 2
                }
              )
              const program = steps.map(({ act, from, to }) => `${act} ${from} ${to}`)
              assert.deepStrictEqual({ program, ...modelled }, { program, ...real })
              return true
            }),
          { runs: 60, size: 20 }
        )
      }).pipe(Effect.scoped, Effect.provide(NodeFileSystem.layer)),
    120_000
  )
})
