import { Effect } from "effect"
import { Sandboxes } from "../../src/services/Sandboxes.ts"
import { atLeast, type Measurement, row, type Settings } from "../shared/Measurement.ts"
import { installedPeers } from "../shared/Peers.ts"
import { run } from "../shared/Program.ts"
import { containers, toOutput } from "../shared/Sandboxing.ts"
import { rate, sampled, timed } from "../shared/Timing.ts"

const mebibyte = 1024 * 1024
const outputBytes = 256 * mebibyte
const argv = ["head", "-c", String(outputBytes), "/dev/zero"] as const
const fileBytes = 64 * mebibyte
const path = "/home/user/file"

const own = Effect.fnUntraced(function* (runs: number) {
  const sandbox = yield* Sandboxes.create()
  const few = { warmUp: 2, runs }
  const output = yield* sampled(
    few,
    Effect.map(toOutput(sandbox, argv), ({ bytes, whole }) => rate(bytes, whole))
  )
  const perFile = (millis: number) => rate(fileBytes, millis)
  const large = new Uint8Array(fileBytes).fill(120)
  const written = yield* sampled(few, Effect.map(timed(sandbox.files.write(path, large)), perFile))
  const read = yield* sampled(few, Effect.map(timed(sandbox.files.read(path)), perFile))
  const small = new Uint8Array(1024).fill(120)
  const many = { warmUp: 100, runs: runs * 20 }
  const smallWritten = yield* sampled(many, timed(sandbox.files.write(path, small)))
  const smallRead = yield* sampled(many, timed(sandbox.files.read(path)))
  return { output, written, read, smallWritten, smallRead }
}, Effect.scoped)

const measure = Effect.fnUntraced(function* (settings: Settings) {
  const runs = settings.runs ?? 30
  const mine = yield* own(runs).pipe(Effect.provide(containers(settings)))
  const rows = [
    row("fiberbox: standard output into the caller", "MB/s", mine.output, atLeast(150)),
    row("fiberbox: files.write, 64 MiB", "MB/s", mine.written),
    row("fiberbox: files.read, 64 MiB", "MB/s", mine.read),
    row("fiberbox: files.write, 1 KiB", "ms", mine.smallWritten),
    row("fiberbox: files.read, 1 KiB", "ms", mine.smallRead)
  ]
  for (const peer of yield* installedPeers(settings)) {
    if (peer.open === undefined) continue
    const samples = yield* Effect.flatMap(peer.open, (exec) =>
      sampled(
        { warmUp: 1, runs: Math.ceil(runs / 3) },
        Effect.map(run(exec(argv)), ({ stdoutBytes, whole }) => rate(stdoutBytes, whole))
      )
    ).pipe(Effect.scoped)
    rows.push(row(`${peer.name} exec: standard output into Node`, "MB/s", samples))
  }
  return rows
})

export const measurement: Measurement = {
  title: "Bytes out and in",
  about:
    "`head -c` of 256 MiB of zeros, counted as it arrives; files in the sandbox's home, on its disk. 1 MB is 10^6 bytes.",
  measure
}
