/**
 * What no kernel takes is refused before anything starts: with the limit, and
 * with a way round it. The limits are Linux's (execve(2), path_resolution(7));
 * backends without a kernel keep them as well.
 */
import { Effect } from "effect"
import { InvalidArgument } from "../../domain/Errors.ts"
import {
  maxArgumentBytes,
  maxArguments,
  maxEnvNames,
  maxNameBytes,
  maxPathBytes,
  maxStringBytes
} from "../../domain/Process.ts"
import type { SpawnRequest } from "../Machine.ts"

const encoder = new TextEncoder()

/** The bytes of a text. */
const bytesOf = (text: string): number => encoder.encode(text).byteLength

const refusal = (field: string, reason: string) => new InvalidArgument({ field, reason })

const large = "pass large input by a file or standard input"

/** Why a path is none, or undefined. */
const pathRefusal = (field: string, path: string): InvalidArgument | undefined => {
  const bytes = bytesOf(path)
  if (bytes > maxPathBytes) {
    return refusal(field, `a path of ${bytes} bytes; at most ${maxPathBytes} are possible: use a shorter one`)
  }
  const name = path.split("/").find((part) => bytesOf(part) > maxNameBytes)
  return name === undefined
    ? undefined
    : refusal(
        field,
        `a name of ${bytesOf(name)} bytes; at most ${maxNameBytes} are possible: use a shorter one`
      )
}

/** Whether it is all so short that nothing need be counted: a character is at most three bytes. */
const isShort = ({ argv, env, cwd }: SpawnRequest): boolean => {
  let length = 0
  let count = argv.length
  for (const argument of argv) length += argument.length
  for (const name in env) {
    length += name.length + (env[name]?.length ?? 0)
    count++
  }
  const longest = Math.max(argv[0].length, cwd.length)
  return 3 * length < maxStringBytes && count <= 1024 && 3 * longest <= maxNameBytes
}

const refusalOf = ({ argv, env, cwd }: SpawnRequest): InvalidArgument | undefined => {
  let bytes = 0
  let count = argv.length
  for (const [index, argument] of argv.entries()) {
    const size = bytesOf(argument)
    if (size > maxStringBytes) {
      const reason = `argument ${index} has ${size} bytes, at most ${maxStringBytes} are possible for one; ${large}`
      return refusal("process.argv", reason)
    }
    bytes += size + 1
  }
  const variables = Object.entries(env)
  if (variables.length > maxEnvNames) {
    const reason = `the environment has ${variables.length} names, at most ${maxEnvNames} are possible; ${large}`
    return refusal("process.env", reason)
  }
  for (const [name, value] of variables) {
    const size = bytesOf(name) + 1 + bytesOf(value)
    if (size > maxStringBytes) {
      const reason = `${name.slice(0, 100)} has ${size} bytes, at most ${maxStringBytes} are possible for one; ${large}`
      return refusal("process.env", reason)
    }
    bytes += size + 1
    count++
  }
  if (bytes > maxArgumentBytes) {
    const reason = `arguments and environment have ${bytes} bytes, at most ${maxArgumentBytes} are possible; ${large}`
    return refusal("process.argv", reason)
  }
  if (count > maxArguments) {
    const reason = `arguments and environment are ${count}, at most ${maxArguments} are possible; ${large}`
    return refusal("process.argv", reason)
  }
  return pathRefusal("process.argv", argv[0]) ?? pathRefusal("process.cwd", cwd)
}

/** Refuses what could not be started on any backend. */
export const checkSpawn = (request: SpawnRequest): Effect.Effect<void, InvalidArgument> =>
  Effect.suspend(() => {
    const refused = isShort(request) ? undefined : refusalOf(request)
    return refused === undefined ? Effect.void : Effect.fail(refused)
  })
