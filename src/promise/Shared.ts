/**
 * Sandboxes without opening anything: the place they run in is opened at the
 * first call, shared by all calls that name the same one, and closed when
 * nobody uses it.
 */
import { Effect, Predicate, Schema } from "effect"
import { decodeInput } from "../services/Input.ts"
import type { Sandboxes } from "../services/Sandboxes.ts"
import { BackendName, type Fiberbox, type FiberboxOptions, openUntil } from "./Fiberbox.ts"
import type { Lifted, Sandbox } from "./Lifted.ts"
import { type CallOptions, isOptions } from "./Source.ts"

/**
 * Where a sandbox runs. Without any of these: the service whose address is in
 * the environment's `FIBERBOX_URL` (its token in `FIBERBOX_TOKEN`), otherwise
 * containers on this computer.
 */
export interface Place {
  /** In this process: containers on this computer, or a simulation in memory. */
  readonly backend?: "container" | "memory" | undefined
  /** With containers: where detached sandboxes are kept for the next program. Without it everything ends with this one. */
  readonly stateDir?: string | undefined
  /** Where a service listens, such as `http://127.0.0.1:7777`. */
  readonly url?: string | URL | undefined
  /** An API key of that service, or a signed token. */
  readonly token?: string | undefined
}

/** The members of a {@link Fiberbox}, each of which takes a {@link Place} among its options. */
export type Statics = Lifted<Sandboxes["Service"], CallOptions & Place>

/** A fiberbox and how many use it. */
interface Shared {
  readonly fiberbox: Promise<Fiberbox>
  users: number
  closing: NodeJS.Timeout | undefined
}

/** How long a fiberbox that nobody uses stays open for the next, in milliseconds. */
const lingerMillis = 10_000

const sharedAt = new Map<string, Shared>()

const begin = (key: string, place: Place): Shared => {
  // What could not be opened, or was closed, is opened again for the next.
  const forget = () => {
    if (sharedAt.get(key) === shared) sharedAt.delete(key)
  }
  const fiberbox = openUntil(toOptions(place), forget)
  fiberbox.catch(forget)
  const shared: Shared = { fiberbox, users: 0, closing: undefined }
  sharedAt.set(key, shared)
  return shared
}

/** The fiberbox of a place, kept open until `release`. */
const use = (place: Place): { readonly fiberbox: Promise<Fiberbox>; readonly release: () => void } => {
  const key = JSON.stringify([place.backend, place.stateDir, place.url, place.token])
  const shared = sharedAt.get(key) ?? begin(key, place)
  clearTimeout(shared.closing)
  shared.users += 1
  const end = () => {
    sharedAt.delete(key)
    shared.fiberbox.then(({ close }) => close()).catch(() => {})
  }
  let used = true
  const release = () => {
    if (!used) return
    used = false
    shared.users -= 1
    if (shared.users === 0) shared.closing = setTimeout(end, lingerMillis).unref()
  }
  return { fiberbox: shared.fiberbox, release }
}

const toOptions = ({ backend, stateDir, token, url }: Place): FiberboxOptions => {
  if (url !== undefined) return { url, token }
  return backend === "memory" ? { backend } : { backend, stateDir }
}

const text = Schema.optional(Schema.NonEmptyString)
const decodePlace = decodeInput(
  Schema.Struct({ backend: Schema.optional(BackendName), stateDir: text, url: text, token: text }),
  ""
)

/** Takes the {@link Place} out of the last argument; fails with `InvalidArgument`. */
const splitPlace = async (args: ReadonlyArray<unknown>) => {
  const last = args.at(-1)
  const { backend, stateDir, token, url, ...options } = isOptions(last) ? last : {}
  const named = { backend, stateDir, token, url: url instanceof URL ? url.href : url }
  const place = await Effect.runPromise(decodePlace(named))
  const { signal } = options
  return {
    place: Object.values(place).some(Predicate.isNotUndefined) ? place : fromEnvironment(),
    rest: isOptions(last) ? [...args.slice(0, -1), options] : args,
    signal: signal instanceof AbortSignal ? signal : undefined
  }
}

const fromEnvironment = (): Place => {
  const { FIBERBOX_TOKEN: token, FIBERBOX_URL: url } = process.env
  return url === undefined || url === "" ? {} : { url, token }
}

/** Waits no longer than until the signal is aborted; others may go on waiting. */
const unlessAborted = async <A>(promise: Promise<A>, signal: AbortSignal | undefined): Promise<A> => {
  if (signal === undefined) return promise
  signal.throwIfAborted()
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = () => reject(signal.reason)
  signal.addEventListener("abort", abort, { once: true })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener("abort", abort)
  }
}

const isSandbox = (value: unknown): value is Sandbox => Predicate.hasProperty(value, Symbol.asyncDispose)

/** A handle that keeps its fiberbox open until it is let go. */
const keeping = (sandbox: Sandbox, release: () => void): Sandbox => ({
  ...sandbox,
  [Symbol.asyncDispose]: async () => {
    try {
      await sandbox[Symbol.asyncDispose]()
    } finally {
      release()
    }
  }
})

function shared<K extends keyof Statics>(name: K): Statics[K]
function shared(name: keyof Statics): unknown {
  return async (...args: ReadonlyArray<unknown>): Promise<unknown> => {
    const { place, rest, signal } = await splitPlace(args)
    const { fiberbox, release } = use(place)
    let answer: unknown
    try {
      const method = (await unlessAborted(fiberbox, signal))[name]
      answer = await Reflect.apply(method, undefined, rest)
    } finally {
      if (!isSandbox(answer)) release()
    }
    return isSandbox(answer) ? keeping(answer, release) : answer
  }
}

/** The facade's operations on sandboxes, at the {@link Place} that their options name. */
export const statics: Statics = {
  create: shared("create"),
  createDetached: shared("createDetached"),
  getOrCreate: shared("getOrCreate"),
  connect: shared("connect"),
  get: shared("get"),
  list: shared("list"),
  kill: shared("kill")
}
