// Run by tests as a process of its own: holds a database, says so, and stays until it is killed.
import { DatabaseSync } from "node:sqlite"

const [, , filename = ":memory:"] = process.argv

const database = new DatabaseSync(filename)
database.exec("BEGIN IMMEDIATE")
process.stdout.write("held\n")
setInterval(() => database.isTransaction, 1000)
