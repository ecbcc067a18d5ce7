import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/commands/index.ts";
import { parse, resolve } from "../../src/ui/parse.ts";

const DOCS = join(import.meta.dir, "..", "..", "docs");

/** The command lines of a guide, continued lines joined, split at spaces outside of quotes. */
function lines(markdown: string): string[][] {
  return [...markdown.matchAll(/^```(?:sh|console)\n(.*?)^```$/gms)].flatMap(([, body = ""]) =>
    body
      .replaceAll("\\\n", " ")
      .split("\n")
      .map((line) => line.replace(/^\$ /, "").replace(/ > \S+$/, ""))
      .filter((line) => line.startsWith("keyhold "))
      .map((line) => (line.match(/(?:"[^"]*"|[^\s"])+/g) ?? []).slice(1).map((word) => word.replaceAll('"', ""))),
  );
}

/** Commands that stand in the text or in a table, with their words: `keyhold key repair NAME`. */
const quoted = (markdown: string): string[][] =>
  [...markdown.matchAll(/`keyhold ([^`]+)`/g)].map(([, line = ""]) => line.replaceAll("…", "1").split(/\s+/));

/** Guides, and how many command lines each shows at least. */
const GUIDES = { "federation.md": 15, "policies.md": 0, "keyrings.md": 28, "integrators.md": 4, "ceremonies.md": 15 };

for (const [name, least] of Object.entries(GUIDES)) {
  const markdown = readFileSync(join(DOCS, name), "utf8");

  test(`${name}: every command line is understood as it stands`, async () => {
    const all = lines(markdown);
    expect(all.length).toBeGreaterThanOrEqual(least);
    for (const argv of all) {
      const found = resolve(root, argv);
      expect([argv.join(" "), found.kind]).toEqual([argv.join(" "), "run"]);
      if (found.kind !== "run") continue;
      const wrong = await parse(await found.entry.load(), found, 0).then(
        () => null,
        (error: unknown) => String(error),
      );
      expect([argv.join(" "), wrong]).toEqual([argv.join(" "), null]);
    }
  });

  test(`${name}: every command in the text exists`, () => {
    const unknown = quoted(markdown).filter((argv) => {
      try {
        resolve(root, argv.slice(0, 3));
        return false;
      } catch {
        return true;
      }
    });
    expect(unknown).toEqual([]);
  });
}

test("ceremonies.md: what is typed in order works: a key that was taken back is not used any more", () => {
  const all = lines(readFileSync(join(DOCS, "ceremonies.md"), "utf8")).filter(([group]) => group === "otp");
  expect(all.map(([, command]) => command)).toContain("revoke");
  const made = new Set<string>();
  const over = new Set<string>();
  for (const [, command = "", name = "", ...rest] of all) {
    if (command === "receive") continue;
    if (command === "issue" && rest.includes("--output")) made.add(name);
    expect([command, name, made.has(name), over.has(name)]).toEqual([command, name, true, false]);
    if (command === "revoke" && !rest.includes("--grant") && !rest.includes("--handout")) over.add(name);
  }
});
