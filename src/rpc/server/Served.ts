/**
 * The contract's handlers as remote callers get them: what only a program on
 * this machine may ask is refused, and streams are made for connections.
 */
import { posix } from "node:path"
import { Effect, Stream } from "effect"
import { InvalidArgument, PolicyDenied } from "../../domain/Errors.ts"
import { resolveSpec } from "../../domain/Sandbox.ts"
import { asAttached } from "../../services/actor/Execs.ts"
import { Principal } from "../../services/Principal.ts"
import { SandboxClient } from "../../services/SandboxClient.ts"
import { makeShares } from "../../services/Shares.ts"
import { ServedRpcs } from "../ServedRpcs.ts"
import { ahead } from "./Ahead.ts"
import { makeReaders, sizeOf as sizeOfEvent } from "./Readers.ts"
import { makeRounds } from "./Rounds.ts"
import { limitsOf, type ServerOptions } from "./Settings.ts"
import { makeTurns } from "./Turns.ts"

/** How far a file is read ahead of its reader, in bytes. */
const aheadBytes = 256 * 1024
const sizeOfPiece = ({ byteLength }: Uint8Array): number => byteLength
const hostPrefix = "dir:"

/** Whether a path is a directory of the list, or below one; by its name alone. */
const isBelow = (path: string, roots: ReadonlyArray<string>): boolean =>
  roots.some((root) => {
    const relative = posix.relative(posix.normalize(root), path)
    return !relative.startsWith("..") && !posix.isAbsolute(relative)
  })

/** Whether remote callers may have an image. */
const checkImage = (
  image: string,
  { host = false, roots = [] }: NonNullable<ServerOptions["images"]>
): Effect.Effect<void, PolicyDenied> => {
  const deny = (reason: string) => Effect.fail(new PolicyDenied({ policy: "images", reason }))
  if (image === "host") {
    return host ? Effect.void : deny("this service does not offer the image host: name another")
  }
  if (!image.startsWith(hostPrefix)) return Effect.void
  const path = image.slice(hostPrefix.length)
  return path === posix.normalize(path) && isBelow(path, roots)
    ? Effect.void
    : deny("this service lists no directory above it")
}

/** So many lists of one caller, of one sandbox, are asked for at a time; the others wait. Measurements, of all of a caller's. */
const listsAtOnce = 8
/** How long a list may be that is told at once, in entries. */
const shortList = 20

/** Lists, and measurements, as callers get them: whoever asks for many at a time waits for them, and nobody else does. */
const makeLists = Effect.map(makeTurns, (turns) => {
  const share = makeShares(listsAtOnce)
  return <A, E, R>(
    of: string,
    list: Effect.Effect<A, E, R>,
    entriesOf: (list: A) => ReadonlyArray<unknown> = () => []
  ) =>
    Effect.flatMap(Principal, (owner) =>
      list.pipe(
        // Before it is told: that takes its time in one piece.
        Effect.tap((found) => (entriesOf(found).length > shortList ? turns.take(owner) : Effect.void)),
        share(`${owner}\0${of}`)
      )
    )
})

/** Streams of bulk as callers get them. */
const makePace = () => {
  const rounds = makeRounds()
  return <A, E, R>(stream: Stream.Stream<A, E, R>, sizeOf: (item: A) => number): Stream.Stream<A, E, R> =>
    Stream.unwrap(
      Effect.map(Principal, (owner) =>
        Stream.mapArrayEffect(stream, (items) =>
          Effect.as(
            rounds.pass(
              owner,
              items.reduce((bytes, item) => bytes + sizeOf(item), 0)
            ),
            items
          )
        )
      )
    )
}

/** The handlers, over any client of the contract. */
export const layer = (options: ServerOptions) =>
  ServedRpcs.toLayer(
    Effect.gen(function* () {
      const client = yield* SandboxClient
      const readers = yield* makeReaders(limitsOf(options.limits))
      const listing = yield* makeLists
      const paced = makePace()
      return ServedRpcs.of({
        ...client,
        CreateSandbox: (payload) =>
          Effect.gen(function* () {
            if (!payload.detached && payload.lease === undefined) {
              const reason =
                "a sandbox that is not detached needs a lease: nothing else tells when its caller is gone"
              return yield* new InvalidArgument({ field: "lease", reason })
            }
            yield* checkImage(resolveSpec(payload.request).image, options.images ?? {})
            return yield* client.CreateSandbox(payload)
          }),
        ListSandboxes: (payload) =>
          listing("sandboxes", client.ListSandboxes(payload), ({ sandboxes }) => sandboxes),
        // Each sandbox for itself: one that does not answer keeps nobody from the others.
        ListProcesses: (payload) =>
          listing(payload.sandboxId, client.ListProcesses(payload), (processes) => processes),
        ListFiles: (payload) =>
          listing(payload.sandboxId, client.ListFiles(payload), ({ entries }) => entries),
        GetMetrics: (payload) => listing("metrics", client.GetMetrics(payload)),
        RunProcess: (payload) =>
          paced(
            readers.read(
              { sandboxId: payload.sandboxId, processId: payload.process.processId, attach: payload.attach },
              client.RunProcess(payload),
              true
            ),
            sizeOfEvent
          ),
        ExecProcess: (payload) => readers.exec(payload, client.ExecProcess(payload)),
        AttachProcess: (payload) =>
          Stream.mapError(
            paced(readers.read(payload, client.AttachProcess(payload)), sizeOfEvent),
            asAttached
          ),
        ReadFile: (payload) => paced(ahead(client.ReadFile(payload), sizeOfPiece, aheadBytes), sizeOfPiece)
      })
    })
  )
