/**
 * Managing a service from elsewhere: its keys, its audit, and what it found that
 * its store does not know. It needs a token of scope `admin`.
 *
 * ```ts
 * const admin = Admin.layer({ url: "http://127.0.0.1:7777", token })
 * Admin.use((admin) => admin.mintKey({ owner: "alice", scope: "exec" })).pipe(Effect.provide(admin))
 * ```
 */
import { Context, Effect, Layer, Redacted, Stream } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest } from "effect/http"
import { RpcClient, type RpcClientError, RpcSerialization } from "effect/rpc"
import { KeyId, type KeyInfo, type MintedKey, MintRequest } from "./domain/Access.ts"
import type { AuditEntry } from "./domain/Audit.ts"
import { Connection, InvalidArgument } from "./domain/Errors.ts"
import { SandboxId } from "./domain/Ids.ts"
import { AdoptRequest, type Remnant } from "./domain/Remains.ts"
import type { SandboxInfo } from "./domain/Sandbox.ts"
import { adminPath, type RemainsError, ServedAdminRpcs } from "./rpc/AdminRpcs.ts"
import { checked, lost } from "./rpc/remote/HttpLink.ts"
import { isLost } from "./rpc/remote/Lost.ts"
import { decodeInput } from "./services/Input.ts"

/** Which service, and who asks. */
export interface Options {
  /** `http://host:port` or `https://host:port`. */
  readonly url: string | URL
  /** A key or token of scope `admin`. */
  readonly token: string | Redacted.Redacted<string>
}

/** How managing a service can fail: a token of too small a scope is `PolicyDenied`. */
export type Failure = RemainsError

const maxAnswerBytes = 1024 * 1024

const decodeMint = decodeInput(MintRequest, "")
const decodeKeyId = decodeInput(KeyId, "keyId")
const decodeAdopt = decodeInput(AdoptRequest, "")
const decodeSandboxId = decodeInput(SandboxId, "sandboxId")

const isBroken = (error: { readonly _tag: string }): error is RpcClientError.RpcClientError =>
  error._tag === "RpcClientError"

/** What a broken request means: the service's refusal, or that there was no answer. */
const explained = (error: RpcClientError.RpcClientError): Failure => {
  const cause = lost(error)
  return isLost(cause) ? new Connection({ reason: cause.reason, outcome: cause.outcome }) : cause
}

const make = Effect.fnUntraced(function* ({ token, url }: Options) {
  const parsed = URL.parse(url)
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) {
    return yield* new InvalidArgument({
      field: "url",
      reason: "must be http://host:port or https://host:port"
    })
  }
  const http = (yield* HttpClient.HttpClient).pipe(
    HttpClient.mapRequest(
      HttpClientRequest.prependUrl(`${parsed.origin}${parsed.pathname.replace(/\/+$/, "")}${adminPath}`)
    ),
    HttpClient.mapRequest(
      HttpClientRequest.bearerToken(typeof token === "string" ? token : Redacted.value(token))
    ),
    HttpClient.transformResponse(Effect.flatMap(checked))
  )
  const protocol = yield* RpcClient.makeProtocolHttp(http)
  const client = yield* Effect.provideService(RpcClient.make(ServedAdminRpcs), RpcClient.Protocol, protocol)
  const call = <A, E extends { readonly _tag: string }>(
    effect: Effect.Effect<A, E | RpcClientError.RpcClientError>
  ) => Effect.catchIf(effect, isBroken, (error) => Effect.fail(explained(error)))

  return Admin.of({
    listKeys: call(client.ListKeys()),
    mintKey: (request) => Effect.flatMap(decodeMint(request), (checked) => call(client.MintKey(checked))),
    revokeKey: (id) => Effect.flatMap(decodeKeyId(id), (keyId) => call(client.RevokeKey({ keyId }))),
    audit: (options = {}) =>
      Stream.catchIf(client.FollowAudit(options), isBroken, (error) => Stream.fail(explained(error))),
    remains: call(client.ListRemains()),
    adoptRemains: (request) =>
      Effect.flatMap(decodeAdopt(request), (checked) => call(client.AdoptRemains(checked))),
    removeRemains: (id) =>
      Effect.flatMap(decodeSandboxId(id), (sandboxId) => call(client.RemoveRemains({ sandboxId })))
  })
})

/** The management of one service. */
export class Admin extends Context.Service<
  Admin,
  {
    /** All keys, in order of creation. */
    readonly listKeys: Effect.Effect<ReadonlyArray<KeyInfo>, Failure>
    /** Makes a key; the answer is the only place where its token is ever told. */
    readonly mintKey: (request: typeof MintRequest.Encoded) => Effect.Effect<MintedKey, Failure>
    /** Ends a key at once. An unknown one is `NotFound`. */
    readonly revokeKey: (keyId: string) => Effect.Effect<void, Failure>
    /** Who did what: the entries after a number (default 0), and those to come unless `once`. */
    readonly audit: (options?: {
      readonly after?: number
      readonly once?: boolean
    }) => Stream.Stream<AuditEntry, Failure>
    /** What is on the service's disk and not in its store: of sandboxes that a lost or older store has forgotten. */
    readonly remains: Effect.Effect<ReadonlyArray<Remnant>, Failure>
    /** Makes a stopped sandbox of such remains, under its old id, with its old disk. An unknown id is `NotFound`. */
    readonly adoptRemains: (request: typeof AdoptRequest.Encoded) => Effect.Effect<SandboxInfo, Failure>
    /** Removes such remains for good. An unknown id is `NotFound`. */
    readonly removeRemains: (sandboxId: string) => Effect.Effect<void, Failure>
  }
>()("fiberbox/Admin") {
  /** A client of a service. Nothing is asked before the first call; an address that is none is `InvalidArgument`. */
  static readonly layer = (options: Options): Layer.Layer<Admin, InvalidArgument> =>
    Layer.effect(Admin, make(options)).pipe(
      Layer.provide(FetchHttpClient.layer),
      Layer.provide(RpcSerialization.layerNdjsonWith({ maxBufferSize: maxAnswerBytes }))
    )
}
