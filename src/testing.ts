/**
 * For tests: the suite every backend must pass, and model-based random programs.
 */
export * as Conformance from "./testing/Conformance.ts"
export * as Model from "./testing/Model.ts"
export * as ModelRunner from "./testing/ModelRunner.ts"
export * as ModelSystem from "./testing/ModelSystem.ts"
