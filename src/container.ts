/**
 * Sandboxes as Linux containers on this computer.
 *
 * ```ts
 * program.pipe(Effect.provide(Container.layer()))
 * ```
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Layer } from "effect"
import { Digest, SecureRandom } from "effect/crypto"
import type {
  BackendFailed,
  Conflict,
  InvalidArgument,
  ResourceExhausted,
  Timeout,
  Unsupported
} from "./domain/Errors.ts"
import * as AgentConnector from "./layers/container/AgentConnector.ts"
import * as ContainerBackend from "./layers/container/ContainerBackend.ts"
import type { ContainerOptions } from "./layers/container/Settings.ts"
import * as DirectoryInstance from "./layers/instance/DirectoryInstance.ts"
import * as SqlSandboxStore from "./layers/sql/SqlSandboxStore.ts"
import * as InProcess from "./rpc/InProcess.ts"
import { Instance } from "./services/Instance.ts"
import type { Sandboxes } from "./services/Sandboxes.ts"
import { selfContained } from "./services/selfContained.ts"

/** How sandboxes are run as containers. */
export interface Options extends ContainerOptions, DirectoryInstance.InstanceOptions {}

/** Why sandboxes cannot be run here, or not now: another program holds the state directory, a part is missing. */
export type Failure = BackendFailed | Conflict | InvalidArgument | ResourceExhausted | Timeout | Unsupported

/** The backend, the store and the instance of containers in this process. */
export const parts = (options: Options = {}) =>
  Layer.mergeAll(
    ContainerBackend.layer(options).pipe(Layer.provide(AgentConnector.layer)),
    SqlSandboxStore.layerInstance,
    Digest.layerWebCrypto
  ).pipe(
    Layer.provideMerge(DirectoryInstance.layer(options)),
    Layer.provideMerge(SecureRandom.layerWebCrypto),
    Layer.provide(NodeServices.layer)
  )

/**
 * `Sandboxes` as containers, managed by this process. Needs root, and what
 * `fiberbox doctor` asks for.
 *
 * With `stateDir` the detached sandboxes outlive the process: the next one with
 * the same directory takes them over. Without, everything ends with it.
 */
export const layer = (options: Options = {}): Layer.Layer<Sandboxes, Failure> =>
  selfContained(
    Layer.unwrap(
      Effect.map(Instance, ({ ephemeral }) =>
        InProcess.layer({ onClose: ephemeral ? "kill" : "leave", isNew: ephemeral })
      )
    ).pipe(Layer.provide(parts(options)))
  )

export * as Container from "./container.ts"
