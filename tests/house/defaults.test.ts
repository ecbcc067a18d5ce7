import { describe, expect, test } from "bun:test";
import { DEFAULTS, KDF } from "../../src/protocol/defaults.ts";
import { documentedTable } from "../support/doctables.ts";

const rows = documentedTable("docs/protocol.md", ["default", "value", "meaning"]);

describe("the defaults of docs/protocol.md §1.5", () => {
  test("are those of the code, in its order", () => {
    expect(rows.map(([name, value]) => [name, value])).toEqual(
      Object.entries(DEFAULTS).map(([name, value]) => [`\`${name}\``, String(value)]),
    );
  });

  test("each say what they are for", () => {
    expect(rows.filter(([, , meaning]) => !meaning)).toEqual([]);
  });

  test("list every Argon2id setting", () => {
    const settings = documentedTable("docs/protocol.md", ["setting", "memory", "passes", "lanes", "meaning"]);
    expect(settings.map((row) => row.slice(0, 4))).toEqual(
      Object.entries(KDF).map(([name, cost]) => [
        `\`${name}\``,
        String(cost.memoryKib),
        String(cost.passes),
        String(cost.lanes),
      ]),
    );
  });
});
