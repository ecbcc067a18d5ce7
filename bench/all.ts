import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Runs every figure, one after another, each in a process of its own; `--json` is passed on. */

/** A thousand keys of a keyring take the longest. */
const LIMIT_MS = 1_800_000;

for (const file of readdirSync(import.meta.dir)
  .filter((name) => /^f\d\d-(?!server|bare)[a-z]+\.ts$/.test(name))
  .sort()) {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, file), ...process.argv.slice(2)], {
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  const late = setTimeout(() => child.kill("SIGTERM"), LIMIT_MS);
  if ((await child.exited) !== 0) {
    process.stdout.write(`${file.slice(0, 3).toUpperCase()} failed: ${file}\n`);
    process.exitCode = 1;
  }
  clearTimeout(late);
}
