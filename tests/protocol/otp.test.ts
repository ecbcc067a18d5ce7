import { describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import fc from "fast-check";
import { base32Key, checkOtpKey, type OtpKey, otpCode, otpUri, parseOtpUri } from "../../src/protocol/otp.ts";
import { OTP_ALGORITHMS } from "../../src/protocol/otpalgorithm.ts";
import vectors from "../vectors/otp.json" with { type: "json" };

const ascii = (text: string) => new TextEncoder().encode(text);
const refusal = expect.objectContaining({ name: "Fault", code: "bad_input" });
const KEY: OtpKey = {
  kind: "totp",
  issuer: "",
  label: "ada",
  secret: ascii("12345678901234567890"),
  algorithm: "SHA1",
  digits: 6,
  period: 30,
  counter: 0,
};

/** RFC 4226 §5.3, written again as an oracle. */
function truncated({ secret, algorithm, digits }: OtpKey, counter: bigint): string {
  const message = Buffer.alloc(8);
  message.writeBigUInt64BE(counter);
  const mac = createHmac(algorithm, secret).update(message).digest();
  const at = (mac.at(-1) ?? 0) & 0xf;
  const number = mac.readUInt32BE(at) & 0x7fff_ffff;
  return String(number % 10 ** digits).padStart(digits, "0");
}

describe("codes", () => {
  test("of RFC 4226 appendix D", () => {
    for (const [counter, code] of vectors.hotp.codes.entries()) {
      const key: OtpKey = { ...KEY, kind: "hotp", secret: ascii(vectors.hotp.secretAscii), counter };
      expect(otpCode(key, 0)).toEqual({ code, untilMs: null });
    }
  });

  const digits = "1234567890".repeat(7);
  const published: readonly (readonly [OtpKey["algorithm"], number, number, string])[] = [
    ...vectors.totp.rows.map((row) => [row.algorithm as OtpKey["algorithm"], 20, row.timeS, row.code] as const),
    ["SHA256", 32, 59, "46119246"],
    ["SHA512", 64, 59, "90693936"],
    ["SHA1", 20, 1_111_111_111, "14050471"],
    ["SHA256", 32, 1_111_111_109, "68084774"],
    ["SHA512", 64, 1_111_111_109, "25091201"],
    ["SHA256", 32, 1_111_111_111, "67062674"],
    ["SHA512", 64, 1_111_111_111, "99943326"],
    ["SHA256", 32, 1_234_567_890, "91819424"],
    ["SHA512", 64, 1_234_567_890, "93441116"],
    ["SHA1", 20, 2_000_000_000, "69279037"],
    ["SHA256", 32, 2_000_000_000, "90698825"],
    ["SHA512", 64, 2_000_000_000, "38618901"],
    ["SHA256", 32, 20_000_000_000, "77737706"],
    ["SHA512", 64, 20_000_000_000, "47863826"],
  ];
  test.each(published)("of RFC 6238 appendix B: %s with %i bytes at %i s is %s", (algorithm, bytes, timeS, code) => {
    const key: OtpKey = { ...KEY, algorithm, digits: 8, secret: ascii(digits.slice(0, bytes)) };
    const until = (Math.floor(timeS / 30) + 1) * 30_000;
    expect(otpCode(key, timeS * 1_000)).toEqual({ code, untilMs: until });
    expect(otpCode(key, until - 1).code).toBe(code);
  });

  test("of every hash and of 6 to 10 digits equal those of another implementation", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...OTP_ALGORITHMS),
        fc.integer({ min: 6, max: 10 }),
        fc.uint8Array({ minLength: 1, maxLength: 100 }),
        fc.nat(),
        (algorithm, size, secret, counter) => {
          const key: OtpKey = { ...KEY, kind: "hotp", algorithm, digits: size, secret, counter };
          expect(otpCode(key, 0).code).toBe(truncated(key, BigInt(counter)));
        },
      ),
    );
  });
});

