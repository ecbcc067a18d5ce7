import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { createMasker, type MaskedValue } from "../../src/ui/mask.ts";
import { maskedForms } from "../../src/ui/maskforms.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (...parts: Uint8Array[]) => Buffer.concat(parts).toString("latin1");
const value = (secret: string, label = "<kh://s>"): MaskedValue => ({ value: bytes(secret), label });

/** What the masker shows of a stream that is cut into these pieces. */
function masked(values: readonly MaskedValue[], pieces: readonly (string | Uint8Array)[]): string {
  const masker = createMasker(values);
  const shown = pieces.map((piece) => masker.push(typeof piece === "string" ? bytes(piece) : piece));
  return text(...shown, masker.end());
}

describe("a masker", () => {
  test("replaces a value wherever the stream is cut", () => {
    const whole = "before hunter22 after";
    for (let cut = 0; cut <= whole.length; cut++) {
      expect(masked([value("hunter22")], [whole.slice(0, cut), whole.slice(cut)])).toBe("before <kh://s> after");
    }
    expect(masked([value("hunter22")], [...whole])).toBe("before <kh://s> after");
  });

  test("leaves values of fewer than four bytes alone", () => {
    expect(masked([value("abc"), value("")], ["abc abcd"])).toBe("abc abcd");
    expect(masked([value("abc\n")], ["abc\n"])).toBe("abc\n");
  });

  test("replaces overlapping values as one, and takes the longest where several begin", () => {
    expect(masked([value("abcdef", "<1>"), value("defghi", "<2>")], ["-abcdefghi-"])).toBe("-<1>-");
    expect(masked([value("abcd", "<1>"), value("abcdefgh", "<2>")], ["abcdefgh abcdef"])).toBe("<2> <1>ef");
    expect(masked([value("abcd", "<1>"), value("abcdefgh", "<2>")], ["abcd", "efg", "x"])).toBe("<1>efgx");
  });

  test("of a value of several lines each one is masked, indented too, but not what frames a key", () => {
    const key = "-----BEGIN KEY-----\nfirst line of it\nsecond line\nshort\n-----END KEY-----\n";
    expect(masked([value(key)], [key])).toBe("<kh://s>\n");
    expect(masked([value(key)], [key.replace(/^/gm, "  ")])).toBe(
      "  -----BEGIN KEY-----\n  <kh://s>\n  <kh://s>\n  short\n  -----END KEY-----\n  ",
    );
    expect(masked([value(key)], [..."| second line\r\n"])).toBe("| <kh://s>\r\n");
    // what was masked before a pause is not shown after it
    const masker = createMasker([value(key.replace(/-----.*\n/g, ""))]);
    const pieces = ["first line of it\nsec", "ond line\nsho", "rt!"].map((piece) => [
      masker.push(bytes(piece)),
      masker.pause(),
    ]);
    const shown = text(...pieces.flat(), masker.end());
    expect(shown).not.toMatch(/first|second/);
    expect(shown).toStartWith("<kh://s>");
  });

  test("a name that holds the value does not give it away", () => {
    expect(masked([value("hunter22", "<kh://hunter22>")], ["hunter22"])).toBe("<hidden>");
    expect(masked([value("hidden", "<kh://hidden>")], ["hidden"])).toBe("###");
    expect(masked([value("hidden", "<kh://hidden>"), value("####"), value("###", "x")], ["hidden"])).toBe("###");
  });

  test("holds back only what may be a value's beginning, and in a pause only much of one", () => {
    const masker = createMasker([value("correct horse")]);
    const step = (piece: string) => text(masker.push(bytes(piece)));
    expect(step("Continue? [y/n] ")).toBe("Continue? [y/n] ");
    expect(masker.holding).toBe(false);
    expect(step("> c")).toBe("> ");
    expect(masker.holding).toBe(true);
    expect(text(masker.pause())).toBe("c");
    expect(masker.holding).toBe(false);
    // typed letter by letter it is masked all the same, from where it had been shown
    expect(step("orrec")).toBe("");
    expect(text(masker.pause())).toBe("");
    expect(masker.holding).toBe(true);
    expect(step("t horse!")).toBe("<kh://s>!");
    // and what turns out to be something else is shown once
    expect([step("cor"), text(masker.pause()), step("ner"), text(masker.end())]).toEqual(["", "cor", "ner", ""]);
    expect([step("correct h"), text(masker.pause()), step("at")]).toEqual(["", "", "correct hat"]);
  });

  test("a whole value that may go on is masked in a pause, and so is the rest of the longer one", () => {
    const masker = createMasker([value("abcd", "<1>"), value("abcdefgh", "<2>")]);
    expect([text(masker.push(bytes("abcd"))), text(masker.pause())]).toEqual(["", "<1>"]);
    expect([text(masker.push(bytes("ef"))), text(masker.push(bytes("gh.")))]).toEqual(["", "<2>."]);
  });

  test("what is masked in a pause is not masked again when more comes", () => {
    const values = [value("abcdefgh", "<1>"), value("cdefghijklmnop", "<2>"), value("efgh", "<3>")];
    const masker = createMasker(values);
    expect([text(masker.push(bytes("abcdefgh"))), text(masker.pause())]).toEqual(["", "<1>"]);
    expect(text(masker.push(bytes("x")))).toBe("x");
  });

  test("masks what programs make of a value", () => {
    const secret = "pä\"s\\s/w 'ord&<1>\n2";
    const raw = bytes(secret);
    const pieces = {
      base64: Buffer.from(raw).toString("base64"),
      base64url: Buffer.from(raw).toString("base64url"),
      hex: raw.toHex(),
      HEX: raw.toHex().toUpperCase(),
      percent: encodeURIComponent(secret),
      "percent, small": encodeURIComponent(secret).replace(/%../g, (one) => one.toLowerCase()),
      uri: encodeURI(secret),
      form: new URLSearchParams({ a: secret }).toString().slice(2),
      json: JSON.stringify(secret).slice(1, -1),
      "json in ASCII": JSON.stringify(secret).slice(1, -1).replace("ä", "\\u00e4"),
      "json in HTML": JSON.stringify(secret)
        .slice(1, -1)
        .replace(/[<>&]/g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`),
      "json, slashes": JSON.stringify(secret).slice(1, -1).replaceAll("/", "\\/"),
      shell: secret.replaceAll("'", "'\\''"),
      "a terminal's line ends": secret.replaceAll("\n", "\r\n"),
    };
    for (const [how, shown] of Object.entries(pieces)) {
      expect([how, masked([value(secret)], [`(${shown})`])]).toEqual([how, "(<kh://s>)"]);
    }
  });

  test("finds a value inside a text in base64, and in wrapped lines of it", () => {
    const secret = "Tr0ub4dor&3 correct horse";
    for (const before of ["", "u", "us", "user:"]) {
      const shown = Buffer.from(`${before}${secret}${before}`).toString("base64");
      const out = masked([value(secret)], [shown]);
      expect(out).toContain("<kh://s>");
      expect(Buffer.from(out.replace("<kh://s>", ""), "base64").toString("latin1")).not.toContain("horse");
    }
    const long = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(4);
    for (const [columns, end] of [
      [64, "\n"],
      [76, "\n"],
      [76, "\r\n"],
    ] as const) {
      const wrapped = (
        Buffer.from(`${long}\n`)
          .toString("base64")
          .match(new RegExp(`.{1,${columns}}`, "g")) ?? []
      ).join(end);
      expect(masked([value(`${long}\n`)], [wrapped]).length).toBeLessThan(16);
    }
  });

  test("values that are no text, and line ends at a value's end", () => {
    const raw = Uint8Array.of(0, 255, 10, 13, 128, 7);
    expect(masked([{ value: raw, label: "<b>" }], [Uint8Array.of(1, ...raw, 2)])).toBe("\x01<b>\x02");
    expect(masked([value("line one\nline two\n")], ["line one\r\nline two\r\n"])).toBe("<kh://s>\r\n");
  });
});

/** Bytes cut into pieces. */
const pieces = (whole: Uint8Array, cuts: readonly number[]) => {
  const at = [0, ...cuts.map((cut) => cut % (whole.length + 1)).toSorted((a, b) => a - b), whole.length];
  return at.slice(1).map((end, i) => whole.subarray(at[i], end));
};
// few letters, so that values overlap and begin in each other; none of a label
const letters = (minLength: number, maxLength: number) =>
  fc.array(fc.constantFrom(97, 98, 99, 10), { minLength, maxLength }).map((list) => Uint8Array.from(list));

describe("for any values, output and cuts", () => {
  const label = "<kh://x/y>";

  test("no value is shown, in no form, with pauses or without", () => {
    fc.assert(
      fc.property(
        fc.array(letters(4, 12), { minLength: 1, maxLength: 4 }),
        fc.array(fc.oneof(letters(0, 6), fc.nat(99)), { maxLength: 12 }),
        fc.array(fc.nat(400), { maxLength: 20 }),
        fc.infiniteStream(fc.boolean()),
        (secrets, plan, cuts, pauses) => {
          const forms = secrets.flatMap((secret) => maskedForms(secret));
          const pick = (n: number) => forms[n % Math.max(1, forms.length)] ?? new Uint8Array(0);
          const whole = Buffer.concat(plan.map((part) => (typeof part === "number" ? pick(part) : part)));
          const masker = createMasker(secrets.map((secret) => ({ value: secret, label })));
          const shown: Uint8Array[] = [];
          for (const piece of pieces(whole, cuts)) {
            shown.push(masker.push(piece));
            if (pauses.next().value === true) shown.push(masker.pause());
          }
          shown.push(masker.end());
          for (const part of text(...shown).split(label)) {
            for (const form of forms) expect(part.includes(text(form))).toBe(false);
          }
        },
      ),
      { numRuns: 1_000 },
    );
  });

  test("what holds no value is shown unchanged, and nothing but a beginning is held back", () => {
    fc.assert(
      fc.property(
        letters(6, 20),
        fc.uint8Array({ maxLength: 200 }),
        fc.array(fc.nat(200), { maxLength: 20 }),
        fc.infiniteStream(fc.boolean()),
        (secret, noise, cuts, pauses) => {
          const forms = maskedForms(secret);
          // beginnings of the value among the noise
          const whole = Buffer.concat([
            secret.subarray(0, -1),
            noise,
            secret.subarray(0, 3),
            noise,
            secret.subarray(0, -1),
          ]);
          fc.pre(!forms.some((form) => whole.includes(form)));
          const masker = createMasker([{ value: secret, label }]);
          const shown: Uint8Array[] = [];
          const longest = Math.max(0, ...forms.map(({ length }) => length));
          let pushed = 0;
          for (const piece of pieces(whole, cuts)) {
            pushed += piece.length;
            shown.push(masker.push(piece));
            if (pauses.next().value === true) shown.push(masker.pause());
            expect(pushed - Buffer.concat(shown).length).toBeLessThan(Math.max(1, longest));
          }
          shown.push(masker.end());
          expect(Buffer.concat(shown).equals(whole)).toBe(true);
        },
      ),
      { numRuns: 1_000 },
    );
  });

  test("cuts change nothing of what is shown in the end", () => {
    fc.assert(
      fc.property(
        fc.array(letters(4, 8), { minLength: 1, maxLength: 3 }),
        letters(0, 60),
        fc.array(fc.nat(60), { maxLength: 12 }),
        (secrets, whole, cuts) => {
          const values = secrets.map((secret) => ({ value: secret, label }));
          expect(masked(values, pieces(whole, cuts))).toBe(masked(values, [whole]));
        },
      ),
      { numRuns: 1_000 },
    );
  });
});
