import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { LINES } from "../hostile/attack.ts";
import { CATALOGUE } from "../hostile/catalogue.ts";
import { projectText } from "../support/doctables.ts";

/** docs/threat-model.md names the test beside each defence: the names are those of tests that exist. */

const DOCUMENT = "docs/threat-model.md";
const CATALOGUE_TEST = "tests/hostile/catalogue.test.ts";
const text = projectText(DOCUMENT);

interface Citation {
  readonly file: string;
  readonly names: readonly string[];
}

/** `path` followed by names in quotes, separated by commas. */
function citationsIn(part: string): Citation[] {
  return [...part.matchAll(/`(tests\/[^`]+)`((?: "[^"]+",?)*)/g)].map(([, file = "", names = ""]) => ({
    file,
    names: [...names.matchAll(/"([^"]+)"/g)].map(([, name = ""]) => name),
  }));
}

/** Rows of the tables with a column of tests, by section. */
function rows(): { section: string; what: string; citations: Citation[] }[] {
  let section = "";
  let column = -1;
  return text.split("\n").flatMap((line) => {
    if (line.startsWith("## ")) section = line.slice(3);
    if (!line.startsWith("|")) {
      column = -1;
      return [];
    }
    const cells = line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
    if (column === -1) {
      column = cells.findIndex((cell) => cell === "test" || cell === "tests");
      return [];
    }
    const [what = ""] = cells;
    return /^-*$/.test(what) ? [] : [{ section, what, citations: citationsIn(cells[column] ?? "") }];
  });
}

const quoted = (name: string): readonly string[] => [`"${name}`, `\`${name}`, `"${name.replaceAll('"', '\\"')}`];
const catalogued = new Set<string>([...LINES, ...CATALOGUE.map(({ name }) => name)]);

/** True when a test of this name, or of names that begin with it, stands in the file. */
function stands(file: string, name: string): boolean {
  if (file === CATALOGUE_TEST) return catalogued.has(name);
  const source = projectText(file);
  return quoted(name).some((form) => source.includes(form));
}

describe("the threat model", () => {
  const all = rows();

  test("has a table for each adversary and one of properties", () => {
    const sections = new Set(all.map(({ section }) => section.split(":")[0]));
    for (const section of ["A", "B", "C", "D", "E", "F", "G", "Properties"]) expect([...sections]).toContain(section);
    const properties = all.filter(({ section }) => section === "Properties").map(({ what }) => what.split(" ")[0]);
    expect(properties).toEqual(Array.from({ length: 12 }, (_, i) => `P${i + 1}`));
  });

  test("names a test by its name beside each defence", () => {
    const without = all.filter(({ citations }) => !citations.some(({ names }) => names.length > 0));
    // what is no defence has no test
    expect(without.map(({ what }) => what).sort()).toEqual(["refuse service, erase everything", "watch"]);
  });

  test("names files and tests that exist", () => {
    const cited = citationsIn(text);
    expect(cited.length).toBeGreaterThan(60);
    const missing = cited.flatMap(({ file, names }) => {
      if (!existsSync(join(import.meta.dir, "..", "..", file))) return [file];
      return names.filter((name) => !stands(file, name)).map((name) => `${file}: ${name}`);
    });
    expect(missing).toEqual([]);
  });

  test("names every line of the catalogue of attacks", () => {
    const cited = new Set(citationsIn(text).flatMap(({ names }) => names));
    expect(LINES.filter((line) => !cited.has(line))).toEqual([]);
  });
});
