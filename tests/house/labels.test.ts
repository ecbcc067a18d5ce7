import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";

const root = join(import.meta.dir, "../..");
const PROTOCOL = join(root, "docs/protocol.md");
const LABEL = /keyhold\/v1\/[A-Za-z0-9/_-]*(\$\{)?/g;
/** The one label with a variable part: the kinds of AadContext. */
const AAD_PREFIX = "keyhold/v1/aad/";

interface Use {
  readonly label: string;
  readonly file: string;
}

const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => join(root, "src", path))
  .sort();

function labelsIn(text: string): { label: string; dynamic: boolean }[] {
  return [...text.matchAll(LABEL)].map((match) => ({
    label: match[0].replace("${", ""),
    dynamic: match[1] !== undefined,
  }));
}

const uses: Use[] = sources.flatMap((path) =>
  labelsIn(readFileSync(path, "utf8")).map(({ label }) => ({ label, file: relative(root, path) })),
);
const dynamic: Use[] = sources.flatMap((path) =>
  labelsIn(readFileSync(path, "utf8"))
    .filter((found) => found.dynamic)
    .map(({ label }) => ({ label, file: relative(root, path) })),
);
const labels = [...new Set(uses.map(({ label }) => label))].sort();

const aead = readFileSync(join(root, "src/crypto/aead.ts"), "utf8");
const contextType = /export type AadContext =([\s\S]*?)\n\n/.exec(aead)?.[1] ?? "";
const kinds = [...contextType.matchAll(/\bkind: "([a-z-]+)"/g)].map((match) => match[1] ?? "");

const documented = existsSync(PROTOCOL) ? readFileSync(PROTOCOL, "utf8") : "";
const documentedLabels = new Set(labelsIn(documented).map(({ label }) => label.replace(/[/-]+$/, "")));

describe("the scan", () => {
  test("finds labels and kinds", () => {
    expect(labels).toContain("keyhold/v1/leaf");
    expect(labels).toContain(AAD_PREFIX);
    expect(kinds).toContain("secret");
    expect(kinds).toContain("vault-pending");
    expect(new Set(kinds).size).toBe(kinds.length);
  });

  test("finds as many kinds as aead.ts handles", () => {
    const handled = [...aead.matchAll(/^ {4}case "([a-z-]+)":/gm)].map((match) => match[1] ?? "");
    expect(handled.toSorted()).toEqual(kinds.toSorted());
  });

  test("only the kinds of AadContext are put into a label at run time", () => {
    expect(dynamic).toEqual([{ label: AAD_PREFIX, file: "src/crypto/aead.ts" }]);
  });

  test("labels have one form, and none reaches into the kinds' place", () => {
    for (const { label, file } of uses.filter((use) => use.label !== AAD_PREFIX)) {
      expect({ file, label, well: /^keyhold\/v1\/[a-z0-9]+(-[a-z0-9]+)*$/.test(label) }).toEqual({
        file,
        label,
        well: true,
      });
    }
  });

  test("a label is written once: two uses of one label would not be kept apart", () => {
    const files = Map.groupBy(uses, ({ label }) => label);
    const twice = [...files].filter(([, found]) => found.length > 1).map(([label, found]) => ({ label, found }));
    expect(twice).toEqual([]);
  });
});

describe("docs/protocol.md", () => {
  test.each(labels.filter((label) => label !== AAD_PREFIX))("names the label %s", (label) => {
    expect(documentedLabels.has(label)).toBe(true);
  });

  test("names the prefix of associated data", () => {
    expect(documented).toContain(AAD_PREFIX);
  });

  test.each(kinds)("names the context %s", (kind) => {
    const named = documentedLabels.has(`${AAD_PREFIX}${kind}`) || documented.includes(`\`${kind}\``);
    expect(named).toBe(true);
  });
});
