import { expect, setDefaultTimeout, test } from "bun:test";
import { FEDERATION_BUGS } from "./federationbugs.ts";
import { playFederation } from "./federationrun.ts";
import { findFederationBug } from "./federationsimulate.ts";

/** Seeds that CI plays; `bun run soak --only federation` plays more. */
const SEEDS = 40;
/** Within so many seeds each planted bug shows. */
const BUG_SEEDS = 100;

setDefaultTimeout(120_000);

test(`${SEEDS} seeds of loss, lies, restarts, crashes and wrong clocks: one key or none, and no honest server is named`, async () => {
  let [keys, signatures, crashes] = [0, 0, 0];
  for (let seed = 1_000; seed < 1_000 + SEEDS; seed++) {
    const run = await playFederation(seed, null);
    expect({ seed, wrong: run.wrong }).toEqual({ seed, wrong: [] });
    keys += run.keys;
    signatures += run.signatures;
    crashes += run.crashes;
  }
  // a run in which nothing happens proves nothing
  expect(keys).toBeGreaterThan(SEEDS / 2);
  expect(signatures).toBeGreaterThan(SEEDS / 2);
  expect(crashes).toBeGreaterThan(SEEDS / 10);
});

test("there are eight planted bugs", () => expect(Object.keys(FEDERATION_BUGS)).toHaveLength(8));

test.each(Object.keys(FEDERATION_BUGS))("planted bug: %s", async (name) => {
  expect(await findFederationBug(name, BUG_SEEDS)).not.toBeNull();
});

test("a seed gives the same run again", async () => {
  const [first, second] = [await playFederation(7, null), await playFederation(7, null)];
  expect(second).toEqual(first);
  expect((await playFederation(8, null)).diary).not.toEqual([...first.diary]);
});
