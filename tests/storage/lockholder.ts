import { writeSync } from "node:fs";
import { lockDirectory } from "../../src/storage/lock.ts";
import type { LockMethod } from "../../src/wire/filelock.ts";

/** Child of lock.test.ts: takes the lock, says so and holds it until it is killed. */
const [directory = "", method] = process.argv.slice(2);
await lockDirectory(directory, method as LockMethod | undefined);
writeSync(1, "held\n");
setInterval(() => undefined, 60_000);
