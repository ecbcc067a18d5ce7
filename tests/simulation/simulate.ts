import type { Figure } from "../support/figure.ts";
import { BUGS, sound } from "./bugs.ts";
import { play } from "./run.ts";
import { makeTemplate, type Template } from "./template.ts";

export interface SimulateOptions {
  /** Seeds of sound runs: `from` up to `to`. */
  readonly from: number;
  readonly to: number;
  /** Seeds within which each planted bug must show. */
  readonly bugSeeds: number;
  readonly devices: number;
  readonly progress?: (done: number, acknowledged: number) => void;
}

export interface Simulated {
  readonly seeds: number;
  readonly acknowledged: number;
  readonly crashes: number;
  /** What went wrong in sound runs, with the seed. */
  readonly wrong: readonly string[];
  /** Bugs by name, with the first seed that showed them, or null. */
  readonly bugs: ReadonlyMap<string, number | null>;
}

/** Plays seeds without a bug, which must hold, and with each planted bug until it shows. */
export async function simulate(options: SimulateOptions): Promise<Simulated> {
  const template = await makeTemplate(options.devices);
  const wrong: string[] = [];
  const bugs = new Map<string, number | null>();
  let [acknowledged, crashes] = [0, 0];
  try {
    for (let seed = options.from; seed < options.to; seed++) {
      const run = await play(template, seed, sound);
      acknowledged += run.acknowledged;
      crashes += run.crashes;
      wrong.push(...run.wrong.slice(0, 3).map((text) => `seed ${seed}: ${text}`));
      options.progress?.(seed + 1 - options.from, acknowledged);
    }
    for (const name of options.bugSeeds > 0 ? Object.keys(BUGS) : []) {
      bugs.set(name, await findBug(template, name, options.bugSeeds));
    }
  } finally {
    template.end();
  }
  return { seeds: options.to - options.from, acknowledged, crashes, wrong, bugs };
}

/** The first seed whose run complains of a planted bug as it must, or null. */
export async function findBug(template: Template, name: string, seeds: number): Promise<number | null> {
  const bug = BUGS[name];
  if (!bug) throw new Error(`there is no bug "${name}"`);
  for (let seed = 0; seed < seeds; seed++) {
    const run = await play(template, seed, bug.make);
    if (run.wrong.some((text) => bug.shows.test(text))) return seed;
  }
  return null;
}

/** The figure of several stretches of seeds. */
export function simulationFigure(parts: readonly Simulated[]): Figure {
  const sum = (of: (part: Simulated) => number) => parts.reduce((total, part) => total + of(part), 0);
  const wrong = parts.flatMap((part) => part.wrong);
  const found = parts.flatMap((part) => [...part.bugs]);
  const missed = found.filter(([, seed]) => seed === null).map(([name]) => `not found: ${name}`);
  return {
    name: "simulation",
    ran: "client, server, network and clock by one seed each",
    counts: [
      `${sum((part) => part.seeds)} seeds`,
      `${sum((part) => part.acknowledged)} acknowledged changes`,
      `${sum((part) => part.crashes)} crashes`,
      `${found.length - missed.length} of ${found.length} planted bugs found`,
    ],
    lost: wrong.length,
    corrupt: 0,
    wrong: [...wrong, ...missed],
  };
}
