import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Ref, Schema } from "effect"
import { ModelRunner } from "../../src/testing.ts"

type Command = "add" | "reset" | "read"
const command = Arbitrary.schema(Schema.Literals(["add", "reset", "read"]))

/** A counter; `add` is what the system does for the command `add`. */
const counter = (
  add: (count: Ref.Ref<number>) => Effect.Effect<void>
): ModelRunner.Spec<Command, number, Ref.Ref<number>, number | undefined> => ({
  command,
  initial: 0,
  predict: (count, command) => {
    switch (command) {
      case "add":
        return { model: count + 1, outcome: undefined }
      case "reset":
        return { model: 0, outcome: undefined }
      case "read":
        return { model: count, outcome: count }
    }
  },
  make: Ref.make(0),
  run: (count, command) => {
    switch (command) {
      case "add":
        return Effect.as(add(count), undefined)
      case "reset":
        return Effect.as(Ref.set(count, 0), undefined)
      case "read":
        return Ref.get(count)
    }
  }
})

const sound = counter((count) => Ref.update(count, (n) => n + 1))
/** Forgets to count above three. */
const broken = counter((count) => Ref.update(count, (n) => Math.min(3, n + 1)))

const falsified = (result: ModelRunner.Result<Command>) =>
  result._tag === "Falsified" ? result : assert.fail(`expected a divergence, got ${result._tag}`)

describe("the model runner", () => {
  it.effect("passes a system that does as its model says", () =>
    Effect.gen(function* () {
      const result = yield* ModelRunner.check(sound, { runs: 300, seed: 1 })
      assert.deepStrictEqual(result, { _tag: "Passed", runs: 300, discards: 0 })
      assert.isUndefined(ModelRunner.report(result))
    })
  )

  it.effect("makes a diverging program as short as it can be", () =>
    Effect.gen(function* () {
      const found = falsified(yield* ModelRunner.check(broken, { runs: 300, seed: 1 }))
      assert.deepStrictEqual(found.shrunkInput, ["add", "add", "add", "add", "read"])
      const failure = found.failure
      assert.strictEqual(
        failure._tag === "PropertyError" ? failure.error.message : failure._tag,
        'step 5, "read": expected 4, got 3'
      )
    })
  )

  it.effect("runs a failure again from its token alone", () =>
    Effect.gen(function* () {
      const found = falsified(yield* ModelRunner.check(broken, { runs: 300, seed: 2 }))
      const again = falsified(yield* ModelRunner.check(broken, { replay: found.replay }))
      assert.deepStrictEqual(again.shrunkInput, found.shrunkInput)
      assert.strictEqual(again.runs, 1)
      const report = ModelRunner.report(found, "REPLAY") ?? ""
      assert.include(report, `REPLAY='${found.replay}'`)
      assert.match(report, / {2}5\. "read"/)
      const gone = yield* ModelRunner.check(sound, { replay: found.replay })
      assert.strictEqual(gone._tag, "ReplayMismatch")
    })
  )

  it.effect("takes failures and defects of the system as divergences", () =>
    Effect.gen(function* () {
      const dying = counter((count) =>
        Effect.flatMap(
          Ref.updateAndGet(count, (n) => n + 1),
          (n) => (n === 2 ? Effect.die(new Error("boom")) : Effect.void)
        )
      )
      const found = falsified(yield* ModelRunner.check(dying, { runs: 100, seed: 1 }))
      assert.deepStrictEqual(found.shrunkInput, ["add", "add"])
      assert.match(ModelRunner.report(found) ?? "", /boom/)
    })
  )

  it.effect("takes a system that never answers as a divergence, even one that cannot be interrupted", () =>
    Effect.gen(function* () {
      const stuck = counter((count) =>
        Effect.flatMap(
          Ref.updateAndGet(count, (n) => n + 1),
          (n) => (n === 2 ? Effect.uninterruptible(Effect.never) : Effect.void)
        )
      )
      const found = falsified(yield* ModelRunner.check(stuck, { runs: 100, seed: 1, stuckMillis: 10 }))
      assert.deepStrictEqual(found.shrunkInput, ["add", "add"])
      assert.match(ModelRunner.report(found) ?? "", /step 2, "add": expected an answer, got none/)
    })
  )

  it.effect("makes a fresh system for every program, and lets it go", () =>
    Effect.gen(function* () {
      const alive = yield* Ref.make(0)
      const scoped = {
        ...sound,
        make: Effect.acquireRelease(
          Effect.andThen(
            Ref.update(alive, (n) => n + 1),
            Ref.make(0)
          ),
          () => Ref.update(alive, (n) => n - 1)
        ),
        view: {
          ofModel: () => 1,
          ofSystem: () => Ref.get(alive)
        }
      }
      assert.strictEqual((yield* ModelRunner.check(scoped, { runs: 50, seed: 1 }))._tag, "Passed")
      assert.strictEqual(yield* Ref.get(alive), 0)
    })
  )

  it.effect("compares what can be seen of the whole after every command", () =>
    Effect.gen(function* () {
      const viewed = { ...broken, view: { ofModel: (count: number) => count, ofSystem: Ref.get<number> } }
      const found = falsified(yield* ModelRunner.check(viewed, { runs: 300, seed: 1 }))
      assert.deepStrictEqual(found.shrunkInput, ["add", "add", "add", "add"])
    })
  )
})
