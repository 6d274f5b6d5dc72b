/**
 * A program for tests: it makes a sandbox that runs something, says `ready`, and
 * ends as it is told, without ever letting the sandbox go.
 *
 *   owner.ts container|memory|service forgets|waits|exits
 */
import { Fiberbox, Sandbox } from "../../src/promise.ts"

const [backend, ending] = process.argv.slice(2)

const make = async () => {
  const ttl = { afterMillis: 3_600_000, action: "kill" } as const
  if (backend === "service") return Sandbox.create({ ttl })
  if (backend === "memory") return Sandbox.create({ backend, ttl })
  if (ending === "forgets") return Sandbox.create({ backend: "container", ttl })
  const fiberbox = await Fiberbox.open({ backend: "container", orphanMillis: 1000 })
  return fiberbox.create({ ttl })
}

const sandbox = await make()
await sandbox.commands.start("sleep 1000 & sleep 2000")
// A reader that is left where it stands.
const events = sandbox.commands.stream("echo one; sleep 1000")[Symbol.asyncIterator]()
await events.next()
// Whoever waits for a call is waited for.
const { stdout } = await sandbox.commands.run("sleep 0.2; echo ready")
console.log(stdout.trim())
if (ending === "waits") setInterval(() => {}, 1_000_000)
if (ending === "exits") process.exit(0)
