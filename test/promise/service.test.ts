import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, ManagedRuntime } from "effect"
import {
  Authentication,
  CommandExit,
  Connection,
  Fiberbox,
  InvalidArgument,
  NotFound,
  Sandbox
} from "../../src/promise.ts"
import { Server } from "../../src/server.ts"
import { aliceToken, memory, onlyAlice, serving } from "../rpc/support.ts"
import { grown, own, pids, rejection, tree } from "./support.ts"

/** A service for as long as the test's scope lives, and how it is reached. */
const service = async () => {
  const runtime = ManagedRuntime.make(serving().pipe(Layer.provide(Layer.merge(memory, onlyAlice))))
  const { url } = await runtime.runPromise(Effect.map(Server.ServerAddress, (address) => address))
  return { url, token: aliceToken, [Symbol.asyncDispose]: () => runtime.dispose() }
}

class GivenUp extends Error {}

describe("sandboxes of a service", () => {
  it("are used as those of this process", async () => {
    await using there = await service()
    const place = { url: there.url, token: there.token }
    await using sandbox = await Sandbox.create({ ...place, name: "far" })
    const { stdout } = await sandbox.commands.run("cat", { stdin: new Blob(["from here"]).stream() })
    assert.strictEqual(stdout, "from here")
    const { exitCode } = await rejection(CommandExit, sandbox.commands.run("exit 7"))
    assert.strictEqual(exitCode, 7)
    await using same = await Sandbox.connect("far", place)
    assert.strictEqual(same.id, sandbox.id)
  })

  it("kill what runs for a call that is given up", async () => {
    await using there = await service()
    await using fiberbox = await Fiberbox.open({ url: there.url, token: there.token })
    await using sandbox = await fiberbox.create()
    const before = await pids(sandbox)
    const controller = new AbortController()
    const run = rejection(GivenUp, sandbox.commands.run(tree, { signal: controller.signal }))
    await grown(sandbox, before)
    controller.abort(new GivenUp())
    await run
    assert.strictEqual(await pids(sandbox), before)
    for await (const _ of sandbox.commands.stream(tree)) {
      await grown(sandbox, before)
      break
    }
    assert.strictEqual(await pids(sandbox), before)
  })

  it("are killed at the end of await using", async () => {
    await using there = await service()
    await using fiberbox = await Fiberbox.open({ url: there.url, token: there.token, transport: "http" })
    const made = await fiberbox.create({ name: "made" })
    await made[Symbol.asyncDispose]()
    await rejection(NotFound, fiberbox.connect("made"))
    assert.strictEqual((await fiberbox.get(made.id)).status, "killed")
  })

  it("are refused to whoever has no token, or asks nobody", async () => {
    await using there = await service()
    await rejection(Authentication, Sandbox.list({ url: there.url, token: "another" }))
    await rejection(InvalidArgument, Sandbox.list({ url: "nowhere" }))
    await using nobody = await Fiberbox.open({ url: "http://127.0.0.1:1", patience: "100 millis" })
    const { outcome } = await rejection(Connection, nobody.list())
    assert.strictEqual(outcome, "not-started")
  })

  it("of the environment end with a program that never lets them go, and do not keep it running", async () => {
    await using there = await service()
    const { closed } = await own("service", "forgets", {
      FIBERBOX_URL: there.url,
      FIBERBOX_TOKEN: there.token
    })
    assert.deepStrictEqual(await closed, [0, null])
    await using fiberbox = await Fiberbox.open({ url: there.url, token: there.token })
    const { sandboxes } = await fiberbox.list({ statuses: ["running", "killed"] })
    assert.deepStrictEqual(
      sandboxes.map(({ status }) => status),
      ["killed"]
    )
  })
})
