/**
 * What the types say, held by the compiler: nothing here is run.
 */
import type { Readable } from "node:stream"
import type {
  CallOptions,
  CommandResult,
  CreateOptions,
  ExitStatus,
  FiberboxOptions,
  FileInfo,
  Items,
  Process,
  ProcessEvent,
  ProcessInfo,
  Pty,
  SandboxEvent,
  SandboxInfo,
  SandboxPage
} from "../../src/promise.ts"
import { Fiberbox, Sandbox } from "../../src/promise.ts"
import type { RunOptions } from "../../src/services/Processes.ts"
import type { Sandbox as FacadeSandbox } from "../../src/services/Sandbox.ts"

/** Compiles when the two types are the same. */
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : { readonly differs: [A, B] }
const holds = <_ extends true>() => {}

// Effects, and functions of effects, answer with promises of data or of lifted handles.
holds<Same<ReturnType<Sandbox["info"]>, Promise<SandboxInfo>>>()
holds<Same<ReturnType<Sandbox["kill"]>, Promise<void>>>()
holds<Same<ReturnType<Sandbox["commands"]["run"]>, Promise<CommandResult>>>()
holds<Same<ReturnType<Sandbox["process"]["list"]>, Promise<ReadonlyArray<ProcessInfo>>>>()
holds<Same<ReturnType<Sandbox["process"]["start"]>, Promise<Process>>>()
holds<Same<ReturnType<Sandbox["process"]["connect"]>, Promise<Process>>>()
holds<Same<ReturnType<Sandbox["pty"]["open"]>, Promise<Pty>>>()
holds<Same<ReturnType<Sandbox["files"]["stat"]>, Promise<FileInfo>>>()
holds<Same<ReturnType<Sandbox["files"]["writeStream"]>, Promise<void>>>()
holds<Same<ReturnType<Process["wait"]>, Promise<ExitStatus>>>()
holds<Same<ReturnType<Fiberbox["create"]>, Promise<Sandbox>>>()
holds<Same<ReturnType<typeof Sandbox.create>, Promise<Sandbox>>>()
holds<Same<ReturnType<typeof Sandbox.list>, Promise<SandboxPage>>>()

// Streams answer with items.
holds<Same<ReturnType<Sandbox["commands"]["stream"]>, Items<ProcessEvent>>>()
holds<Same<ReturnType<Sandbox["events"]>, Items<SandboxEvent>>>()
holds<Same<ReturnType<Sandbox["files"]["stream"]>, Items<Uint8Array>>>()
holds<Same<ReturnType<Pty["output"]>, Items<Uint8Array>>>()

// Nothing of the facade is missing, and what is no operation stays what it is.
holds<Same<Exclude<keyof FacadeSandbox, keyof Sandbox>, never>>()
holds<Same<Sandbox["id"], FacadeSandbox["id"]>>()
holds<Same<keyof Sandbox["files"], keyof FacadeSandbox["files"]>>()

// Options are those of the facade; the signal is one more of them, or follows where there are none.
holds<Same<Parameters<Sandbox["info"]>[0], CallOptions | undefined>>()
holds<Same<Parameters<Sandbox["commands"]["run"]>[0], string>>()
holds<
  Same<
    Omit<NonNullable<Parameters<Sandbox["commands"]["run"]>[1]>, "signal" | "stdin">,
    Omit<RunOptions, "stdin">
  >
>()

export const calls = async (
  sandbox: Sandbox,
  process: Process,
  pty: Pty,
  fiberbox: Fiberbox,
  signal: AbortSignal,
  source: {
    readonly web: ReadableStream<Uint8Array>
    readonly node: Readable
    readonly text: AsyncGenerator<string>
    readonly items: Items<Uint8Array>
    readonly numbers: AsyncGenerator<number>
  }
) => {
  await sandbox.commands.run("true", { signal, cwd: "/", timeoutMillis: "none", stdin: "text" })
  await sandbox.commands.run("true", { stdin: source.web })
  await sandbox.commands.run("true", { stdin: source.node })
  await sandbox.commands.run("true", { stdin: source.text })
  await sandbox.commands.run("true", { stdin: source.items })
  // @ts-expect-error bytes are not numbers
  await sandbox.commands.run("true", { stdin: source.numbers })
  // @ts-expect-error no such option
  await sandbox.commands.run("true", { timeout: 1 })
  // @ts-expect-error a signal is an AbortSignal, not the name of one
  await sandbox.commands.run("true", { signal: "SIGINT" })
  // @ts-expect-error an argv is not empty
  await sandbox.process.run([])
  await sandbox.stop({ graceMillis: 1, signal })
  await sandbox.setExpiry({ ttl: null }, { signal })
  await sandbox.files.writeStream("/a", source.web, { mode: 0o600, signal })
  await sandbox.files.rename("/a", "/b", { signal, as: "root" })
  await sandbox.pty.open({ size: { rows: 1, cols: 1 } }, { signal })
  await process.signal("SIGTERM", { signal })
  // @ts-expect-error not a signal that can be sent
  await process.signal("SIGSEGV")
  await pty.resize({ rows: 1, cols: 1 }, { signal })
  for await (const { _tag } of process) holds<Same<typeof _tag, ProcessEvent["_tag"]>>()
  // @ts-expect-error a process is waited for, it is not awaited as an effect
  void process.exit

  await using created = await Sandbox.create({ backend: "memory", image: "host", signal })
  await using connected = await Sandbox.connect(created.id, { url: "http://127.0.0.1:1", token: "t" })
  await using got = await Sandbox.getOrCreate("name", { stateDir: "/tmp/state", env: { A: "b" } })
  await using made = await fiberbox.create({ limits: { cpus: 1 }, signal })
  // @ts-expect-error where sandboxes run was said when it was opened
  await fiberbox.create({ backend: "memory" })
  // @ts-expect-error no such backend
  await Sandbox.create({ backend: "cloud" })
  await Fiberbox.open({ url: new URL("http://127.0.0.1:1"), signal })
  await Fiberbox.open({ backend: "memory", images: ["other"] })
  await Fiberbox.open({ orphanMillis: 1 })
  // @ts-expect-error that is the container backend's
  await Fiberbox.open({ backend: "memory", runtime: "crun" })
  return [connected, got, made] satisfies ReadonlyArray<AsyncDisposable>
}

/** Options are kept in variables, too. */
export const options: readonly [FiberboxOptions, CreateOptions] = [
  { backend: "container" },
  { image: "host" }
]
