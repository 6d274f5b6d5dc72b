import { spawnSync } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { createServer } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Schema, Stream } from "effect"
import type { AgentClient } from "../../../src/layers/agent/AgentClient.ts"
import type { AgentError } from "../../../src/layers/agent/AgentSession.ts"
import * as P from "../../../src/layers/agent/Protocol.ts"
import { collect, deadline, ids, program, type RunningAgent, withAgent } from "./support.ts"

const isRoot = process.getuid?.() === 0

const code = <A>(effect: Effect.Effect<A, AgentError>) =>
  Effect.map(Effect.flip(effect), (error) => (error._tag === "AgentFailed" ? error.code : error._tag))

const read = (client: AgentClient, path: string, offset = 0, length = P.toTheEnd) =>
  Effect.map(Stream.runCollect(client.read(ids, path, offset, length, deadline)), (chunks) =>
    Buffer.concat(chunks)
  )

const write = (client: AgentClient, path: string, data: string | Uint8Array, mode = P.defaultMode) =>
  client.call(P.Write, { ...ids, mode, path, data: Buffer.from(data) }, P.Offset, deadline)

const upload = (
  client: AgentClient,
  uploadId: string,
  path: string,
  offset: number,
  data: string | Uint8Array
) =>
  Effect.map(
    client.call(
      P.Upload,
      { ...ids, mode: 0o640, uploadId, path, offset, data: Buffer.from(data) },
      P.Offset,
      deadline
    ),
    (reply) => reply.offset
  )

describe("writing", () => {
  it.effect("a file makes its parents, belongs to the user and leaves nothing else", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        yield* write(client, `${home}/a/b/c.txt`, "hello")
        assert.strictEqual(readFileSync(`${home}/a/b/c.txt`, "utf8"), "hello")
        const stat = statSync(`${home}/a/b/c.txt`)
        assert.deepStrictEqual([stat.uid, stat.gid, stat.mode & 0o7777], [ids.uid, ids.gid, 0o644])
        assert.deepStrictEqual(readdirSync(`${home}/a/b`), ["c.txt"])
      })
    )
  )

  it.effect("an existing file keeps its mode, follows links, and spares the link", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        yield* write(client, `${home}/target`, "old", 0o750)
        symlinkSync("target", `${home}/link`)
        yield* write(client, `${home}/link`, "new")
        assert.strictEqual(readFileSync(`${home}/target`, "utf8"), "new")
        assert.strictEqual(statSync(`${home}/target`).mode & 0o7777, 0o750)
        assert.deepStrictEqual(readdirSync(home).sort(), ["link", "target"])
      })
    )
  )

  it.effect("to what is no file of the user's is refused by name", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        symlinkSync("loop2", `${home}/loop1`)
        symlinkSync("loop1", `${home}/loop2`)
        spawnSync("mkfifo", [`${home}/fifo`])
        assert.strictEqual(yield* code(write(client, `${home}/loop1`, "x")), "symlink-loop")
        assert.strictEqual(yield* code(write(client, `${home}/fifo`, "x")), "not-regular")
        assert.strictEqual(yield* code(write(client, home, "x")), "is-directory")
        assert.strictEqual(yield* code(write(client, `${home}/new/`, "x")), "is-directory")
        assert.strictEqual(yield* code(write(client, "/", "x")), "is-directory")
        assert.strictEqual(yield* code(write(client, "relative", "x")), "invalid")
        assert.strictEqual(yield* code(write(client, `${home}/${"n".repeat(300)}`, "x")), "name-too-long")
        if (isRoot) assert.strictEqual(yield* code(write(client, "/etc/fiberbox-test", "x")), "permission")
      })
    )
  )

  it.effect("in pieces is invisible until committed, takes repeats and refuses gaps", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        const path = `${home}/up/load`
        assert.strictEqual(yield* upload(client, "u", path, 0, "abc"), 3)
        assert.strictEqual(yield* upload(client, "u", path, 0, "abc"), 3)
        assert.strictEqual(yield* upload(client, "u", path, 1, "bcdef"), 6)
        assert.strictEqual(yield* code(upload(client, "u", path, 7, "x")), "gap")
        assert.strictEqual(yield* code(upload(client, "u", `${home}/other`, 0, "x")), "conflict")
        assert.strictEqual(yield* code(upload(client, "v", path, 7, "x")), "gap")
        assert.isFalse(existsSync(path))
        const commit = (size: number) => client.call(P.Commit, { uploadId: "u", size }, P.Offset, deadline)
        assert.strictEqual(yield* code(commit(5)), "gap")
        yield* commit(6)
        yield* commit(6)
        assert.strictEqual(readFileSync(path, "utf8"), "abcdef")
        assert.strictEqual(statSync(path).mode & 0o7777, 0o640)
        assert.deepStrictEqual(readdirSync(`${home}/up`), ["load"])
      })
    )
  )

  it.effect("in pieces leaves nothing when aborted", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        yield* upload(client, "u", `${home}/file`, 0, "abc")
        assert.strictEqual(readdirSync(home).length, 1)
        yield* client.call(P.Abort, { uploadId: "u" }, P.Ok, deadline)
        yield* client.call(P.Abort, { uploadId: "u" }, P.Ok, deadline)
        assert.deepStrictEqual(readdirSync(home), [])
        assert.strictEqual(
          yield* code(client.call(P.Commit, { uploadId: "u", size: 3 }, P.Offset, deadline)),
          "no-upload"
        )
      })
    )
  )
})

