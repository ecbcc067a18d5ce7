import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import dotenv from "dotenv";
import fc from "fast-check";
import { parseEnv, readEnvFile } from "../../src/commands/envfile.ts";
import { Fault } from "../../src/errors.ts";
import { withDirectory } from "../cli/support.ts";

const values = async (text: string) =>
  Object.fromEntries((await parseEnv(text, "file")).map(({ name, value }) => [name, value]));

async function refusal(text: string): Promise<Fault> {
  try {
    await parseEnv(text, "some.env");
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error(`taken: ${text}`);
}

describe("an env file", () => {
  test("is read as dotenv reads it: quotes, lines, export, comments, line ends, byte order mark", async () => {
    const text = [
      "\ufeffA=plain # comment",
      "",
      "# a comment",
      'export B="two\\nlines"',
      "  C = 'single $A \\n' # more",
      'D="really',
      'two lines"',
      "E=`back \"'`",
      "F=",
      'G="it\\"s"',
      "H=#nothing",
      "A=again",
    ].join("\r\n");
    const found = await values(text);
    expect(found).toEqual({
      A: "again",
      B: "two\nlines",
      C: "single $A \\n",
      D: "really\ntwo lines",
      E: "back \"'",
      F: "",
      G: 'it\\"s',
      H: "",
    });
    expect(found).toEqual(dotenv.parse(text.slice(1)));
    expect((await parseEnv("\nA='x\ny'\nB=1", "file")).map(({ line }) => line)).toEqual([2, 4]);
  });

  test("expands nothing and runs nothing", async () => {
    expect(await values('A=${HOME}\nB="$(id)"\nC=`id`\nD=$HOME')).toEqual({
      A: "${HOME}",
      B: "$(id)",
      C: "id",
      D: "$HOME",
    });
  });

  test("a reference keeps its #field, in quotes and without", async () => {
    expect(await values("A=kh://db/prod#user\nB='kh://db#pin' # c\nC=kh://x?version=2#a # c\nD=kh://x\t# c")).toEqual({
      A: "kh://db/prod#user",
      B: "kh://db#pin",
      C: "kh://x?version=2#a",
      D: "kh://x",
    });
  });

  test("refuses every other line by its number, without its content", async () => {
    const cases = [
      ["hunter22", 1],
      ["A=1\nexport hunter22", 2],
      ["1A=hunter22", 1],
      ["A-B=hunter22", 1],
      ["A.B=hunter22", 1],
      ["A: hunter22", 1],
      ["=hunter22", 1],
      ["\n\nA='hunter22", 3],
      ['A="hunter22\nB=2\n', 1],
      ["A='hunter22' more", 1],
      ['A="hunter22" "more"', 1],
      ["__proto__=hunter22", 1],
      ["A=hunter22\0", 1],
    ] as const;
    for (const [text, line] of cases) {
      const fault = await refusal(text);
      expect([text, fault.code, fault.message]).toEqual([
        text,
        "bad_input",
        `line ${line} of "some.env" is not NAME=VALUE`,
      ]);
      expect(JSON.stringify([fault.message, fault.why, fault.hint])).not.toContain("hunter22");
    }
  });

  test("whatever the file, it is refused or read as dotenv reads it", async () => {
    const piece = fc.constantFrom(
      "A",
      "B",
      "=",
      "'",
      '"',
      "`",
      "\n",
      " ",
      "#",
      "\\",
      "\\n",
      "x",
      "export ",
      "\r\n",
      ":",
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 24 }), async (pieces) => {
        const text = pieces.join("");
        let found: Record<string, string>;
        try {
          found = await values(text);
        } catch (error) {
          expect(error).toBeInstanceOf(Fault);
          return;
        }
        expect(found).toEqual(dotenv.parse(text));
      }),
      { numRuns: 2_000 },
    );
  });

  test("has a limit, must be UTF-8 and a regular file", async () => {
    await withDirectory(async (directory) => {
      const path = join(directory, "f");
      const code = async (content: Uint8Array | string) => {
        writeFileSync(path, content);
        return await readEnvFile(path).then(
          () => "taken",
          (error: Fault) => error.code,
        );
      };
      expect(await code("A=1")).toBe("taken");
      expect(await code(`A=${"x".repeat(1_048_576)}`)).toBe("too_large");
      expect(await code(Uint8Array.of(0x41, 0x3d, 0xff))).toBe("bad_input");
      const missing = await readEnvFile(join(directory, "none")).catch((error: Fault) => error.code);
      const folder = await readEnvFile(directory).catch((error: Fault) => error.code);
      expect([missing, folder]).toEqual(["not_found", "bad_input"]);
    });
  });
});
