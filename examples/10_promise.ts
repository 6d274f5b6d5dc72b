/**
 * The same sandboxes without Effect: promises, async iterables, `await using`
 * and `AbortSignal`, from `fiberbox/promise`.
 *
 *   npm run example examples/10_promise.ts
 */
import { CommandExit, Sandbox } from "fiberbox/promise"

/** What a program may take before it is given up. */
const patience = (millis: number) => ({ signal: AbortSignal.timeout(millis) })

{
  // Killed at the end of this block, however it is left.
  await using sandbox = await Sandbox.create({ backend: "container", image: "host" })

  const { stdout } = await sandbox.commands.run("echo hello")
  console.log(`printed ${stdout.trimEnd()}`)

  // Errors are classes, and carry what happened.
  try {
    await sandbox.commands.run("echo half; exit 7")
  } catch (error) {
    if (!(error instanceof CommandExit)) throw error
    console.log(`exit ${error.exitCode} after ${JSON.stringify(error.stdout)}, ${error.outcome}`)
  }

  // Events as they come. Leaving the loop kills the program; while the loop is busy, the program waits.
  for await (const event of sandbox.commands.stream("i=0; while :; do echo line $i; i=$((i+1)); done")) {
    if (event._tag !== "Output") continue
    console.log(
      `first output begins with ${JSON.stringify(new TextDecoder().decode(event.data).slice(0, 7))}`
    )
    break
  }

  // Given up by a signal: the program and all it started are gone when this rejects.
  const reason: unknown = await sandbox.commands
    .run("sleep 60 & sleep 60", patience(200))
    .catch((error) => error)
  console.log(`given up: ${reason instanceof DOMException ? reason.name : reason}`)

  // Files, whole or as streams of the web.
  const upload = new Blob(["three\n", "one\n", "two\n"]).stream()
  await sandbox.files.writeStream("/home/user/words", upload)
  await sandbox.commands.run("sort /home/user/words > /home/user/sorted")
  const download = sandbox.files.stream("/home/user/sorted").toReadableStream()
  console.log(`sorted ${JSON.stringify(await new Response(download).text())}`)

  // A process to talk with.
  const process = await sandbox.commands.start("while read name; do echo hello $name; done", { stdin: true })
  await process.write("ada\n")
  await process.write("grace\n")
  await process.closeStdin()
  console.log(`ended with ${JSON.stringify(await process.wait())}`)
  let said = ""
  for await (const event of process) {
    if (event._tag === "Output") said += new TextDecoder().decode(event.data)
  }
  console.log(`said ${JSON.stringify(said)}`)
}

const { sandboxes } = await Sandbox.list({ backend: "container" })
console.log(`left: ${sandboxes.length}`)
