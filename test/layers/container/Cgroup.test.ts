import { existsSync } from "node:fs"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, Stream } from "effect"
import { ChildProcess } from "effect/process"
import type { BackendFailed } from "../../../src/domain/Errors.ts"
import { Cgroups, keyed, parseLayout } from "../../../src/layers/container/Cgroup.ts"

const line = (path: string, type: string, options: string) =>
  `36 25 0:30 / ${path} rw,nosuid - ${type} ${type} rw,${options}`

describe("the layout of control groups", () => {
  it("is version 2 where nothing else is mounted", () => {
    const layout = parseLayout(line("/sys/fs/cgroup", "cgroup2", "nsdelegate"), "cpuset cpu io memory pids\n")
    assert.deepStrictEqual(layout, {
      version: 2,
      hierarchies: ["/sys/fs/cgroup"],
      controllers: {
        memory: "/sys/fs/cgroup",
        cpu: "/sys/fs/cgroup",
        cpuacct: "/sys/fs/cgroup",
        pids: "/sys/fs/cgroup",
        freezer: "/sys/fs/cgroup"
      }
    })
  })

  it("leaves out the version 2 controllers that the machine does not have", () => {
    const layout = parseLayout(line("/sys/fs/cgroup", "cgroup2", ""), "hugetlb")
    assert.deepStrictEqual(Object.keys(layout.controllers).sort(), ["cpuacct", "freezer"])
  })

  it("is version 1 where memory is, and counts the bare version 2 hierarchy among those to clean", () => {
    const mounts = [
      "22 20 0:5 / /proc rw - proc proc rw",
      line("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
      line("/sys/fs/cgroup/memory", "cgroup", "memory"),
      line("/sys/fs/cgroup/pids", "cgroup", "pids"),
      line("/sys/fs/cgroup/freezer", "cgroup", "freezer"),
      line("/sys/fs/cgroup/systemd", "cgroup", "name=systemd"),
      line("/sys/fs/cgroup/unified", "cgroup2", "")
    ]
    const layout = parseLayout(mounts.join("\n"), "")
    assert.strictEqual(layout.version, 1)
    assert.strictEqual(layout.hierarchies.length, 6)
    assert.deepStrictEqual(layout.controllers, {
      memory: "/sys/fs/cgroup/memory",
      cpu: "/sys/fs/cgroup/cpu,cpuacct",
      cpuacct: "/sys/fs/cgroup/cpu,cpuacct",
      pids: "/sys/fs/cgroup/pids",
      freezer: "/sys/fs/cgroup/freezer"
    })
  })
})

describe("a keyed file", () => {
  it("gives the value of the whole key only, and 0 for a missing one", () => {
    const text = "oom 7\noom_kill 2\noom_group_kill 0\n"
    assert.strictEqual(keyed(text, "oom_kill"), 2)
    assert.strictEqual(keyed(text, "oom"), 7)
    assert.strictEqual(keyed(text, "max"), 0)
  })
})

/** Where this machine has a version 2 hierarchy, alone or beside version 1. */
const unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].find((path) =>
  existsSync(`${path}/cgroup.controllers`)
)

/** The kernel's files, on a machine that seems to have version 2 only. */
const asVersion2 = Layer.effect(
  FileSystem.FileSystem,
  Effect.map(FileSystem.FileSystem, (fs) => ({
    ...fs,
    readFileString: (path: string) =>
      path === "/proc/self/mountinfo"
        ? Effect.succeed(line(unified ?? "", "cgroup2", ""))
        : fs.readFileString(path)
  }))
).pipe(Layer.provide(NodeServices.layer))

const busyTree = ["sh", "-c", "(while :; do :; done) & (setsid sleep 1000 &) ; echo ready; wait"] as const

/** Runs the tree of a busy loop and a daemon in a group of its own. */
const inGroup = <A, E>(
  layer: Layer.Layer<Cgroups, BackendFailed>,
  body: (cgroups: Cgroups["Service"], group: string) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const cgroups = yield* Cgroups
    const group = `/fiberbox-test${process.pid}v${cgroups.layout.version}`
    yield* Effect.forEach(cgroups.layout.hierarchies, (root) => fs.makeDirectory(`${root}${group}`))
    yield* Effect.addFinalizer(() => Effect.orDie(Effect.andThen(cgroups.kill(group), cgroups.remove(group))))
    const join = cgroups.layout.hierarchies.map(
      (root) => `echo $$ > ${root}${group}/cgroup.procs 2>/dev/null`
    )
    const child = yield* ChildProcess.make("sh", ["-c", `${join.join(";")}; exec "$@"`, "sh", ...busyTree])
    yield* child.stdout.pipe(Stream.take(1), Stream.runDrain)
    yield* body(cgroups, group)
  }).pipe(Effect.scoped, Effect.provide(layer), Effect.provide(NodeServices.layer))

const freezesAndKills = (cgroups: Cgroups["Service"], group: string) =>
  Effect.gen(function* () {
    assert.isAtLeast((yield* cgroups.processes(group)).length, 3)
    yield* cgroups.freeze(group)
    const { cpuMillis } = yield* cgroups.usage(group)
    yield* Effect.sleep("50 millis")
    assert.strictEqual((yield* cgroups.usage(group)).cpuMillis, cpuMillis)
    yield* cgroups.thaw(group)
    yield* Effect.repeat(cgroups.usage(group), { until: (usage) => usage.cpuMillis > cpuMillis })
    yield* cgroups.freeze(group)
    yield* cgroups.kill(group)
    assert.deepStrictEqual(yield* cgroups.processes(group), [])
    yield* cgroups.remove(group)
    yield* cgroups.remove(group)
    assert.deepStrictEqual(yield* cgroups.processes(group), [])
  })

describe.runIf(process.getuid?.() === 0)("a real control group", () => {
  it.live("is frozen, thawed, killed while frozen, and removed", () =>
    inGroup(Cgroups.layer.pipe(Layer.provide(NodeServices.layer)), freezesAndKills)
  )

  it.live.runIf(unified !== undefined)("of version 2 as well", () =>
    inGroup(Cgroups.layer.pipe(Layer.provide(asVersion2)), freezesAndKills)
  )
})
