/**
 * A request is never weighed as less than what decoding it makes, however it is written.
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Context, Effect, Option, Schema } from "effect"
import { SchemaBinary } from "effect/encoding"
import { Env } from "../../src/domain/Sandbox.ts"
import { Text } from "../../src/domain/Text.ts"
import { RequestRoom, SandboxRpcs } from "../../src/rpc/SandboxRpcs.ts"
import { weigher } from "../../src/rpc/server/BinaryWeight.ts"
import { fits, weighJson } from "../../src/rpc/server/Weight.ts"

const most = { values: 1_000_000, names: 1_000_000 }
const sandboxId = "sb_x_aaaaaaaaaaaaaaaaaaaaaaaaaa"

const sum = (counts: ReadonlyArray<number>) => counts.reduce((all, count) => all + count, 0)

/** The values in a value: what is in lists and records, and fields; but for a tag, which is no field in the binary encoding. */
const valuesIn = (value: unknown): number => {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return 0
  const inside = Object.entries(value).filter(([name]) => Array.isArray(value) || name !== "_tag")
  return inside.length + sum(inside.map(([, each]) => valuesIn(each)))
}

describe("the weight of JSON", () => {
  const weigh = (text: string) => weighJson(new TextEncoder().encode(text), most)

  it("counts what is in lists and records, and not what is in strings", () => {
    const weight = weigh(String.raw`{"tag":"A","x":[1,2,{"y":"[{,:\"[{,:\\"}]}`)
    assert.deepStrictEqual(weight, { values: 6, names: 3, depth: 3, tag: "A" })
  })

  it("has an operation only where one document says it plainly and once", () => {
    assert.strictEqual(weigh(`{"payload":{"tag":"B"}, "tag" : "A"}\n`).tag, "A")
    for (const text of [
      `{"tag":"A","tag":"B"}`,
      String.raw`{"tag":"A","t\u0061g":"B"}`,
      `{"tag":"A"}\n{"tag":"B"}`,
      `{"tag":1}`,
      `[{"tag":"A"}]`,
      `{"payload":{"tag":"A"}}`
    ]) {
      assert.isUndefined(weigh(text).tag, text)
    }
  })

  it.effect("is never less than what parsing makes", () =>
    Effect.map(
      Arbitrary.checkEffect(Arbitrary.schema(Schema.Json), (value) => {
        // A tag is one of these fields too.
        const inside = JSON.parse(JSON.stringify([{ value }]))
        return Effect.succeed(
          [0, 2].every((space) => weigh(JSON.stringify(inside, null, space)).values >= valuesIn(inside))
        )
      }),
      (result) => assert.strictEqual(result._tag, "Passed", Arbitrary.formatCheckFailure(result))
    )
  )
})

const operations = [...SandboxRpcs.requests.values()].map((rpc) => ({
  name: rpc._tag,
  room: Context.get(rpc.annotations, RequestRoom),
  schema: rpc.payloadSchema,
  /** What the decoder makes, before it is brought to its type. */
  encoded: SchemaBinary.toCodec(Schema.toEncoded(rpc.payloadSchema)),
  weigh: weigher(rpc.payloadSchema)
}))

const operation = (name: string) => operations.find((each) => each.name === name) ?? assert.fail(name)

// --- another writer of the binary encoding -----------------------------------

const utf8 = new TextEncoder()

/** FNV-1a of a field's name: its number. */
const numberOf = (name: string) =>
  utf8.encode(name).reduce((hash, byte) => Math.imul(hash ^ byte, 0x01000193), 0x811c9dc5) >>> 0

type Bytes = ReadonlyArray<number>