describe("reading", () => {
  it.effect.prop(
    "any range of a file gives exactly that range",
    [
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2_000_000 })),
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2_000_000 }))
    ],
    ([offset, length]) =>
      withAgent((client, { home }) =>
        Effect.gen(function* () {
          const data = Buffer.alloc(1_500_000, "0123456789\n")
          writeFileSync(`${home}/data`, data)
          const got = yield* read(client, `${home}/data`, offset, length)
          assert.isTrue(got.equals(data.subarray(offset, offset + length)))
        })
      ),
    { arbitrary: { runs: 10 } }
  )

  it.effect("what is no file of the user's is refused by name", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const { home } = agent
        spawnSync("mkfifo", [`${home}/fifo`])
        assert.strictEqual(yield* code(read(client, `${home}/none`)), "not-found")
        assert.strictEqual(yield* code(read(client, home)), "is-directory")
        assert.strictEqual(yield* code(read(client, "/dev/zero")), "not-regular")
        assert.strictEqual(yield* code(read(client, "/etc/passwd/x")), "not-directory")
        if (isRoot) assert.strictEqual(yield* code(read(client, "/etc/shadow")), "permission")
      })
    )
  )

  it.effect("never opens what belongs to a process, the agent or another, by whatever name", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const { home, process } = agent
        symlinkSync("/proc/self/mem", `${home}/mem`)
        for (const path of [
          "/proc/self/environ",
          "/proc/thread-self/maps",
          `/proc/${process.pid}/environ`,
          `/proc/${globalThis.process.pid}/environ`,
          `${home}/mem`
        ]) {
          assert.strictEqual(yield* code(read(client, path)), "permission", path)
        }
        assert.strictEqual(yield* code(read(client, "/proc/self/root/etc/passwd")), "symlink-loop")
        assert.match((yield* read(client, "/proc/uptime")).toString(), /^\d+/)
      })
    )
  )
})

