import { statSync } from "node:fs"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { DatabaseSync } from "node:sqlite"
import { NodeServices } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { Generation, Owner, SandboxId } from "../../src/domain/Ids.ts"
import { resolveSpec } from "../../src/domain/Sandbox.ts"
import * as DirectoryInstance from "../../src/layers/instance/DirectoryInstance.ts"
import * as SqlSandboxStore from "../../src/layers/sql/SqlSandboxStore.ts"
import { type SandboxRecord, SandboxStore } from "../../src/services/SandboxStore.ts"
import { atMost, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { now, sampled } from "../shared/Timing.ts"

const killed = 200_000
const living = 5_000
const eventsOfEach = 4
const owner = Owner.make("alice")

const idOf = (n: number): SandboxId => {
  const digits = Array.from(n.toString(26).padStart(5, "0"), (digit) =>
    String.fromCharCode(97 + Number.parseInt(digit, 26))
  )
  return SandboxId.make(`sb_local_${digits.join("").padStart(26, "a")}`)
}

const recordOf = (n: number): SandboxRecord => ({
  id: idOf(n),
  owner,
  slug: `slug-${n}`,
  status: "running",
  generation: Generation.make(1),
  backend: "container",
  isolation: "container",
  detached: true,
  spec: resolveSpec({ labels: { job: String(n % 100) }, ttl: { afterMillis: 1e9, action: "kill" } }),
  createdAt: n,
  startedAt: n,
  expiresAt: n + 1e9,
  restarts: 0,
  requestDigest: ""
})

/** Writes the records of so many sandboxes past the store, of which all but the last have been killed. */
const fill = (file: string) => {
  const database = new DatabaseSync(file)
  database.exec("PRAGMA synchronous = off")
  database.exec("BEGIN")
  const sandbox = database.prepare(`INSERT INTO sandboxes
    (id, owner, slug, status, created_at, killed_at, record, memory_bytes, cpus, pids, disk_bytes, expiry_action, expires_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'kill', ?)`)
  const event = database.prepare("INSERT INTO events (sandbox_id, sequence, event) VALUES (?, ?, ?)")
  for (let n = 0; n < killed + living; n++) {
    const isKilled = n < killed
    const record = { ...recordOf(n), ...(isKilled ? { status: "killed", killedAt: n } : {}) }
    const { cpus, diskBytes, memoryBytes, pids } = record.spec.limits
    const end = isKilled ? n : null
    const limits = [memoryBytes, cpus, pids, diskBytes]
    const common = [record.id, owner, record.slug, record.status, n, end, JSON.stringify(record)]
    sandbox.run(...common, ...limits, n + 1e9)
    for (let sequence = 1; sequence <= eventsOfEach; sequence++) {
      const body = { _tag: "Updated" }
      event.run(
        record.id,
        sequence,
        JSON.stringify({ sandboxId: record.id, sequence, generation: 1, at: n, body })
      )
    }
  }
  database.exec("COMMIT")
  database.close()
}

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const start = now()
    return Effect.map(effect, () => now() - start)
  })

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const stateDir = `${settings.directory}/state`
  const file = `${stateDir}/store.db`
  const instance = SqlSandboxStore.layerInstance.pipe(
    Layer.provide(DirectoryInstance.layer({ stateDir })),
    Layer.provide(Layer.merge(SecureRandom.layerWebCrypto, NodeServices.layer))
  )
  yield* Effect.void.pipe(Effect.provide(instance, { local: true }))
  fill(file)
  return yield* SandboxStore.use((store) =>
    Effect.gen(function* () {
      const options = { warmUp: 2, runs: settings.runs ?? 20 }
      const list = yield* sampled(options, timed(store.list(owner, {})))
      const labelled = yield* sampled(options, timed(store.list(owner, { labels: { job: "7" } })))
      const find = yield* sampled(options, timed(store.find(owner, `slug-${killed + 7}`)))
      let next = killed + living
      const create = yield* sampled(
        options,
        Effect.suspend(() => timed(store.create(recordOf(next++), () => undefined)))
      )
      const delay = monitorEventLoopDelay({ resolution: 1 })
      delay.enable()
      const purging = yield* timed(store.purge(Number.MAX_SAFE_INTEGER))
      delay.disable()
      const left = (yield* store.count).get("running")
      if (left !== next - killed) return yield* Effect.die(new Error(`${left} sandboxes are left`))
      return [
        row("a page of 100", "ms", list, atMost(100)),
        row("a page of 50, by a label", "ms", labelled),
        row("one by its name", "ms", find),
        row("a sandbox recorded, with quotas", "ms", create, atMost(50)),
        row(`all ${killed} killed ones forgotten`, "ms", [purging]),
        row("the longest that the program stood still meanwhile", "ms", [delay.max / 1e6], atMost(100)),
        row("the log beside the store, after it", "kB", [statSync(`${file}-wal`).size / 1024], atMost(16_384))
      ]
    })
  ).pipe(Effect.provide(instance, { local: true }))
})

export const measurement: Measurement = {
  title: "A store that has grown",
  about: `One owner has ${living} sandboxes, and ${killed} that were killed are still remembered, with ${eventsOfEach} events each (a service keeps at most 50,000 of them). The store is that of a persistent instance.`,
  measure
}
