import { expect, test } from "bun:test";
import fc from "fast-check";
import { concat, equalBytes, fromBase64url, toBase64url, wipe, ZERO_HASH_BYTES } from "../../src/crypto/bytes.ts";

const blob = fc.uint8Array({ maxLength: 80 });

test("concat is the bytes in order, in a new buffer", () => {
  fc.assert(
    fc.property(fc.array(blob, { maxLength: 6 }), (parts) => {
      const joined = concat(...parts);
      expect([...joined]).toEqual(parts.flatMap((part) => [...part]));
      joined.fill(0xaa);
      for (const part of parts) expect(part.buffer).not.toBe(joined.buffer);
    }),
  );
});

test("concat of a view takes the view, not the buffer behind it", () => {
  const view = Uint8Array.of(1, 2, 3, 4, 5).subarray(1, 3);
  expect(concat(view, view)).toEqual(Uint8Array.of(2, 3, 2, 3));
});

test("equalBytes is equality of content", () => {
  fc.assert(
    fc.property(blob, blob, (a, b) => {
      expect(equalBytes(a, b)).toBe(Buffer.compare(a, b) === 0);
      expect(equalBytes(a, a.slice())).toBe(true);
    }),
  );
});

test("equalBytes sees each single bit, and lengths", () => {
  const a = Uint8Array.from({ length: 32 }, (_, i) => i);
  for (let bit = 0; bit < 256; bit++) {
    const b = a.slice();
    b[bit >> 3] = (b[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(equalBytes(a, b)).toBe(false);
  }
  expect(equalBytes(a, a.subarray(1))).toBe(false);
  expect(equalBytes(a, concat(a, Uint8Array.of(0)))).toBe(false);
  expect(equalBytes(new Uint8Array(0), new Uint8Array(0))).toBe(true);
});

test("wipe leaves zeros, and skips what is not there", () => {
  const a = Uint8Array.of(1, 2, 3);
  const whole = Uint8Array.of(9, 9, 9, 9);
  wipe(a, undefined, whole.subarray(1, 3));
  expect(a).toEqual(new Uint8Array(3));
  expect(whole).toEqual(Uint8Array.of(9, 0, 0, 9));
});

test("base64url: vectors of RFC 4648 §10 without padding", () => {
  const vectors = ["", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy"];
  vectors.forEach((text, length) => {
    const bytes = new TextEncoder().encode("foobar".slice(0, length));
    expect(toBase64url(bytes)).toBe(text);
    expect(fromBase64url(text)).toEqual(bytes);
  });
  expect(toBase64url(Uint8Array.of(0xfb, 0xff, 0xbf))).toBe("-_-_");
});

test("base64url goes there and back", () => {
  fc.assert(fc.property(blob, (bytes) => expect(fromBase64url(toBase64url(bytes))).toEqual(bytes)));
});

test("base64url is strict: one text per value", () => {
  for (const text of ["Zg==", "Zg=", "Zh", "Zm9", "Z", "Zm9vY", "-_+/", "Zm 9v", "Zm9v\n", "\u{ff5a}m9v", "Zm9v."]) {
    expect(() => fromBase64url(text)).toThrow(SyntaxError);
  }
});

test("base64url: whatever is accepted is what the encoder gives", () => {
  const char = fc.constantFrom(..."ABCZabcz0129-_+/= \n");
  fc.assert(
    fc.property(fc.string({ unit: char, maxLength: 12 }), (text) => {
      let bytes: Uint8Array;
      try {
        bytes = fromBase64url(text);
      } catch (error) {
        expect(error).toBeInstanceOf(SyntaxError);
        return;
      }
      expect(toBase64url(bytes)).toBe(text);
    }),
    { numRuns: 500 },
  );
});

test("ZERO_HASH_BYTES is 32 zero bytes", () => {
  expect(ZERO_HASH_BYTES).toEqual(new Uint8Array(32));
});
