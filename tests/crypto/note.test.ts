import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { noteKeyId, openNote, signNote } from "../../src/crypto/note.ts";

/** The published example of the signed-note format: key, text and note. */
const VECTOR = {
  name: "PeterNeumann",
  seed: "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz",
  key: "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
  keyId: "c74f20a3",
  text: "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n",
  line: "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n",
} as const;

const { name, text } = VECTOR;
const key = Uint8Array.fromBase64(VECTOR.key).subarray(1);
const peter = signerFromSeed(Uint8Array.fromBase64(VECTOR.seed).subarray(1));
const other = signerFromSeed(new Uint8Array(32).fill(7));
const note = `${text}\n${VECTOR.line}`;
/** A signature line of somebody else. */
const cosigned = signNote(text, "witness.example/w1", [other]).slice(text.length + 1);

describe("the published example", () => {
  test("key id, signature and note", () => {
    expect(peter.publicKey).toEqual(key.slice());
    expect(noteKeyId(name, key).toHex()).toBe(VECTOR.keyId);
    expect(signNote(text, name, [peter])).toBe(note);
    expect(openNote(note, name, key)).toBe(text);
  });

  test("an example checkpoint is of a key that we do not know", () => {
    const checkpoint =
      "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n" +
      "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
    expect(openNote(checkpoint, "example.com/behind-the-sofa", key)).toBeNull();
  });
});

describe("several signatures", () => {
  test("those of unknown keys are ignored, wherever they stand and whatever they hold", () => {
    const unknown = "— nobody AAAAAAE=\n";
    for (const lines of [VECTOR.line + cosigned, cosigned + VECTOR.line, unknown + VECTOR.line + cosigned]) {
      expect(openNote(`${text}\n${lines}`, name, key)).toBe(text);
    }
    expect(openNote(`${text}\n${VECTOR.line}${cosigned}`, "witness.example/w1", other.publicKey)).toBe(text);
    expect(openNote(`${text}\n${cosigned}`, name, key)).toBeNull();
  });

  test("of a rotation both keys open the note", () => {
    const both = signNote(text, name, [other, peter]);
    expect(openNote(both, name, key)).toBe(text);
    expect(openNote(both, name, other.publicKey)).toBe(text);
  });

  test("a bad one of the key that is asked for spoils the note", () => {
    const bad = VECTOR.line.replace("ZJku", "ZJkv");
    expect(openNote(`${text}\n${VECTOR.line}${bad}`, name, key)).toBeNull();
    expect(openNote(`${text}\n${VECTOR.line}${VECTOR.line}`, name, key)).toBe(text);
  });
});

describe("what is no note", () => {
  const blob = VECTOR.line.slice("— PeterNeumann ".length, -1);
  const WRONG: [string, string][] = [
    ["nothing", ""],
    ["no signature", text],
    ["no empty line", text + VECTOR.line],
    ["no newline at the end", note.slice(0, -1)],
    ["an empty line more at the end", `${note}\n`],
    ["a hyphen for the dash", note.replace("—", "-")],
    ["two spaces", note.replace("PeterNeumann x", "PeterNeumann  x")],
    ["a third word", note.replace("=\n", "= x\n")],
    ["another alphabet", note.replaceAll("/", "_")],
    ["no padding", note.replace("=\n", "\n")],
    ["a key id alone", `${text}\n— PeterNeumann x08gow==\n`],
    ["a name with a plus", note.replace("— PeterNeumann", "— Peter+Neumann")],
    ["a control character", note.replace("know", "kn\tow")],
    ["a carriage return", note.replace("problem,\n", "problem,\r\n")],
    ["too many signatures", `${text}\n${`— a ${blob}\n`.repeat(100)}${VECTOR.line}`],
  ];
  test.each(WRONG)("%s", (_what, wrong) => {
    expect(openNote(wrong, name, key)).toBeNull();
  });

  test("a good one under another name or key", () => {
    expect(openNote(note, "Peter", key)).toBeNull();
    expect(openNote(note, name, other.publicKey)).toBeNull();
  });

  test("one with any character changed", () => {
    for (let i = 0; i < note.length; i++) {
      const changed = `${note.slice(0, i)}${note[i] === "A" ? "B" : "A"}${note.slice(i + 1)}`;
      expect([i, openNote(changed, name, key)]).toEqual([i, null]);
    }
  });

  test("is not signed", () => {
    expect(() => signNote("no newline", name, [peter])).toThrow(RangeError);
    expect(() => signNote("a\tb\n", name, [peter])).toThrow(RangeError);
    expect(() => signNote(text, "two words", [peter])).toThrow(RangeError);
    expect(() => signNote(text, "a+b", [peter])).toThrow(RangeError);
  });
});

test("what was signed is what is read, empty lines in it too", () => {
  const line = fc.string({ unit: "grapheme", maxLength: 20 }).map((s) => s.replace(/[\p{Cc}\p{Cs}]/gu, ""));
  fc.assert(
    fc.property(fc.array(line, { minLength: 1, maxLength: 6 }), (all) => {
      const made = `${all.join("\n")}\n`;
      expect(openNote(signNote(made, name, [peter, other]), name, key)).toBe(made);
    }),
  );
});
