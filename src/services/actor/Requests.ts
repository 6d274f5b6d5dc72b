/**
 * From what is recorded and asked to what a machine and a caller are given.
 */
import { Hash } from "effect"
import type { ProcessSpec } from "../../domain/Process.ts"
import type { SandboxInfo, SandboxSpec } from "../../domain/Sandbox.ts"
import type { SpawnRequest } from "../Machine.ts"
import type { SandboxRecord } from "../SandboxStore.ts"
import { labelOf } from "./Label.ts"

/** Where a program finds others, and its home, by user. */
const home = { user: "/home/user", root: "/root" } as const
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
const defaultJournalBytes = 1024 * 1024

/**
 * What tells a start from another of the same process id: what is to run and how, by number. How long and for whom
 * it may run is no part of it.
 */
export const identityOf = ({ argv, env, cwd, user, pty, stdin, journalBytes }: ProcessSpec): number =>
  Hash.string(JSON.stringify([argv, env, cwd, user, pty, stdin, journalBytes])) >>> 0

/** A program to start in a sandbox of this specification, every default filled in. */
export const spawnRequest = (spec: SandboxSpec, process: ProcessSpec): SpawnRequest => {
  const user = process.user ?? "user"
  const terminal = process.pty === undefined ? {} : { TERM: "xterm-256color" }
  return {
    processId: process.processId,
    argv: process.argv,
    env: {
      PATH: path,
      HOME: home[user],
      USER: user,
      LOGNAME: user,
      SHELL: "/bin/sh",
      LANG: "C.UTF-8",
      ...terminal,
      ...spec.env,
      ...process.env
    },
    cwd: process.cwd ?? home[user],
    user,
    pty: process.pty,
    stdin: process.stdin ?? false,
    journalBytes: process.journalBytes ?? defaultJournalBytes,
    identity: identityOf(process),
    limitMillis: process.timeoutMillis,
    label: labelOf(process)
  }
}

/** What callers see of a record. */
export const infoOf = (record: SandboxRecord): SandboxInfo => ({
  id: record.id,
  owner: record.owner,
  name: record.name,
  slug: record.slug,
  status: record.status,
  reason: record.reason,
  generation: record.generation,
  backend: record.backend,
  isolation: record.isolation,
  detached: record.detached,
  spec: record.spec,
  createdAt: record.createdAt,
  startedAt: record.startedAt,
  expiresAt: record.expiresAt,
  restarts: record.restarts
})
