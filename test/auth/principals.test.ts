/**
 * Two principals of one service cannot see, guess or touch what is the other's:
 * another's sandbox is answered, byte for byte, like one that does not exist.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Redacted, type Scope, Stream } from "effect"
import { type LeaseId, SandboxId } from "../../src/domain/Ids.ts"
import { SandboxOperations, SandboxRpcs } from "../../src/rpc/SandboxRpcs.ts"
import { httpPath } from "../../src/rpc/ServedRpcs.ts"
import { adminOf, get, sandboxesOf, start } from "../service/support.ts"
import { audience, claims, jwt, secret } from "./support.ts"

type Service = Effect.Success<ReturnType<typeof start>>

const promise = <E>(name: string, body: Effect.Effect<void, E, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(body))

/** A key for somebody. */
const keyFor = Effect.fnUntraced(function* (
  service: Service,
  owner: string,
  scope: "read" | "exec" | "admin" = "exec"
) {
  const admin = yield* adminOf(service, service.token)
  return Redacted.value((yield* admin.mintKey({ owner, scope })).token)
})

/** One call as it goes over the wire, and the whole answer as it comes. */
const call = ({ url }: Service, token: string, tag: string, payload: object) =>
  Effect.promise(async () => {
    const response = await fetch(url + httpPath, {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
      body: `${JSON.stringify({ _tag: "Request", id: "1", tag, payload, headers: [] })}\n`
    })
    return `${response.status} ${await response.text()}`
  })

/** What an operation needs besides the sandbox it is on; every one would succeed, or at least begin, for the owner. */
const payloads: { readonly [tag: string]: object } = {
  GetInfo: {},
  WaitForReady: { timeoutMillis: 1000 },
  FollowEvents: { once: true },
  GetMetrics: {},
  AttachProcess: { processId: "one", attach: {} },
  ListProcesses: {},
  ReadFile: { path: "/home/user/secret" },
  ListFiles: { path: "/home/user" },
  StatFile: { path: "/home/user/secret" },
  WatchFiles: { path: "/home/user" },
  SetExpiry: { ttl: { afterMillis: 1_000_000, action: "kill" } },
  Update: { update: { labels: {} } },
  RunProcess: { process: { processId: "two", argv: ["true"] }, attach: {} },
  ExecProcess: { process: { processId: "four", argv: ["true"] }, attach: { reader: "reader" } },
  StartProcess: { process: { processId: "three", argv: ["true"] } },
  SignalProcess: { processId: "one", signal: "SIGTERM" },
  KillProcess: { processId: "one" },
  CancelProcess: { process: { processId: "one", argv: ["true"] } },
  WriteStdin: { processId: "one", offset: 0, data: "aGk=" },
  CloseStdin: { processId: "one" },
  ResizePty: { processId: "one", size: { rows: 24, cols: 80 } },
  WriteFile: { path: "/home/user/x", data: "aGk=" },
  WriteUpload: { uploadId: "up", path: "/home/user/y", offset: 0, data: "aGk=" },
  CommitUpload: { uploadId: "up", size: 2 },
  AbortUpload: { uploadId: "up" },
  MakeDir: { path: "/home/user/dir" },
  RenameFile: { from: "/home/user/secret", to: "/home/user/stolen" },
  RemoveFile: { path: "/home/user/secret" },
  ChangeMode: { path: "/home/user/secret", mode: 0o777 },
  SetTimes: { path: "/home/user/secret", modifiedAt: 1, nanos: 0 },
  LinkFile: { from: "/home/user/secret", to: "/tmp/link" }
}
const commands = ["pause", "resume", "stop", "start", "restart", "kill"]

/** Every call on a sandbox, changes of its status last. */
const calls: ReadonlyArray<readonly [tag: string, payload: object]> = [
  ...Object.entries(payloads),
  ...commands.map((command) => ["ChangeStatus", { command }] as const)
]

const unknown = SandboxId.make(`sb_local_${"a".repeat(26)}`)