/** Writes what the decoder takes, but not as its encoder would: with longer numbers, what nobody knows, and in any order. */
const makeWriter = (noise: ReadonlyArray<number>) => {
  let drawn = 0
  /** Names and values that were written. */
  const written = { names: 0, values: 0 }

  const draw = (below: number) => (noise.length === 0 ? 0 : (noise[drawn++ % noise.length] ?? 0) % below)

  const number = (value: number, longest = 10): Bytes => {
    const groups: Array<number> = []
    for (let left = value; groups.length === 0 || left > 0; left = Math.floor(left / 128))
      groups.push(left % 128)
    while (groups.length < longest && draw(3) === 2) groups.push(0)
    return groups.map((group, index) => (index < groups.length - 1 ? group + 128 : group))
  }
  const withSize = (bytes: Bytes): Bytes => [...number(bytes.length), ...bytes]
  const field = (id: number, bytes: Bytes): Bytes => {
    written.values++
    return [...number(id * 8, 5), ...withSize(bytes)]
  }
  const text = (value: string): Bytes => [...utf8.encode(value)]
  const pairs = (record: { readonly [name: string]: string }): Bytes =>
    Object.entries(record).flatMap(([name, value]) => {
      written.names++
      written.values++
      return [...number(utf8.encode(name).length * 8), ...text(name), ...withSize(text(value))]
    })

  /** Some that no schema knows. */
  const unknown = () => Array.from({ length: draw(4) }, (_, index) => field(index + 1, text("?")))
  const mixed = (parts: ReadonlyArray<Bytes>): Bytes => {
    const left = [...parts]
    const all: Array<number> = []
    while (left.length > 0) all.push(...left.splice(draw(left.length), 1).flat())
    return all
  }
  const struct = (known: { readonly [name: string]: Bytes }): Bytes => {
    const extra = Object.fromEntries(Array.from({ length: draw(4) }, (_, index) => [`?${index}`, ""]))
    return mixed([
      ...Object.entries(known).map(([name, bytes]) => field(numberOf(name), bytes)),
      ...unknown(),
      ...(draw(2) === 1 ? [field(0, pairs(extra))] : [])
    ])
  }

  return {
    written,
    struct,
    text,
    record: (record: { readonly [name: string]: string }): Bytes =>
      mixed([...unknown(), field(0, pairs(record))]),
    list: (items: ReadonlyArray<string>): Bytes => {
      written.values += items.length
      return [...number(items.length), ...items.flatMap((item) => withSize(text(item)))]
    },
    /** What may be left out begins with what it is. */
    maybe: (kind: number, bytes: Bytes): Bytes => [kind, ...bytes],
    frame: (bytes: Bytes) => Uint8Array.from(withSize([0x20, ...bytes]))
  }
}

const program = Schema.Struct({
  argv: Schema.NonEmptyArray(Text.check(Schema.isPattern(/^[^\0]*$/))),
  env: Env,
  noise: Schema.Array(Schema.Natural)
})

describe("the weight of a binary request", () => {
  it.effect("is never less than what decoding makes, however it is written", () =>
    Effect.map(
      Arbitrary.checkEffect(Arbitrary.schema(program), ({ argv, env, noise }) => {
        const { written, ...write } = makeWriter(noise)
        const payload = write.frame(
          write.struct({
            sandboxId: write.text(sandboxId),
            process: write.struct({
              processId: write.text("p-1"),
              argv: write.list(argv),
              env: write.maybe(9, write.record(env))
            })
          })
        )
        const { encoded, weigh } = operation("StartProcess")
        const decoded = Schema.decodeUnknownSync(encoded)(payload)
        assert.deepStrictEqual(decoded, { sandboxId, process: { processId: "p-1", argv, env } })
        const weight = weigh(payload, most)
        assert.isAtLeast(weight.names, written.names)
        assert.isAtLeast(weight.values, written.values)
        return Effect.succeed(true)
      }),
      (result) => assert.strictEqual(result._tag, "Passed", Arbitrary.formatCheckFailure(result))
    )
  )

  it.effect(
    "is never less than what decoding makes of bytes that were changed, and every operation's has room",
    () => {
      const Changes = Schema.Array(Schema.Tuple([Schema.Natural, Schema.Natural]))
      return Effect.forEach(operations, ({ encoded, name, room, schema, weigh }) => {
        const requests = Arbitrary.all({
          payload: Arbitrary.schema(Schema.toType(schema)),
          changes: Arbitrary.schema(Changes)
        })
        return Effect.map(
          Arbitrary.checkEffect(requests, ({ payload, changes }) => {
            const bytes = Uint8Array.from(Schema.encodeUnknownSync(SchemaBinary.toCodec(schema))(payload))
            assert.isTrue(fits(weigh(bytes, room), room), name)
            for (const [at, byte] of changes) bytes[at % bytes.length] = byte
            const decoded = Schema.decodeUnknownOption(encoded)(bytes)
            return Effect.succeed(
              Option.isNone(decoded) || weigh(bytes, most).values >= valuesIn(decoded.value)
            )
          }),
          (result) =>
            assert.strictEqual(result._tag, "Passed", `${name}: ${Arbitrary.formatCheckFailure(result)}`)
        )
      })
    }
  )

  it("counts arguments and environment as the encoder writes them", () => {
    const { schema, weigh } = operation("StartProcess")
    const started = (process: { readonly argv: ReadonlyArray<string>; readonly env?: object }) =>
      Schema.encodeUnknownSync(SchemaBinary.toCodec(Schema.toEncoded(schema)))({
        sandboxId,
        process: { processId: "p-1", ...process }
      })
    const env = Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`n${index}`, "v"]))
    const plain = weigh(started({ argv: ["a"] }), most)
    const weight = weigh(started({ argv: ["a", ...new Array<string>(5000).fill("b")], env }), most)
    assert.strictEqual(weight.names, 1000)
    // Two more fields: the environment, and the one that its entries are in.
    assert.strictEqual(weight.values - plain.values, 5000 + 1000 + 2)
  })
})
