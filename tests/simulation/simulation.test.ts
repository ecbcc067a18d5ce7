import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { BUGS, sound } from "./bugs.ts";
import { virtualClock } from "./clock.ts";
import { play } from "./run.ts";
import { findBug } from "./simulate.ts";
import { makeTemplate, type Template } from "./template.ts";

/** Seeds that CI plays; `bun run soak --only simulation` plays more. */
const SEEDS = 20;
/** Within so many seeds each planted bug shows. */
const BUG_SEEDS = 60;

setDefaultTimeout(120_000);

let template: Template;
beforeAll(async () => {
  template = await makeTemplate(3);
});
afterAll(() => template.end());

test(`${SEEDS} seeds of loss, delay, repetition, crashes and kills: nothing is lost, doubled or falsely accused`, async () => {
  let [acknowledged, crashes] = [0, 0];
  for (let seed = 1_000; seed < 1_000 + SEEDS; seed++) {
    const run = await play(template, seed, sound);
    expect({ seed, wrong: run.wrong }).toEqual({ seed, wrong: [] });
    acknowledged += run.acknowledged;
    crashes += run.crashes;
  }
  // a run in which nothing happens proves nothing
  expect(acknowledged).toBeGreaterThan(SEEDS * 5);
  expect(crashes).toBeGreaterThan(SEEDS / 4);
});

test("there are eight planted bugs", () => expect(Object.keys(BUGS)).toHaveLength(8));

test.each(Object.keys(BUGS))("planted bug: %s", async (name) => {
  expect(await findBug(template, name, BUG_SEEDS)).not.toBeNull();
});

test("a seed gives the same run again, on another account too", async () => {
  const first = await play(template, 7, sound);
  const other = await makeTemplate(3);
  try {
    const second = await play(other, 7, sound);
    expect(second.diary).toEqual([...first.diary]);
    expect(first.diary.length).toBeGreaterThan(20);
    expect((await play(template, 8, sound)).diary).not.toEqual([...first.diary]);
  } finally {
    other.end();
  }
});

test("virtual time passes only when all wait, in order", async () => {
  const clock = virtualClock(1_000);
  const said: string[] = [];
  clock.start(async () => {
    await clock.sleep(60_000);
    said.push(`late ${clock.now()}`);
  });
  clock.start(async () => {
    await clock.sleep(5);
    said.push(`early ${clock.now()}`);
    await clock.hang();
  });
  await clock.run();
  expect(said).toEqual(["early 1005", "late 61000"]);
  await clock.release();
});

test("a failing actor ends the run", async () => {
  const clock = virtualClock(0);
  clock.start(() => Promise.reject(new Error("broken")));
  await expect(clock.run()).rejects.toThrow("broken");
});
