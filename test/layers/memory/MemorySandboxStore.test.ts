import * as MemorySandboxStore from "../../../src/layers/memory/MemorySandboxStore.ts"
import { sandboxStoreSuite } from "../sandboxStoreSuite.ts"

sandboxStoreSuite("memory", MemorySandboxStore.layer)
