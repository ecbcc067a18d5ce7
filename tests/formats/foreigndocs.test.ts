import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { CARD, IDENTITY } from "../../src/formats/bitwardenfields.ts";
import { TABLES } from "../../src/formats/csvheaders.ts";
import { READ_FORMATS, WRITE_FORMATS } from "../../src/formats/names.ts";

const DOC = readFileSync(new URL("../../docs/formats.md", import.meta.url), "utf8");

/** The cells of the row that begins with `first`. */
function row(first: string): readonly string[] {
  const line = DOC.split("\n").find((one) => one.startsWith(`| ${first} `));
  if (line === undefined) throw new Error(`no row "${first}"`);
  return line
    .split("|")
    .slice(1, -1)
    .map((cell) => cell.trim());
}

const codes = (cell = ""): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, code = ""]) => code);

test.each(["bitwarden", "1pux", "kdbx", "pass", "csv", "dotenv", "otpauth", "otpauth-migration"])(
  "%s: the table says whether it is read and written",
  (name) => {
    const [, read, written] = row(`\`${name}\``);
    const names = (list: readonly string[]) => (list.includes(name) ? "yes" : "no");
    expect([read, written]).toEqual([names(READ_FORMATS), names(WRITE_FORMATS)]);
  },
);

test("the fields of cards and identities", () => {
  expect(codes(row("identity")[3])).toEqual([...IDENTITY.map(({ name }) => name), "notes"]);
  expect(codes(row("card")[3]).filter((name) => !["expiry", "MM/YYYY", "notes"].includes(name))).toEqual(
    CARD.map(({ name }) => name),
  );
});

test.each(TABLES.map((table) => [table.program, table] as const))("the columns of %s", (program, table) => {
  expect(codes(row(program)[1]).sort()).toEqual(Object.keys(table.columns).sort());
});
