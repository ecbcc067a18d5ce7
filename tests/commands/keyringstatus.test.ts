import { expect, test } from "bun:test";
import type { KeyringRequestInfo } from "../../src/client/keyringapi.ts";
import { isWell } from "../../src/commands/keyring.ts";
import { aligned, keyringRequestLines, newLines } from "../../src/commands/keyringshown.ts";

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

test("a request whose shares went to another device says who finishes it", () => {
  const party = (name: string) => ({ name, state: "answered" });
  const info: KeyringRequestInfo = {
    requestId: "4f".repeat(32),
    workspace: "treasury",
    keyring: "vaults",
    kind: "signature",
    status: "partial",
    approved: true,
    why: "",
    fee: 1,
    threshold: 2,
    createdAt: "2026-11-21T00:00:00.000Z",
    expiresAt: "2026-11-22T00:00:00.000Z",
    requester: "ann",
    words: ["one", "two"],
    parties: [party("north"), party("east")],
    votes: [],
    items: [],
    finishable: false,
  };
  expect(keyringRequestLines(info)).toContain("waits for  the client of ann, which finishes it");
  for (const other of [{ finishable: true }, { status: "fulfilled" }, { parties: [party("north")] }]) {
    expect(keyringRequestLines({ ...info, ...other })).not.toContain("waits for  the client");
  }
});
