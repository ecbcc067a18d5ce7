import { COMMIT, VERSION } from "./version.ts";

// scripts ask for the version often: it is said before anything else is loaded, process.stdout included
const asked = process.argv.length === 3 && process.argv[2] === "--version";
const said = asked && (await Bun.write(Bun.stdout, `keyhold ${VERSION} (${COMMIT})\n`).catch(() => 0)) > 0;
if (!said) {
  const [{ internal, root }, { start }] = await Promise.all([import("./commands/index.ts"), import("./ui/start.ts")]);
  await start(root, internal);
}
