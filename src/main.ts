import { COMMIT, VERSION } from "./version.ts";

// scripts ask for the version often: it is said before anything else is loaded
if (process.argv.length === 3 && process.argv[2] === "--version") {
  process.stdout.write(`keyhold ${VERSION} (${COMMIT})\n`);
} else {
  const [{ internal, root }, { start }] = await Promise.all([import("./commands/index.ts"), import("./ui/start.ts")]);
  await start(root, internal);
}
