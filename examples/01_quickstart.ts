/**
 * Quickstart: create a sandbox, write a file, run it, read what came out, clean up.
 *
 *   npm run quickstart
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Sandboxes } from "fiberbox"
import { Container } from "fiberbox/container"

const script = `
import getpass, os, platform

print(2 + 2)
processes = [name for name in os.listdir("/proc") if name.isdigit()]
with open("/home/user/facts.txt", "w") as facts:
    print(f"I am {getpass.getuser()} (uid {os.getuid()}) on {platform.node()}", file=facts)
    print(f"I see {len(processes)} processes, myself included", file=facts)
`

const program = Effect.gen(function* () {
  // The sandbox is gone when this scope closes, however it closes.
  const sandbox = yield* Sandboxes.create({ image: "host" })
  yield* Console.log(`created   ${sandbox.id}`)

  yield* sandbox.files.write("/home/user/a.py", script)
  const { isolation, stdout } = yield* sandbox.commands.run("python3 /home/user/a.py")
  yield* Console.log(`printed   ${stdout.trimEnd()}   (isolation: ${isolation})`)

  const facts = yield* sandbox.files.readText("/home/user/facts.txt")
  for (const line of facts.trimEnd().split("\n")) yield* Console.log(`wrote     ${line}`)

  const { entries } = yield* sandbox.files.list("/home/user")
  yield* Console.log(`holds     ${entries.map((entry) => entry.path).join(", ")}`)
}).pipe(Effect.scoped, Effect.andThen(Console.log("removed   nothing of it is left")))

program.pipe(Effect.provide(Container.layer()), NodeRuntime.runMain)
