/**
 * The contract over a real connection, for tests: every request, reply, stream
 * chunk, acknowledgement and interruption is encoded by its schema, crosses a
 * loopback socket and is decoded again.
 */
import { NodeSocket, NodeSocketServer } from "@effect/platform-node"
import { Effect, Layer, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { RpcClient, type RpcClientError, type RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import { SocketServer } from "effect/socket"
import { Connection } from "../../src/domain/Errors.ts"
import { SandboxRpcs } from "../../src/rpc/SandboxRpcs.ts"
import { SandboxClient } from "../../src/services/SandboxClient.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"

type Carried = RpcClient.RpcClient<RpcGroup.Rpcs<typeof SandboxRpcs>, RpcClientError.RpcClientError>

const lost = (error: RpcClientError.RpcClientError) =>
  new Connection({ reason: error.message, outcome: "unknown" })

const isLost = (error: { readonly _tag: string }): error is RpcClientError.RpcClientError =>
  error._tag === "RpcClientError"

const call = <A, E extends { readonly _tag: string }>(
  effect: Effect.Effect<A, E | RpcClientError.RpcClientError>
) => Effect.catchIf(effect, isLost, (error) => Effect.fail(lost(error)))

const stream = <A, E extends { readonly _tag: string }>(
  stream: Stream.Stream<A, E | RpcClientError.RpcClientError>
) => Stream.catchIf(stream, isLost, (error) => Stream.fail(lost(error)))

/** Every operation of the contract, asked of a client; a lost connection is an error of the contract. */
const forward = (client: Carried) =>
  SandboxRpcs.of({
    CreateSandbox: (payload) => call(client.CreateSandbox(payload)),
    FindSandbox: (payload) => call(client.FindSandbox(payload)),
    ListSandboxes: (payload) => call(client.ListSandboxes(payload)),
    RenewLease: (payload) => call(client.RenewLease(payload)),
    EndLease: (payload) => call(client.EndLease(payload)),
    GetInfo: (payload) => call(client.GetInfo(payload)),
    ChangeStatus: (payload) => call(client.ChangeStatus(payload)),
    SetExpiry: (payload) => call(client.SetExpiry(payload)),
    Update: (payload) => call(client.Update(payload)),
    WaitForReady: (payload) => call(client.WaitForReady(payload)),
    FollowEvents: (payload) => stream(client.FollowEvents(payload)),
    GetMetrics: (payload) => call(client.GetMetrics(payload)),
    RunProcess: (payload) => stream(client.RunProcess(payload)),
    StartProcess: (payload) => call(client.StartProcess(payload)),
    AttachProcess: (payload) => stream(client.AttachProcess(payload)),
    ListProcesses: (payload) => call(client.ListProcesses(payload)),
    SignalProcess: (payload) => call(client.SignalProcess(payload)),
    KillProcess: (payload) => call(client.KillProcess(payload)),
    WriteStdin: (payload) => call(client.WriteStdin(payload)),
    CloseStdin: (payload) => call(client.CloseStdin(payload)),
    ResizePty: (payload) => call(client.ResizePty(payload)),
    ReadFile: (payload) => stream(client.ReadFile(payload)),
    WriteFile: (payload) => call(client.WriteFile(payload)),
    WriteUpload: (payload) => call(client.WriteUpload(payload)),
    CommitUpload: (payload) => call(client.CommitUpload(payload)),
    AbortUpload: (payload) => call(client.AbortUpload(payload)),
    ListFiles: (payload) => call(client.ListFiles(payload)),
    StatFile: (payload) => call(client.StatFile(payload)),
    MakeDir: (payload) => call(client.MakeDir(payload)),
    RenameFile: (payload) => call(client.RenameFile(payload)),
    RemoveFile: (payload) => call(client.RemoveFile(payload)),
    ChangeMode: (payload) => call(client.ChangeMode(payload)),
    WatchFiles: (payload) => stream(client.WatchFiles(payload))
  })

const serialization = RpcSerialization.layerSchemaBinary()

/** A server of the contract on a port of its own, that passes everything on to the client it is given. */
const server = RpcServer.layer(SandboxRpcs).pipe(
  Layer.provide(SandboxRpcs.toLayer(SandboxClient)),
  Layer.provide(RpcServer.layerProtocolSocketServer),
  Layer.provide(serialization)
)

/** A client that is connected to the socket server. */
const connected = Layer.unwrap(
  Effect.map(SocketServer.SocketServer, ({ address }) =>
    NodeSocket.layerNet(
      address._tag === "UnixPathAddress" ? { path: address.path } : { host: "127.0.0.1", port: address.port }
    )
  )
)

/** `Sandboxes` that reaches the given client of the contract only through a socket. */
export const overSocket = <E, R>(service: Layer.Layer<SandboxClient, E, R>) =>
  Sandboxes.layer.pipe(
    Layer.provide(Layer.effect(SandboxClient, Effect.map(RpcClient.make(SandboxRpcs), forward))),
    Layer.provide(RpcClient.layerProtocolSocket()),
    Layer.provide([serialization, connected]),
    Layer.provide(Layer.provide(server, service)),
    Layer.provide(NodeSocketServer.layer({ host: "127.0.0.1", port: 0 })),
    Layer.provide(SecureRandom.layerWebCrypto)
  )
