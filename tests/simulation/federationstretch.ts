import { simulateFederation } from "./federationsimulate.ts";

/** One process's share of a long simulation: `federationstretch.ts FROM TO BUGSEEDS`; the result on stdout. */

const [from = 0, to = 0, bugSeeds = 0] = process.argv.slice(2).map(Number);
const done = await simulateFederation(from, to, bugSeeds, (seeds) => {
  if (seeds % 100 === 0) process.stderr.write(`federation: ${seeds} of ${to - from} seeds\n`);
});
process.stdout.write(JSON.stringify(done));