describe("directories", () => {
  it.effect("are listed to a depth and up to a limit, which is told", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        mkdirSync(`${home}/d/e`, { recursive: true })
        writeFileSync(`${home}/d/f`, "12345")
        writeFileSync(`${home}/d/e/g`, "")
        symlinkSync("f", `${home}/d/l`)
        const list = (depth: number, limit: number) =>
          Effect.map(client.list(ids, `${home}/d`, depth, limit, deadline), ({ entries, truncated }) => ({
            paths: entries.map(({ path }) => path).sort(),
            truncated
          }))
        assert.deepStrictEqual(yield* list(1, 100), { paths: ["e", "f", "l"], truncated: false })
        assert.deepStrictEqual(yield* list(2, 100), { paths: ["e", "e/g", "f", "l"], truncated: false })
        assert.deepStrictEqual(yield* list(2, 4), { paths: ["e", "e/g", "f", "l"], truncated: false })
        assert.isTrue((yield* list(2, 3)).truncated)
        assert.strictEqual((yield* list(2, 3)).paths.length, 3)
        const { entries } = yield* client.list(ids, `${home}/d`, 1, 100, deadline)
        const link = entries.find(({ path }) => path === "l")
        const file = entries.find(({ path }) => path === "f")
        assert.deepStrictEqual([link?.type, link?.target], [3, "f"])
        assert.deepStrictEqual(
          [file?.type, file?.size, file?.modifiedAt],
          [1, 5, Math.floor(statSync(`${home}/d/f`).mtimeMs)]
        )
      })
    )
  )

  it.effect("of thousands of entries are listed and removed whole, and links are not followed", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        mkdirSync(`${home}/keep`)
        writeFileSync(`${home}/keep/me`, "")
        for (let i = 0; i < 30; i++) {
          mkdirSync(`${home}/t/${i}/sub/sub`, { recursive: true })
          for (let j = 0; j < 100; j++) writeFileSync(`${home}/t/${i}/sub/sub/${j}`, "")
        }
        mkdirSync(`${home}/t/${"deep/".repeat(300)}`, { recursive: true })
        symlinkSync(`${home}/keep`, `${home}/t/link`)
        spawnSync("chown", ["-R", `${ids.uid}:${ids.gid}`, home])
        const { entries } = yield* client.list(ids, `${home}/t`, 1000, 100_000, deadline)
        assert.strictEqual(entries.length, 30 * 103 + 300 + 1)
        const remove = (path: string, recursive: boolean) =>
          client.call(P.Remove, { ...ids, recursive, path }, P.Ok, deadline)
        assert.strictEqual(yield* code(remove(`${home}/t`, false)), "not-empty")
        yield* remove(`${home}/t`, true)
        assert.deepStrictEqual(readdirSync(home), ["keep"])
        assert.deepStrictEqual(readdirSync(`${home}/keep`), ["me"])
        assert.strictEqual(yield* code(remove(`${home}/t`, true)), "not-found")
        assert.strictEqual(yield* code(remove("/", true)), "invalid")
      })
    )
  )

  it.effect("are made, renamed and described", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        const make = (path: string, parents: boolean) =>
          client.call(P.MakeDir, { ...ids, mode: 0o700, parents, path }, P.Ok, deadline)
        const rename = (from: string, to: string, replace: boolean) =>
          client.call(P.Rename, { ...ids, replace, from, to }, P.Ok, deadline)
        yield* make(`${home}/a/b`, true)
        yield* make(`${home}/a/b`, true)
        assert.strictEqual(yield* code(make(`${home}/a/b`, false)), "exists")
        assert.strictEqual(yield* code(make(`${home}/x/y`, false)), "not-found")
        assert.strictEqual(statSync(`${home}/a/b`).mode & 0o7777, 0o700)
        yield* write(client, `${home}/f`, "f")
        yield* write(client, `${home}/g`, "g")
        assert.strictEqual(yield* code(rename(`${home}/f`, `${home}/g`, false)), "exists")
        yield* rename(`${home}/f`, `${home}/g`, true)
        assert.strictEqual(yield* code(rename(`${home}/a`, `${home}/a/b/c`, true)), "invalid")
        yield* client.call(P.Chmod, { ...ids, mode: 0o4711, path: `${home}/g` }, P.Ok, deadline)
        const stat = yield* client.call(P.Stat, { ...ids, path: `${home}/g` }, P.Stated, deadline)
        assert.deepInclude(stat, { type: 1, mode: 0o4711, size: 1, uid: ids.uid, gid: ids.gid, target: "" })
      })
    )
  )
})

