import { expect, test } from "bun:test";
import { isWell } from "../../src/commands/keyring.ts";
import { aligned, newLines } from "../../src/commands/keyringshown.ts";

test("a party is well that says so, has enrolled and has no dead letters", () => {
  const party = { state: "ok", enrolled: true, deadLetters: 0 };
  expect(isWell(party)).toBe(true);
  const bad = [{ state: "silent" }, { state: "quarantined" }, { state: "its server is away" }, { enrolled: false }];
  for (const one of [...bad, { deadLetters: 1 }]) expect(isWell({ ...party, ...one })).toBe(false);
});

test("facts stand under one another, and nothing in them moves the terminal", () => {
  expect(aligned([])).toEqual([]);
  expect(
    aligned([
      ["to", "a\u001b[31m"],
      ["amount", "5 EUR"],
    ]),
  ).toEqual([expect.not.stringContaining("\u001b"), "  amount  5 EUR"]);
  expect(
    aligned([
      ["to", "x"],
      ["größe", "y"],
    ]),
  ).toEqual(["  to     x", "  größe  y"]);
});

test("a request that is watched is shown whole once, then what is new", () => {
  const before = "key request: pending\n  north  waiting\n  east   waiting";
  expect(newLines("", before)).toBe(before);
  expect(newLines(before, before.replace("north  waiting", "north  answered"))).toBe("  north  answered");
});
