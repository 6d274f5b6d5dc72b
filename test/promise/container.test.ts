import { createHash } from "node:crypto"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { CommandExit, Conflict, Fiberbox, Timeout } from "../../src/promise.ts"
import { canRunContainers } from "../cli/support.ts"
import { directory, eventually, grown, pids, rejection, tree } from "./support.ts"

const container = { backend: "container" } as const

class GivenUp extends Error {}

describe.runIf(canRunContainers)("a container of promises", () => {
  it("runs programs, and fails as the facade does", async () => {
    await using fiberbox = await Fiberbox.open(container)
    await using sandbox = await fiberbox.create({ image: "host" })
    const { isolation, stdout } = await sandbox.commands.run("echo hello")
    assert.deepStrictEqual({ isolation, stdout }, { isolation: "container", stdout: "hello\n" })
    const { exitCode } = await rejection(CommandExit, sandbox.process.run(["sh", "-c", "exit 7"]))
    assert.strictEqual(exitCode, 7)
    await rejection(Timeout, sandbox.commands.run("sleep 60", { timeoutMillis: 50 }))
  })

  it("kills the whole tree of a call that is given up, by a signal or by leaving the loop", async () => {
    await using fiberbox = await Fiberbox.open(container)
    await using sandbox = await fiberbox.create()
    const before = await pids(sandbox)
    const controller = new AbortController()
    const run = rejection(GivenUp, sandbox.commands.run(`setsid ${tree}`, { signal: controller.signal }))
    await grown(sandbox, before)
    controller.abort(new GivenUp())
    await run
    assert.strictEqual(await pids(sandbox), before)
    for await (const _ of sandbox.commands.stream(`setsid ${tree}`)) {
      await grown(sandbox, before)
      break
    }
    assert.strictEqual(await pids(sandbox), before)
  })

  it("lets a program wait while nobody takes its output", async () => {
    await using fiberbox = await Fiberbox.open(container)
    await using sandbox = await fiberbox.create()
    const written = async () =>
      (await sandbox.process.list()).find(({ processId }) => processId === "yes")?.end
    const options = { processId: "yes", maxOutputBytes: "none", timeoutMillis: "none" } as const
    for await (const { _tag } of sandbox.process.stream(["yes"], options)) {
      if (_tag !== "Output") continue
      // Running freely it writes megabytes between two looks.
      await eventually(async () => {
        const before = await written()
        return before === (await written())
      })
      assert.isBelow((await written()) ?? Number.POSITIVE_INFINITY, 8 * 1024 * 1024)
      break
    }
  })

  it("passes 16 MB in and out unchanged", async () => {
    await using fiberbox = await Fiberbox.open(container)
    await using sandbox = await fiberbox.create()
    const sent = createHash("sha256")
    const blocks = async function* () {
      for (let index = 0; index < 256; index++) {
        const block = new Uint8Array(64 * 1024).fill(index)
        sent.update(block)
        yield block
      }
    }
    await sandbox.files.writeStream("/home/user/big", blocks())
    const expected = sent.digest("hex")
    const { stdout } = await sandbox.commands.run("sha256sum", {
      stdin: sandbox.files.stream("/home/user/big")
    })
    assert.strictEqual(stdout, `${expected}  -\n`)
    const received = createHash("sha256")
    const options = { maxOutputBytes: "none" } as const
    for await (const event of sandbox.commands.stream("cat /home/user/big", options)) {
      if (event._tag === "Output") received.update(event.data)
    }
    assert.strictEqual(received.digest("hex"), expected)
  })

  it("does many things at once", async () => {
    await using fiberbox = await Fiberbox.open(container)
    const one = async (index: number) => {
      await using sandbox = await fiberbox.create()
      const outputs = await Promise.all(
        Array.from({ length: 10 }, (_, each) => sandbox.commands.run(`echo ${index} ${each}`))
      )
      return outputs.map(({ stdout }) => stdout)
    }
    const all = await Promise.all([0, 1, 2, 3].map(one))
    assert.deepStrictEqual(
      all,
      all.map((_, index) => Array.from({ length: 10 }, (_, each) => `${index} ${each}\n`))
    )
    assert.deepStrictEqual((await fiberbox.list()).sandboxes, [])
  })

  it("leaves its detached sandboxes in the state directory to the next, and the directory to one at a time", async () => {
    using base = directory()
    const place = { ...container, baseDir: base.path, stateDir: join(base.path, "state") }
    {
      await using fiberbox = await Fiberbox.open(place)
      const detached = await fiberbox.createDetached({ name: "kept" })
      await detached.files.write("/home/user/note", "from before")
      const { kind } = await rejection(Conflict, Fiberbox.open(place))
      assert.strictEqual(kind, "instance")
    }
    await using fiberbox = await Fiberbox.open(place)
    const kept = await fiberbox.connect("kept")
    assert.strictEqual(await kept.files.readText("/home/user/note"), "from before")
    await kept.kill()
  })
})
