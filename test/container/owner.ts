/**
 * A program for tests to kill: it owns two scoped sandboxes and a detached one
 * that counts and has a process with a time limit, says `ready` and waits.
 */
import { Effect } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { service } from "./support.ts"

const count = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done"

const main = Effect.gen(function* () {
  yield* Effect.all([Sandboxes.create(), Sandboxes.create()], { concurrency: 2 })
  const keeper = yield* Sandboxes.createDetached({ name: "keeper" })
  yield* keeper.files.write("/home/user/note", "written before the kill")
  const counter = yield* keeper.commands.start(count, { processId: "counter" })
  yield* keeper.commands.start("sleep 1000", { processId: "limited", timeoutMillis: 6000 })
  yield* Effect.sync(() => process.stdout.write(`ready ${counter.pid}\n`))
  yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(service(process.argv[2] ?? "")))

Effect.runFork(main)
