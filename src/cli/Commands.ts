/**
 * All commands but `run` and `doctor`, in the order in which help lists them.
 */
import { attach, logs, ps } from "./Attach.ts"
import { cp } from "./Copy.ts"
import { create } from "./Create.ts"
import { events } from "./Events.ts"
import { exec } from "./Exec.ts"
import { audit, keys } from "./Keys.ts"
import { kill, pause, restart, resume, start, stop } from "./Life.ts"
import { info, ls } from "./List.ts"
import { remains } from "./Remains.ts"
import { serve } from "./Serve.ts"
import { shell } from "./Shell.ts"
import { ttl } from "./Ttl.ts"

/** What works on sandboxes that stay. */
export const sandboxCommands = [
  create,
  ls,
  info,
  exec,
  shell,
  ps,
  attach,
  logs,
  cp,
  events,
  start,
  stop,
  restart,
  pause,
  resume,
  ttl,
  kill,
  serve,
  keys,
  audit,
  remains
] as const
