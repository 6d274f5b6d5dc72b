/**
 * Whether open connections keep this program running.
 */
import { Context } from "effect"

/**
 * Whether the handles of the operating system that a service holds for as long
 * as it lives keep the event loop of this program alive. A program that runs one
 * Effect to its end wants that; one whose calls hold the loop themselves does not.
 */
export const HoldsProcess = Context.Reference<boolean>("fiberbox/services/HoldsProcess", {
  defaultValue: () => true
})
