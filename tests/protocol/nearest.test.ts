import { describe, expect, test } from "bun:test";
import { nearestName } from "../../src/protocol/nearest.ts";

describe("nearestName", () => {
  const names = ["db/prod", "db/test", "mail/work", "Wifi", "a"];

  test("other letter case, the end of a path, a typing error or two", () => {
    for (const [given, name] of [
      ["DB/Prod", "db/prod"],
      ["wifi", "Wifi"],
      ["work", "mail/work"],
      ["WORK", "mail/work"],
      ["db/pord", "db/prod"],
      ["db/tset", "db/test"],
      ["mail/wrk", "mail/work"],
    ] as const) {
      expect([given, nearestName(given, names)]).toEqual([given, name]);
    }
  });

  test("what is not meant is not offered", () => {
    for (const given of ["", "zz", "db", "prodigious", "something/else", "ork"]) {
      expect([given, nearestName(given, names)]).toEqual([given, null]);
    }
    expect(nearestName("x", [])).toBeNull();
  });
});
