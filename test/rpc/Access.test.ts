/**
 * Who is let in, and what for.
 */
import { request as httpRequest } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { SandboxesClient } from "../../src/client.ts"
import type { SandboxError } from "../../src/domain/Errors.ts"
import { Owner } from "../../src/domain/Ids.ts"
import { Server } from "../../src/server.ts"
import type { Caller } from "../../src/services/Authenticator.ts"
import { SandboxClient } from "../../src/services/SandboxClient.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { alice, aliceToken, knowing, memory } from "./support.ts"

const bob: Caller = { owner: Owner.make("bob"), scope: "exec", name: "bob" }
const reader: Caller = { ...alice, scope: "read", name: "reader" }

const hello = Server.route("GET", "/hello", "admin", Effect.succeed(HttpServerResponse.text("hello")))

/** A service that knows alice, bob and a reader of alice's, and how to reach it as each of them. */
const start = Effect.fnUntraced(function* (options: Server.ServerOptions = {}) {
  const callers = new Map([
    [aliceToken, alice],
    ["bob", bob],
    ["reader", reader]
  ])
  const context = yield* Layer.build(
    Server.layer({ port: 0, images: { host: true }, ...options }, hello).pipe(
      Layer.provide(Layer.merge(memory, knowing(callers)))
    )
  )
  const { url } = Context.get(context, Server.ServerAddress)
  const as = (token: string | undefined, transport: "websocket" | "http" = "websocket") =>
    Effect.map(
      Layer.build(SandboxesClient.layer({ url, token, transport, patience: "1 second" })),
      (context) => Context.get(context, Sandboxes)
    )
  const rawAs = (token: string) =>
    Effect.map(Layer.build(SandboxesClient.layerClient({ url, token })), (context) =>
      Context.get(context, SandboxClient)
    )
  return { url, as, rawAs, callers }
})

/** A request with headers that fetch would not send. */
const asked = (url: string, headers: Record<string, string>, method = "GET") =>
  Effect.callback<{ readonly status: number; readonly body: string }>((resume) => {
    const request = httpRequest(url, { method, headers, agent: false }, (response) => {
      let body = ""
      response.setEncoding("utf8")
      response.on("data", (text: string) => {
        body += text
      })
      response.on("end", () => resume(Effect.succeed({ status: response.statusCode ?? 0, body })))
    })
    request.on("error", () => resume(Effect.succeed({ status: 0, body: "" })))
    request.end()
  })

const upgrade = {
  connection: "Upgrade",
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "MDEyMzQ1Njc4OWFiY2RlZg=="
}
const bearer = { authorization: `Bearer ${aliceToken}` }

