/**
 * A thread that watches a control group from outside and tells when the last of
 * some processes has left it. A thread, so that neither its reading nor the
 * event loop that is measured holds up the other.
 */
import { parentPort } from "node:worker_threads"
import { processesOf } from "./Sandboxing.ts"
import { now } from "./Timing.ts"

export interface Watch {
  readonly list: string
  readonly pids: ReadonlyArray<number>
}

const pauseMillis = 0.1
const never = new Int32Array(new SharedArrayBuffer(4))

parentPort?.on("message", ({ list, pids }: Watch) => {
  parentPort?.postMessage("watching")
  while (processesOf(list).some((pid) => pids.includes(pid))) Atomics.wait(never, 0, 0, pauseMillis)
  parentPort?.postMessage(now())
})
