import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { normalizePassword } from "../../src/ui/passwordtext.ts";
import { FIXTURE, lastError, run, shell, withDirectory } from "../cli/support.ts";

const hex = (text: string) => Buffer.from(text).toString("hex");
const fixture = (argv: readonly string[], options = {}) => run([...argv, "--json"], { script: FIXTURE, ...options });
const data = (ran: { out: string }) => JSON.parse(ran.out).data;
const bytes = (text: string) => new TextEncoder().encode(text);

describe("normalizePassword", () => {
  test("takes one newline and nothing else", () => {
    for (const [raw, left] of [
      ["secret 1\n", "secret 1"],
      ["secret 1\n\n", "secret 1\n"],
      [" secret 1 ", " secret 1 "],
      ["secret 1\r\n", "secret 1\r"],
    ] as const) {
      expect(normalizePassword(bytes(raw))).toEqual(bytes(left));
    }
  });
  test("brings text to NFC, so that each way of typing gives the same bytes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1, maxLength: 60 }), (text) => {
        fc.pre(!text.endsWith("\n") && text.isWellFormed());
        const composed = normalizePassword(bytes(text.normalize("NFC")));
        expect(normalizePassword(bytes(text.normalize("NFD")))).toEqual(composed);
        expect(composed).toEqual(bytes(text.normalize("NFC")));
      }),
    );
  });
  test("refuses none, too much and what is no text, and wipes what it was given", () => {
    for (const raw of [bytes(""), bytes("\n"), bytes("x".repeat(1_025)), new Uint8Array([0xff, 0xfe, 0x41])]) {
      expect(() => normalizePassword(raw)).toThrow(expect.objectContaining({ code: "bad_input" }));
      expect(raw.every((byte) => byte === 0)).toBe(true);
    }
    expect(normalizePassword(bytes("x".repeat(1_024))).length).toBe(1_024);
  });
});

describe("sources", () => {
  test("descriptor, file, stdin, credential: in this order", async () => {
    await withDirectory(async (directory) => {
      const file = join(directory, "file");
      writeFileSync(file, "from file\n", { mode: 0o600 });
      const credentials = join(directory, "credentials");
      mkdirSync(credentials);
      writeFileSync(join(credentials, "keyhold-password"), "from credential", { mode: 0o440 });
      const env = { CREDENTIALS_DIRECTORY: credentials, FILE: file };
      const answers = async (flags: string) => {
        const ran = await shell(
          `echo 'from stdin' | $FIXTURE password --json ${flags} 3< <(echo 'from descriptor')`,
          env,
        );
        expect(ran.err).toBe("");
        return data(ran).hex;
      };
      expect(await answers('--password-stdin --password-file "$FILE" --password-fd 3')).toBe(hex("from descriptor"));
      expect(await answers('--password-stdin --password-file "$FILE"')).toBe(hex("from file"));
      expect(await answers("--password-stdin")).toBe(hex("from stdin"));
      expect(await answers("")).toBe(hex("from credential"));
    });
  });

  test("a file that others may use is refused by its mode, also as root; links count by their target", async () => {
    await withDirectory(async (directory) => {
      const file = join(directory, "password");
      const link = join(directory, "link");
      writeFileSync(file, "hunter22");
      symlinkSync(file, link);
      for (const mode of [0o640, 0o604, 0o620, 0o602, 0o644]) {
        chmodSync(file, mode);
        for (const path of [file, link]) {
          const ran = await fixture(["password", "--password-file", path]);
          expect([ran.code, ran.out]).toEqual([5, ""]);
          expect(lastError(ran).error["hint"]).toContain("chmod 600");
          expect(ran.err).not.toContain("hunter22");
        }
      }
      chmodSync(file, 0o600);
      expect(data(await fixture(["password", "--password-file", link])).hex).toBe(hex("hunter22"));
    });
  });

  test("no file, a directory, a FIFO, a closed descriptor: an error at once", async () => {
    await withDirectory(async (directory) => {
      expect((await fixture(["password", "--password-file", join(directory, "none")])).code).toBe(3);
      expect((await fixture(["password", "--password-file", directory])).code).toBe(2);
      const fifo = await shell(
        `mkfifo -m 600 '${directory}/fifo' && timeout 10 $FIXTURE password --password-file '${directory}/fifo'`,
      );
      expect(fifo.code).toBe(2);
      expect((await fixture(["password", "--password-fd", "9"])).code).toBe(2);
      expect((await fixture(["password", "--password-fd", "-1"])).code).toBe(2);
    });
  });

  test("a short password is refused where one is chosen, not where one is checked", async () => {
    const stdin = bytes("short\n");
    expect(data(await fixture(["password", "--password-stdin"], { stdin })).hex).toBe(hex("short"));
    const chosen = await fixture(["choose", "--password-stdin"], { stdin });
    expect([chosen.code, chosen.out]).toEqual([2, ""]);
  });

  test("old and new password come from different places", async () => {
    const ran = await shell(
      "$FIXTURE rekey --json --password-fd 3 --new-password-fd 4 3< <(echo 'old password') 4< <(echo 'new password')",
    );
    expect(data(ran)).toEqual({ old: { hex: hex("old password") }, new: { hex: hex("new password") } });
    const both = await shell("echo x | $FIXTURE rekey --json --password-stdin --new-password-fd 0");
    expect(both.code).toBe(2);
    expect(both.err).toContain("stdin cannot give both");
  });
});

describe("values", () => {
  test("arrive byte for byte from a file, stdin and -", async () => {
    await withDirectory(async (directory) => {
      const value = new Uint8Array(65_536).map((_, index) => (index * 7) & 0xff);
      const file = join(directory, "value");
      writeFileSync(file, value);
      expect(data(await fixture(["value", "--in-file", file])).hex).toBe(value.toHex());
      expect(data(await fixture(["value"], { stdin: value })).hex).toBe(value.toHex());
      expect(data(await fixture(["value", "--in-file", "-"], { stdin: bytes("a\n\n") })).hex).toBe(hex("a\n\n"));
    });
  });
  test("are refused when empty, too long or absent", async () => {
    expect((await fixture(["value"], { stdin: new Uint8Array(65_537) })).code).toBe(2);
    expect(lastError(await fixture(["value"], { stdin: new Uint8Array(65_537) })).error["code"]).toBe("too_large");
    expect(lastError(await fixture(["value", "--in-file", "/dev/null"])).error["code"]).toBe("bad_input");
    expect(lastError(await fixture(["value"])).error["code"]).toBe("input_needed");
  });
  test("stdin cannot give password and value", async () => {
    const ran = await fixture(["value", "--password-stdin"], { stdin: bytes("a password\na value\n") });
    expect([ran.code, ran.out]).toEqual([2, ""]);
  });
});
