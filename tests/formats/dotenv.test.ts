import { describe, expect, test } from "bun:test";
import { parse } from "dotenv";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import { dotenv } from "../../src/formats/dotenv.ts";
import type { PlainItem } from "../../src/formats/item.ts";
import {
  anyText,
  flipped,
  MARKER,
  outcome,
  readApart,
  readWith,
  refusal,
  text,
  truncated,
  utf8,
  writeWith,
} from "./foreign.ts";
import { sample } from "./samples.ts";

const FILE = `\ufeff# settings
DB_HOST=localhost
export DB_PASSWORD='it is # not a comment'   # but this is
MULTI="first\\nsecond"
KEY="-----BEGIN-----
abc
-----END-----"
colon: value
lower.case-name=1
EMPTY=
BACK=\`it's "both"\`
DB_HOST=db.example.com
`;

const secret = (name: string, value: string | Uint8Array): PlainItem => ({
  name,
  type: "password",
  value: typeof value === "string" ? utf8(value) : value,
  tags: [],
  createdAt: null,
});

describe("reading", () => {
  test("takes every form of a line, and keeps the variable's name", async () => {
    const { items, lost } = await readWith(dotenv, utf8(FILE.replaceAll("\n", "\r\n")));
    expect(Object.fromEntries(items.map(({ name, value }) => [name, text(value)]))).toEqual({
      DB_HOST: "db.example.com",
      DB_PASSWORD: "it is # not a comment",
      MULTI: "first\nsecond",
      KEY: "-----BEGIN-----\nabc\n-----END-----",
      colon: "value",
      "lower.case-name": "1",
      BACK: `it's "both"`,
    });
    expect(items.every(({ type }) => type === "password")).toBe(true);
    expect(lost).toEqual([{ what: '"EMPTY": it holds nothing' }]);
  });
});

describe("writing", () => {
  test("is read back as it was, by both parsers of the library, or refused", async () => {
    let written = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          anyText.filter((value) => value !== ""),
          { minLength: 1, maxLength: 5 },
        ),
        async (values) => {
          const items = values.map((value, i) => secret(`app/secret ${i}`, value));
          let file: Uint8Array;
          try {
            ({ file } = await writeWith(dotenv, items));
          } catch (error) {
            expect(error).toBeInstanceOf(Fault);
            expect(error).toMatchObject({ code: "bad_input" });
            return;
          }
          written++;
          const expected = Object.fromEntries(values.map((value, i) => [`APP_SECRET_${i}`, value]));
          for (const fast of [true, false]) expect({ ...parse(text(file), { fast }) }).toEqual(expected);
          const read = await readWith(dotenv, file);
          expect(read.items.map(({ name, value }) => [name, text(value)])).toEqual(Object.entries(expected));
          expect((await writeWith(dotenv, items)).file).toEqual(file);
        },
      ),
      { numRuns: 400 },
    );
    expect(written).toBeGreaterThan(100);
  }, 30_000);

  test("a shell reads the usual ones alike", async () => {
    const values = ["simple", "with space", "dollar $HOME `id` $(id)", 'double "quotes"', "hash # tag", "two\nlines"];
    const { file } = await writeWith(
      dotenv,
      values.map((value, i) => secret(`v${i}`, value)),
    );
    const script = `set -a; . /dev/stdin; set +a; env -0`;
    const child = Bun.spawn(["sh", "-c", script], {
      stdin: file,
      stdout: "pipe",
      env: { PATH: process.env["PATH"] ?? "" },
    });
    const all = (await new Response(child.stdout).text()).split("\0");
    for (const [i, value] of values.entries()) expect(all).toContain(`V${i}=${value}`);
  });

  test("names become variables", async () => {
    const { file } = await writeWith(dotenv, [secret("db/password", "a"), secret("2fa key", "b"), secret("ü", "c")]);
    expect(text(file)).toBe("DB_PASSWORD=a\n_2FA_KEY=b\n_=c\n");
  });

  test("names that would be one variable are refused, and named", async () => {
    const both = [secret("db/password", "a"), secret("DB.password", "b")];
    await expect(writeWith(dotenv, both)).rejects.toThrow(/"db\/password" and "DB.password" would both be DB_PASSWORD/);
  });

  test("what such a file cannot hold is refused, and named without its value", async () => {
    const every = `'\n"\n\`\n\\n${MARKER}`;
    for (const value of [every, Uint8Array.of(0xff, 0xfe)]) {
      const fault = await writeWith(dotenv, [secret("the one", value)]).then(
        () => null,
        (error: unknown) => error,
      );
      expect(fault).toMatchObject({ code: "bad_input", message: expect.stringContaining('"the one"') });
      expect(JSON.stringify(fault)).not.toContain(MARKER);
    }
    await expect(writeWith(dotenv, [sample("file")])).rejects.toMatchObject({ code: "bad_input" });
  });

  test("fields are named as lost", async () => {
    const item = { ...secret("a", "b"), fields: [{ name: "user", kind: "text" as const, value: "u" }] };
    expect((await writeWith(dotenv, [item])).lost).toEqual([{ what: '"a": field "user"' }]);
  });
});

