/** A service of containers with something wrong in it: what, its fourth argument names. See hosted.ts. */
import { host } from "../service/hosted.ts"
import { flaws } from "./lifeFlaws.ts"

host(flaws[process.argv[5] ?? ""])
