/**
 * For tests: the suite every backend must pass, random programs of operations
 * and of a life under faults, simulated time, and a store that fails on command.
 */
export * as Conformance from "./testing/Conformance.ts"
export * as FaultyStore from "./testing/FaultyStore.ts"
export * as LifeSystem from "./testing/LifeSystem.ts"
export * as Model from "./testing/Model.ts"
export * as ModelRunner from "./testing/ModelRunner.ts"
export * as ModelSystem from "./testing/ModelSystem.ts"
export { type SimulatedProcess, Simulation } from "./testing/Simulation.ts"
