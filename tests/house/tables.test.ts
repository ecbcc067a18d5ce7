import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { errorTable } from "../../src/errors.ts";
import { operations } from "../../src/wire/operations.ts";
import { documentedSections, documentedTable, projectText } from "../support/doctables.ts";

const PROTOCOL = "docs/protocol.md";
const ROOT = join(import.meta.dir, "../..");

describe("the tables of docs/protocol.md", () => {
  test("name every operation, how it is authenticated and whether it changes the account", () => {
    const rows = documentedTable(PROTOCOL, ["operation", "auth", "mutation", "purpose"]);
    expect(rows.map((row) => row.slice(0, 3))).toEqual(
      Object.entries(operations).map(([name, { auth, mutation }]) => [`\`${name}\``, auth, mutation ? "yes" : "no"]),
    );
    expect(rows.filter((row) => !row[3])).toEqual([]);
  });

  test("name every error code with its statuses", () => {
    expect(documentedTable(PROTOCOL, ["code", "http", "exit"])).toEqual(
      errorTable().map(({ code, http, exit }) => [`\`${code}\``, String(http), String(exit)]),
    );
  });

  test("name no label that the code does not use", () => {
    const sources = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .map((path) => projectText(join("src", path)))
      .join("\n");
    const labels = documentedTable(PROTOCOL, ["label", "used for", "§"]).map(([label]) => label?.replaceAll("`", ""));
    const unused = labels.filter((label) => {
      const kind = /^keyhold\/v1\/aad\/(.+)$/.exec(label ?? "")?.[1];
      return !sources.includes(kind === undefined ? `"${label}"` : `kind: "${kind}"`);
    });
    expect(labels.length).toBeGreaterThan(30);
    expect(new Set(labels).size).toBe(labels.length);
    expect(unused).toEqual([]);
  });
});

describe("citations", () => {
  const cited = ["src", "tests", "scripts"].flatMap((top) =>
    readdirSync(join(ROOT, top), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .flatMap((path) => {
        const file = join(top, path);
        const found = projectText(file).matchAll(/(docs\/[a-z-]+\.md)((?:,? §\d+(?:\.\d+)*)*)/g);
        return [...found].map((match) => ({
          file,
          document: match[1] ?? "",
          sections: [...(match[2] ?? "").matchAll(/§(\d+(?:\.\d+)*)/g)].map((section) => section[1] ?? ""),
        }));
      }),
  );

  test("are found", () => {
    expect(cited.filter(({ document }) => document === PROTOCOL).length).toBeGreaterThan(40);
  });

  test("name documents that exist", () => {
    const missing = cited.filter(({ document }) => !existsSync(join(ROOT, document)));
    expect(missing.map(({ file, document }) => `${file}: ${document}`)).toEqual([]);
  });

  test("name sections that exist", () => {
    const missing = cited
      .filter(({ document }) => existsSync(join(ROOT, document)))
      .flatMap(({ file, document, sections }) => {
        const known = documentedSections(document);
        return sections.filter((section) => !known.has(section)).map((section) => `${file}: ${document} §${section}`);
      });
    expect(missing).toEqual([]);
  });
});
