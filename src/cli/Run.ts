/**
 * `fiberbox run`: one sandbox, one program in it, this process's own streams
 * around it.
 */
import { Effect, type Layer } from "effect"
import { type CreateOptions, Sandboxes } from "../services/Sandboxes.ts"
import { conduct, newProgress, type ProgramRequest, type Progress, runProgram, writeLine } from "./Program.ts"

/** What `fiberbox run` was asked to do. */
export interface RunRequest extends ProgramRequest {
  readonly sandbox: CreateOptions
}

/**
 * Runs the program to its end and gives the exit code that `fiberbox` ends
 * with. What goes wrong is told on standard error (or in JSON), and the sandbox
 * is gone when this returns.
 */
export const run = <E, E2>(
  request: RunRequest,
  backend: Effect.Effect<Layer.Layer<Sandboxes, E>, E2>
): Effect.Effect<number> => {
  const progress = newProgress()
  const program = Effect.flatMap(backend, (layer) =>
    inSandbox(request, progress).pipe(Effect.scoped, Effect.provide(layer))
  )
  return conduct(request, progress, program)
}

const inSandbox = Effect.fnUntraced(function* (request: RunRequest, progress: Progress) {
  const sandbox = yield* Sandboxes.create(request.sandbox)
  if (request.json) {
    const { backend, spec } = yield* sandbox.info
    yield* writeLine({ event: "created", sandboxId: sandbox.id, backend, image: spec.image })
  }
  return yield* runProgram(sandbox, request, progress)
})
