/**
 * Conformance: names, lists, labels, pages.
 */
import { Effect } from "effect"
import { Sandboxes } from "../../services/Sandboxes.ts"
import { area, holds, refused, same, unique } from "./Case.ts"

const several = Effect.fnUntraced(function* (count: number) {
  const batch = yield* unique("batch")
  const made = yield* Effect.forEach(Array.from({ length: count }), (_, index) =>
    Sandboxes.create({ labels: { batch, parity: index % 2 === 0 ? "even" : "odd" } })
  )
  const infos = yield* Effect.forEach(made, (sandbox) => sandbox.info)
  // Those made within the same millisecond come in the order of their ids.
  const inOrder = infos.toSorted((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1))
  const even = inOrder.filter((info) => info.spec.labels["parity"] === "even")
  return { batch, ids: inOrder.map((info) => info.id), even: even.map((info) => info.id) }
})

export const findingCases = area("finding")({
  "a sandbox is found by its id, its name and its slug": Effect.gen(function* () {
    const name = yield* unique("found")
    const named = yield* Sandboxes.create({ name })
    same((yield* Sandboxes.get(named.id)).name, name)
    same((yield* Sandboxes.get(name)).id, named.id)
    const nameless = yield* Sandboxes.create()
    const { slug } = yield* nameless.info
    same((yield* Sandboxes.get(slug)).id, nameless.id)
    same((yield* Sandboxes.connect(slug)).id, nameless.id)
  }),

  "what does not exist is not found, whatever it is called": Effect.gen(function* () {
    const unknown = ["nobody-has-this-name", "sb_x_aaaaaaaaaaaaaaaaaaaaaaaaaa", "", "../../etc", "a\0b", "ä"]
    for (const idOrName of unknown) {
      const error = yield* refused(Sandboxes.get(idOrName), "NotFound")
      same([error.kind, error.id], ["sandbox", idOrName])
      yield* refused(Sandboxes.connect(idOrName), "NotFound")
      yield* refused(Sandboxes.kill(idOrName), "NotFound")
    }
  }),

  "getOrCreate finds the sandbox it made, and leaves it as it is": Effect.gen(function* () {
    const name = yield* unique("once")
    const first = yield* Sandboxes.getOrCreate(name, { env: { A: "1" } })
    yield* Effect.addFinalizer(() => Effect.ignore(first.kill))
    const second = yield* Sandboxes.getOrCreate(name, { env: { A: "2" } })
    same(second.id, first.id)
    const info = yield* second.info
    same(info.spec.env, { A: "1" })
    same(info.detached, true)
  }),

  "getOrCreate makes one sandbox, however many ask at once": Effect.gen(function* () {
    const name = yield* unique("race")
    yield* Effect.addFinalizer(() => Effect.ignore(Sandboxes.kill(name)))
    const all = yield* Effect.all(
      Array.from({ length: 5 }, () => Sandboxes.getOrCreate(name)),
      { concurrency: "unbounded" }
    )
    same(new Set(all.map((sandbox) => sandbox.id)).size, 1)
  }),

  "a taken name is a conflict, and a malformed one is refused": Effect.gen(function* () {
    const name = yield* unique("taken")
    const { id } = yield* Sandboxes.create({ name })
    const conflict = yield* refused(Sandboxes.create({ name }), "Conflict")
    same([conflict.kind, conflict.id], ["name", name])
    same((yield* Sandboxes.get(name)).id, id)
    for (const bad of ["Upper", "-a", "a-", "a b", "", "a".repeat(64)]) {
      same((yield* refused(Sandboxes.create({ name: bad }), "InvalidArgument")).field, "name")
    }
  }),

  "a list holds all that match every label, in order of creation": Effect.gen(function* () {
    const { batch, ids, even } = yield* several(3)
    const listed = (labels: Record<string, string>) =>
      Effect.map(Sandboxes.list({ labels }), (page) => page.sandboxes.map((info) => info.id))
    same(yield* listed({ batch }), ids)
    same(yield* listed({ batch, parity: "even" }), even)
    same(yield* listed({ batch, parity: "none" }), [])
  }),

  "pages hold as many as asked for, each sandbox once, and the last says so": Effect.gen(function* () {
    const { batch, ids } = yield* several(5)
    const seen: Array<string> = []
    let cursor: string | undefined
    const sizes: Array<number> = []
    do {
      const page = yield* Sandboxes.list({ labels: { batch }, limit: 2, cursor })
      seen.push(...page.sandboxes.map((info) => info.id))
      sizes.push(page.sandboxes.length)
      cursor = page.next
    } while (cursor !== undefined && sizes.length < 10)
    same(seen, ids)
    holds(
      sizes.slice(0, 2).every((size) => size === 2),
      `full pages come first: ${sizes.join(" ")}`
    )
    yield* refused(Sandboxes.list({ limit: 0 }), "InvalidArgument")
    yield* refused(Sandboxes.list({ limit: 1001 }), "InvalidArgument")
  }),

  "killed sandboxes are listed only when asked for": Effect.gen(function* () {
    const { batch, ids } = yield* several(2)
    const [first, second] = ids
    if (first !== undefined) yield* Sandboxes.kill(first)
    const alive = yield* Sandboxes.list({ labels: { batch } })
    same(
      alive.sandboxes.map((info) => info.id),
      second === undefined ? [] : [second]
    )
    const killed = yield* Sandboxes.list({ labels: { batch }, statuses: ["killed"] })
    same(
      killed.sandboxes.map((info) => [info.id, info.status]),
      first === undefined ? [] : [[first, "killed"]]
    )
    const running = yield* Sandboxes.list({ labels: { batch }, statuses: ["running", "killed"] })
    same(running.sandboxes.length, 2)
  })
})
