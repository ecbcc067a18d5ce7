import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { jsonText } from "../../src/ui/output.ts";
import { table } from "../../src/ui/table.ts";
import { paint, plain } from "../../src/ui/text.ts";

const wide = (text: string): number => Bun.stringWidth(text);
const cell = fc.oneof(
  fc.string({ maxLength: 30 }),
  fc.string({ unit: "grapheme", maxLength: 20 }),
  fc.string({ unit: "binary", maxLength: 12 }),
  fc.constantFrom("日本語テキスト", "👩‍👩‍👧‍👦 family", "a\tb\u001b[2J", "", "x".repeat(60), "ends in a space "),
);
const heads = fc.array(fc.string({ unit: fc.constantFrom("A", "B"), minLength: 1, maxLength: 9 }), {
  minLength: 1,
  maxLength: 5,
});

/** The table without any shortcut for simple cells, where the terminal is wide enough. */
function slowTable(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = rows.map((row) => titles.map((_, column) => plain(row[column] ?? "")));
  const widths = titles.map((title, column) => Math.max(wide(title), ...cells.map((row) => wide(row[column] ?? ""))));
  const line = (row: readonly string[]) =>
    row
      .map((text, column) => text + " ".repeat(column === row.length - 1 ? 0 : (widths[column] ?? 0) - wide(text)))
      .join("  ")
      .trimEnd();
  return [paint.bold(line(titles)), ...cells.map(line)].join("\n");
}

describe("tables", () => {
  test("are the same with and without the shortcut for simple rows, rows too short or too long included", () => {
    fc.assert(
      fc.property(heads, fc.array(fc.array(cell, { maxLength: 6 }), { minLength: 1, maxLength: 6 }), (titles, rows) => {
        expect(table(titles, rows, null)).toBe(slowTable(titles, rows));
      }),
    );
  });

  test("no line is wider than the terminal, and every control character is escaped", () => {
    const width = fc.integer({ min: 60, max: 120 });
    fc.assert(
      fc.property(
        heads,
        fc.array(fc.array(cell, { maxLength: 6 }), { minLength: 1, maxLength: 6 }),
        width,
        (titles, rows, most) => {
          const [, ...lines] = table(titles, rows, most).split("\n");
          expect(lines).toHaveLength(rows.length);
          for (const line of lines) {
            expect(wide(line)).toBeLessThanOrEqual(most);
            expect(plain(line)).toBe(line);
          }
        },
      ),
    );
  });

  test.each([
    ["abcdefghijkl", "abcdefg…"],
    ["abcdefgh", "abcdefgh"],
    ["日本語テキスト", "日本語…"],
    ["日本語éa", "日本語éa"],
  ])("%j in eight columns is %j", (text, cut) => {
    const rows = [[text, "x".repeat(8)]];
    expect(table(["A", "B"], rows, 18).split("\n")[1]).toBe(`${cut}${" ".repeat(10 - wide(cut))}${"x".repeat(8)}`);
  });

  test("no rows, no table", () => {
    expect(table(["A"], [], 80)).toBe("");
  });
});

describe("data as JSON", () => {
  test("what is JSON already goes as it is; bytes, dates and large numbers in their form, however deep", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(jsonText(value)).toBe(JSON.stringify(value));
        const deep = { list: [value, { bytes: Uint8Array.of(1, 2), at: [new Date(0)], big: 2n ** 64n }] };
        const expected = {
          list: [value, { bytes: "AQI", at: ["1970-01-01T00:00:00.000Z"], big: "18446744073709551616" }],
        };
        expect(jsonText(deep)).toBe(JSON.stringify(expected));
      }),
    );
  });

  test("an object of a class is its own fields", () => {
    const odd = new (class {
      a = 1;
      toJSON = undefined;
    })();
    expect(jsonText([odd, { b: undefined }])).toBe('[{"a":1},{}]');
    expect(jsonText(undefined)).toBe("null");
  });
});