describe("a service", () => {
  for (const transport of ["websocket", "http"] as const) {
    it.live(`lets nobody in over ${transport} without a token it knows`, () =>
      Effect.gen(function* () {
        const { as } = yield* start()
        for (const token of [undefined, "wrong", aliceToken.toUpperCase()]) {
          const error = yield* Effect.flip((yield* as(token, transport)).list())
          assert.strictEqual(error._tag, "Authentication")
        }
      }).pipe(Effect.scoped)
    )

    it.live(`lets a reader look over ${transport}, and change nothing`, () =>
      Effect.gen(function* () {
        const { as } = yield* start()
        const sandbox = yield* (yield* as(aliceToken, transport)).create()
        const same = yield* (yield* as("reader", transport)).connect(sandbox.id)
        assert.strictEqual((yield* same.info).status, "running")
        yield* Stream.runDrain(same.events({ once: true }))
        const changes: ReadonlyArray<Effect.Effect<unknown, SandboxError>> = [
          same.kill,
          same.files.write("/home/user/a", ""),
          same.process.run(["true"])
        ]
        for (const refused of changes) {
          assert.strictEqual((yield* Effect.flip(refused))._tag, "PolicyDenied")
        }
      }).pipe(Effect.scoped)
    )
  }

  it.live("shows nobody the sandboxes of another", () =>
    Effect.gen(function* () {
      const { as } = yield* start()
      const sandbox = yield* (yield* as(aliceToken)).create({ name: "mine" })
      const others = yield* as("bob")
      assert.deepStrictEqual((yield* others.list()).sandboxes, [])
      for (const name of [sandbox.id, "mine"]) {
        assert.strictEqual((yield* Effect.flip(others.connect(name)))._tag, "NotFound")
      }
    }).pipe(Effect.scoped)
  )

  it.live("is reached under its own names only", () =>
    Effect.gen(function* () {
      const { url } = yield* start({ hosts: ["sandboxes.example"] })
      const status = (host: string) => Effect.map(asked(`${url}/health`, { host }), (answer) => answer.status)
      for (const host of ["localhost", "127.0.0.1:7777", "[::1]:80", "sandboxes.example", "LOCALHOST"]) {
        assert.strictEqual(yield* status(host), 200, host)
      }
      for (const host of [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a@localhost"
      ]) {
        assert.notStrictEqual(yield* status(host), 200, host)
      }
    }).pipe(Effect.scoped)
  )

  it.live("answers no web page that it does not know, whatever token the page has", () =>
    Effect.gen(function* () {
      const { url } = yield* start({ origins: ["https://known.example"] })
      const page = { ...bearer, origin: "https://evil.example" }
      assert.strictEqual((yield* asked(`${url}/rpc`, { ...page, ...upgrade })).status, 403)
      assert.strictEqual((yield* asked(`${url}/rpc/http`, page, "POST")).status, 403)
      assert.strictEqual((yield* asked(`${url}/health`, { origin: "null" })).status, 403)
      const known = { ...bearer, origin: "https://known.example" }
      assert.strictEqual((yield* asked(`${url}/health`, known)).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("refuses before it upgrades, and says why", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const answer = yield* asked(`${url}/rpc`, upgrade)
      assert.strictEqual(answer.status, 401)
      assert.include(answer.body, "Authentication")
      assert.notInclude(
        (yield* asked(`${url}/rpc`, { ...upgrade, authorization: "Bearer s3cret" })).body,
        "s3cret"
      )
    }).pipe(Effect.scoped)
  )

  it.live("guards the routes that are added to it", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      assert.strictEqual((yield* asked(`${url}/hello`, {})).status, 401)
      assert.strictEqual((yield* asked(`${url}/hello`, { authorization: "Bearer bob" })).status, 403)
      assert.deepStrictEqual(yield* asked(`${url}/hello`, bearer), { status: 200, body: "hello" })
    }).pipe(Effect.scoped)
  )

  it.live("ends connections whose token is taken back", () =>
    Effect.gen(function* () {
      const { as, callers } = yield* start({ recheck: "20 millis" })
      const sandboxes = yield* as(aliceToken)
      const sandbox = yield* sandboxes.createDetached()
      const following = yield* Effect.forkChild(Effect.flip(Stream.runDrain(sandbox.events())))
      yield* sandbox.info
      callers.delete(aliceToken)
      assert.strictEqual((yield* Fiber.join(following))._tag, "Authentication")
      assert.strictEqual((yield* Effect.flip(sandbox.info))._tag, "Authentication")
    }).pipe(Effect.scoped)
  )

  it.live("makes no sandbox that is not detached without a lease", () =>
    Effect.gen(function* () {
      const { rawAs } = yield* start()
      const client = yield* rawAs(aliceToken)
      const error = yield* Effect.flip(client.CreateSandbox({ request: {}, detached: false }))
      assert.strictEqual(error._tag, "InvalidArgument")
    }).pipe(Effect.scoped)
  )

  it.live("lets callers name this machine's own files only where its operator says so", () =>
    Effect.gen(function* () {
      const { as } = yield* start({ images: { roots: ["/srv/images"] } })
      const sandboxes = yield* as("bob")
      const denied = ["host", "dir:/etc", "dir:/srv/images/../../etc", "dir:/srv/images-more", "dir:/"]
      for (const image of denied) {
        assert.strictEqual(
          (yield* Effect.flip(sandboxes.createDetached({ image })))._tag,
          "PolicyDenied",
          image
        )
      }
      // Listed, but not there.
      const listed = yield* Effect.flip(sandboxes.createDetached({ image: "dir:/srv/images/debian" }))
      assert.notStrictEqual(listed._tag, "PolicyDenied")
    }).pipe(Effect.scoped)
  )

  it.live("is no fiberbox service when something else answers", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const context = yield* Layer.build(
        SandboxesClient.layer({ url: `${url}/elsewhere`, token: aliceToken })
      )
      const error = yield* Effect.flip(Context.get(context, Sandboxes).list())
      assert.strictEqual(error._tag, "Connection")
      assert.strictEqual(error.outcome, "not-started")
    }).pipe(Effect.scoped)
  )
})
