import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Licence, Package } from "../../scripts/dependencies.ts";
import { ALLOWED, complaints, installed, isAllowed, MARKER, noticeOf, wholeNotice } from "../../scripts/licences.ts";

const PROJECT = join(import.meta.dir, "..", "..");

const sample = (name: string, licence: Partial<Licence>, runtime = true): readonly [Package, Licence] => [
  { path: name, name, version: "1.0.0", sha512: "", dependsOn: [], runtime },
  { expression: "MIT", texts: ["Copyright X"], ...licence },
];

describe("licences", () => {
  test.each(["MIT", "MIT OR GPL-3.0-only", "(MIT AND ISC)", "GPL-3.0-only OR (ISC AND 0BSD)"])("%s will do", (text) => {
    expect(isAllowed(text)).toBe(true);
  });

  test.each([
    "",
    "GPL-3.0-only",
    "MIT AND GPL-3.0-only",
    "MIT OR",
    "(MIT",
    "MIT)",
    "MIT ISC",
    "UNLICENSED",
    "SEE LICENSE IN LICENSE",
    "mit",
  ])("%p will not", (text) => {
    expect(isAllowed(text)).toBe(false);
  });

  test("of all dependencies are allowed", () => {
    expect(installed().length).toBeGreaterThan(50);
    expect(complaints(installed())).toEqual([]);
  });

  test("a forbidden or missing one and a missing text are named", () => {
    const packages = [
      sample("good", {}),
      sample("bad", { expression: "AGPL-3.0-only" }),
      sample("silent", { expression: "" }),
      sample("bare", { texts: [] }),
      sample("tool", { texts: [] }, false),
    ];
    expect(complaints(packages)).toEqual([
      'bad 1.0.0: licence "AGPL-3.0-only" is not allowed',
      'silent 1.0.0: licence "" is not allowed',
      "bare 1.0.0: it is in the executable and has no licence text",
    ]);
  });

  test("docs/supply-chain.md names those allowed", () => {
    const text = readFileSync(join(PROJECT, "docs", "supply-chain.md"), "utf8");
    const line = /^Allowed: (.*)\.$/m.exec(text)?.[1] ?? "";
    expect(line.split(", ").map((name) => name.replaceAll("`", ""))).toEqual([...ALLOWED]);
  });
});

describe("NOTICE", () => {
  const notice = readFileSync(join(PROJECT, "NOTICE"), "utf8");

  test("holds the licence of every library in the executable; else: bun run licences --write", () => {
    expect(wholeNotice(notice) === notice).toBe(true);
    const runtime = installed().filter(([one]) => one.runtime);
    expect(runtime.length).toBeGreaterThan(15);
    for (const [{ name, version }, { texts }] of runtime) {
      expect(notice).toContain(`\n${name} ${version} (`);
      for (const text of texts) expect(notice).toContain(text);
    }
  });

  test("keeps its written part, and gives one text once", () => {
    const [written] = notice.split(MARKER);
    expect(written).toContain("EFF's Long Wordlist");
    expect(written).toContain("JavaScriptCore");
    const made = noticeOf([sample("a", {}), sample("b", {}), sample("c", { texts: ["Copyright Y", "Notice"] })]);
    expect(made.split("Copyright X")).toHaveLength(2);
    expect(made).toContain("a 1.0.0 (MIT)\nb 1.0.0 (MIT)\n\nCopyright X\n");
    expect(made).toContain("c 1.0.0 (MIT)\n\nCopyright Y\n\nNotice\n");
  });
});
