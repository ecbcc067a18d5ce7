import { type Simulated, simulate } from "./simulate.ts";

/** One process's share of a long simulation: `stretch.ts FROM TO BUGSEEDS`; progress on stderr, the result on stdout. */

const DEVICES = 3;

/** A result as it crosses processes. */
export type Stretch = Omit<Simulated, "bugs"> & { readonly bugs: readonly (readonly [string, number | null])[] };

if (import.meta.main) {
  const [from = 0, to = 0, bugSeeds = 0] = process.argv.slice(2).map(Number);
  const done = await simulate({
    from,
    to,
    bugSeeds,
    devices: DEVICES,
    progress: (seeds) => {
      if (seeds % 100 === 0) process.stderr.write(`simulation: ${seeds} of ${to - from} seeds\n`);
    },
  });
  const stretch: Stretch = { ...done, bugs: [...done.bugs] };
  process.stdout.write(JSON.stringify(stretch));
}
