import { expect, test } from "bun:test";
import { createFairLine } from "../../../src/server/ceremony/fairline.ts";

/** A line whose pieces end when they are told to; tells which have begun. */
function held() {
  const line = createFairLine();
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const take = (owner: string, name: string, fails = false) =>
    line.take(owner, async () => {
      begun.push(name);
      const { promise, resolve } = Promise.withResolvers<void>();
      ends.push(resolve);
      await promise;
      if (fails) throw new Error(name);
    });
  const end = async () => {
    ends.shift()?.();
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  };
  return { take, begun, end };
}

test("who comes waits for one piece of each other owner, however much they have brought", async () => {
  const { take, begun, end } = held();
  const all = ["a1", "a2", "a3", "a4"].map((name) => take("a", name));
  all.push(take("b", "b1"), take("b", "b2"));
  expect(begun).toEqual(["a1"]);
  await end();
  expect(begun).toEqual(["a1", "b1"]);
  all.push(take("c", "c1"));
  for (let left = 0; left < 6; left++) await end();
  expect(begun).toEqual(["a1", "b1", "a2", "c1", "b2", "a3", "a4"]);
  await Promise.all(all);
});

test("one runs at a time; one that fails is told to who brought it, and holds up nobody", async () => {
  const { take, begun, end } = held();
  const failing = take("a", "a1", true).catch((error: Error) => error.message);
  const second = take("a", "a2");
  const other = take("b", "b1");
  expect(begun.length).toBe(1);
  await end();
  expect([await failing, begun]).toEqual(["a1", ["a1", "b1"]]);
  await end();
  await end();
  await Promise.all([second, other]);
  const late = take("a", "a3");
  expect(begun).toEqual(["a1", "b1", "a2", "a3"]);
  await end();
  await late;
});
