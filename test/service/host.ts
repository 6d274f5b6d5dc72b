/** A program for tests to kill: see hosted.ts. */
import { host } from "./hosted.ts"

host()