const setUp = Effect.gen(function* () {
  const service = yield* start()
  const alice = yield* keyFor(service, "alice")
  const bob = yield* keyFor(service, "bob")
  const sandboxes = yield* sandboxesOf(service, alice)
  const sandbox = yield* sandboxes.createDetached({ name: "web" })
  yield* sandbox.files.write("/home/user/secret", "alice's")
  yield* sandbox.process.start(["sleep", "1000"], { processId: "one", stdin: true })
  return { service, alice, bob, sandbox, sandboxes }
})

describe("two principals of one service", () => {
  it("are held apart in every operation of the contract: this test knows all of them", () => {
    assert.sameMembers([...new Set(calls.map(([tag]) => tag))], [...SandboxOperations.requests.keys()])
    assert.sameMembers(
      [...SandboxRpcs.requests.keys()].filter((tag) => !SandboxOperations.requests.has(tag)),
      ["CreateSandbox", "CancelCreate", "FindSandbox", "ListSandboxes", "RenewLease", "EndLease"]
    )
  })

  promise(
    "get the same bytes for the other's sandbox as for one that does not exist, in every operation",
    Effect.gen(function* () {
      const { bob, sandbox, sandboxes, service } = yield* setUp
      for (const [tag, payload] of calls) {
        const theirs = yield* call(service, bob, tag, { sandboxId: sandbox.id, ...payload })
        const none = yield* call(service, bob, tag, { sandboxId: unknown, ...payload })
        assert.include(none, '"_tag":"NotFound"', tag)
        assert.strictEqual(theirs.replaceAll(sandbox.id, unknown), none, tag)
      }
      assert.deepInclude(yield* sandbox.info, { status: "running", restarts: 0 })
      assert.strictEqual(yield* sandbox.files.readText("/home/user/secret"), "alice's")
      const [only, ...others] = yield* sandbox.process.list
      assert.deepStrictEqual([only?.processId.toString(), only?.exit, others], ["one", undefined, []])
      assert.strictEqual((yield* sandboxes.list()).sandboxes.length, 1)
    })
  )

  promise(
    "are answered otherwise when it is theirs: those calls were not wrong in themselves",
    Effect.gen(function* () {
      const { alice, sandbox, service } = yield* setUp
      for (const [tag, payload] of calls) {
        // They end only when something happens.
        if (tag === "WatchFiles" || tag === "AttachProcess") continue
        const answer = yield* call(service, alice, tag, { sandboxId: sandbox.id, ...payload })
        assert.notInclude(answer, '"kind":"sandbox"', `${tag} ${answer}`)
        assert.match(answer, /^200 /, tag)
      }
    })
  )

  promise(
    "do not find the other's sandbox by id, name or slug, nor in a list",
    Effect.gen(function* () {
      const { bob, sandbox, service } = yield* setUp
      const none = yield* call(service, bob, "FindSandbox", { idOrName: "nothing" })
      for (const idOrName of [sandbox.id, "web", (yield* sandbox.info).slug]) {
        const answer = yield* call(service, bob, "FindSandbox", { idOrName })
        assert.strictEqual(answer.replaceAll(idOrName, "nothing"), none)
      }
      const bobs = yield* sandboxesOf(service, bob)
      assert.deepStrictEqual((yield* bobs.list({ statuses: ["running", "killed"] })).sandboxes, [])
    })
  )

  promise(
    "may use the same names and keys without knowing of each other",
    Effect.gen(function* () {
      const { alice, bob, service } = yield* setUp
      const request = { name: "same", idempotencyKey: "same" }
      const hers = yield* (yield* sandboxesOf(service, alice)).createDetached(request)
      const his = yield* (yield* sandboxesOf(service, bob)).createDetached(request)
      assert.notStrictEqual(hers.id, his.id)
      assert.strictEqual((yield* his.info).owner, "bob")
    })
  )

  promise(
    "cannot end the other's lease, though they know it",
    Effect.gen(function* () {
      const { alice, bob, service } = yield* setUp
      const lease: typeof LeaseId.Encoded = "a-lease-of-alice-0001"
      const created = yield* call(service, alice, "CreateSandbox", {
        request: { name: "held" },
        detached: false,
        lease
      })
      assert.include(created, '"Success"')
      yield* call(service, bob, "RenewLease", { lease, ttlMillis: 1_000 })
      yield* call(service, bob, "EndLease", { lease })
      const sandboxes = yield* sandboxesOf(service, alice)
      assert.strictEqual((yield* sandboxes.get("held")).status, "running")
      yield* call(service, alice, "EndLease", { lease })
      assert.strictEqual((yield* Effect.flip(sandboxes.get("held")))._tag, "NotFound")
    })
  )
})

