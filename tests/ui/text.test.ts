import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { nearest } from "../../src/protocol/nearest.ts";
import { convert, flagName, parseDuration, parseTime } from "../../src/ui/args.ts";
import { durationText } from "../../src/ui/help.ts";
import { table } from "../../src/ui/table.ts";
import { paint, plain, safeLines, wantsColor } from "../../src/ui/text.ts";

const anyText = fc.string({ unit: "binary" });
const unsafe = /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u200b-\u200f\u2028\u2029\ufeff]/;

describe("plain", () => {
  test("leaves no control, direction or invisible character, whatever comes in", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(plain(text)).not.toMatch(unsafe);
      }),
    );
    expect(plain("a\u001b]0;x\u0007b\r\n\u202ec\u009b")).toBe("a\\x1b]0;x\\x07b\\r\\n\\u202ec\\x9b");
  });
  test("keeps ordinary text of all scripts", () => {
    // letters that are not drawn, tags, joiners
    for (const hidden of ["\u034f", "\u115f", "\u3164", "\uffa0", "\u{e0041}", "\u180e", "\u2065"])
      expect(plain(`a${hidden}b`)).toMatch(/^a\\u(?:[0-9a-f]{4}|\{e0041\})b$/);
    for (const text of ["db/prod", "größe", "密码", "🔑", "ключ", "a b"]) expect(plain(text)).toBe(text);
  });
});

describe("safeLines", () => {
  test("lets only our own colours through, and those only with colour", () => {
    const line = `${paint.red("a")}\u001b[31;5mb\u001b[2J\n\tc`;
    expect(safeLines(line, true)).toBe("\u001b[31ma\u001b[39m\\x1b[31;5mb\\x1b[2J\n\tc");
    expect(safeLines(line, false)).toBe("a\\x1b[31;5mb\\x1b[2J\n\tc");
    fc.assert(
      fc.property(anyText, (text) => {
        expect(safeLines(text, false).replace(/[\n\t]/g, "")).not.toMatch(unsafe);
      }),
    );
  });
});

test("wantsColor: flag, NO_COLOR, FORCE_COLOR, TERM, terminal, in this order", () => {
  expect(wantsColor("always", { NO_COLOR: "1" }, false)).toBe(true);
  expect(wantsColor("never", { FORCE_COLOR: "1" }, true)).toBe(false);
  for (const value of ["1", "true", "0", "no"])
    expect(wantsColor("auto", { NO_COLOR: value, FORCE_COLOR: "1" }, true)).toBe(false);
  expect(wantsColor("auto", { NO_COLOR: "" }, true)).toBe(true);
  expect(wantsColor("auto", { FORCE_COLOR: "1", TERM: "dumb" }, false)).toBe(true);
  expect(wantsColor("auto", { FORCE_COLOR: "0" }, true)).toBe(false);
  expect(wantsColor("auto", { TERM: "dumb" }, true)).toBe(false);
  expect(wantsColor("auto", {}, false)).toBe(false);
});

test("nearest: near names only", () => {
  const names = ["generate", "get", "list", "remove", "rename"];
  expect(nearest("genrate", names)).toBe("generate");
  expect(nearest("lsit", names)).toBe("list");
  expect(nearest("gen", names)).toBe("get");
  expect(nearest("xyzzy", names)).toBeNull();
});

test("durations and times: whole forms only", () => {
  expect(["500ms", "30s", "15m", "12h", "7d", "45"].map(parseDuration)).toEqual([
    500, 30_000, 900_000, 43_200_000, 604_800_000, 45_000,
  ]);
  for (const text of ["", "s", "-1s", "1.5h", "1 h", "1w", "1H"]) expect(parseDuration(text)).toBeNull();
  fc.assert(fc.property(fc.integer({ min: 1, max: 10_000_000 }), (ms) => parseDuration(durationText(ms)) === ms));
  const now = Date.UTC(2026, 5, 1);
  expect(parseTime("2h", now)).toBe(now - 7_200_000);
  expect(parseTime("2026-02-28", now)).toBe(Date.UTC(2026, 1, 28));
  expect(parseTime("2026-02-28T23:30:00+01:00", now)).toBe(Date.UTC(2026, 1, 28, 22, 30));
  for (const text of [
    "2026-02-30",
    "2026-13-01",
    "2026-02-28T25:00:00Z",
    "2026-02-28T10:00:00",
    "28.2.2026",
    "yesterday",
  ]) {
    expect(parseTime(text, now)).toBeNull();
  }
});

test("flag names and numbers", () => {
  expect(flagName("clearAfter")).toBe("clear-after");
  const arg = { type: "integer", description: "n", min: 0 } as const;
  expect(convert("--n", arg, "0", 0)).toBe(0);
  for (const text of ["", "1e3", "0x10", " 1", "1.0", "-1", "99999999999999999999"]) {
    expect(() => convert("--n", arg, text, 0)).toThrow(expect.objectContaining({ code: "usage" }));
  }
});

describe("table", () => {
  const heads = ["name", "type", "key"];
  const rows = [
    ["db/prod", "token", "00112233445566778899aabbccddeeff"],
    ["密码/\u001b[31mx\n", "note", "ffeeddccbbaa99887766554433221100"],
  ];
  test("piped: nothing is cut", () => {
    for (const width of [null, 0]) {
      const text = table(heads, rows, width);
      for (const id of rows.map((row) => row[2] ?? "")) expect(text).toContain(id);
    }
  });
  test("fits every width, or becomes one line a cell", () => {
    fc.assert(
      fc.property(fc.integer({ min: 28, max: 200 }), (width) => {
        for (const line of table(heads, rows, width).split("\n"))
          expect(Bun.stringWidth(line)).toBeLessThanOrEqual(width);
      }),
    );
    expect(table(heads, rows, 40).split("\n")).toHaveLength(3);
    expect(Bun.stripANSI(table(heads, rows, 20))).toStartWith("name: db/prod\ntype: token\nkey: 0011");
  });
  test("a cell stays one line and cannot steer the terminal", () => {
    const text = Bun.stripANSI(table(heads, rows, 80));
    expect(text).toContain("密码/\\x1b[31mx\\n");
    expect(text.split("\n")).toHaveLength(3);
  });
  test("wide, combining, right-to-left and joined characters keep the columns at every width", () => {
    const names = [
      "密码".repeat(20),
      "e\u0301".repeat(30),
      "שלום/מפתח",
      "كلمة السر",
      "🔑🔑",
      "\u0301x",
      "ｆｕｌｌ",
      "a\u0e33",
    ];
    const name = fc.oneof(fc.constantFrom(...names), fc.string({ unit: "grapheme", maxLength: 60 }));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(name, name), { minLength: 1, maxLength: 6 }),
        fc.constantFrom(0, 20, 40, 80, 200),
        (cells, width) => {
          const text = Bun.stripANSI(table(["NAME", "TAGS"], cells, width));
          const lines = text.split("\n");
          expect(lines).toHaveLength(cells.length + 1);
          for (const line of lines) {
            if (width > 0) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(width);
            expect(line).not.toMatch(unsafe);
          }
          if (width === 0) for (const [first] of cells) expect(text).toContain(plain(first).trimEnd());
        },
      ),
    );
  });
  test("many rows are no trouble", () => {
    const many = Array.from({ length: 200_000 }, (_, i) => [`name ${i}`, "note"]);
    expect(table(["NAME", "TYPE"], many, 80).split("\n")).toHaveLength(200_001);
  });
  test("no rows, no text", () => expect(table(heads, [], 80)).toBe(""));
});
