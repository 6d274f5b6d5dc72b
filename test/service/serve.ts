/**
 * A service as a program, with the settings of its environment.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Layer } from "effect"
import { Service } from "../../src/service.ts"

Layer.launch(Service.layerConfig).pipe(NodeRuntime.runMain)
