/**
 * Programs that are ended from outside, while their sandbox stands still.
 */
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FileSystem, Schedule } from "effect"
import { ProcessId } from "../../../src/domain/Ids.ts"
import { runProgram } from "../../../src/layers/container/Kernel.ts"
import { Instance } from "../../../src/services/Instance.ts"
import { canRun, everything, sandbox } from "./support.ts"

const helper = fileURLToPath(new URL("../../../native/build/fiberbox-host", import.meta.url))

/** Children, grandchildren, some in sessions of their own, some whose parents have gone. */
const tree = "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; exec sleep 1000"

describe.runIf(canRun)("what came of a program", () => {
  layer(everything, { excludeTestServices: true })((it) => {
    it.effect("is killed from outside as a whole, and nothing else is", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const { id, machine } = yield* sandbox()
        const start = (name: string) =>
          machine.processes.start({
            processId: ProcessId.make(name),
            argv: ["/bin/sh", "-c", tree],
            env: { PATH: "/usr/bin:/bin" },
            cwd: "/",
            user: "user",
            pty: undefined,
            stdin: false,
            identity: 0,
            journalBytes: 4096
          })
        yield* start("doomed")
        yield* start("other")
        const agent = (yield* fs.readFileString(`${(yield* Instance).stateDir}/s/${id.slice(3)}/pid`)).trim()
        // Of version 1 each controller has a hierarchy, of version 2 all have one.
        const group = /^(?:\d+:freezer:|0::)(.+)$/m.exec(readFileSync(`/proc/${agent}/cgroup`, "utf8"))?.[1]
        const list = ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup"]
          .map((root) => `${root}${group}/cgroup.procs`)
          .find((path) => existsSync(path))
        if (list === undefined) return assert.fail("the sandbox has no control group")
        const count = Effect.sync(() => readFileSync(list, "utf8").trim().split("\n").length)
        const listed = yield* machine.processes.list
        const status = (pid: string) => readFileSync(`/proc/${pid}/status`, "utf8")
        const inside = (pid: string) => /^NSpid:.*\t(\d+)$/m.exec(status(pid))?.[1]
        /** The parent of a program, as the sandbox numbers it. */
        const of = (name: string) => {
          const program = listed.find(({ processId }) => processId === name)?.pid
          const members = readFileSync(list, "utf8").trim().split("\n")
          const host = members.find((pid) => inside(pid) === String(program)) ?? ""
          return inside(/^PPid:\t(\d+)$/m.exec(status(host))?.[1] ?? "")
        }
        // Both trees are whole: 5 processes each, their supervisors, and those that wait for work; the agent.
        yield* Effect.repeat(count, { schedule: Schedule.spaced("10 millis"), until: (n) => n >= 13 })

        const before = yield* count
        const { code, stderr } = yield* runProgram(helper, ["kill", agent, String(of("doomed")), list])
        assert.deepStrictEqual([code, stderr], [0, ""])
        const alive = Effect.map(machine.processes.list, (listed) =>
          listed.filter(({ treeAlive }) => treeAlive).map(({ processId }) => String(processId))
        )
        yield* Effect.repeat(alive, {
          schedule: Schedule.spaced("10 millis"),
          until: (names) => names.length < 2
        })
        assert.deepStrictEqual(yield* alive, ["other"])
        assert.isAtMost(before - (yield* count), 6)
        const none = yield* runProgram(helper, ["kill", agent, "999999", list])
        assert.strictEqual(none.code, 0)
        assert.deepStrictEqual(yield* alive, ["other"])
        const wrong = yield* runProgram(helper, ["kill", agent, "-1", list])
        assert.strictEqual(wrong.code, 70)
      }).pipe(Effect.scoped)
    )
  })
})
