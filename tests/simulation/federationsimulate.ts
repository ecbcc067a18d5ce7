import type { Figure } from "../support/figure.ts";
import { FEDERATION_BUGS } from "./federationbugs.ts";
import { playFederation } from "./federationrun.ts";

/** What stretches of seeds came to, as one process tells it to another. */
export interface FederationStretch {
  readonly seeds: number;
  readonly keys: number;
  readonly signatures: number;
  readonly crashes: number;
  readonly wrong: readonly string[];
  /** Bugs by name, with the first seed that showed them, or null. */
  readonly bugs: readonly (readonly [string, number | null])[];
}

/** The first seed whose run complains of a planted bug as it must, or null. */
export async function findFederationBug(name: string, seeds: number): Promise<number | null> {
  const bug = FEDERATION_BUGS[name];
  if (!bug) throw new Error(`there is no bug "${name}"`);
  const first = bug.near ?? 0;
  for (let seed = first; seed < first + seeds; seed++) {
    const run = await playFederation(seed, bug);
    if (run.wrong.some((text) => bug.shows.test(text))) return seed;
  }
  return null;
}

/** Plays seeds without a bug, which must hold, and with each planted bug until it shows. */
export async function simulateFederation(
  from: number,
  to: number,
  bugSeeds: number,
  progress: (done: number, keys: number) => void = () => undefined,
): Promise<FederationStretch> {
  const wrong: string[] = [];
  let [keys, signatures, crashes] = [0, 0, 0];
  for (let seed = from; seed < to; seed++) {
    const run = await playFederation(seed, null);
    keys += run.keys;
    signatures += run.signatures;
    crashes += run.crashes;
    wrong.push(...run.wrong.slice(0, 3).map((text) => `seed ${seed}: ${text}`));
    progress(seed + 1 - from, keys);
  }
  const bugs: [string, number | null][] = [];
  for (const name of bugSeeds > 0 ? Object.keys(FEDERATION_BUGS) : []) {
    bugs.push([name, await findFederationBug(name, bugSeeds)]);
  }
  return { seeds: to - from, keys, signatures, crashes, wrong, bugs };
}

/** The figure of several stretches of seeds. */
export function federationFigure(parts: readonly FederationStretch[]): Figure {
  const sum = (of: (part: FederationStretch) => number) => parts.reduce((total, part) => total + of(part), 0);
  const wrong = parts.flatMap((part) => part.wrong);
  const found = parts.flatMap((part) => part.bugs);
  const missed = found.filter(([, seed]) => seed === null).map(([name]) => `not found: ${name}`);
  return {
    name: "federation",
    ran: "a federation, its network and its client's crashes by one seed each",
    counts: [
      `${sum((part) => part.seeds)} seeds`,
      `${sum((part) => part.keys)} keys`,
      `${sum((part) => part.signatures)} signatures`,
      `${sum((part) => part.crashes)} crashes`,
      `${found.length - missed.length} of ${found.length} planted bugs found`,
    ],
    lost: wrong.length,
    corrupt: 0,
    wrong: [...wrong, ...missed],
  };
}
