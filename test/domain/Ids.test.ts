import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import {
  base32,
  groupOf,
  makeNumbering,
  makeProcessId,
  makeSandboxId,
  ProcessId,
  SandboxId,
  SandboxName,
  UploadId
} from "../../src/domain/Ids.ts"

/** Random bytes that are the same for the same seed (mulberry32). */
const seeded = (seed: number): SecureRandom.SecureRandom["Service"] => {
  let state = seed
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return (mixed ^ (mixed >>> 14)) & 0xff
  }
  return SecureRandom.make((size) => Uint8Array.from({ length: size }, next))
}
const withSeed =
  (seed: number) =>
  <A, E>(effect: Effect.Effect<A, E, SecureRandom.SecureRandom>) =>
    Effect.provideService(effect, SecureRandom.SecureRandom, seeded(seed))

const group = Arbitrary.schema(Schema.String.check(Schema.isPattern(/^[a-z0-9]{1,16}$/)))
const seed = Arbitrary.schema(Schema.Int)
const ids = (count: number) => Effect.replicateEffect(makeSandboxId("g"), count)

/** RFC 4648 base32, by the book: bits in groups of five. */
const slowBase32 = (bytes: Uint8Array): string => {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("")
  const groups = bits.match(/.{1,5}/g) ?? []
  return groups
    .map((part) => "abcdefghijklmnopqrstuvwxyz234567".charAt(Number.parseInt(part.padEnd(5, "0"), 2)))
    .join("")
}

describe("ids", () => {
  it.effect.prop("of sandboxes fit their schema and carry their shard group", { group, seed }, (input) =>
    Effect.gen(function* () {
      const id = yield* makeSandboxId(input.group).pipe(withSeed(input.seed))
      assert.isTrue(Schema.is(SandboxId)(id), id)
      assert.strictEqual(groupOf(id), input.group)
      assert.lengthOf(id.slice(id.lastIndexOf("_") + 1), 26)
    })
  )

  it.effect.prop("of processes and uploads fit their schemas, numbered or not", { seed }, (input) =>
    Effect.gen(function* () {
      assert.isTrue(Schema.is(ProcessId)(yield* makeProcessId.pipe(withSeed(input.seed))))
      const next = yield* makeNumbering.pipe(withSeed(input.seed))
      const numbered = Array.from({ length: 40 }, next)
      assert.isTrue(numbered.every(Schema.is(UploadId)))
      assert.lengthOf(new Set(numbered), 40)
    })
  )

  it.effect("are the same under the same randomness, and others under another", () =>
    Effect.gen(function* () {
      const first = yield* ids(20).pipe(withSeed(1))
      assert.deepStrictEqual(yield* ids(20).pipe(withSeed(1)), first)
      const other = yield* ids(20).pipe(withSeed(2))
      assert.isFalse(other.some((id) => first.includes(id)))
    })
  )

  it.effect("are unique in many draws of the system's randomness", () =>
    Effect.gen(function* () {
      const many = yield* ids(5000)
      assert.strictEqual(new Set(many).size, 5000)
      // Every character carries randomness but the last, which pads 128 bits to 130.
      for (let at = 0; at < 25; at++) {
        assert.isAbove(new Set(many.map((id) => id.at(at - 26))).size, 30, `position ${at}`)
      }
    }).pipe(Effect.provide(SecureRandom.layerWebCrypto))
  )

  it.prop("are refused in any other shape", [Arbitrary.schema(Schema.String)], ([text]) => {
    assert.isFalse(Schema.is(SandboxId)(text))
    assert.isFalse(Schema.is(SandboxId)(`sb_${text}_`))
  })

  it("are refused with a foreign alphabet, length or group", () => {
    const body = "a".repeat(26)
    for (const bad of [`sb_G_${body}`, `sb_g_${body}a`, `sb_g_${body.slice(1)}`, `sb_g_${body.slice(1)}1`]) {
      assert.isFalse(Schema.is(SandboxId)(bad), bad)
    }
    for (const bad of [`sb__${body}`, `sb_${"g".repeat(17)}_${body}`, ` sb_g_${body}`, `sb_g_${body}\n`]) {
      assert.isFalse(Schema.is(SandboxId)(bad), JSON.stringify(bad))
    }
  })
})

describe("base32", () => {
  it("matches the test vectors of RFC 4648", () => {
    const encode = (text: string) => base32(new TextEncoder().encode(text))
    const vectors = ["", "my", "mzxq", "mzxw6", "mzxw6yq", "mzxw6ytb", "mzxw6ytboi"]
    vectors.forEach((vector, length) => {
      assert.strictEqual(encode("foobar".slice(0, length)), vector)
    })
  })

  it.prop("is RFC 4648 for all bytes", [Arbitrary.schema(Schema.Uint8Array)], ([bytes]) => {
    assert.strictEqual(base32(bytes), slowBase32(bytes))
  })
})

describe("sandbox names", () => {
  it("are DNS labels", () => {
    for (const good of ["a", "0", "a-b", "a--b", "a".repeat(63), "9z"]) {
      assert.isTrue(Schema.is(SandboxName)(good), good)
    }
    for (const bad of ["", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a".repeat(64), "a\n"]) {
      assert.isFalse(Schema.is(SandboxName)(bad), JSON.stringify(bad))
    }
  })
})
