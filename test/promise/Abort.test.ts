import { assert, describe, it } from "@effect/vitest"
import { Fiberbox, Sandbox } from "../../src/promise.ts"
import { grown, pids, rejection, tree } from "./support.ts"

const memory = { backend: "memory" } as const

class GivenUp extends Error {}

/** A signal, and what aborts it with an error of the test's own. */
const giveUp = () => {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort(new GivenUp()) }
}

describe("aborting a signal", () => {
  it("rejects with its reason once the command and its children are gone", async () => {
    await using sandbox = await Sandbox.create(memory)
    const before = await pids(sandbox)
    const { abort, signal } = giveUp()
    const run = sandbox.commands.run(tree, { signal })
    const rejected = rejection(GivenUp, run)
    await grown(sandbox, before)
    abort()
    await rejected
    assert.strictEqual(await pids(sandbox), before)
  })

  it("without a reason rejects as the platform's own calls do", async () => {
    await using sandbox = await Sandbox.create(memory)
    const late = AbortSignal.timeout(20)
    const timedOut = await rejection(DOMException, sandbox.commands.run("sleep 1000", { signal: late }))
    assert.strictEqual(timedOut.name, "TimeoutError")
    const aborted = await rejection(DOMException, sandbox.info({ signal: AbortSignal.abort() }))
    assert.strictEqual(aborted.name, "AbortError")
  })

  it("before the call does nothing at all", async () => {
    await using fiberbox = await Fiberbox.open(memory)
    const signal = AbortSignal.abort(new GivenUp())
    await rejection(GivenUp, fiberbox.createDetached({ signal }))
    assert.deepStrictEqual((await fiberbox.list()).sandboxes, [])
    await rejection(GivenUp, Sandbox.create({ ...memory, signal }))
    await rejection(GivenUp, Fiberbox.open({ ...memory, signal }))
  })

  it("after the call does nothing", async () => {
    const { abort, signal } = giveUp()
    await using sandbox = await Sandbox.create({ ...memory, signal })
    const process = await sandbox.commands.start("sleep 1000", { signal })
    abort()
    assert.strictEqual((await sandbox.info()).status, "running")
    assert.deepStrictEqual(
      (await sandbox.process.list()).map(({ exit, processId }) => ({ exit, processId })),
      [{ exit: undefined, processId: process.processId }]
    )
  })

  it("reaches calls whose options do not come last, or that have none", async () => {
    await using sandbox = await Sandbox.create(memory)
    const signal = AbortSignal.abort(new GivenUp())
    const process = await sandbox.commands.start("cat", { stdin: true })
    await rejection(GivenUp, process.write("text", { signal }))
    await rejection(GivenUp, process.wait({ signal }))
    await rejection(GivenUp, sandbox.setExpiry({ ttl: { afterMillis: 1, action: "kill" } }, { signal }))
    await rejection(GivenUp, sandbox.files.write("/home/user/a", "text", { signal }))
    await rejection(GivenUp, sandbox.pty.open({ size: { rows: 24, cols: 80 } }, { signal }))
    assert.strictEqual(await sandbox.files.exists("/home/user/a"), false)
    assert.strictEqual((await sandbox.info()).expiresAt, undefined)
  })

  it("ends a loop over events with its reason, and the command with it", async () => {
    await using sandbox = await Sandbox.create(memory)
    const before = await pids(sandbox)
    const { abort, signal } = giveUp()
    const tags: Array<string> = []
    const loop = async () => {
      for await (const { _tag } of sandbox.commands.stream(tree, { signal })) tags.push(_tag)
    }
    const rejected = rejection(GivenUp, loop())
    await grown(sandbox, before)
    abort()
    await rejected
    assert.deepStrictEqual(tags, ["Started"])
    assert.strictEqual(await pids(sandbox), before)
  })

  it("of one call leaves the others alone", async () => {
    await using sandbox = await Sandbox.create(memory)
    const { abort, signal } = giveUp()
    const calls = Array.from({ length: 20 }, (_, index) =>
      sandbox.commands.run(`sleep 0.05; echo ${index}`, index % 2 === 0 ? { signal } : {})
    )
    const settled = Promise.allSettled(calls)
    abort()
    const answers = await settled
    assert.deepStrictEqual(
      answers.map((answer) =>
        answer.status === "fulfilled" ? answer.value.stdout : answer.reason instanceof GivenUp
      ),
      answers.map((_, index) => (index % 2 === 0 ? true : `${index}\n`))
    )
  })

  it("while a sandbox is made leaves none", async () => {
    await using fiberbox = await Fiberbox.open(memory)
    const { abort, signal } = giveUp()
    const made = rejection(GivenUp, fiberbox.create({ signal }))
    abort()
    await made
    assert.deepStrictEqual((await fiberbox.list()).sandboxes, [])
  })
})
