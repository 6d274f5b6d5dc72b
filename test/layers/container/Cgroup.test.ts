import { assert, describe, it } from "@effect/vitest"
import { keyed, parseLayout } from "../../../src/layers/container/Cgroup.ts"

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
