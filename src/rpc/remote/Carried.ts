/**
 * The contract over whatever link is there: every operation is asked of the
 * present link, and what the transport does to it becomes `Lost`.
 */
import { type Cause, Effect, type Queue, type Scope, Stream } from "effect"
import type { RpcClient, RpcClientError, RpcGroup } from "effect/rpc"
import { Connection } from "../../domain/Errors.ts"
import type { ServedRpcs } from "../ServedRpcs.ts"
import { type Carrier, Lost, type Refused } from "./Lost.ts"

type Rpcs = RpcClient.RpcClient<RpcGroup.Rpcs<typeof ServedRpcs>, RpcClientError.RpcClientError>

/** How the items of a stream are queued. */
export interface QueueOptions {
  readonly asQueue: true
  readonly streamBufferSize: number
}

/** One way to the service. */
export interface Link {
  readonly client: Rpcs
  /** Whether it is still of use. */
  readonly isAlive: () => boolean
  /** The service is ending: what is under way goes on, and what comes is not for this link. */
  readonly leave: () => void
  /** Lets it go; ends when nothing is under way on it. One that was not left loses that at once. */
  readonly retire: Effect.Effect<void>
  /** What a transport's error means for the call that met it. */
  readonly lost: (error: RpcClientError.RpcClientError) => Lost | Refused
  readonly queue: QueueOptions
  /** The items of a streaming call. */
  readonly stream: <A, E>(
    call: Effect.Effect<Queue.Dequeue<A, E | Cause.Done>, never, Scope.Scope>
  ) => Stream.Stream<A, E>
}

type Broken = RpcClientError.RpcClientError | Connection

/** Whether an error tells of the link or of its service, and not of what was asked. */
const isBroken = <E extends { readonly _tag: string }>(error: E | Broken): error is Broken =>
  error._tag === "RpcClientError" || (error instanceof Connection && error.isEnding === true)

const lostOn = (link: Link, error: Broken): Lost | Refused => {
  if (error._tag === "RpcClientError") return link.lost(error)
  link.leave()
  return new Lost({ reason: error.reason, outcome: "not-started" })
}

/** A client of the contract over links; `link` gives the present one, or makes one. */
export const carried = (link: Effect.Effect<Link, Lost | Refused>): Carrier => {
  const call = <A, E extends { readonly _tag: string }>(
    ask: (client: Rpcs) => Effect.Effect<A, E | Broken>
  ): Effect.Effect<A, E | Lost | Refused> =>
    Effect.flatMap(link, (link) =>
      Effect.catchIf(ask(link.client), isBroken, (error) => Effect.fail(lostOn(link, error)))
    )

  const stream = <A, E extends { readonly _tag: string }>(
    ask: (
      client: Rpcs,
      queue: QueueOptions
    ) => Effect.Effect<Queue.Dequeue<A, E | Broken | Cause.Done>, never, Scope.Scope>
  ): Stream.Stream<A, E | Lost | Refused> =>
    Stream.unwrap(
      Effect.map(link, (link) =>
        Stream.catchIf(link.stream(ask(link.client, link.queue)), isBroken, (error) =>
          Stream.fail(lostOn(link, error))
        )
      )
    )

  return {
    CreateSandbox: (payload) => call((client) => client.CreateSandbox(payload)),
    CancelCreate: (payload) => call((client) => client.CancelCreate(payload)),
    FindSandbox: (payload) => call((client) => client.FindSandbox(payload)),
    ListSandboxes: (payload) => call((client) => client.ListSandboxes(payload)),
    RenewLease: (payload) => call((client) => client.RenewLease(payload)),
    EndLease: (payload) => call((client) => client.EndLease(payload)),
    GetInfo: (payload) => call((client) => client.GetInfo(payload)),
    ChangeStatus: (payload) => call((client) => client.ChangeStatus(payload)),
    SetExpiry: (payload) => call((client) => client.SetExpiry(payload)),
    Update: (payload) => call((client) => client.Update(payload)),
    WaitForReady: (payload) => call((client) => client.WaitForReady(payload)),
    FollowEvents: (payload) => stream((client, queue) => client.FollowEvents(payload, queue)),
    GetMetrics: (payload) => call((client) => client.GetMetrics(payload)),
    RunProcess: (payload) => stream((client, queue) => client.RunProcess(payload, queue)),
    ExecProcess: (payload) => call((client) => client.ExecProcess(payload)),
    StartProcess: (payload) => call((client) => client.StartProcess(payload)),
    AttachProcess: (payload) => stream((client, queue) => client.AttachProcess(payload, queue)),
    ListProcesses: (payload) => call((client) => client.ListProcesses(payload)),
    SignalProcess: (payload) => call((client) => client.SignalProcess(payload)),
    KillProcess: (payload) => call((client) => client.KillProcess(payload)),
    CancelProcess: (payload) => call((client) => client.CancelProcess(payload)),
    WriteStdin: (payload) => call((client) => client.WriteStdin(payload)),
    CloseStdin: (payload) => call((client) => client.CloseStdin(payload)),
    ResizePty: (payload) => call((client) => client.ResizePty(payload)),
    ReadFile: (payload) => stream((client, queue) => client.ReadFile(payload, queue)),
    WriteFile: (payload) => call((client) => client.WriteFile(payload)),
    WriteUpload: (payload) => call((client) => client.WriteUpload(payload)),
    CommitUpload: (payload) => call((client) => client.CommitUpload(payload)),
    AbortUpload: (payload) => call((client) => client.AbortUpload(payload)),
    ListFiles: (payload) => call((client) => client.ListFiles(payload)),
    StatFile: (payload) => call((client) => client.StatFile(payload)),
    MakeDir: (payload) => call((client) => client.MakeDir(payload)),
    RenameFile: (payload) => call((client) => client.RenameFile(payload)),
    RemoveFile: (payload) => call((client) => client.RemoveFile(payload)),
    ChangeMode: (payload) => call((client) => client.ChangeMode(payload)),
    SetTimes: (payload) => call((client) => client.SetTimes(payload)),
    LinkFile: (payload) => call((client) => client.LinkFile(payload)),
    WatchFiles: (payload) => stream((client, queue) => client.WatchFiles(payload, queue))
  }
}
