/**
 * The whole service in one process: the facade over the contract over actors,
 * for whatever backend and store are provided.
 */
import { Layer } from "effect"
import {
  MessageStorage,
  RunnerHealth,
  RunnerStorage,
  Runners,
  Sharding,
  ShardingConfig
} from "effect/cluster"
import { SharedAlarms } from "../services/Alarms.ts"
import { Leases } from "../services/Leases.ts"
import { Placement } from "../services/Placement.ts"
import * as Reconciler from "../services/Reconciler.ts"
import * as SandboxActor from "../services/SandboxActor.ts"
import { SandboxClient } from "../services/SandboxClient.ts"
import { Sandboxes } from "../services/Sandboxes.ts"
import { selfContained } from "../services/selfContained.ts"
import * as Handlers from "./Handlers.ts"

/** How a service in one process is set up. */
export type Options = Reconciler.Options

const group = "local"

/** One process is the whole cluster: it owns every shard, and nothing but itself sends messages. */
const cluster = Sharding.layer.pipe(
  Layer.provide(Runners.layerNoop),
  Layer.provide(MessageStorage.layerMemory),
  Layer.provide([RunnerStorage.layerMemory, RunnerHealth.layerNoop]),
  Layer.provide(
    ShardingConfig.layer({
      availableShardGroups: [group],
      assignedShardGroups: [group],
      shardsPerGroup: 1,
      entityMailboxCapacity: 10_000,
      maxResidentEntities: "unbounded",
      simulateRemoteSerialization: false,
      // Nobody else writes to the storages, so there is hardly anything to poll for.
      entityMessagePollInterval: "1 hour",
      entityReplyPollInterval: "1 hour",
      refreshAssignmentsInterval: "1 hour",
      // A call made before the shards are assigned, which is a matter of turns and not of time, is tried again at once.
      sendRetryInterval: 0,
      shardLockRefreshInterval: "1 hour",
      shardLockExpiration: "4 hours",
      runnerHealthCheckInterval: "1 hour"
    })
  )
)

/** Actors in this process, reconciled with backend and store. */
export const actors = (options: Options) =>
  Reconciler.layer(options).pipe(
    Layer.provideMerge(SandboxActor.layer),
    Layer.provideMerge(cluster),
    Layer.provideMerge(Layer.mergeAll(Leases.layer, SharedAlarms.layer, Layer.succeed(Placement, group)))
  )

/** A client of the contract that calls its handlers. */
export const client = Layer.effect(SandboxClient, Handlers.make)

/** `Sandboxes` over a backend and a store in this process. */
export const layer = (options: Options) =>
  selfContained(Sandboxes.layer.pipe(Layer.provide(client), Layer.provide(actors(options))))
