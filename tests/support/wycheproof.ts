import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Where the vectors lie; their origin and licence stand beside them. */
export const WYCHEPROOF = join(import.meta.dir, "..", "vectors", "wycheproof");

/** One vector; which members there are depends on the file. Byte strings are hexadecimal. */
export type Vector = Readonly<Record<string, string>> & {
  readonly tcId: number;
  readonly comment: string;
  readonly flags: readonly string[];
  readonly result: "valid" | "invalid" | "acceptable";
};

/** Vectors that share a key or sizes; what describes them depends on the file. */
export type VectorGroup = Readonly<Record<string, ReturnType<typeof JSON.parse>>> & {
  readonly tests: readonly Vector[];
};

/** The groups of `NAME_test.json`; it must hold as many vectors as it says. */
export function wycheproof(name: string): readonly VectorGroup[] {
  const file = JSON.parse(readFileSync(join(WYCHEPROOF, `${name}_test.json`), "utf8"));
  const groups: readonly VectorGroup[] = file.testGroups;
  const held = groups.reduce((sum, { tests }) => sum + tests.length, 0);
  if (held !== file.numberOfTests) throw new Error(`${name}: ${held} vectors instead of ${file.numberOfTests}`);
  return groups;
}

/** What {@link compare} found. */
export interface Agreement {
  readonly run: number;
  /** Number and comment of each vector whose verdict differs. */
  readonly disagreed: readonly string[];
}

/**
 * Asks `accepts` about every vector of the groups.
 *
 * @param acceptable What is expected of vectors that may go either way.
 */
export async function compare(
  groups: readonly VectorGroup[],
  accepts: (vector: Vector, group: VectorGroup) => boolean | Promise<boolean>,
  acceptable: (vector: Vector) => boolean = () => false,
): Promise<Agreement> {
  const disagreed: string[] = [];
  let run = 0;
  for (const group of groups) {
    for (const vector of group.tests) {
      const expected = vector.result === "acceptable" ? acceptable(vector) : vector.result === "valid";
      if ((await accepts(vector, group)) !== expected) disagreed.push(`${vector.tcId}: ${vector.comment}`);
      run += 1;
    }
  }
  return { run, disagreed };
}
