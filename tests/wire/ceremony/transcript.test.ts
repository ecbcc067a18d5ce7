import { afterAll, beforeAll, describe, expect, spyOn, test } from "bun:test";
import * as identity from "../../../src/crypto/identity.ts";
import { Fault } from "../../../src/errors.ts";
import type { Transcript } from "../../../src/protocol/ceremony/model.ts";
import { verifyTranscript } from "../../../src/protocol/ceremony/verify.ts";
import {
  decodeOpening,
  decodeTranscript,
  encodeOpening,
  encodeTranscript,
  TRANSCRIPT_MAX_BYTES,
} from "../../../src/wire/ceremony/transcript.ts";
import { openingsOf, type PureCeremony, pureCeremony } from "../../support/pureceremony.ts";
import { seeded } from "../../support/seeded.ts";

const NEWLINE = 0x0a;
let world: PureCeremony;
let transcript: Transcript;
let file: Uint8Array;

beforeAll(async () => {
  const random = seeded(7);
  world = await pureCeremony({ random: (length) => random.bytes(length), participants: 3, accounts: [2] });
  transcript = await world.go("stored", [3, 1, 2]);
  file = encodeTranscript(transcript);
});

/** What is said of a file; null for a file that holds. */
async function verdictOn(bytes: Uint8Array): Promise<Fault | null> {
  try {
    await verifyTranscript(decodeTranscript(bytes));
    return null;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
}

const lineIn = (fault: Fault | null): number => Number(/^line (\d+), /.exec(fault?.message ?? "")?.[1] ?? 0);
const linesOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trimEnd().split("\n");
const fileOf = (lines: readonly string[]) => new TextEncoder().encode(`${lines.join("\n")}\n`);
const edit = (number: number, change: (line: string) => string) =>
  fileOf(linesOf(file).map((line, at) => (at + 1 === number ? change(line) : line)));

describe("the file of a transcript", () => {
  test("comes back as it was, and verifies", async () => {
    expect(decodeTranscript(file)).toEqual(transcript);
    expect(encodeTranscript(decodeTranscript(file))).toEqual(file);
    expect(linesOf(file).length).toBe(1 + (1 + 3 + 1 + 3 + 1) + 1);
    expect(await verdictOn(file)).toBeNull();
  });

  test("its last line is what sha256sum says of the lines before", () => {
    const lines = linesOf(file);
    const last: unknown = JSON.parse(lines.at(-1) ?? "");
    const hash = new Bun.CryptoHasher("sha256").update(fileOf(lines.slice(0, -1))).digest("base64url");
    expect(last).toEqual({ entries: 9, sha256: hash });
  });

  test("an unfinished ceremony has a file, too, which does not verify", async () => {
    const { manifest, entries } = transcript;
    const early = encodeTranscript({ manifest, entries: entries.slice(0, -1) });
    expect(decodeTranscript(early).entries.length).toBe(8);
    const fault = await verdictOn(early);
    expect(fault).toMatchObject({ code: "integrity" });
    expect(fault?.message).toBe("line 10, result: the transcript ends early: neither a result nor an abort follows");
  });

  test.each([
    ["an empty file", () => new Uint8Array(0), "line 1, manifest: the file is empty"],
    ["another file", () => new TextEncoder().encode("hello\n"), "line 1, manifest: it cannot be read"],
    ["a line more", () => fileOf([...linesOf(file), "{}"]), "line 12, after the end: nothing follows the last line"],
    ["an empty line more", () => fileOf([...linesOf(file), ""]), "line 12, after the end: "],
    ["the last line twice", () => fileOf([...linesOf(file), linesOf(file)[10] ?? ""]), "line 12, after the end: "],
    ["an entry after the end", () => fileOf([...linesOf(file), linesOf(file)[9] ?? ""]), "line 12, after the end: "],
    ["itself twice", () => Buffer.concat([file, file]), "line 12, after the end: "],
    [
      "the last line too early",
      () => fileOf(linesOf(file).toSpliced(4, 0, linesOf(file)[10] ?? "")),
      "line 5, entry: ",
    ],
    ["spaces", () => edit(3, (line) => line.replace(":", ": ")), "line 3, entry: it is not written in the one form"],
    ["a field twice", () => edit(4, (line) => line.replace("{", '{"signature":"",')), "line 4, entry: "],
    ["another order of fields", () => edit(4, swapped), "line 4, entry: it is not written in the one form"],
    ["carriage returns", () => edit(5, (line) => `${line}\r`), "line 5, entry: it is not written in the one form"],
    ["a byte order mark", () => edit(1, (line) => `\ufeff${line}`), "line 1, manifest: it cannot be read"],
  ])("refuses %s", async (_, make, message) => {
    const fault = await verdictOn(make());
    expect(fault).toMatchObject({ code: "integrity" });
    expect(fault?.message).toStartWith(message);
  });

  test("two entries in another order, one left out, one twice: the first that does not follow is named", async () => {
    const lines = linesOf(file);
    const [a = "", b = ""] = [lines[2], lines[3]];
    expect(lineIn(await verdictOn(fileOf(lines.toSpliced(2, 2, b, a))))).toBe(3);
    expect(lineIn(await verdictOn(fileOf(lines.toSpliced(3, 1))))).toBe(4);
    expect(lineIn(await verdictOn(fileOf(lines.toSpliced(3, 0, a))))).toBe(4);
  });

  test("is bounded", () => {
    expect(() => decodeTranscript(new Uint8Array(TRANSCRIPT_MAX_BYTES + 1))).toThrow(
      expect.objectContaining({ code: "too_large" }),
    );
    const many = fileOf(Array.from({ length: 1_000 }, () => "{}"));
    expect(() => decodeTranscript(many)).toThrow("no ceremony has so many records");
  });
});

const swapped = (line: string) => {
  const { entry, signature } = JSON.parse(line) as Record<string, unknown>;
  return JSON.stringify({ signature, entry });
};

describe("every changed byte", () => {
  /** Signatures are verified once for the same bytes: thousands of files differ in one. */
  const known = new Map<string, boolean>();
  const { verifySignature } = identity;
  const spy = spyOn(identity, "verifySignature");

  beforeAll(() => {
    spy.mockImplementation((key, message, signature) => {
      const hash = `${Bun.hash(message)} ${key.toHex()} ${signature.toHex()}`;
      const before = known.get(hash);
      if (before !== undefined) return before;
      const holds = verifySignature(key, message, signature);
      known.set(hash, holds);
      return holds;
    });
  });
  afterAll(() => spy.mockRestore());

  /** Says what was accepted, or blamed on another line. */
  async function wrongOf(bytes: Uint8Array, lines: readonly number[]): Promise<readonly string[]> {
    const fault = await verdictOn(bytes);
    return fault?.code === "integrity" && lines.includes(lineIn(fault)) ? [] : [fault?.message ?? "accepted"];
  }
  /** Runs over every byte; the line before or after a newline will do for it. */
  async function everywhere(bits: readonly number[], change: (at: number, byte: number) => Uint8Array) {
    const wrong: string[] = [];
    let line = 1;
    for (const [at, old] of file.entries()) {
      for (const byte of bits.map((bit) => old ^ (1 << ((at + bit) % 8)))) {
        const changed = change(at, byte);
        const newline = old === NEWLINE || byte === NEWLINE;
        const lines = newline ? [line - 1, line, line + 1] : [line];
        for (const what of await wrongOf(changed, lines)) wrong.push(`byte ${at}: ${what}`);
      }
      if (old === NEWLINE) line += 1;
    }
    return wrong;
  }

  test("is refused, and the line that is named is the one that was changed", async () => {
    const wrong = await everywhere([0], (at, byte) => {
      const changed = file.slice();
      changed[at] = byte;
      return changed;
    });
    expect(wrong).toEqual([]);
  }, 60_000);

  test("so is every byte left out, and every byte too many", async () => {
    // of the two values of a position one is put before it, for the other it is left out
    let inserted = false;
    const wrong = await everywhere([0, 3], (at, byte) => {
      inserted = !inserted;
      const middle = inserted ? [byte] : [];
      return Buffer.concat([file.subarray(0, at), Uint8Array.from(middle), file.subarray(inserted ? at : at + 1)]);
    });
    expect(wrong).toEqual([]);
  }, 60_000);

  test("so is every cut", async () => {
    const wrong: string[] = [];
    for (let length = 0; length < file.length; length++) {
      const line = file.subarray(0, length).filter((byte) => byte === NEWLINE).length + 1;
      for (const what of await wrongOf(file.subarray(0, length), [line])) wrong.push(`cut at ${length}: ${what}`);
    }
    expect(wrong).toEqual([]);
  }, 60_000);
});

describe("the file of an opening", () => {
  test("comes back", () => {
    const { ceremonyId } = world;
    const opening = { ceremonyId, index: 2, opening: world.participant(2).opening };
    expect(decodeOpening(encodeOpening(opening))).toEqual(opening);
  });

  test.each(["", "{}", '{"format":"keyhold-ceremony-opening/2"}', "\xff"])("refuses %j", (text) => {
    expect(() => decodeOpening(Buffer.from(text, "latin1"))).toThrow("this is not the file of an opening");
  });

  test("all of them reproduce the result of a transcript that was read from its file", async () => {
    const verdict = await verifyTranscript(decodeTranscript(file), { openings: openingsOf(world) });
    expect(verdict.result).toMatchObject({ reproduced: true });
  });
});