describe("otpauth URIs", () => {
  const words = fc.string({ unit: "grapheme", maxLength: 20 }).filter((text) => text.trim() === text);
  const keys: fc.Arbitrary<OtpKey> = fc.record({
    kind: fc.constantFrom("totp" as const, "hotp" as const),
    issuer: words.filter((text) => !text.includes(":")),
    label: words.filter((text) => text !== "" && !text.includes(":")),
    secret: fc.uint8Array({ minLength: 1, maxLength: 64 }),
    algorithm: fc.constantFrom(...OTP_ALGORITHMS),
    digits: fc.integer({ min: 6, max: 10 }),
    period: fc.integer({ min: 1, max: 86_400 }),
    counter: fc.nat(),
  });

  test("give back the key that they were made of", () => {
    fc.assert(
      fc.property(keys, (key) => {
        const again = parseOtpUri(otpUri(key));
        const used = key.kind === "totp" ? { ...key, counter: 0 } : { ...key, period: 30 };
        expect(again).toEqual(used);
      }),
    );
  });

  test("of services are read as they are", () => {
    const uri = "otpauth://totp/ACME%20Co:john@example.com?secret=HXDMVJECJJWSRB3HWIZR4IFUGFTMXBOZ&issuer=ACME%20Co";
    expect(parseOtpUri(`${uri}&algorithm=SHA256&digits=7&period=60`)).toMatchObject({
      issuer: "ACME Co",
      label: "john@example.com",
      algorithm: "SHA256",
      digits: 7,
      period: 60,
    });
    expect(parseOtpUri(uri)).toMatchObject({ algorithm: "SHA1", digits: 6, period: 30 });
  });

  const good = "otpauth://totp/a?secret=JBSWY3DPEHPK3PXP";
  test.each([
    ["nothing", ""],
    ["another scheme", "https://example.org/?secret=JBSWY3DP"],
    ["another kind", "otpauth://steam/a?secret=JBSWY3DP"],
    ["no key", "otpauth://totp/a?issuer=b"],
    ["a key that is no base32", "otpauth://totp/a?secret=JBSW18"],
    ["an empty key", "otpauth://totp/a?secret="],
    ["a hash that nobody uses", `${good}&algorithm=MD5`],
    ["another hash than the three", `${good}&algorithm=SHA3-256`],
    ["5 digits", `${good}&digits=5`],
    ["11 digits", `${good}&digits=11`],
    ["digits that are no number", `${good}&digits=six`],
    ["no seconds", `${good}&period=0`],
    ["more than a day", `${good}&period=86401`],
    ["a counter that is missing", "otpauth://hotp/a?secret=JBSWY3DP"],
    ["a counter below zero", "otpauth://hotp/a?secret=JBSWY3DP&counter=-1"],
    ["a counter that is no safe number", "otpauth://hotp/a?secret=JBSWY3DP&counter=99999999999999999999"],
    ["damaged percent-encoding", "otpauth://totp/%?secret=JBSWY3DP"],
    ["9,000 bytes", `${good}&issuer=${"x".repeat(9_000)}`],
    ["half a character", "otpauth://totp/%ED%A0%80?secret=JBSWY3DP"],
    ["a key of more than 1,024 bytes", `otpauth://totp/a?secret=${"A".repeat(1_700)}`],
  ])("with %s are refused, without a word of what they hold", (_, uri) => {
    expect(() => parseOtpUri(uri)).toThrow(refusal);
    try {
      parseOtpUri(uri);
    } catch (error) {
      expect(JSON.stringify(error)).not.toContain("JBSW");
    }
  });
});

describe("keys in base32", () => {
  test("are read as people copy them", () => {
    const key = ascii("Hello!\u00ad").slice(0, 6);
    for (const text of ["JBSWY3DPEE", "jbsw y3dp ee", "JBSW-Y3DP-EE======", " JBSWY3DPEE\n"]) {
      expect(base32Key(text)).toEqual(key);
    }
    for (const text of ["", "1", "JBSWY3D0", "JBSW_Y3DP", "A".repeat(1_700)]) {
      expect(() => base32Key(text)).toThrow(refusal);
    }
  });

  test("with what no authenticator takes are refused", () => {
    for (const wrong of [{ digits: 5 }, { digits: 6.5 }, { period: 0 }, { counter: -1 }, { secret: ascii("") }]) {
      expect(() => checkOtpKey({ ...KEY, ...wrong })).toThrow(refusal);
    }
  });
});
