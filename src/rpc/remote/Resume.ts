/**
 * A client of the contract that survives the loss of what carries it: pure, over
 * any carrier.
 *
 * Every call is one of four: asked *again* until it is answered, because
 * repeating it changes nothing; asked *once*, so that a lost answer is a
 * `Connection` of unknown outcome; *resumed* where its stream was; or, for
 * creation, made repeatable by a key.
 */
import { Effect, Exit, Fiber, Option, Stream } from "effect"
import { Connection } from "../../domain/Errors.ts"
import type { SandboxEvent } from "../../domain/Event.ts"
import type { FileInfo, WatchEvent } from "../../domain/FileSystem.ts"
import type { AttemptId, ReaderId } from "../../domain/Ids.ts"
import type { AttachOptions, ProcessEvent } from "../../domain/Process.ts"
import { makePosition, type Position } from "../../services/Position.ts"
import type { Client } from "../../services/SandboxClient.ts"
import { type Carrier, isLost, type Lost } from "./Lost.ts"
import { makePatience, type Patience, type PatienceOptions } from "./Patience.ts"
import { resumed } from "./Resumed.ts"

/** What resuming needs besides the carrier. */
export interface ResumeOptions extends PatienceOptions {
  /** A name for each reader of a process. */
  readonly newReader: Effect.Effect<ReaderId>
  /** A name for each creation that has none and no key. */
  readonly newAttempt: Effect.Effect<AttemptId>
  /** How long the answer of a program that runs may be waited for, in milliseconds; undefined: as long as it runs. */
  readonly waitMillis?: number | undefined
}

type Payload<Tag extends keyof Client> = Parameters<Client[Tag]>[0]

/** A client whose calls and streams outlive lost connections of its carrier. */
export const resume = (carrier: Carrier, options: ResumeOptions): Client => {
  const { begin: newPatience, unlessSpent } = makePatience(options)
  const waiting = options.waitMillis === undefined ? {} : { waitMillis: options.waitMillis }

  const asking = <A, E>(call: Effect.Effect<A, E | Lost>, repeatable: boolean, patience?: Patience) =>
    Effect.catchIf(
      call,
      (error: E | Lost): error is Lost => isLost(error),
      (lost) => askAgain(call, repeatable, patience ?? newPatience(), lost)
    )

  const askAgain = <A, E>(
    call: Effect.Effect<A, E | Lost>,
    repeatable: boolean,
    patience: Patience,
    lost: Lost
  ): Effect.Effect<A, E | Connection> =>
    Effect.andThen(
      patience.again(lost, repeatable),
      Effect.suspend(() => asking(call, repeatable, patience))
    )

  const again =
    <P, A, E>(method: (payload: P) => Effect.Effect<A, E | Lost>) =>
    (payload: P): Effect.Effect<A, E | Connection> =>
      asking(method(payload), true)

  const once =
    <P, A, E>(method: (payload: P) => Effect.Effect<A, E | Lost>) =>
    (payload: P): Effect.Effect<A, E | Connection> =>
      asking(method(payload), false)

  const attached = (payload: Payload<"AttachProcess">, position: Position) =>
    carrier.AttachProcess({
      ...payload,
      generation: payload.generation ?? position.started()?.generation,
      attach: position.attach()
    })

  const readProcess = <E>(
    attach: AttachOptions,
    open: (position: Position) => Stream.Stream<ProcessEvent, E | Lost>
  ): Stream.Stream<ProcessEvent, E | Connection> =>
    Stream.unwrap(
      Effect.map(
        attach.reader === undefined ? options.newReader : Effect.succeed(attach.reader),
        (reader) => {
          const position = makePosition(attach, reader)
          return resumed(
            {
              open: () => (position.ended() ? Stream.empty : open(position)),
              see: (events) => events.map(position.see).filter((event) => event !== undefined),
              isOver: position.ended
            },
            newPatience()
          )
        }
      )
    )

  const runProcess = (payload: Payload<"RunProcess">) =>
    readProcess(payload.attach, (position) => {
      // Until it is known to have started, the same request is the way to know: its id makes it the same process.
      if (position.started() === undefined) {
        return carrier.RunProcess({ ...payload, attach: position.attach() })
      }
      const { sandboxId, generation, process } = payload
      return attached({ sandboxId, generation, processId: process.processId, attach: {} }, position)
    })

  /** Its attempt or its key makes a repeat the same creation. */
  const createSandbox = (payload: Payload<"CreateSandbox">) =>
    payload.attempt === undefined && payload.request.idempotencyKey === undefined
      ? Effect.flatMap(options.newAttempt, (attempt) => again(carrier.CreateSandbox)({ ...payload, attempt }))
      : again(carrier.CreateSandbox)(payload)

  return {
    CreateSandbox: createSandbox,
    CancelCreate: again(carrier.CancelCreate),
    FindSandbox: again(carrier.FindSandbox),
    ListSandboxes: again(carrier.ListSandboxes),
    RenewLease: again(carrier.RenewLease),
    EndLease: (payload) => Effect.andThen(unlessSpent, again(carrier.EndLease)(payload)),
    GetInfo: again(carrier.GetInfo),
    // All but a restart lead to a status, and asking for the status one is in succeeds.
    ChangeStatus: (payload) =>
      Effect.andThen(
        unlessSpent,
        (payload.command === "restart" ? once : again)(carrier.ChangeStatus)(payload)
      ),
    // Counted from the time of the repeat.
    SetExpiry: again(carrier.SetExpiry),
    Update: again(carrier.Update),
    WaitForReady: again(carrier.WaitForReady),
    FollowEvents: (payload) => followEvents(carrier, payload, newPatience()),
    GetMetrics: again(carrier.GetMetrics),
    RunProcess: runProcess,
    // The reader's name makes it the same answer.
    ExecProcess: (payload) => again(carrier.ExecProcess)({ ...waiting, ...payload }),
    // The process id makes a repeat the same start.
    StartProcess: again(carrier.StartProcess),
    AttachProcess: (payload) => readProcess(payload.attach, (position) => attached(payload, position)),
    ListProcesses: again(carrier.ListProcesses),
    // A program counts the signals it gets; only what ends, stops or continues it may come twice.
    SignalProcess: (payload) =>
      (repeatableSignals.has(payload.signal) ? again : once)(carrier.SignalProcess)(payload),
    KillProcess: again(carrier.KillProcess),
    CancelProcess: again(carrier.CancelProcess),
    // Names its offset: what has arrived is acknowledged and not taken twice.
    WriteStdin: again(carrier.WriteStdin),
    CloseStdin: again(carrier.CloseStdin),
    ResizePty: again(carrier.ResizePty),
    ReadFile: (payload) => readFile(carrier, payload, newPatience(), again(carrier.StatFile)),
    // Replaces the file whole.
    WriteFile: again(carrier.WriteFile),
    WriteUpload: again(carrier.WriteUpload),
    CommitUpload: again(carrier.CommitUpload),
    AbortUpload: again(carrier.AbortUpload),
    ListFiles: again(carrier.ListFiles),
    StatFile: again(carrier.StatFile),
    MakeDir: again(carrier.MakeDir),
    // Their repeats would fail because they have succeeded.
    RenameFile: once(carrier.RenameFile),
    RemoveFile: once(carrier.RemoveFile),
    LinkFile: once(carrier.LinkFile),
    ChangeMode: again(carrier.ChangeMode),
    SetTimes: again(carrier.SetTimes),
    WatchFiles: (payload) => watchFiles(carrier, payload, newPatience(), again(carrier.StatFile))
  }
}