describe("bad input", () => {
  const HOSTILE: readonly [string, Uint8Array | string][] = [
    ["nothing", utf8("")],
    ["blank lines", utf8("\n\n  \n")],
    ["comments alone", utf8(`# ${MARKER}\n`)],
    ["text without a variable", utf8(`${MARKER} is here\nand here`)],
    ["JSON", utf8(`{"a":"${MARKER}"}`)],
    ["empty values alone", utf8("")],
    ["an equals sign alone", utf8(`=${MARKER}`)],
    ["NUL", utf8(`A=${MARKER}\0B=2`)],
    ["UTF-16", new Uint8Array(Buffer.from("A=1\nB=2", "utf16le"))],
    ["invalid UTF-8", Uint8Array.from([...utf8("A=1\nB="), 0xff, 0xfe])],
    ["UTF-8 that is cut short", Uint8Array.from([...utf8("A="), 0xe2, 0x82])],
    ["a lone surrogate in UTF-8", Uint8Array.from([...utf8("A="), 0xed, 0xa0, 0x80])],
    ["a variable that no program can read", utf8(`__proto__=${MARKER}`)],
    ["the same with export", utf8(`A=1\nexport __proto__ = ${MARKER}`)],
    ["the same with a colon", utf8(`A=1\n__proto__: ${MARKER}`)],
    ["more variables than can be", utf8(Array.from({ length: 100_001 }, (_, i) => `V${i}=1`).join("\n"))],
    ["a million variables", utf8("A=1\n".repeat(1_000_001))],
    ["more bytes than can be", utf8(`A=${"x".repeat(9_000_000)}`)],
    ["quotations that never end, many times", utf8(`A='x'y\n`.repeat(90_000))],
    ["a zip archive", Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0, 0, 0)],
    ["a directory", "/tmp"],
  ];
  test.each(HOSTILE)(
    "%s: a fault, and nothing read",
    async (_, source) => {
      await refusal(dotenv, source);
    },
    30_000,
  );

  test("names of methods are names like others", async () => {
    const { items } = await readWith(dotenv, utf8("constructor=1\ntoString=2\nhasOwnProperty=3\n"));
    expect(items.map(({ name }) => name)).toEqual(["constructor", "toString", "hasOwnProperty"]);
  });

  test("truncated and changed files end in a fault, or are read", async () => {
    for (const part of truncated(utf8(FILE), 60)) await outcome(dotenv, part);
    for (const part of flipped(utf8(FILE), 250)) await outcome(dotenv, part);
  }, 30_000);

  test("a million variables and blank lines without end cost no memory to speak of", async () => {
    const bomb = await readApart("dotenv", utf8("A=1\n".repeat(1_000_001)));
    expect(bomb).toMatchObject({ code: "too_large" });
    expect(bomb.peakMib).toBeLessThan(300);
    const blank = await readApart("dotenv", utf8(`${"\n".repeat(60_000_000)}A=1`));
    expect(blank.code).toBe("too_large");
    expect(blank.peakMib).toBeLessThan(500);
  }, 30_000);
});

describe("recognition", () => {
  test("by the name of the file and a variable in it", () => {
    for (const path of [".env", "/a/.env.local", "production.env", "a/.env.production.local"]) {
      expect(dotenv.sniff(utf8("# c\nA=1\n"), path)).toBe(true);
    }
    expect(dotenv.sniff(utf8("A=1\n"), "settings.txt")).toBe(false);
    expect(dotenv.sniff(utf8("hello\n"), ".env")).toBe(false);
    expect(dotenv.sniff(Uint8Array.of(0x41, 0x3d, 0), ".env")).toBe(false);
  });
});
