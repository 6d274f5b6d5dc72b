/**
 * A link over plain HTTP: a request for every call, its answer one JSON document
 * a line. A stream is held up by the connection itself when it is not read.
 */
import { Effect, Layer, Redacted, type Scope, Stream } from "effect"
import {
  FetchHttpClient,
  HttpClient,
  HttpClientError,
  HttpClientRequest,
  type HttpClientResponse
} from "effect/http"
import { RpcClient, type RpcClientError, RpcSerialization } from "effect/rpc"
import { maxRequestBytes } from "../SandboxRpcs.ts"
import { ServedRpcs } from "../ServedRpcs.ts"
import type { Link } from "./Carried.ts"
import { Lost, type Refused } from "./Lost.ts"
import { maxRefusalBytes, refusalOf, tooLarge } from "./Refusal.ts"

/** Where and as whom to ask. */
export interface HttpLinkOptions {
  /** http:// or https:// */
  readonly url: string
  readonly token: Redacted.Redacted<string> | undefined
}

/** The most characters of one line of an answer. */
const maxLineLength = 64 * 1024 * 1024
const itemsAhead = 16

const services = Layer.merge(
  FetchHttpClient.layer,
  RpcSerialization.layerNdjsonWith({ maxBufferSize: maxLineLength })
)

/** Fails where an answer is no answer to a call, with what it says. */
export const checked = (
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError> =>
  response.status === 200
    ? Effect.succeed(response)
    : Effect.flatMap(
        Effect.orElseSucceed(response.text, () => ""),
        (text) =>
          Effect.fail(
            new HttpClientError.HttpClientError({
              reason: new HttpClientError.StatusCodeError({
                request: response.request,
                response,
                description: text.slice(0, maxRefusalBytes)
              })
            })
          )
      )

/** Sends nothing that the service would not read to its end. Text is longer than what it stands for. */
const fitting = (
  request: HttpClientRequest.HttpClientRequest
): Effect.Effect<HttpClientRequest.HttpClientRequest, HttpClientError.HttpClientError> =>
  request.body._tag === "Uint8Array" && request.body.contentLength > 2 * maxRequestBytes
    ? Effect.fail(
        new HttpClientError.HttpClientError({
          reason: new HttpClientError.EncodeError({ request, cause: tooLarge })
        })
      )
    : Effect.succeed(request)

/** Makes the link; nothing is asked yet. */
export const openHttpLink = Effect.fnUntraced(function* ({
  url,
  token
}: HttpLinkOptions): Effect.fn.Return<Link, never, Scope.Scope> {
  const context = yield* Layer.build(services)
  const client = yield* Effect.provide(
    Effect.gen(function* () {
      const http = (yield* HttpClient.HttpClient).pipe(
        HttpClient.mapRequest(HttpClientRequest.prependUrl(url)),
        HttpClient.mapRequest(
          token === undefined ? (request) => request : HttpClientRequest.bearerToken(Redacted.value(token))
        ),
        HttpClient.mapRequestEffect(fitting),
        HttpClient.transformResponse(Effect.flatMap(checked))
      )
      const protocol = yield* RpcClient.makeProtocolHttp(http)
      return yield* Effect.provideService(RpcClient.make(ServedRpcs), RpcClient.Protocol, protocol)
    }),
    context
  )
  return {
    client,
    isAlive: () => true,
    leave: () => {},
    retire: Effect.void,
    lost,
    queue: { asQueue: true, streamBufferSize: itemsAhead },
    stream: (call) => Stream.unwrap(Effect.map(call, Stream.fromQueue))
  }
})

/** What refused connections are called (errno(3)); then nothing was sent. */
const neverSent = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"])

const codeOf = (cause: unknown): string | undefined => {
  if (typeof cause !== "object" || cause === null) return undefined
  if ("code" in cause && typeof cause.code === "string") return cause.code
  return "cause" in cause ? codeOf(cause.cause) : undefined
}

/** What a broken request means. */
export const lost = (error: RpcClientError.RpcClientError): Lost | Refused => {
  const cause = error.reason._tag === "HttpError" ? error.reason.cause : undefined
  if (cause instanceof HttpClientError.StatusCodeError) {
    return refusalOf(cause.response.status, cause.description ?? "")
  }
  if (cause instanceof HttpClientError.EncodeError) return tooLarge
  const code = codeOf(cause)
  return new Lost({
    reason: code === undefined ? `the request broke (${error.message})` : `no connection: ${code}`,
    outcome: code !== undefined && neverSent.has(code) ? "not-started" : "unknown"
  })
}
