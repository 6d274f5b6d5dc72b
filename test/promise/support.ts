import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setImmediate } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { assert } from "@effect/vitest"
import type { Sandbox } from "../../src/promise.ts"

/** What a promise is rejected with, which must be of this class. */
export const rejection = async <E>(
  kind: abstract new (...args: Array<never>) => E,
  promise: Promise<unknown>
): Promise<E> => {
  let thrown: unknown
  await promise.catch((error: unknown) => {
    thrown = error
  })
  return thrown instanceof kind ? thrown : assert.fail(`rejected with ${String(thrown)}, not ${kind.name}`)
}

/** Waits until something holds; the test's own time limit is the bound. */
export const eventually = async (look: () => Promise<boolean>): Promise<void> => {
  while (!(await look())) await setImmediate()
}

/** How many processes and threads a sandbox has, its own included. */
export const pids = async (sandbox: Sandbox): Promise<number> => (await sandbox.metrics()).pids

/** A command that runs a program and, in the background, another; {@link grown} tells that both are there. */
export const tree = "sleep 1000 & sleep 2000"

/** Waits until {@link tree} runs besides the `before` processes that were there. */
export const grown = (sandbox: Sandbox, before: number): Promise<void> =>
  eventually(async () => (await pids(sandbox)) >= before + 2)

/** A directory that goes with its scope; short, as unix socket addresses are. */
export const directory = () => {
  const path = mkdtempSync(join(tmpdir(), "fb-"))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** Runs `owner.ts` as far as it says `ready`. */
export const own = async (backend: string, ending: string, env: Readonly<Record<string, string>>) => {
  const program = fileURLToPath(new URL("./owner.ts", import.meta.url))
  const child = spawn(process.execPath, [program, backend, ending], {
    env: { ...process.env, ...env, NODE_OPTIONS: "" },
    stdio: ["ignore", "pipe", "inherit"]
  })
  const closed = once(child, "close")
  const [said]: ReadonlyArray<unknown> = await once(child.stdout, "data")
  assert.strictEqual(String(said), "ready\n")
  return { child, closed }
}
