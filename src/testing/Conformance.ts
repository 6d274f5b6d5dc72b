/**
 * The suite of behaviours that every backend and every transport must show.
 *
 * A case is a name and an effect over `Sandboxes`; nothing here knows a test
 * framework. To hold a new backend to the contract, provide its layer to each
 * case's `run` and have your test runner report the failures:
 *
 * ```ts
 * import { it } from "@effect/vitest"
 * import { Conformance } from "fiberbox/testing"
 *
 * it.layer(MyBackend.layer, { excludeTestServices: true })("my backend", (it) => {
 *   for (const { area, name, run } of Conformance.cases({ capabilities: ["stop", "metrics"] })) {
 *     it.effect(`${area}: ${name}`, () => run)
 *   }
 * })
 * ```
 *
 * Cases make their own sandboxes and remove them, so they may share one layer
 * and run at the same time. They wait on events, streams and exits, with a clock
 * that runs by itself.
 */
import type { Capability } from "../domain/Capability.ts"
import type { Case } from "./conformance/Case.ts"
import { commandCases } from "./conformance/commands.ts"
import { directoryCases } from "./conformance/directories.ts"
import { eventCases } from "./conformance/events.ts"
import { expiryCases } from "./conformance/expiry.ts"
import { fileCases } from "./conformance/files.ts"
import { findingCases } from "./conformance/finding.ts"
import { lifecycleCases } from "./conformance/lifecycle.ts"
import { metricCases, refusalCases, unsupportedCases } from "./conformance/limits.ts"
import { processCases } from "./conformance/processes.ts"
import { ptyCases } from "./conformance/pty.ts"
import { treeCases } from "./conformance/trees.ts"
import { watchCases } from "./conformance/watch.ts"

export type { Area, Case } from "./conformance/Case.ts"

/** What is held to the contract. */
export interface Subject {
  /**
   * What the backend declares it can do. Cases that need more are left out, and
   * cases that the missing abilities are refused as `Unsupported` are put in.
   */
  readonly capabilities: Iterable<Capability>
}

/** The promises that apply to a backend, in an order that shows basic failures first. */
export const cases = (subject: Subject): ReadonlyArray<Case> => {
  const capabilities = new Set(subject.capabilities)
  const all = [
    ...lifecycleCases,
    ...findingCases,
    ...commandCases,
    ...processCases,
    ...treeCases,
    ...ptyCases,
    ...fileCases,
    ...directoryCases,
    ...watchCases,
    ...eventCases,
    ...expiryCases,
    ...metricCases,
    ...refusalCases,
    ...unsupportedCases(capabilities)
  ]
  return all.filter((one) => one.needs.every((need) => capabilities.has(need)))
}
