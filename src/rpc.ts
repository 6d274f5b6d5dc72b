/**
 * The contract, and what a program needs to serve it or to plug in a backend
 * or a transport of its own.
 */
export * as Handlers from "./rpc/Handlers.ts"
export * as InProcess from "./rpc/InProcess.ts"
export * from "./rpc/SandboxRpcs.ts"
export { Backend, type MachineRef, type MachineRequest, type ProvisionError } from "./services/Backend.ts"
export type {
  Duplex,
  FileError,
  Machine,
  MachineError,
  MachineExit,
  MachineFiles,
  MachineProcesses,
  SpawnRequest
} from "./services/Machine.ts"
export { Principal } from "./services/Principal.ts"
export { type Client, SandboxClient } from "./services/SandboxClient.ts"
export { SandboxRecord, SandboxStore } from "./services/SandboxStore.ts"
