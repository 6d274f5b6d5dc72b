import { describe, it } from "@effect/vitest"
import type { Layer } from "effect"
import type { Capability } from "../../src/domain/Capability.ts"
import type { Sandboxes } from "../../src/services/Sandboxes.ts"
import { Conformance } from "../../src/testing.ts"

/** Registers the suite for a backend or transport: one layer for all cases, on a clock that runs. */
export const conformance = <E>(
  name: string,
  layer: Layer.Layer<Sandboxes, E>,
  capabilities: Iterable<Capability>,
  include: (one: Conformance.Case) => boolean = () => true
): void => {
  const cases = Conformance.cases({ capabilities }).filter(include)
  describe(name, () => {
    it.layer(layer, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
      for (const area of new Set(cases.map((one) => one.area))) {
        describe(area, () => {
          for (const one of cases.filter((one) => one.area === area)) it.effect(one.name, () => one.run)
        })
      }
    })
  })
}
