import { assert, describe, it } from "@effect/vitest"
import { InvalidArgument, Unsupported } from "../../../src/domain/Errors.ts"
import { defaultLimits, type Limits } from "../../../src/domain/Sandbox.ts"
import type { CgroupLayout } from "../../../src/layers/container/Cgroup.ts"
import { checkLimits, type MachineSize } from "../../../src/layers/container/Limits.ts"

const gib = 1024 ** 3
const machine: MachineSize = { memoryBytes: 8 * gib, cpus: 4, pids: 32_768, diskBytes: 100 * gib }
const cgroups: CgroupLayout = {
  version: 2,
  hierarchies: ["/c"],
  controllers: { memory: "/c", cpu: "/c", cpuacct: "/c", pids: "/c", freezer: "/c" }
}
const check = (change: Partial<Limits>) => checkLimits({ ...defaultLimits, ...change }, machine, cgroups)

describe("limits", () => {
  it("that the machine has are granted, up to all of it", () => {
    assert.isUndefined(check({}))
    assert.isUndefined(check({ memoryBytes: 8 * gib, cpus: 4, pids: 32_768, diskBytes: 100 * gib }))
  })

  it.each([
    ["memoryBytes", 8 * gib + 1],
    ["memoryBytes", 4096],
    ["cpus", 4.01],
    ["cpus", 0.001],
    ["pids", 32_769],
    ["pids", 1],
    ["diskBytes", 101 * gib],
    ["diskBytes", 1024],
    ["inodes", 1],
    ["inodes", 10_000_000]
  ] as const)("refuses %s = %d and names the field", (field, value) => {
    const error = check({ [field]: value })
    assert.instanceOf(error, InvalidArgument)
    assert.deepInclude(error, { field: `limits.${field}` })
  })

  it.each([
    ["memory", "limit-memory"],
    ["cpu", "limit-cpus"],
    ["pids", "limit-pids"],
    ["freezer", "pause"]
  ] as const)("are unsupported without the %s controller", (controller, capability) => {
    const { [controller]: _, ...rest } = cgroups.controllers
    const error = checkLimits(defaultLimits, machine, { ...cgroups, controllers: rest })
    assert.instanceOf(error, Unsupported)
    assert.deepInclude(error, { capability })
  })
})
