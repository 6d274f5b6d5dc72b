import { assert, describe, it } from "@effect/vitest"
import { Arbitrary } from "effect"
import { ExpiryAction } from "../../src/domain/Sandbox.ts"
import {
  allowedFrom,
  Command,
  canBecome,
  decide,
  decideExpiry,
  isTransitional,
  Status,
  target
} from "../../src/domain/Status.ts"

/** The published table, written out a second time on purpose: a change has to be made in both places. */
const published: ReadonlyArray<readonly [from: Status, to: string]> = [
  ["provisioning", "running failed killed"],
  ["running", "paused stopping restarting failed lost killed"],
  ["paused", "running stopping failed lost killed"],
  ["stopping", "stopped failed killed"],
  ["stopped", "provisioning killed"],
  ["restarting", "running failed killed"],
  ["failed", "provisioning stopped killed"],
  ["lost", "running provisioning failed killed"],
  ["killed", ""]
]

/** What each command means in each status: `+` something to do, `=` nothing to do, `-` refused. */
const meanings: { readonly [S in Status]: { readonly [C in Command]: "+" | "=" | "-" } } = {
  provisioning: { start: "-", stop: "-", restart: "-", pause: "-", resume: "-", kill: "+" },
  running: { start: "=", stop: "+", restart: "+", pause: "+", resume: "=", kill: "+" },
  paused: { start: "-", stop: "+", restart: "-", pause: "=", resume: "+", kill: "+" },
  stopping: { start: "-", stop: "-", restart: "-", pause: "-", resume: "-", kill: "+" },
  stopped: { start: "+", stop: "=", restart: "-", pause: "-", resume: "-", kill: "+" },
  restarting: { start: "-", stop: "-", restart: "-", pause: "-", resume: "-", kill: "+" },
  failed: { start: "+", stop: "+", restart: "-", pause: "-", resume: "-", kill: "+" },
  lost: { start: "+", stop: "-", restart: "-", pause: "-", resume: "-", kill: "+" },
  killed: { start: "-", stop: "-", restart: "-", pause: "-", resume: "-", kill: "=" }
}
const words = { "+": "proceed", "=": "done", "-": "refused" } as const

/** Whether a path of transitions leads from one status to another. */
const reaches = (from: Status, to: Status, seen: ReadonlySet<Status> = new Set()): boolean =>
  Status.literals.some(
    (next) =>
      canBecome(from, next) &&
      (next === to || (!seen.has(next) && reaches(next, to, new Set([...seen, from]))))
  )

describe("transitions", () => {
  it("are those of the published table, for every pair of statuses", () => {
    assert.deepStrictEqual(
      published.map(([from]) => from),
      [...Status.literals]
    )
    for (const [from, list] of published) {
      for (const to of Status.literals) {
        assert.strictEqual(canBecome(from, to), list.split(" ").includes(to), `${from} -> ${to}`)
      }
    }
  })

  it("lead from every status but killed to killed, and from killed nowhere", () => {
    for (const from of Status.literals) assert.strictEqual(canBecome(from, "killed"), from !== "killed", from)
    for (const to of Status.literals) assert.isFalse(canBecome("killed", to))
  })

  it("never lead to the status they come from", () => {
    for (const status of Status.literals) assert.isFalse(canBecome(status, status), status)
  })

  it("reach every status from provisioning", () => {
    for (const status of Status.literals) {
      assert.isTrue(status === "provisioning" || reaches("provisioning", status), status)
    }
  })
})

describe("commands", () => {
  it("mean what the table says, for every command and status", () => {
    for (const status of Status.literals) {
      for (const command of Command.literals) {
        assert.strictEqual(
          decide(command, status),
          words[meanings[status][command]],
          `${command} when ${status}`
        )
      }
    }
  })

  it("can always get from where they are allowed to where they lead", () => {
    for (const command of Command.literals) {
      for (const from of allowedFrom[command]) {
        assert.isTrue(reaches(from, target[command]), `${command} from ${from}`)
      }
    }
  })

  it.prop(
    "leave alone a sandbox that is where they lead, but for restart",
    [Arbitrary.schema(Command)],
    ([command]) => {
      assert.strictEqual(decide(command, target[command]), command === "restart" ? "proceed" : "done")
    }
  )
})

describe("isTransitional", () => {
  it("is true of what the service brings to an end by itself", () => {
    const between = Status.literals.filter(isTransitional)
    assert.deepStrictEqual(between, ["provisioning", "stopping", "restarting"])
  })
})

/** What the action of a limit means in each status: `+` something to do, `=` nothing to do, `~` something later. */
const expiryMeanings: { readonly [S in Status]: { readonly [A in ExpiryAction]: "+" | "=" | "~" } } = {
  provisioning: { kill: "+", stop: "~", pause: "~" },
  running: { kill: "+", stop: "+", pause: "+" },
  paused: { kill: "+", stop: "+", pause: "=" },
  stopping: { kill: "+", stop: "~", pause: "~" },
  stopped: { kill: "+", stop: "=", pause: "=" },
  restarting: { kill: "+", stop: "~", pause: "~" },
  failed: { kill: "+", stop: "+", pause: "~" },
  lost: { kill: "+", stop: "~", pause: "~" },
  killed: { kill: "=", stop: "~", pause: "~" }
}

describe("the actions of time limits", () => {
  it("mean what the table says, for every action and status", () => {
    const words = { "+": "proceed", "=": "done", "~": "later" }
    for (const status of Status.literals) {
      for (const action of ExpiryAction.literals) {
        const expected = words[expiryMeanings[status][action]]
        assert.strictEqual(decideExpiry(action, status), expected, `${action} when ${status}`)
      }
    }
  })
})
