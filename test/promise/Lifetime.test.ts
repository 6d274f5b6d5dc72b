import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { Fiberbox, InvalidArgument, NotFound, Sandbox } from "../../src/promise.ts"
import { canRunContainers } from "../cli/support.ts"
import { directory, eventually, own, rejection } from "./support.ts"

const memory = { backend: "memory" } as const

describe("a fiberbox", () => {
  it("and its sandboxes end in the order of await using", async () => {
    const ended: Array<string> = []
    {
      await using fiberbox = await Fiberbox.open(memory)
      await using _before = {
        [Symbol.asyncDispose]: async () => void ended.push((await fiberbox.get(id)).status)
      }
      await using sandbox = await fiberbox.create()
      const { id } = sandbox
      assert.strictEqual((await fiberbox.get(id)).status, "running")
    }
    assert.deepStrictEqual(ended, ["killed"])
  })

  it("rejects what is pending when it is closed, and whatever comes after", async () => {
    const fiberbox = await Fiberbox.open(memory)
    const sandbox = await fiberbox.create()
    const events = sandbox.commands.stream("sleep 1000")[Symbol.asyncIterator]()
    await events.next()
    const pending = [
      sandbox.commands.run("sleep 1000"),
      events.next(),
      sandbox.waitForReady().then(() => sandbox.commands.run("sleep 1000"))
    ].map((call) => rejection(DOMException, call))
    await fiberbox.close()
    for (const { message, name } of await Promise.all(pending)) {
      assert.deepStrictEqual({ message, name }, { message: "this Fiberbox is closed", name: "AbortError" })
    }
    await rejection(DOMException, sandbox.info())
    await rejection(DOMException, fiberbox.create())
    // There is nothing left to let go.
    await sandbox[Symbol.asyncDispose]()
    await fiberbox[Symbol.asyncDispose]()
  })

  it("has a world of its own", async () => {
    await using one = await Fiberbox.open(memory)
    await using other = await Fiberbox.open(memory)
    await one.createDetached({ name: "mine" })
    assert.strictEqual((await one.get("mine")).name, "mine")
    await rejection(NotFound, other.get("mine"))
  })
})

describe("a sandbox that is let go", () => {
  it("is killed when create made it, and stays otherwise", async () => {
    await using fiberbox = await Fiberbox.open(memory)
    const statuses = async () => {
      const { sandboxes } = await fiberbox.list({ statuses: ["running", "killed"] })
      return Object.fromEntries(sandboxes.map(({ name, status }) => [name, status]))
    }
    {
      await using _created = await fiberbox.create({ name: "created" })
      await using _detached = await fiberbox.createDetached({ name: "detached" })
      await using _connected = await fiberbox.connect("detached")
      await using _got = await fiberbox.getOrCreate("got")
    }
    assert.deepStrictEqual(await statuses(), { created: "killed", detached: "running", got: "running" })
    await fiberbox.kill("got")
    assert.deepStrictEqual(await statuses(), { created: "killed", detached: "running", got: "killed" })
  })

  it("may have been killed before", async () => {
    await using fiberbox = await Fiberbox.open(memory)
    await using sandbox = await fiberbox.create()
    await sandbox.kill()
    await sandbox.kill()
    assert.strictEqual((await sandbox.info()).status, "killed")
    await sandbox[Symbol.asyncDispose]()
  })
})

describe("the statics", () => {
  afterEach(() => {
    vi.useRealTimers()
    vi.unstubAllEnvs()
  })

  it("share what they run in, which is closed 10 seconds after its last handle was let go", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
    const names = async () => (await Sandbox.list(memory)).sandboxes.map(({ name }) => String(name))
    {
      await using _detached = await Sandbox.createDetached({ ...memory, name: "shared" })
      await vi.advanceTimersByTimeAsync(60_000)
      assert.deepStrictEqual(await names(), ["shared"])
    }
    await vi.advanceTimersByTimeAsync(9_000)
    assert.deepStrictEqual(await names(), ["shared"])
    await vi.advanceTimersByTimeAsync(10_000)
    assert.deepStrictEqual(await names(), [])
  })

  it("use the service that the environment names when they are told no place", async () => {
    vi.stubEnv("FIBERBOX_URL", "ftp://nowhere")
    const refused = await rejection(InvalidArgument, Sandbox.list())
    assert.strictEqual(refused.field, "url")
    assert.isArray((await Sandbox.list(memory)).sandboxes)
  })

  it("try again to open what could not be opened", async () => {
    const there = { backend: "container", stateDir: "/dev/null/there" } as const
    await rejection(InvalidArgument, Sandbox.list(there))
    const refused = await rejection(InvalidArgument, Sandbox.create(there))
    assert.strictEqual(refused.field, "stateDir")
  })
})

/** The instances below a base directory. */
const instances = (base: string) => readdirSync(join(base, "ephemeral"))

/** The living processes of an instance's containers. */
const processesOf = (instance: string) =>
  readdirSync("/proc").filter((name) => {
    if (!/^\d+$/.test(name)) return false
    try {
      return (
        readFileSync(`/proc/${name}/cgroup`, "utf8").includes(`fiberbox-${instance}`) &&
        !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${name}/status`, "utf8"))
      )
    } catch {
      return false
    }
  })

describe("a program that never lets its sandbox go", () => {
  it("ends by itself", async () => {
    const { closed } = await own("memory", "forgets", {})
    assert.deepStrictEqual(await closed, [0, null])
  })

  it.runIf(canRunContainers)("ends by itself, and nothing of its container is left", async () => {
    using base = directory()
    const { closed } = await own("container", "forgets", { FIBERBOX_BASE_DIR: base.path })
    const [instance = ""] = instances(base.path)
    assert.deepStrictEqual(await closed, [0, null])
    assert.deepStrictEqual(processesOf(instance), [])
    assert.deepStrictEqual(instances(base.path), [])
  })

  for (const ending of ["waits", "exits"]) {
    const how = ending === "waits" ? "is killed" : "exits at once"
    it.runIf(canRunContainers)(
      `and ${how} is followed by its container, and the next clears away the rest`,
      async () => {
        using base = directory()
        const { child, closed } = await own("container", ending, { FIBERBOX_BASE_DIR: base.path })
        const [instance = ""] = instances(base.path)
        if (ending === "waits") {
          assert.isAbove(processesOf(instance).length, 3)
          child.kill("SIGKILL")
        }
        await closed
        await eventually(async () => processesOf(instance).length === 0)
        const said = vi.spyOn(console, "log")
        await (await Fiberbox.open({ backend: "container", baseDir: base.path })).close()
        assert.deepStrictEqual(instances(base.path), [])
        assert.deepStrictEqual(said.mock.calls, [])
      }
    )
  }
})
