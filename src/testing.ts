/**
 * For tests: the suite every backend must pass, model-based random programs,
 * and a store that fails on command.
 */
export * as Conformance from "./testing/Conformance.ts"
export * as FaultyStore from "./testing/FaultyStore.ts"
export * as Model from "./testing/Model.ts"
export * as ModelRunner from "./testing/ModelRunner.ts"
export * as ModelSystem from "./testing/ModelSystem.ts"
