/**
 * The actor behind every sandbox: a cluster entity whose protocol is exactly
 * the contract's operations on one sandbox.
 *
 * Lifecycle transitions run one at a time; everything else runs concurrently;
 * `kill` waits for nothing. The actor is the only writer of its sandbox's
 * record. When it goes away (the service ends, or the shard moves) its machine
 * stays, and the next actor takes the machine over.
 */
import { Array as Arr, Clock, Effect, Fiber, type Metric, type Pull as Pulls, Stream } from "effect"
import { ClusterSchema, Entity, type Sharding } from "effect/cluster"
import { Rpc } from "effect/rpc"
import {
  type Answers,
  Conflict,
  Connection,
  type InvalidArgument,
  SandboxFailed,
  Timeout
} from "../domain/Errors.ts"
import { groupOf, type ProcessId, SandboxId, type UploadId } from "../domain/Ids.ts"
import type { AttachOptions, ProcessEvent, ProcessSpec } from "../domain/Process.ts"
import { type Expiry, SandboxInfo, type SandboxSpec, type UpdateRequest } from "../domain/Sandbox.ts"
import { LifecycleError, SandboxOperations } from "../rpc/SandboxRpcs.ts"
import { checkSpawn } from "./actor/Arguments.ts"
import { makeAttachments } from "./actor/Attachments.ts"
import { type Bounds, makeBounds } from "./actor/Bounds.ts"
import { type Endings, makeEndings } from "./actor/Endings.ts"
import { makeExecs } from "./actor/Execs.ts"
import { watchExpiries } from "./actor/Expiries.ts"
import { makeJournal } from "./actor/Journal.ts"
import { type Lifecycle, makeLifecycle } from "./actor/Lifecycle.ts"
import { makeReach } from "./actor/Reach.ts"
import { infoOf, spawnRequest } from "./actor/Requests.ts"
import { makeBound } from "./actor/Retention.ts"
import { Leases } from "./Leases.ts"
import {
  type Machine,
  type MachineError,
  type MachineEvent,
  processInfoOf,
  type SpawnRequest
} from "./Machine.ts"
import { Recent } from "./Recent.ts"
import { SandboxStore } from "./SandboxStore.ts"
import * as ServiceMetrics from "./ServiceMetrics.ts"

/** Waits until the actor has taken its sandbox up: provisioned, adopted, or found it ended. */
const Wake = Rpc.make("Wake", {
  payload: { sandboxId: SandboxId },
  success: SandboxInfo,
  error: LifecycleError
}).annotate(ClusterSchema.InterruptOnTermination, true)

/** Ends a sandbox that whoever created it never got: its key is free for another attempt. */
const Discard = Rpc.make("Discard", {
  payload: { sandboxId: SandboxId },
  success: SandboxInfo,
  error: LifecycleError
}).annotate(ClusterSchema.InterruptOnTermination, true)

/** The entity: one per sandbox, its id the sandbox's, its shard group the one named in the id. */
export const SandboxActor = Entity.fromRpcGroup(
  "Sandbox",
  SandboxOperations.add(Wake, Discard).annotate(ClusterSchema.ShardGroup, (entityId) =>
    groupOf(SandboxId.make(entityId))
  )
)

const defaultGraceMillis = 5_000
const defaultListLimit = 10_000
/** How many uploads that were given up are remembered. */
const abortsKept = 4096
/** How long a machine may take to end a program before it is asked whether it answers at all, in milliseconds. */
const endMillis = 25_000

type Reader = Pick<AttachOptions, "maxOutputBytes" | "keep">
type Pull<A, E> = Pulls.Pull<Arr.NonEmptyReadonlyArray<A>, E>

/** A write, and when its file shall last, what brings it to the disk. */
const lasting = <E, R>(
  machine: Machine,
  durable: boolean | undefined,
  write: Effect.Effect<void, E, R>
): Effect.Effect<void, E | MachineError, R> =>
  durable === true ? Effect.andThen(write, machine.sync) : write

/** The end of a program, for as long as a machine may take for that. */
const inTime = <A, E>(end: Effect.Effect<A, E>): Effect.Effect<A, E | Timeout> =>
  Effect.timeoutOrElse(end, {
    duration: endMillis,
    orElse: () => Effect.fail(new Timeout({ limit: "transport", millis: endMillis, outcome: "unknown" }))
  })

/** Keeps the actor, if it is needed, until what is returned is run. */
const keptAlive = Effect.fnUntraced(function* (isNeeded: boolean) {
  if (!isNeeded) return Effect.void
  const context = yield* Effect.context<Entity.CurrentAddress | Sharding.Sharding>()
  const kept = yield* Effect.forkScoped(Entity.keepAlive(true))
  return Effect.provideContext(Effect.andThen(Fiber.await(kept), Entity.keepAlive(false)), context)
})

