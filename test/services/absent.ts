import { Effect, Stream } from "effect"
import type { Client } from "../../src/services/SandboxClient.ts"

const nothing = () => Effect.die(new Error("not expected"))
const nothings = () => Stream.die(new Error("not expected"))

/** A client of which no call is expected. */
export const absent: Client = {
  CreateSandbox: nothing,
  CancelCreate: nothing,
  FindSandbox: nothing,
  ListSandboxes: nothing,
  RenewLease: nothing,
  EndLease: nothing,
  GetInfo: nothing,
  ChangeStatus: nothing,
  SetExpiry: nothing,
  Update: nothing,
  WaitForReady: nothing,
  FollowEvents: nothings,
  GetMetrics: nothing,
  RunProcess: nothings,
  ExecProcess: nothing,
  StartProcess: nothing,
  AttachProcess: nothings,
  ListProcesses: nothing,
  SignalProcess: nothing,
  KillProcess: nothing,
  CancelProcess: nothing,
  WriteStdin: nothing,
  CloseStdin: nothing,
  ResizePty: nothing,
  ReadFile: nothings,
  WriteFile: nothing,
  WriteUpload: nothing,
  CommitUpload: nothing,
  AbortUpload: nothing,
  ListFiles: nothing,
  StatFile: nothing,
  MakeDir: nothing,
  RenameFile: nothing,
  RemoveFile: nothing,
  ChangeMode: nothing,
  SetTimes: nothing,
  LinkFile: nothing,
  WatchFiles: nothings
}
