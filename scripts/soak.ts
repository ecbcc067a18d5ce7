import { FIGURES } from "../tests/soak/figures.ts";
import { figureHolds, figureLine } from "../tests/support/figure.ts";

/**
 * The long runs of durability and hostile input, one plain line each (docs/durability.md):
 * `bun run soak [--short] [--only NAME]...`. Exits 1 if any fails, 2 for a wrong argument.
 */

const known = Object.keys(FIGURES);
const only: string[] = [];
let short = false;
const args = process.argv.slice(2);
for (let at = 0; at < args.length; at++) {
  const arg = args[at];
  const name = arg === "--only" ? args[++at] : undefined;
  if (arg === "--short") short = true;
  else if (name !== undefined && known.includes(name)) only.push(name);
  else {
    process.stderr.write(`soak: --short, or --only with one of ${known.join(", ")}\n`);
    process.exit(2);
  }
}

for (const [name, run] of Object.entries(FIGURES)) {
  if (only.length > 0 && !only.includes(name)) continue;
  try {
    const figure = await run(short, (text) => {
      if (!short) process.stderr.write(`${name}: ${text}\n`);
    });
    process.stdout.write(`${figureLine(figure)}\n`);
    if (!figureHolds(figure)) process.exitCode = 1;
  } catch (error) {
    process.stdout.write(`${name}: FAILED (${error instanceof Error ? error.message : String(error)})\n`);
    process.exitCode = 1;
  }
}
process.exit();
