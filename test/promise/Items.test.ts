import { assert, describe, it } from "@effect/vitest"
import { InvalidArgument, type Items, type ProcessEvent, Sandbox } from "../../src/promise.ts"
import { grown, pids, rejection, tree } from "./support.ts"

const memory = { backend: "memory" } as const

/** The text of all output. */
const textOf = async (events: Items<ProcessEvent>) => {
  const decoder = new TextDecoder()
  let text = ""
  for await (const event of events) {
    if (event._tag === "Output") text += decoder.decode(event.data, { stream: true })
  }
  return text
}

describe("what comes over time", () => {
  it("is read with for await, in order and to the end", async () => {
    await using sandbox = await Sandbox.create(memory)
    const tags: Array<string> = []
    for await (const { _tag } of sandbox.commands.stream("echo one; echo two >&2")) tags.push(_tag)
    assert.strictEqual(tags[0], "Started")
    assert.include(tags, "Output")
    assert.strictEqual(tags.at(-1), "Exited")
  })

  it("begins when it is read, and anew with each reading", async () => {
    await using sandbox = await Sandbox.create(memory)
    const events = sandbox.commands.stream("echo x >> /home/user/log; cat /home/user/log")
    assert.strictEqual(await sandbox.files.exists("/home/user/log"), false)
    assert.strictEqual(await textOf(events), "x\n")
    assert.strictEqual(await textOf(events), "x\nx\n")
  })

  it("ends what produces it when the loop is left", async () => {
    await using sandbox = await Sandbox.create(memory)
    const before = await pids(sandbox)
    for await (const { _tag } of sandbox.commands.stream(tree)) {
      assert.strictEqual(_tag, "Started")
      await grown(sandbox, before)
      break
    }
    assert.strictEqual(await pids(sandbox), before)
  })

  it("ends what produces it when the loop throws", async () => {
    await using sandbox = await Sandbox.create(memory)
    const before = await pids(sandbox)
    const loop = async () => {
      for await (const _ of sandbox.commands.stream(tree)) {
        await grown(sandbox, before)
        throw new RangeError("of the loop")
      }
    }
    await rejection(RangeError, loop())
    assert.strictEqual(await pids(sandbox), before)
  })

  it("is returned from while the next item is awaited", async () => {
    await using sandbox = await Sandbox.create(memory)
    const before = await pids(sandbox)
    const iterator = sandbox.commands.stream(tree)[Symbol.asyncIterator]()
    assert.strictEqual((await iterator.next()).value?._tag, "Started")
    const next = iterator.next()
    await grown(sandbox, before)
    await iterator.return()
    assert.deepStrictEqual(await next, { done: true, value: undefined })
    assert.deepStrictEqual(await iterator.next(), { done: true, value: undefined })
    assert.strictEqual(await pids(sandbox), before)
  })

  it("that is never read, or returned from before, starts nothing", async () => {
    await using sandbox = await Sandbox.create(memory)
    sandbox.commands.stream("sleep 1000")
    await sandbox.commands.stream("sleep 1000")[Symbol.asyncIterator]().return()
    assert.deepStrictEqual(await sandbox.process.list(), [])
  })

  it("is a web stream, whose cancelling ends what produces it", async () => {
    await using sandbox = await Sandbox.create(memory)
    const before = await pids(sandbox)
    const reader = sandbox.commands.stream(tree).toReadableStream().getReader()
    assert.strictEqual((await reader.read()).value?._tag, "Started")
    const next = reader.read()
    await grown(sandbox, before)
    await reader.cancel()
    assert.strictEqual((await next).done, true)
    assert.strictEqual(await pids(sandbox), before)
  })

  it("is gone on with by a cursor, as in the facade", async () => {
    await using sandbox = await Sandbox.create(memory)
    const process = await sandbox.commands.start("printf 0123456789")
    await process.wait()
    assert.strictEqual(await textOf(process.events({ cursor: 4 })), "456789")
    // Reading it has left it as it was.
    assert.strictEqual(await textOf(process.events()), "0123456789")
  })

  it("is what happens to the sandbox and its files, too", async () => {
    await using sandbox = await Sandbox.create(memory)
    const happened: Array<string> = []
    for await (const { body } of sandbox.events({ once: true })) happened.push(body._tag)
    assert.strictEqual(happened[0], "Created")
    const changes = sandbox.files.watch("/home/user")[Symbol.asyncIterator]()
    const change = changes.next()
    // A watch begins at some time after it was asked for.
    let written = 0
    const writer = setInterval(() => void sandbox.files.write(`/home/user/${written++}`, ""), 5)
    const { value } = await change
    clearInterval(writer)
    await changes.return()
    assert.match(value?._tag === "Created" ? value.path : "", /^\/home\/user\//)
  })
})

describe("what is passed over time", () => {
  const words = async function* () {
    yield "one "
    yield new TextEncoder().encode("two ")
    yield "three"
  }

  it("is an async generator, a web stream or a stream of Node", async () => {
    await using sandbox = await Sandbox.create(memory)
    const { stdout } = await sandbox.process.run(["cat"], { stdin: words() })
    assert.strictEqual(stdout, "one two three")
    const { body } = new Response("from the web")
    if (body === null) return assert.fail("no body")
    await sandbox.files.writeStream("/home/user/a", body)
    const { stdout: copied } = await sandbox.commands.run("cat", {
      stdin: sandbox.files.stream("/home/user/a").toReadableStream()
    })
    assert.strictEqual(copied, "from the web")
  })

  it("can be what another call gives", async () => {
    await using sandbox = await Sandbox.create(memory)
    await using other = await Sandbox.create(memory)
    await sandbox.files.write("/home/user/a", "x".repeat(300_000))
    await other.files.writeStream("/home/user/b", sandbox.files.stream("/home/user/a"))
    assert.strictEqual((await other.files.stat("/home/user/b")).size, 300_000)
  })

  it("gives up the call when it fails, which is rejected with its error", async () => {
    await using sandbox = await Sandbox.create(memory)
    const before = await pids(sandbox)
    const broken = async function* () {
      yield "half"
      throw new RangeError("of the source")
    }
    await sandbox.files.write("/home/user/a", "old")
    await rejection(RangeError, sandbox.files.writeStream("/home/user/a", broken()))
    assert.strictEqual(await sandbox.files.readText("/home/user/a"), "old")
    await rejection(RangeError, sandbox.commands.run("cat; sleep 1000", { stdin: broken() }))
    await rejection(RangeError, textOf(sandbox.commands.stream("cat; sleep 1000", { stdin: broken() })))
    assert.strictEqual(await pids(sandbox), before)
  })

  it("is refused when it yields something else", async () => {
    await using sandbox = await Sandbox.create(memory)
    const numbers: object = (async function* () {
      yield 1
    })()
    const call: Promise<unknown> = Reflect.apply(sandbox.files.writeStream, undefined, [
      "/home/user/a",
      numbers
    ])
    const refused = await rejection(InvalidArgument, call)
    assert.strictEqual(refused.field, "source")
  })

  it("is left when the program has ended without reading it", async () => {
    await using sandbox = await Sandbox.create(memory)
    let left = false
    const endless = async function* () {
      try {
        while (true) yield "y\n".repeat(10_000)
      } finally {
        left = true
      }
    }
    const { stdout } = await sandbox.commands.run("head -n 1", { stdin: endless() })
    assert.strictEqual(stdout, "y\n")
    assert.strictEqual(left, true)
    let cancelled = false
    const silent = new ReadableStream<Uint8Array>({
      cancel: () => {
        cancelled = true
      }
    })
    await sandbox.commands.run("true", { stdin: silent })
    assert.strictEqual(cancelled, true)
  })
})