describe("watching", () => {
  it.effect("a tree tells what happens in it, new directories and renames included", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        mkdirSync(`${home}/w/sub`, { recursive: true })
        const outside = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(`${home}/out`)),
          (path) => Effect.sync(() => rmSync(path, { recursive: true }))
        )
        const watching = yield* Deferred.make<void>()
        const seen: Array<string> = []
        const kinds = ["", "created", "modified", "removed", "renamed", "overflow"]
        const fiber = yield* Effect.forkChild(
          client.watch(ids, `${home}/w`, true, deadline).pipe(
            Stream.takeUntil((item) => item._tag === "Event" && item.path === "end"),
            Stream.filter((item) => item._tag !== "Ended"),
            Stream.runForEach((item) =>
              item._tag === "Ok"
                ? Deferred.succeed(watching, undefined)
                : Effect.sync(() => {
                    const before = item.before === "" ? "" : `${item.before} -> `
                    seen.push(`${kinds[item.kind]} ${before}${item.path}`)
                  })
            )
          ),
          { startImmediately: true }
        )
        yield* Deferred.await(watching)
        writeFileSync(`${home}/w/sub/f`, "x")
        renameSync(`${home}/w/sub/f`, `${home}/w/g`)
        renameSync(`${home}/w/sub`, `${home}/w/sub2`)
        writeFileSync(`${home}/w/sub2/h`, "")
        renameSync(`${home}/w/g`, `${outside}/g`)
        renameSync(`${outside}/g`, `${home}/w/back`)
        rmSync(`${home}/w/back`)
        mkdirSync(`${home}/w/new/er`, { recursive: true })
        writeFileSync(`${home}/w/new/er/i`, "")
        writeFileSync(`${home}/w/end`, "")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(
          [...new Set(seen)],
          [
            "created sub/f",
            "modified sub/f",
            "renamed sub/f -> g",
            "renamed sub -> sub2",
            "created sub2/h",
            "removed g",
            "created back",
            "removed back",
            "created new",
            "created new/er",
            "created new/er/i",
            "created end"
          ]
        )
      })
    )
  )

  it.effect("follows a directory that takes the place of another", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        mkdirSync(`${home}/w/a/deep`, { recursive: true })
        mkdirSync(`${home}/w/b`)
        const watching = yield* Deferred.make<void>()
        const seen = yield* Effect.forkChild(
          client.watch(ids, `${home}/w`, true, deadline).pipe(
            Stream.tap((item) => (item._tag === "Ok" ? Deferred.succeed(watching, undefined) : Effect.void)),
            Stream.filter((item) => item._tag === "Event"),
            Stream.takeUntil(({ path }) => path === "end"),
            Stream.filter(({ kind }) => kind !== P.eventKinds.modified),
            Stream.map(({ path, before }) => `${before} ${path}`),
            Stream.runCollect
          ),
          { startImmediately: true }
        )
        yield* Deferred.await(watching)
        renameSync(`${home}/w/a`, `${home}/w/b`)
        // Its own watch is forgotten by now, and that of the one in its place is not.
        yield* client.ping(deadline)
        writeFileSync(`${home}/w/b/deep/f`, "")
        writeFileSync(`${home}/w/end`, "")
        assert.deepStrictEqual(yield* Fiber.join(seen), ["a b", " b/deep/f", " end"])
      })
    )
  )

  const watchEvents = Effect.fnUntraced(function* (
    client: AgentClient,
    path: string,
    see: (event: string) => void = () => {}
  ) {
    const watching = yield* Deferred.make<void>()
    const seen = yield* Effect.forkChild(
      client.watch(ids, path, true, deadline).pipe(
        Stream.tap((item) => (item._tag === "Ok" ? Deferred.succeed(watching, undefined) : Effect.void)),
        Stream.filter((item) => item._tag !== "Ok"),
        Stream.map((item) => (item._tag === "Ended" ? `ended ${item.how}` : `${item.kind} ${item.path}`)),
        Stream.tap((event) => Effect.sync(() => see(event))),
        Stream.runCollect
      ),
      { startImmediately: true }
    )
    yield* Deferred.await(watching)
    return seen
  })

  /** Does something while the agent stands still, with more events than the kernel keeps. */
  const unheard = (agent: RunningAgent, path: string, act: () => void) => {
    agent.process.kill("SIGSTOP")
    const most = Number(readFileSync("/proc/sys/fs/inotify/max_queued_events", "utf8"))
    for (let event = 0; event < most; event++) writeFileSync(`${path}/${event % 2}`, "")
    act()
    agent.process.kill("SIGCONT")
  }

  it.effect("goes on with all directories, under their names, after the kernel lost events", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const w = `${agent.home}/w`
        mkdirSync(`${w}/a/deep`, { recursive: true })
        const seen: Array<string> = []
        let rounds = 0
        yield* watchEvents(client, w, (event) => seen.push(event))
        unheard(agent, w, () => {
          renameSync(`${w}/a`, `${w}/b`)
          mkdirSync(`${w}/late`)
        })
        // Not the first rounds, perhaps: what comes while events are lost is lost as well.
        const isHeard = (round: number) => {
          const names = [`b/deep/${round}`, `late/${round}`]
          for (const name of names) writeFileSync(`${w}/${name}`, "")
          const expected = names.map((name) => `${P.eventKinds.created} ${name}`).join()
          return Effect.map(client.ping(deadline), () => seen.join().includes(expected))
        }
        yield* Effect.suspend(() => isHeard(rounds++)).pipe(Effect.repeat({ until: (heard) => heard }))
        assert.include(seen, `${P.eventKinds.overflow} `)
      })
    )
  )

  it.effect("ends when its directory was replaced while the kernel lost events", () =>
    withAgent((client, agent) =>
      Effect.gen(function* () {
        const w = `${agent.home}/w`
        mkdirSync(w)
        const seen = yield* watchEvents(client, w)
        unheard(agent, w, () => {
          renameSync(w, `${w}2`)
          mkdirSync(w)
        })
        assert.strictEqual((yield* Fiber.join(seen)).at(-1), `ended ${P.watchEnds.indexOf("replaced")}`)
      })
    )
  )

  it.effect("directories deeper than a watch goes are refused, and end it when they come later", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        mkdirSync(`${home}/w/${"deep/".repeat(60)}`, { recursive: true })
        const seen = yield* watchEvents(client, `${home}/w`)
        mkdirSync(`${home}/w/${"deep/".repeat(70)}`, { recursive: true })
        assert.strictEqual(yield* code(Fiber.join(seen)), "resources")
        const watch = Stream.runDrain(client.watch(ids, `${home}/w`, true, deadline))
        assert.strictEqual(yield* code(watch), "resources")
      })
    )
  )

  it.effect("what cannot be watched is refused", () =>
    withAgent((client, { home }) =>
      Effect.gen(function* () {
        const watch = (path: string) => Stream.runDrain(client.watch(ids, path, true, deadline))
        assert.strictEqual(yield* code(watch(`${home}/none`)), "not-found")
        assert.strictEqual(yield* code(watch("/etc/passwd")), "not-directory")
      })
    )
  )
})

