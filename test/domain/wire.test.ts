import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { RpcSerialization } from "effect/rpc"
import { SandboxError } from "../../src/domain/Errors.ts"
import { SandboxEvent } from "../../src/domain/Event.ts"
import { FileInfo, FileList, WatchEvent } from "../../src/domain/FileSystem.ts"
import { Metrics } from "../../src/domain/Metrics.ts"
import { AttachOptions, ProcessEvent, ProcessInfo, ProcessSpec } from "../../src/domain/Process.ts"
import {
  CreateRequest,
  ListRequest,
  SandboxInfo,
  SandboxPage,
  UpdateRequest
} from "../../src/domain/Sandbox.ts"
import { SandboxRpcs } from "../../src/rpc/SandboxRpcs.ts"

const binary = RpcSerialization.RpcSerialization.pipe(Effect.provide(RpcSerialization.layerSchemaBinary()))
const json = Effect.succeed(RpcSerialization.json)

/** UTF-8 has no lone surrogates: text that holds one cannot arrive as it was, and no program can write one. */
const onTheWire = <T>(schema: Schema.Schema<T>): Arbitrary.Arbitrary<T> =>
  Arbitrary.filter(Arbitrary.schema(schema), (value) => !/\\ud[89a-f]/.test(JSON.stringify(value)))

/** A value's way through a wire format and back. */
const roundTrip = Effect.fnUntraced(function* <T, I>(
  serialization: Effect.Effect<RpcSerialization.RpcSerialization["Service"]>,
  schema: Schema.Codec<T, I>,
  value: T
) {
  const format = yield* serialization
  const codec = format.codecFor(schema)
  const encoded = yield* Schema.encodeEffect(codec)(value)
  // What is not bytes goes through text, as it does on a wire.
  const sent: unknown = encoded instanceof Uint8Array ? encoded : JSON.parse(JSON.stringify(encoded))
  return yield* Schema.decodeUnknownEffect(codec)(sent)
})

for (const [format, serialization] of Object.entries({ binary, json })) {
  describe(`${format} on the wire`, () => {
    const law = <T, I>(name: string, schema: Schema.Codec<T, I>) =>
      it.effect.prop(`${name} arrives as it was sent`, [onTheWire(schema)], ([value]) =>
        Effect.gen(function* () {
          const back = yield* roundTrip(serialization, schema, value)
          assert.isTrue(Schema.toEquivalence(schema)(back, value))
        })
      )
    law("ProcessEvent", ProcessEvent)
    law("ProcessInfo", ProcessInfo)
    law("ProcessSpec", ProcessSpec)
    law("AttachOptions", AttachOptions)
    law("SandboxInfo", SandboxInfo)
    law("SandboxPage", SandboxPage)
    law("SandboxEvent", SandboxEvent)
    law("CreateRequest", CreateRequest)
    law("ListRequest", ListRequest)
    law("UpdateRequest", UpdateRequest)
    law("FileInfo", FileInfo)
    law("FileList", FileList)
    law("WatchEvent", WatchEvent)
    law("Metrics", Metrics)

    for (const [name, rpc] of SandboxRpcs.requests) {
      law<unknown, unknown>(`the request of ${name}`, rpc.payloadSchema)
    }

    for (const member of SandboxError.members) {
      const name = member.fields._tag.schema.literal
      it.effect.prop(
        `${name} arrives as the same class with the same answers`,
        [onTheWire<SandboxError>(member)],
        ([error]) =>
          Effect.gen(function* () {
            const back = yield* roundTrip(serialization, SandboxError, error)
            assert.isTrue(back instanceof member)
            assert.instanceOf(back, Error)
            assert.strictEqual(back._tag, name)
            assert.isTrue(Schema.toEquivalence(SandboxError)(back, error))
            assert.strictEqual(back.message, error.message)
            assert.strictEqual(back.isRetryable, error.isRetryable)
            assert.strictEqual(back.outcome, error.outcome)
          })
      )
    }
  })
}
