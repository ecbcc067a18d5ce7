import { join } from "node:path";
import { compile, sha256Of } from "../scripts/compile.ts";
import { report, timed } from "./harness.ts";
import { inWorld } from "./processes.ts";

/** F13: the same sources give the same executable; tests/house/compile.test.ts holds the build to it. */

const BUILDS = 2;

await inWorld(async (world) => {
  const hashes = new Set<string>();
  const times: number[] = [];
  for (let at = 0; at < BUILDS; at++) {
    const outfile = join(world.dir, `build-${at}`, "keyhold");
    const entry = join(import.meta.dir, "..", "src", "main.ts");
    times.push(await timed(() => compile({ entry, outfile, version: "0.0.0", commit: "unknown" })));
    hashes.add(await sha256Of(outfile));
  }
  report(
    "F13",
    "reproducible build",
    [
      { what: `different executables of ${BUILDS} builds`, unit: "", value: hashes.size, goal: { atMost: 1 } },
      { what: "one build", unit: "ms", value: Math.min(...times) },
    ],
    ["this machine's target; `bun scripts/compile.ts --all` makes every one"],
  );
});