describe("a JSON web token", () => {
  promise(
    "opens a service that was given its secret, to its subject and within its scope",
    Effect.gen(function* () {
      const service = yield* start({ hostImage: true, jwt: { secret: Redacted.make(secret), audience } })
      const claimsOf = (change: object) => ({ ...claims, exp: Date.now() / 1000 + 600, ...change })
      const carol = yield* sandboxesOf(service, jwt(claimsOf({ sub: "carol" })))
      const sandbox = yield* carol.createDetached()
      assert.strictEqual((yield* sandbox.info).owner, "jwt:/carol")
      const looking = yield* sandboxesOf(service, jwt(claimsOf({ sub: "carol", scope: "read" })))
      assert.strictEqual((yield* looking.list()).sandboxes.length, 1)
      assert.strictEqual((yield* Effect.flip(looking.kill(sandbox.id)))._tag, "PolicyDenied")
      const dave = yield* sandboxesOf(service, jwt(claimsOf({ sub: "dave" })))
      assert.deepStrictEqual((yield* dave.list()).sandboxes, [])
      for (const wrong of [
        jwt(claimsOf({ exp: 1 })),
        jwt(claimsOf({ aud: "another" })),
        jwt(claimsOf({}), { header: { alg: "none" } }),
        jwt(claimsOf({}), { key: "x".repeat(32) })
      ]) {
        assert.match(yield* call(service, wrong, "ListSandboxes", {}), /^401 /)
      }
    })
  )
})

describe("a key that is revoked", () => {
  for (const transport of ["websocket", "http"] as const) {
    promise(
      `ends what is open by it, at once and not at the next look, over ${transport}`,
      Effect.gen(function* () {
        const service = yield* start({ hostImage: true })
        const admin = yield* adminOf(service, service.token)
        const { info, token } = yield* admin.mintKey({ owner: "alice", scope: "exec" })
        const sandboxes = yield* sandboxesOf(service, Redacted.value(token), { transport })
        const sandbox = yield* sandboxes.createDetached()
        const begun = yield* Deferred.make<void>()
        const stream = yield* Effect.forkScoped(
          sandbox.process.stream(["sleep", "1000"], { timeoutMillis: "none" }).pipe(
            Stream.tap(() => Deferred.succeed(begun, undefined)),
            Stream.runDrain,
            Effect.flip
          )
        )
        yield* Deferred.await(begun)
        yield* admin.revokeKey(info.id)
        const refused = yield* sandbox.info.pipe(
          Effect.repeat({ times: 10_000 }),
          Effect.flip,
          Effect.timeout("5 seconds")
        )
        assert.strictEqual(refused._tag, "Authentication")
        const cut = yield* Effect.timeout(Fiber.join(stream), "5 seconds")
        assert.strictEqual(cut._tag, "Authentication")
      })
    )
  }
})

