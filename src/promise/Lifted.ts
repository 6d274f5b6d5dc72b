/**
 * The handles of the Effect facade as handles of promises.
 *
 * Nothing is written twice: types are mapped from the facade's, and so are the
 * values, member by member. An effect becomes a method that returns a promise, a
 * stream a method that returns {@link Items}, a function of either a method
 * with the same arguments; every one takes a signal in its options.
 */
import { Effect, Predicate, Stream } from "effect"
import type { Process as FacadeProcess, Pty as FacadePty } from "../services/Process.ts"
import type { Sandbox as FacadeSandbox } from "../services/Sandbox.ts"
import type { Calls, Items } from "./Calls.ts"
import { type ByteSource, type CallOptions, toArguments } from "./Source.ts"

/** A handle whose members return promises and {@link Items}; `Extra` are the options that every one takes besides its own. */
export type Lifted<T, Extra = CallOptions> = { readonly [K in keyof T]: Member<T[K], Extra> }

type AnyStream = Stream.Stream<unknown, unknown, unknown>

type Member<M, Extra> =
  M extends Effect.Effect<infer A, infer _E, infer _R>
    ? (options?: Extra) => Promise<Result<A>>
    : M extends Stream.Stream<infer A, infer _E, infer _R>
      ? (options?: Extra) => Items<A>
      : M extends (...args: infer P) => infer Answer
        ? (...args: MethodParameters<P, Extra>) => Answered<Answer>
        : M extends string | number | boolean
          ? M
          : Lifted<M, Extra>

type Answered<Answer> =
  Answer extends Effect.Effect<infer A, infer _E, infer _R>
    ? Promise<Result<A>>
    : Answer extends Stream.Stream<infer A, infer _E, infer _R>
      ? Items<A>
      : never

/** The parameters of a method: `Extra` is part of its options, or follows where it has none. */
type MethodParameters<P extends ReadonlyArray<unknown>, Extra> =
  Required<P> extends readonly [...infer Before, infer Last]
    ? Before extends P
      ? [...Arguments<Before>, options?: Arguments<Last> & Extra]
      : [...Arguments<P>, options?: Extra]
    : [options?: Extra]

/** Arguments, or options, with a source of bytes where the facade takes a stream. */
type Arguments<T> = { [K in keyof T]: T[K] extends infer V ? (V extends AnyStream ? ByteSource : V) : never }

type Result<A> = A extends FacadeSandbox
  ? Sandbox
  : A extends FacadePty
    ? Pty
    : A extends FacadeProcess
      ? Process
      : A

/**
 * The handle on one sandbox. It survives restarts of the sandbox's machine;
 * process handles do not.
 *
 * It can be let go with `await using`: one that was made by `create` is killed
 * then, with all that it holds; any other stays as it is.
 */
export interface Sandbox extends Lifted<FacadeSandbox>, AsyncDisposable {}

/** What a lifted process has instead of, and besides, the facade's members. */
export interface ProcessExtras {
  /** Waits until it has ended. */
  readonly wait: Lifted<FacadeProcess>["exit"]
  /** Reads its events from the oldest that is kept. Leaving the loop leaves it running. */
  readonly [Symbol.asyncIterator]: Items<EventOf>[typeof Symbol.asyncIterator]
}

type EventOf = ReturnType<FacadeProcess["events"]> extends Stream.Stream<infer A, infer _E> ? A : never

/** A process, running or ended. Its methods reject with `GenerationChanged` once the machine was replaced. */
export interface Process extends Omit<Lifted<FacadeProcess>, "exit">, ProcessExtras {}

/** A process that runs on a terminal. */
export interface Pty extends Omit<Lifted<FacadePty>, "exit">, ProcessExtras {}

/** A handle with each of its members lifted; that named `Symbol.asyncDispose` may be run when nothing else may. */
export function lift<T extends object>(calls: Calls, handle: T): Lifted<T>
export function lift(calls: Calls, handle: object): unknown {
  const members = Reflect.ownKeys(handle).map((key) => {
    const member: unknown = Reflect.get(handle, key)
    const isRelease = key === Symbol.asyncDispose && isEffect(member)
    return [key, isRelease ? () => calls.release(member) : liftMember(calls, member)] as const
  })
  return Object.fromEntries(members)
}

// The facade's effects need nothing, which cannot be seen in the values.
const isEffect = (value: unknown): value is Effect.Effect<unknown, unknown> => Effect.isEffect(value)
const isStream = (value: unknown): value is Stream.Stream<unknown, unknown> => Stream.isStream(value)

const liftMember = (calls: Calls, member: unknown): unknown => {
  if (isEffect(member) || isStream(member)) return method(calls, () => member)
  if (Predicate.isFunction(member)) return method(calls, (args) => Reflect.apply(member, undefined, args))
  return Predicate.isObject(member) ? lift(calls, member) : member
}

/** Whether a member answers with promises or with items is known when the facade has answered. */
const method =
  (calls: Calls, member: (args: ReadonlyArray<unknown>) => unknown) =>
  (...args: ReadonlyArray<unknown>): unknown => {
    const { signal, values } = toArguments(args)
    const answer = member(values)
    if (isStream(answer)) return calls.items(answer, signal)
    if (isEffect(answer)) return calls.run(answer, signal).then((value) => toResult(calls, value))
    return answer
  }

/** Handles among the answers are lifted, data is passed as it is. */
const toResult = (calls: Calls, value: unknown): unknown => {
  if (isProcess(value)) return toProcess(lift(calls, value))
  return isSandbox(value) ? lift(calls, value) : value
}

const isProcess = (value: unknown): value is FacadeProcess =>
  Predicate.hasProperty(value, "exit") && Effect.isEffect(value.exit)

const isSandbox = (value: unknown): value is FacadeSandbox =>
  Predicate.hasProperty(value, "info") && Effect.isEffect(value.info)

const toProcess = ({ exit, ...process }: Lifted<FacadeProcess>): Process => ({
  ...process,
  wait: exit,
  [Symbol.asyncIterator]: () => process.events()[Symbol.asyncIterator]()
})