/** A server that sends back what it gets, and says goodbye. */
const echo = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.pipe(socket)
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      resume(Effect.succeed({ port, close: () => server.close() }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

describe("listening", () => {
  it.effect("hands every connection of a program inside to the host", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const { port, connections } = yield* client.listen(0, deadline)
        const script = `exec 3<>/dev/tcp/127.0.0.1/${port}; echo hello >&3; read answer <&3; echo "got $answer"`
        const outcome = yield* Effect.forkChild(
          collect(client.run(program(["/bin/bash", "-c", script]), deadline)),
          { startImmediately: true }
        )
        const taken = yield* Stream.runHead(connections)
        const connection = yield* Effect.fromOption(taken)
        const heard = yield* Stream.runHead(connection.incoming)
        assert.strictEqual(Buffer.from(yield* Effect.fromOption(heard)).toString(), "hello\n")
        yield* connection.send(Buffer.from("welcome\n"))
        assert.strictEqual((yield* Fiber.join(outcome)).stdout, "got welcome\n")
        yield* connection.close
      })
    )
  )

  it.effect("on a port that is taken is refused", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const { port } = yield* client.listen(0, deadline)
        assert.strictEqual(yield* code(Effect.scoped(client.listen(port, deadline))), "busy")
      })
    )
  )
})

describe("dialling", () => {
  const tcp = (port: number) => ({ family: 4 as const, port })

  it.effect("carries any amount both ways, each direction ending by itself", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const { port } = yield* echo
        const duplex = yield* client.dial(tcp(port), deadline)
        const received = yield* Effect.forkChild(Stream.runCollect(duplex.incoming), {
          startImmediately: true
        })
        const data = Buffer.alloc(5_000_000, "0123456789abcdefg")
        yield* duplex.send(data.subarray(0, 3))
        yield* duplex.send(data.subarray(3))
        yield* duplex.end
        const back = Buffer.concat(yield* Fiber.join(received))
        assert.isTrue(back.equals(data))
      })
    )
  )

  it.effect("where nobody listens is refused", () =>
    withAgent((client) =>
      Effect.gen(function* () {
        const { port, close } = yield* echo
        close()
        assert.strictEqual(yield* code(Effect.scoped(client.dial(tcp(port), deadline))), "refused")
      })
    )
  )
})