const make = Effect.gen(function* () {
  const { entityId } = yield* Entity.CurrentAddress
  const store = yield* SandboxStore
  const leases = yield* Leases
  const record = yield* Effect.orDie(store.get(SandboxId.make(entityId)))
  if (record === undefined) return yield* Effect.die(`an actor was asked for the unknown sandbox ${entityId}`)
  const { id } = record

  const context = yield* Effect.context<never>()
  const count = (metric: Metric.Counter<number>, { byteLength }: Uint8Array) =>
    metric.updateUnsafe(byteLength, context)
  const journal = yield* makeJournal(record)
  const attachments = yield* makeAttachments
  /** Waits until the sandbox runs, or never will again. */
  const running = journal.changes.pipe(
    Stream.takeUntil(({ status }) => status === "running" || status === "killed"),
    Stream.runDrain
  )
  const endings: Endings = yield* makeEndings({
    cancel: (start, cause) =>
      tend("end a program", (machine) => inTime(machine.processes.cancel(start, cause))),
    unanswered: ({ millis }, isLast) => lifecycle.unanswered(millis, isLast),
    ended: ({ processId }, cause) =>
      cause === "limit" ? journal.noteEvents([{ _tag: "ProcessTimedOut", processId }]) : Effect.void,
    running
  })
  const bounds: Bounds = yield* makeBounds(record, {
    // What could not be done yet is tried again.
    end: (start, cause) =>
      Effect.catch(endings.end(start, cause), ({ message }) => {
        const what = `the program ${start.processId} of ${id}, whose time or lease is over, could not be ended yet`
        // With the sandbox it ends all the same.
        return journal.current().status === "killed" ? Effect.void : Effect.logWarning(`${what}: ${message}`)
      }),
    tell: (processId, left) =>
      Effect.andThen(
        running,
        // Without it a machine whose service has died is only less exact.
        Effect.ignore(tend("limit a program", (machine) => machine.processes.limit(processId, left)))
      )
  })
  const lifecycle: Lifecycle = yield* makeLifecycle(
    journal,
    bounds,
    yield* keptAlive(record.status !== "killed")
  )
  const execs = yield* makeExecs(attachments)
  const { activity, counted, tend, use, source, read } = yield* makeReach(id, lifecycle, attachments)
  yield* watchExpiries(journal, activity, (limit) => lifecycle.expire(limit, defaultGraceMillis))
  if (record.status !== "killed" && record.lease !== undefined) {
    yield* leases.hold(record.owner, record.lease, id, (silentMillis) =>
      Effect.ignore(lifecycle.letGo(silentMillis))
    )
  }

  const info = Effect.sync(() => infoOf(journal.current()))
  /** Uploads that were given up: what is still on its way to them comes too late. */
  const aborted = new Recent<UploadId, true>(abortsKept)

  /** A process's events for one reader, the reader's bound applied. */
  const observe =
    (processId: ProcessId, { maxOutputBytes, keep }: Reader) =>
    <E>(events: Stream.Stream<MachineEvent, E>): Stream.Stream<ProcessEvent, E> =>
      Stream.transformPull(events, (pull) =>
        Effect.sync(() => {
          const bound = makeBound(maxOutputBytes ?? Number.POSITIVE_INFINITY, keep)
          const see = (event: MachineEvent) => {
            if (event._tag === "Output") count(ServiceMetrics.outputBytes, event.data)
            if (event._tag !== "Exited") return bound(event)
            const { treeAlive, ...exited } = event
            const lapsedMillis = exited.status._tag === "Signaled" ? bounds.lapsed(processId) : undefined
            bounds.exited(processId, treeAlive)
            return bound(lapsedMillis === undefined ? exited : { ...exited, lapsedMillis })
          }
          const next: Pull<ProcessEvent, E> = Effect.flatMap(pull, (arrived) => {
            const seen = arrived.flatMap(see)
            return Arr.isArrayNonEmpty(seen) ? Effect.succeed(seen) : next
          })
          return next
        })
      )

  /** What a machine is asked to start; refused before it hears of it when no kernel could, or when the start was taken back. */
  const spawn = (process: ProcessSpec) =>
    Effect.suspend((): Effect.Effect<SpawnRequest, Conflict | InvalidArgument> => {
      const request = spawnRequest(journal.current().spec, process)
      const { processId } = process
      return endings.isDue(request)
        ? Effect.fail(new Conflict({ kind: "process", id: processId, reason: "its start was cancelled" }))
        : Effect.as(checkSpawn(request), request)
    })

  /** How what is heard of a program fails: when its time has passed and the way to it breaks, its limit has ended it. */
  const failure = (processId: ProcessId) => {
    const overdue = bounds.overdue(processId)
    return <E>(error: E) => {
      const millis = error instanceof Connection || error instanceof SandboxFailed ? overdue() : undefined
      return millis === undefined ? error : new Timeout({ limit: "command", millis, outcome: "unknown" })
    }
  }

  /** Bounds what is started from now on; what comes of it when that fails. */
  const bound = (process: ProcessSpec, request: SpawnRequest) =>
    Effect.map(bounds.begin(request, process), (begun) => {
      const failed = failure(process.processId)
      return <E extends Answers>(error: E) => {
        if (begun && error.outcome === "not-started") bounds.refused(process.processId)
        return failed(error)
      }
    })

  /** Runs a program for a reader. */
  const run = (process: ProcessSpec, reader: Reader, request: SpawnRequest) => (machine: Machine) =>
    Stream.unwrap(
      Effect.map(bound(process, request), (failed) =>
        Stream.mapError(observe(process.processId, reader)(machine.processes.run(request)), failed)
      )
    )

  const start = (process: ProcessSpec, request: SpawnRequest) => (machine: Machine) =>
    Effect.flatMap(bound(process, request), (failed) =>
      Effect.mapError(machine.processes.start(request), failed)
    )

  return SandboxActor.of({
    Wake: () => lifecycle.awake,
    Discard: () => lifecycle.discard,
    GetInfo: () => info,
    ChangeStatus: ({ payload }) =>
      lifecycle.command(payload.command, payload.graceMillis ?? defaultGraceMillis),
    SetExpiry: ({ payload }) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        yield* lifecycle.alive
        const { spec, expiresAt } = journal.current()
        const { ttl = spec.ttl, idle = spec.idle } = payload
        const expires = payload.ttl === undefined ? expiresAt : endOf(payload.ttl, now)
        yield* journal.write({ spec: withLimits(spec, ttl, idle), expiresAt: expires }, [{ _tag: "Updated" }])
        return infoOf(journal.current())
      }),
    Update: ({ payload }) =>
      lifecycle.alive.pipe(
        Effect.andThen(
          journal.write({ spec: updated(journal.current().spec, payload.update) }, [{ _tag: "Updated" }])
        ),
        Effect.andThen(info)
      ),
    WaitForReady: ({ payload: { timeoutMillis } }) =>
      Effect.timeoutOrElse(lifecycle.ready, {
        duration: timeoutMillis,
        orElse: () =>
          Effect.fail(new Timeout({ limit: "wait", millis: timeoutMillis, outcome: "not-started" }))
      }),
    FollowEvents: ({ payload }) => journal.events(payload.after ?? 0, payload.once ?? false),
    GetMetrics: () => use("measure", {}, (machine) => machine.metrics),

    RunProcess: ({ payload: { process, attach, ...handle } }) =>
      Stream.unwrap(
        Effect.map(spawn(process), (request) =>
          read("run a process", handle, run(process, attach, request), attach.idleMillis)
        )
      ),
    ExecProcess: ({ payload: { process, attach, waitMillis, ...handle } }) =>
      Effect.flatMap(spawn(process), (request) =>
        counted(
          execs.exec(
            { process, options: attach, waitMillis },
            source("run a process", handle, run(process, attach, request))
          )
        )
      ),
    StartProcess: ({ payload }) =>
      Effect.flatMap(spawn(payload.process), (request) =>
        use("start a process", payload, start(payload.process, request))
      ),
    AttachProcess: ({ payload: { processId, attach, ...handle } }) => {
      const { cursor = 0, hold } = attach
      const events = read(
        "attach to a process",
        handle,
        (machine) =>
          Stream.mapError(
            observe(processId, attach)(machine.processes.attach(processId, cursor, hold)),
            failure(processId)
          ),
        attach.idleMillis
      )
      // What waits for its reader holds the program up.
      return hold === false ? events : execs.rest(processId, attach, events)
    },
    ListProcesses: ({ payload }) =>
      Effect.map(
        use("list processes", payload, (machine) => machine.processes.list),
        (processes) => processes.map(processInfoOf)
      ),
    SignalProcess: ({ payload }) =>
      use("signal a process", payload, (machine) =>
        machine.processes.signal(payload.processId, payload.signal)
      ),
    KillProcess: ({ payload }) =>
      use("kill a process", payload, (machine) => inTime(machine.processes.kill(payload.processId))).pipe(
        Effect.catchTag("Timeout", (timeout) =>
          // With a machine that has ended, all that ran in it has.
          Effect.flatMap(lifecycle.unanswered(timeout.millis), (isOver) =>
            isOver ? Effect.void : Effect.fail(timeout)
          )
        )
      ),
    CancelProcess: ({ payload: { process, generation } }) =>
      generation !== undefined && generation !== journal.current().generation
        ? Effect.void
        : endings.end(spawnRequest(journal.current().spec, process), "request"),
    WriteStdin: ({ payload }) =>
      use("write to a process", payload, (machine) =>
        machine.processes.writeStdin(payload.processId, payload.offset, payload.data)
      ),
    CloseStdin: ({ payload }) =>
      use("write to a process", payload, (machine) => machine.processes.closeStdin(payload.processId)),
    ResizePty: ({ payload }) =>
      use("resize a terminal", payload, (machine) =>
        machine.processes.resize(payload.processId, payload.size)
      ),

    ReadFile: ({ payload: { path, offset = 0, length, as: user = "user", ...handle } }) =>
      Stream.map(
        read("read a file", handle, (machine) => machine.files.read(path, { offset, length, user })),
        (data) => {
          count(ServiceMetrics.fileBytes("read"), data)
          return data
        }
      ),
    WriteFile: ({ payload: { path, data, mode, durable, as: user = "user", ...handle } }) =>
      Effect.tap(
        use("write a file", handle, (machine) =>
          lasting(machine, durable, machine.files.write(path, data, { mode, user }))
        ),
        () => Effect.sync(() => count(ServiceMetrics.fileBytes("written"), data))
      ),
    WriteUpload: ({ payload: { uploadId, path, offset, data, mode, as: user = "user", ...handle } }) =>
      Effect.tap(
        use("write a file", handle, (machine) =>
          aborted.has(uploadId)
            ? Effect.fail(new Conflict({ kind: "upload", id: uploadId, reason: "it was aborted" }))
            : machine.files.writeUpload(uploadId, path, offset, data, { mode, user })
        ),
        () => Effect.sync(() => count(ServiceMetrics.fileBytes("written"), data))
      ),
    CommitUpload: ({ payload: { uploadId, size, durable, ...handle } }) =>
      use("write a file", handle, (machine) =>
        lasting(machine, durable, machine.files.commitUpload(uploadId, size))
      ),
    AbortUpload: ({ payload: { uploadId, ...handle } }) =>
      Effect.suspend(() => {
        aborted.set(uploadId, true)
        return use("abort an upload", handle, (machine) => machine.files.abortUpload(uploadId))
      }),
    ListFiles: ({ payload: { path, depth = 1, limit = defaultListLimit, as: user = "user", ...handle } }) =>
      use("list files", handle, (machine) => machine.files.list(path, { depth, limit, user })),
    StatFile: ({ payload: { path, as: user = "user", ...handle } }) =>
      use("describe a file", handle, (machine) => machine.files.stat(path, user)),
    MakeDir: ({ payload: { path, mode, as: user = "user", ...handle } }) =>
      use("make a directory", handle, (machine) => machine.files.makeDir(path, { mode, user })),
    RenameFile: ({ payload: { from, to, as: user = "user", ...handle } }) =>
      use("rename a file", handle, (machine) => machine.files.rename(from, to, user)),
    RemoveFile: ({ payload: { path, recursive = false, as: user = "user", ...handle } }) =>
      use("remove a file", handle, (machine) => machine.files.remove(path, { recursive, user })),
    ChangeMode: ({ payload: { path, mode, as: user = "user", ...handle } }) =>
      use("change a file's mode", handle, (machine) => machine.files.chmod(path, mode, user)),
    SetTimes: ({ payload: { path, modifiedAt, nanos, as: user = "user", ...handle } }) =>
      use("set the time of a file", handle, (machine) =>
        machine.files.setTimes(path, { modifiedAt, nanos }, user)
      ),
    LinkFile: ({ payload: { from, to, as: user = "user", ...handle } }) =>
      use("link a file", handle, (machine) => machine.files.link(from, to, user)),
    WatchFiles: ({ payload: { path, recursive = false, as: user = "user", ...handle } }) =>
      read("watch files", handle, (machine) => machine.files.watch(path, { recursive, user }))
  })
})

/** Runs the actors of this process. They need a backend, the store, and a cluster to live in. */
export const layer = SandboxActor.toLayer(make, {
  concurrency: "unbounded",
  // Otherwise a defect in one handler would run the requests of other callers a second time.
  disableFatalDefects: true
})

const endOf = (ttl: Expiry | null, now: number): number | undefined =>
  ttl === null ? undefined : now + ttl.afterMillis

const withLimits = (
  spec: SandboxSpec,
  ttl: Expiry | null | undefined,
  idle: Expiry | null | undefined
): SandboxSpec => ({ ...spec, ttl: ttl ?? undefined, idle: idle ?? undefined })

const updated = (spec: SandboxSpec, update: UpdateRequest): SandboxSpec => ({
  ...spec,
  env: update.env ?? spec.env,
  labels: update.labels ?? spec.labels,
  ports: update.ports ?? spec.ports,
  startCommand: update.startCommand === undefined ? spec.startCommand : (update.startCommand ?? undefined)
})
