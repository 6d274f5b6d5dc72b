/**
 * `fiberbox remains`: what sandboxes left on disk that the store does not know,
 * and what becomes of it.
 */
import { Context, Effect, Layer, Option, Redacted } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Admin } from "../admin.ts"
import { localOwner, SandboxId } from "../domain/Ids.ts"
import { AdoptRequest } from "../domain/Remains.ts"
import { decodeInput } from "../services/Input.ts"
import { Remains } from "../services/Remains.ts"
import { findService, ownStateDir, reach, whenFree } from "./Connect.ts"
import { perform, performEach, writeJson, writeText } from "./Perform.ts"
import { type ConnectionOptions, connectionFlags, jsonFlag, limitsOf, sandboxFlags } from "./SharedFlags.ts"
import { table } from "./Text.ts"

const decodeAdopt = decodeInput(AdoptRequest, "")
const decodeId = decodeInput(SandboxId, "sandbox")

/** Those of a service, which asks for a token of scope admin. */
const served = Effect.fnUntraced(function* (
  service: NonNullable<Effect.Success<ReturnType<typeof findService>>>
) {
  yield* reach(service)
  const layer = Admin.layer({ url: service.url, token: service.token ?? Redacted.make("") })
  const { adoptRemains, remains, removeRemains } = Context.get(yield* Layer.build(layer), Admin)
  return { list: remains, adopt: adoptRemains, remove: removeRemains }
})

/** Those in this user's own state directory, which this command holds as long as it runs. */
const own = Effect.gen(function* () {
  const stateDir = yield* ownStateDir
  const { Container } = yield* Effect.promise(() => import("../container.ts"))
  const layer = whenFree(Layer.provide(Remains.layer, Container.parts({ stateDir, directoryImages: true })))
  const { adopt, list, remove } = Context.get(yield* Layer.build(layer), Remains)
  return {
    list,
    adopt: (request: typeof AdoptRequest.Encoded) => Effect.flatMap(decodeAdopt(request), adopt),
    remove: (id: string) => Effect.flatMap(decodeId(id), remove)
  }
})

const remainsOf = Effect.fnUntraced(function* (options: ConnectionOptions) {
  const service = yield* findService(options)
  return yield* service === undefined ? own : served(service)
})

const common = { ...connectionFlags, json: jsonFlag("Write one JSON document a line") }

const list = Command.make("ls", common, (options) =>
  perform(
    options,
    Effect.gen(function* () {
      const found = yield* (yield* remainsOf(options)).list
      if (options.json) return yield* Effect.forEach(found, writeJson, { discard: true })
      const rows = found.map(({ running, sandboxId }) => [sandboxId, running ? "running" : "disk only"])
      return yield* writeText(table(["ID", "STATE"], rows))
    }).pipe(Effect.scoped)
  )
).pipe(Command.withAlias("list"), Command.withDescription("List them"))

const adopt = Command.make(
  "adopt",
  {
    name: Flag.String("name").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("Its name, unique among its owner's sandboxes (default: a short one is made up)"),
      Flag.optional
    ),
    owner: Flag.String("owner").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("Whose it shall be (default: yours)"),
      Flag.withDefault(localOwner)
    ),
    ...sandboxFlags,
    ...connectionFlags,
    json: jsonFlag("Write the sandbox as one JSON document"),
    sandbox: Argument.String("id").pipe(Argument.withDescription("Its id, as `fiberbox remains ls` shows it"))
  },
  (options) =>
    perform(
      options,
      Effect.gen(function* () {
        const made = yield* (yield* remainsOf(options)).adopt({
          sandboxId: options.sandbox,
          owner: options.owner,
          request: { name: Option.getOrUndefined(options.name), ...limitsOf(options) }
        })
        yield* options.json ? writeJson(made) : writeText(made.id)
      }).pipe(Effect.scoped)
    )
).pipe(
  Command.withDescription(
    "Make a stopped sandbox of one, under its old id: say image and limits as for `fiberbox create`; its disk keeps its size"
  ),
  Command.withExamples([
    {
      command: "fiberbox remains adopt --name rescued sb_local_... && fiberbox start rescued",
      description: "Get at its files again"
    }
  ])
)

const remove = Command.make(
  "rm",
  {
    ...common,
    sandboxes: Argument.String("id").pipe(
      Argument.withDescription("Their ids, as `fiberbox remains ls` shows them"),
      Argument.atLeast(1)
    )
  },
  (options) =>
    perform(
      options,
      Effect.gen(function* () {
        const { remove } = yield* remainsOf(options)
        return yield* performEach(options, options.sandboxes, (id) =>
          Effect.andThen(remove(id), options.json ? writeJson({ id, status: "removed" }) : writeText(id))
        )
      }).pipe(Effect.scoped)
    )
).pipe(Command.withDescription("Remove them for good, disks included"))

/** The command `remains`. */
export const remains = Command.make("remains").pipe(
  Command.withDescription(`What is on disk of sandboxes that the store does not know

A store.db that was lost, or put back from an older copy, forgets sandboxes. Nothing of theirs is removed: their
programs are ended, and their disks stay until they are adopted or removed here. At a service this needs a token of
scope admin.`),
  Command.withShortDescription("Disks that a lost store has forgotten"),
  Command.withSubcommands([list, adopt, remove])
)
