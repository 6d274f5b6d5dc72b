/** Things that may be wrong with a world, each of which random lives must find on every backend. */
import { Effect } from "effect"
import type { Backend } from "../../src/services/Backend.ts"
import type { Machine } from "../../src/services/Machine.ts"
import type { SandboxStore } from "../../src/services/SandboxStore.ts"

type Place = Backend["Service"]
type Store = SandboxStore["Service"]

/** What may be wrong with a world, to see whether it is found. */
export interface Flaws {
  readonly store?: (store: Store) => Store
  readonly backend?: (backend: Place) => Place
}

/** A backend whose machines are changed. */
const withMachines =
  (change: (machine: Machine) => Machine) =>
  (backend: Place): Place => ({
    ...backend,
    provision: (request) => Effect.map(backend.provision(request), change),
    adopt: (request) => Effect.map(backend.adopt(request), change)
  })

/** Each by its name, with what is said of a world that has it. */
export const flaws: { readonly [name: string]: Flaws & { readonly said: RegExp } } = {
  "a store that forgets that a sandbox was stopped": {
    store: (store) => ({
      ...store,
      save: (record, events) =>
        record.status === "stopped"
          ? store.save({ ...record, status: "running" }, events)
          : store.save(record, events)
    }),
    said: /should be|no machine runs|generation/
  },
  "a store that forgets times to live": {
    store: (store) => ({
      ...store,
      save: (record, events) => store.save({ ...record, expiresAt: undefined }, events)
    }),
    said: /time to live/
  },
  "a machine that is not ended": {
    backend: (backend) => ({
      ...withMachines((machine) => ({ ...machine, terminate: Effect.void }))(backend),
      end: () => Effect.void
    }),
    said: /a machine runs/
  },
  "a removal that keeps the disk": {
    backend: (backend) => ({ ...backend, remove: backend.end }),
    said: /remains|left/
  },
  "a write that is acknowledged before it is written": {
    backend: withMachines((machine) => ({
      ...machine,
      files: { ...machine.files, write: () => Effect.void }
    })),
    said: /is not there/
  },
  "a program's end that never comes": {
    backend: withMachines((machine) => ({
      ...machine,
      processes: { ...machine.processes, kill: () => Effect.void }
    })),
    said: /runs|did not end/
  }
}
