/**
 * Whole services in memory, each with directories of its own, and their callers.
 */
import { NodeServices } from "@effect/platform-node"
import { Context, Effect, FileSystem, Layer, Redacted } from "effect"
import { Admin } from "../../src/admin.ts"
import { SandboxesClient } from "../../src/client.ts"
import { RunningService, Service, type ServiceSettings } from "../../src/service.ts"
import { Sandboxes } from "../../src/services/Sandboxes.ts"

/** A directory of a test's own. */
export const temporary = Effect.flatMap(FileSystem.FileSystem, (fs) =>
  fs.makeTempDirectoryScoped({ prefix: "fb-service-" })
).pipe(Effect.provide(NodeServices.layer))

/** A service that ends with the scope. Its log is not shown. */
export const start = Effect.fnUntraced(function* (settings: ServiceSettings = {}) {
  const baseDir = settings.baseDir ?? (yield* temporary)
  const layer = Service.layer({
    backend: "memory",
    port: 0,
    drainMillis: 2_000,
    log: "none",
    ...settings,
    baseDir
  })
  const running = Context.get(yield* Layer.build(Layer.fresh(layer)), RunningService)
  return { ...running, baseDir, token: Redacted.value(running.token ?? Redacted.make("")) }
})

type Place = { readonly url: string }

/** `Sandboxes` of a service as somebody sees them, who has a second of patience unless the options say otherwise. */
export const sandboxesOf = (
  { url }: Place,
  token: string,
  options: Omit<SandboxesClient.Options, "url" | "token"> = {}
) => {
  const layer = SandboxesClient.layer({ patience: "1 second", ...options, url, token })
  return Effect.map(Layer.build(Layer.fresh(layer)), (context) => Context.get(context, Sandboxes))
}

/** The management of a service. */
export const adminOf = ({ url }: Place, token: string) =>
  Effect.map(Layer.build(Layer.fresh(Admin.layer({ url, token }))), (context) => Context.get(context, Admin))

/** A page of a service. */
export const get = ({ url }: Place, path: string, token?: string) =>
  Effect.promise(async () => {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const response = await fetch(url + path, { headers })
    return { status: response.status, body: await response.text() }
  })