describe("a token's scope", () => {
  promise(
    "of read looks and changes nothing",
    Effect.gen(function* () {
      const { sandbox, service } = yield* setUp
      const reader = yield* keyFor(service, "alice", "read")
      const allowed = new Set([
        "GetInfo",
        "WaitForReady",
        "FollowEvents",
        "GetMetrics",
        "ListProcesses",
        "ReadFile",
        "ListFiles",
        "StatFile"
      ])
      for (const [tag, payload] of calls) {
        if (tag === "WatchFiles" || tag === "AttachProcess") continue
        const answer = yield* call(service, reader, tag, { sandboxId: sandbox.id, ...payload })
        if (allowed.has(tag)) assert.notInclude(answer, '"PolicyDenied"', tag)
        else assert.include(answer, '"PolicyDenied"', tag)
      }
      const created = yield* call(service, reader, "CreateSandbox", { request: {}, detached: true })
      assert.include(created, '"PolicyDenied"')
      assert.strictEqual((yield* sandbox.info).status, "running")
    })
  )

  promise(
    "of read sees which names an environment has, and no value",
    Effect.gen(function* () {
      const service = yield* start({ hostImage: true })
      const sandboxes = yield* sandboxesOf(service, yield* keyFor(service, "alice"))
      const sandbox = yield* sandboxes.createDetached({ env: { TOKEN: "hush" } })
      const reading = yield* sandboxesOf(service, yield* keyFor(service, "alice", "read"))
      const connected = yield* reading.connect(sandbox.id)
      const seen = [
        ...(yield* reading.list()).sandboxes,
        yield* connected.info,
        yield* connected.waitForReady()
      ]
      for (const { envNames, spec } of seen) assert.deepStrictEqual([envNames, spec.env], [["TOKEN"], {}])
      const { envNames, spec } = yield* sandbox.info
      assert.deepStrictEqual([envNames, spec.env], [undefined, { TOKEN: "hush" }])
    })
  )

  promise(
    "of read attaches and holds no program up, however little it takes",
    Effect.gen(function* () {
      const service = yield* start({ hostImage: true })
      const sandboxes = yield* sandboxesOf(service, yield* keyFor(service, "alice"))
      const sandbox = yield* sandboxes.createDetached()
      const reading = yield* sandboxesOf(service, yield* keyFor(service, "alice", "read"))
      const program = yield* sandbox.process.start(["sh", "-c", "read go; seq 2000000; touch done"], {
        stdin: true,
        processId: "program"
      })
      const attached = yield* (yield* reading.connect(sandbox.id)).process.connect("program")
      const begun = yield* Deferred.make<void>()
      const [gap] = yield* Effect.all(
        [
          attached.events().pipe(
            Stream.tap((event) =>
              event._tag === "Started"
                ? Deferred.succeed(begun, undefined)
                : // The program ends while its reader takes nothing.
                  Effect.repeat(sandbox.files.exists("/home/user/done"), { until: (isDone) => isDone })
            ),
            Stream.filter((event) => event._tag === "Truncated"),
            Stream.runHead
          ),
          Effect.andThen(Deferred.await(begun), program.write("go\n"))
        ],
        { concurrency: 2 }
      )
      assert.isTrue(Option.isSome(gap))
      assert.deepStrictEqual(yield* program.exit, { _tag: "Exited", code: 0 })
    })
  )

  promise(
    "below admin manages nothing",
    Effect.gen(function* () {
      const { bob, service } = yield* setUp
      const admin = yield* adminOf(service, bob)
      for (const attempt of [
        admin.listKeys,
        admin.mintKey({ owner: "bob", scope: "admin" }),
        admin.revokeKey("aaaaaaaaaa")
      ]) {
        assert.strictEqual((yield* Effect.flip(Effect.asVoid(attempt)))._tag, "PolicyDenied")
      }
      assert.strictEqual((yield* get(service, "/metrics", bob)).status, 200)
    })
  )

  promise(
    "ends with its key",
    Effect.gen(function* () {
      const { alice, sandboxes, service } = yield* setUp
      const admin = yield* adminOf(service, service.token)
      yield* sandboxes.list()
      const [key] = (yield* admin.listKeys).filter(({ owner }) => owner === "alice")
      yield* admin.revokeKey(key?.id ?? "")
      assert.match(yield* call(service, alice, "ListSandboxes", {}), /^401 /)
    })
  )
})
