import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join as joinPath } from "node:path";
import { TRANSITIONS } from "../../../src/protocol/ceremony/progress.ts";

describe("docs/protocol.md §10.4", () => {
  test("names every transition", () => {
    const text = readFileSync(joinPath(import.meta.dir, "../../../docs/protocol.md"), "utf8");
    const section = /\n\| entry +\| from[\s\S]*?### 10\.5/.exec(text)?.[0] ?? "";
    const rows = [...section.matchAll(/^\| `([a-z]+)`(?: \(abort\))? +\| ([^|]+?) +\| ([^|]+?) +\|/gm)].map(
      ([, entry, from, to]) => ({ entry, from, to }),
    );
    const words = (all: readonly string[]) => all.map((one) => `\`${one}\``).join(", ");
    const expected = TRANSITIONS.map(({ entry, from, to }) => ({ entry, from: words(from), to: words(to) }));
    expect(rows).toEqual(expected as unknown as typeof rows);
  });
});