const repeatableSignals: ReadonlySet<string> = new Set(["SIGKILL", "SIGSTOP", "SIGCONT", "SIGWINCH"])

/** Events of a sandbox, each once, by their numbers. */
const followEvents = (carrier: Carrier, payload: Payload<"FollowEvents">, patience: Patience) => {
  let last = payload.after
  return resumed(
    {
      open: () => carrier.FollowEvents({ ...payload, after: last }),
      see: (events: ReadonlyArray<SandboxEvent>) => {
        last = events.at(-1)?.sequence ?? last
        return events
      }
    },
    patience
  )
}

type Stat = ReturnType<Client["StatFile"]>

/** The bytes of a file, for as long as it stays the same: a reader never gets the beginning of one and the end of another. */
const readFile = (
  carrier: Carrier,
  payload: Payload<"ReadFile">,
  patience: Patience,
  stat: (payload: Payload<"StatFile">) => Stat
): ReturnType<Client["ReadFile"]> => {
  const { sandboxId, generation, path, as } = payload
  const described = stat({ sandboxId, generation, path, as })
  let taken = 0
  let cut = false

  const rest = () => {
    const { offset = 0, length } = payload
    const left = length === undefined ? {} : { length: length - taken }
    return carrier.ReadFile({ ...payload, offset: offset + taken, ...left })
  }
  const changed = new Connection({
    reason: `${path} changed while the connection was cut`,
    outcome: "unknown"
  })

  const read = (before: Effect.Effect<FileInfo | undefined>) =>
    resumed(
      {
        open: () => {
          const again = cut && taken > 0
          cut = true
          if (!again) return rest()
          const unchanged = Effect.gen(function* () {
            const known = yield* before
            const now = yield* described
            if (known === undefined || known.size !== now.size || known.modifiedAt !== now.modifiedAt) {
              return yield* changed
            }
            return rest()
          })
          return Stream.unwrap(unchanged)
        },
        see: (pieces: ReadonlyArray<Uint8Array>) => {
          for (const piece of pieces) taken += piece.byteLength
          return pieces
        }
      },
      patience
    )

  return Stream.scoped(
    Stream.unwrap(
      Effect.gen(function* () {
        // Asked for before the content, and at the same time: what is described is what is read, or older.
        const asked = yield* Effect.forkScoped(Effect.option(described), { startImmediately: true })
        const before = Effect.map(Effect.exit(Fiber.join(asked)), (exit) =>
          Exit.isSuccess(exit) ? Option.getOrUndefined(exit.value) : undefined
        )
        return read(before)
      })
    )
  )
}

/** Changes below a directory; those that were missed are told of as an `Overflow`. */
const watchFiles = (
  carrier: Carrier,
  payload: Payload<"WatchFiles">,
  patience: Patience,
  stat: (payload: Payload<"StatFile">) => Stat
): ReturnType<Client["WatchFiles"]> => {
  const { sandboxId, generation, path, as } = payload
  let opened = false
  return resumed(
    {
      open: () => {
        const watched = carrier.WatchFiles(payload)
        if (!opened) {
          opened = true
          return watched
        }
        // Asked after the watch and answered after it: from then on the watch misses nothing.
        const overflow = Effect.as(Effect.ignore(stat({ sandboxId, generation, path, as })), {
          _tag: "Overflow"
        } satisfies WatchEvent)
        return Stream.merge(watched, Stream.fromEffect(overflow))
      },
      see: (events: ReadonlyArray<WatchEvent>) => events
    },
    patience
  )
}
