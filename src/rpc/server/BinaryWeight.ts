/**
 * How much a payload in Effect's binary encoding asks to be decoded. Its bytes
 * mean nothing by themselves, so they are walked with what the decoder of that
 * operation knows: which fields hold others. What it would pass over without a
 * use is counted too, as it is read all the same.
 */
import { Schema, SchemaAST } from "effect"
import { SchemaBinary } from "effect/encoding"
import { readVarint } from "../Binary.ts"
import type { Room } from "../SandboxRpcs.ts"
import type { Weight } from "./Weight.ts"

/** What a field is made of, as far as it can hold values. */
type Shape =
  | { readonly _tag: "One" }
  | { readonly _tag: "List" }
  | Fields
  | { readonly _tag: "Choice"; readonly structs: ReadonlyArray<Fields>; readonly hasList: boolean }

interface Fields {
  readonly _tag: "Fields"
  /** Those that are known, by their numbers. */
  readonly known: ReadonlyMap<number, Shape>
}

const one: Shape = { _tag: "One" }

/** A field begins with its number times this, and its kind. */
const kinds = 8
/** The kind that has its length before it. */
const sized = 0
/** The number of the field that holds all entries without a number of their own. */
const entries = 0
/** A choice begins with the kind of what was chosen; of a variant, the next four bytes say which. */
const chosen = { struct: 9, variant: 10, list: 11 }

/** The number that the encoder gives to a field of this name. */
const numberOf = (name: string): number => {
  const codec = SchemaBinary.toCodec(Schema.Struct({ [name]: Schema.Array(Schema.String) }))
  const frame = Schema.encodeSync(codec)({ [name]: [] })
  const length = readVarint(frame, 0)
  const tag = length === undefined ? undefined : readVarint(frame, length.end + 1)
  return Math.floor((tag?.value ?? 0) / kinds)
}

const unweighed = (what: string) => new Error(`requests with ${what} cannot be weighed`)

const needOne = (asts: ReadonlyArray<SchemaAST.AST>, what: string) => {
  if (asts.some((ast) => shapeOf(ast)._tag !== "One")) throw unweighed(what)
}

/** The members of a union, and of those in it. */
const flat = (types: ReadonlyArray<SchemaAST.AST>): ReadonlyArray<SchemaAST.AST> =>
  types.flatMap((ast) => (ast._tag === "Union" ? flat(ast.types) : [ast]))

const shapeOf = (ast: SchemaAST.AST): Shape => {
  switch (ast._tag) {
    case "Objects":
      needOne(
        ast.indexSignatures.map(({ type }) => type),
        "a record of more than single values"
      )
      return {
        _tag: "Fields",
        known: new Map(
          ast.propertySignatures.map(({ name, type }) => [numberOf(String(name)), shapeOf(type)])
        )
      }
    case "Arrays":
      needOne([...ast.elements, ...ast.rest], "a list of more than single values")
      return ast.rest.length === 0 ? one : { _tag: "List" }
    case "Union": {
      const shapes = flat(ast.types).map(shapeOf)
      const structs = shapes.filter((shape) => shape._tag === "Fields")
      const hasList = shapes.some(({ _tag }) => _tag === "List")
      return structs.length === 0 && !hasList ? one : { _tag: "Choice", structs, hasList }
    }
    case "Any":
    case "Unknown":
    case "ObjectKeyword":
    case "Suspend":
      throw unweighed("values of any kind")
    case "Declaration":
      if (ast.run !== Schema.Uint8Array.ast.run) throw unweighed("values of a kind of their own")
      return one
    default:
      return one
  }
}

/** The position after a field's value, or undefined where that is beyond the end. */
const skip = (payload: Uint8Array, at: number, kind: number): number | undefined => {
  switch (kind) {
    case sized: {
      const length = readVarint(payload, at)
      return length === undefined ? undefined : length.end + length.value
    }
    case 2:
      return at + 8
    case 3:
    case 4:
    case 7:
      return at
    case 6:
      return at + 4
    default: {
      // A number of varying length, or two of them.
      let left = kind === 5 ? 2 : 1
      let next = at
      while (left > 0) {
        const byte = payload[next++]
        if (byte === undefined) return undefined
        if (byte < 0x80) left--
      }
      return next
    }
  }
}

/**
 * What weighs payloads of this schema: never less than what decoding one makes.
 * What is broken is weighed up to there, as it would be decoded; and whoever
 * counts stops soon after there is more than `most`.
 */
export const weigher = (schema: Schema.Constraint) => {
  const whole = shapeOf(SchemaAST.toEncoded(schema.ast))

  return (payload: Uint8Array, most: Omit<Room, "bytes">): Weight => {
    let values = 0
    let names = 0
    const isWithin = () => values <= most.values && names <= most.names

    const record = (from: number, to: number) => {
      let at: number | undefined = from
      while (at !== undefined && at < to && isWithin()) {
        const name = readVarint(payload, at)
        if (name === undefined) return
        names++
        values++
        at = skip(payload, name.end + Math.floor(name.value / kinds), name.value % kinds)
      }
    }

    const fields = ({ known }: Fields, from: number, to: number) => {
      let at = from
      while (at < to && isWithin()) {
        const tag = readVarint(payload, at)
        if (tag === undefined) return
        values++
        const kind = tag.value % kinds
        const next = skip(payload, tag.end, kind)
        if (next === undefined || next > to) return
        const start = kind === sized ? readVarint(payload, tag.end)?.end : undefined
        if (start !== undefined) {
          const number = Math.floor(tag.value / kinds)
          if (number === entries) record(start, next)
          else walk(known.get(number) ?? one, start, next)
        }
        at = next
      }
    }

    const list = (from: number, to: number) => {
      const count = readVarint(payload, from)
      if (count !== undefined && count.end <= to) values += count.value
    }

    const walk = (shape: Shape, from: number, to: number) => {
      switch (shape._tag) {
        case "One":
          return
        case "List":
          return list(from, to)
        case "Fields":
          return fields(shape, from, to)
        case "Choice": {
          const kind = payload[from]
          if (kind === chosen.list && shape.hasList) list(from + 1, to)
          // Which variant it is is not looked at: it is weighed as each of them.
          const start = kind === chosen.struct ? from + 1 : kind === chosen.variant ? from + 5 : to
          for (const each of shape.structs) fields(each, start, to)
        }
      }
    }

    const length = readVarint(payload, 0)
    // The byte after it tells the encoding's version.
    if (length !== undefined) walk(whole, length.end + 1, payload.byteLength)
    // It is no deeper than its schema.
    return { values, names, depth: 1 }
  }
}
