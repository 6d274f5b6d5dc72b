/**
 * The programs an in-memory machine knows.
 */
import { kill } from "./CommandKill.ts"
import * as Basic from "./CommandsBasic.ts"
import * as FileCommands from "./CommandsFiles.ts"
import * as Listing from "./CommandsListing.ts"
import * as ProcessCommands from "./CommandsProcess.ts"
import * as Text from "./CommandsText.ts"
import { test } from "./CommandTest.ts"
import type { Program } from "./Process.ts"
import { python } from "./Python.ts"
import { sh } from "./ShellBuiltins.ts"

/** By name, as in /usr/bin. */
export const programs: ReadonlyMap<string, Program> = new Map<string, Program>([
  ["sh", sh],
  ["bash", sh],
  ["dash", sh],
  ["true", Basic.trueCommand],
  ["false", Basic.falseCommand],
  ["echo", Basic.echo],
  ["printf", Basic.printf],
  ["pwd", Basic.pwd],
  ["test", test],
  ["[", test],
  ["kill", kill],
  ["cat", Text.cat],
  ["head", Text.head],
  ["tail", Text.tail],
  ["wc", Text.wc],
  ["seq", Text.seq],
  ["yes", Text.yes],
  ["tee", Text.tee],
  ["tr", Text.tr],
  ["sort", Text.sort],
  ["uniq", Text.uniq],
  ["rev", Text.rev],
  ["tac", Text.tac],
  ["grep", Text.grep],
  ["sleep", ProcessCommands.sleep],
  ["env", ProcessCommands.env],
  ["printenv", ProcessCommands.printenv],
  ["nohup", ProcessCommands.nohup],
  ["setsid", ProcessCommands.setsid],
  ["timeout", ProcessCommands.timeout],
  ["id", ProcessCommands.id],
  ["whoami", ProcessCommands.whoami],
  ["uname", ProcessCommands.uname],
  ["hostname", ProcessCommands.hostname],
  ["nproc", ProcessCommands.nproc],
  ["date", ProcessCommands.date],
  ["ps", ProcessCommands.ps],
  ["stty", ProcessCommands.stty],
  ["tty", ProcessCommands.tty],
  ["ls", Listing.ls],
  ["stat", Listing.stat],
  ["readlink", Listing.readlink],
  ["realpath", (process, argv) => Listing.readlink(process, ["realpath", "-f", ...argv.slice(1)])],
  ["basename", Listing.basename],
  ["dirname", Listing.dirname],
  ["find", Listing.find],
  ["df", Listing.df],
  ["du", Listing.du],
  ["mkdir", FileCommands.mkdir],
  ["mkfifo", FileCommands.mkfifo],
  ["rmdir", FileCommands.rmdir],
  ["rm", FileCommands.rm],
  ["touch", FileCommands.touch],
  ["mv", FileCommands.mv],
  ["cp", FileCommands.cp],
  ["ln", FileCommands.ln],
  ["chmod", FileCommands.chmod],
  ["chown", FileCommands.chown],
  ["dd", FileCommands.dd],
  ["mktemp", FileCommands.mktemp],
  ["python3", python]
])
