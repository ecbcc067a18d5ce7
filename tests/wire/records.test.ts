import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SEAL_OVERHEAD } from "../../src/crypto/aead.ts";
import { auditLink } from "../../src/protocol/audit.ts";
import { DEFAULTS, KDF } from "../../src/protocol/defaults.ts";
import { leafHash } from "../../src/protocol/leaf.ts";
import { settingsHash, stateHash } from "../../src/protocol/state.ts";
import { accountName } from "../../src/wire/accountname.ts";
import type { Codec } from "../../src/wire/codec.ts";
import {
  hash32,
  inviteCode,
  ksfCost,
  leafRecord,
  META_MAX,
  SEALED_MAX,
  SEALED_MIN,
  saltedEntry,
  sealedValue,
  settings,
  signature,
  signedState,
} from "../../src/wire/records.ts";
import { bytesOf, leafArbitrary, saltedArbitrary, settingsArbitrary, stateArbitrary } from "../support/arbitraries.ts";
import { complaint } from "../support/codec-shape.ts";

/** Through JSON text and back. */
function sent<T>(codec: Codec<T>, value: T): T {
  return codec.decode(JSON.parse(JSON.stringify(codec.encode(value))), "");
}

describe("a record comes out as it went in, and with the same hash", () => {
  test("leaf", () => {
    fc.assert(
      fc.property(leafArbitrary, (leaf) => {
        expect(sent(leafRecord, leaf)).toEqual(leaf);
        expect(leafHash(sent(leafRecord, leaf))).toEqual(leafHash(leaf));
      }),
    );
  });

  test("settings", () => {
    fc.assert(
      fc.property(settingsArbitrary, (value) => {
        expect(sent(settings, value)).toEqual(value);
        expect(settingsHash(sent(settings, value))).toEqual(settingsHash(value));
      }),
    );
  });

  test("signed state", () => {
    fc.assert(
      fc.property(stateArbitrary, bytesOf(64), bytesOf(64), (state, identitySignature, deviceSignature) => {
        const signed = { state, identitySignature, deviceSignature };
        expect(sent(signedState, signed)).toEqual(signed);
        expect(stateHash(sent(signedState, signed).state)).toEqual(stateHash(state));
      }),
    );
  });

  test("salted audit entry", () => {
    fc.assert(
      fc.property(saltedArbitrary, (item) => {
        expect(sent(saltedEntry, item)).toEqual(item);
        expect(auditLink(sent(saltedEntry, item))).toEqual(auditLink(item));
      }),
    );
  });
});

describe("account names", () => {
  test.each(["a", "alice@example.org", "Ångström", "名前", "a b", "x".repeat(128), "é".repeat(64), "🔑"])(
    "takes %p",
    (name) => expect(accountName.decode(name, "")).toBe(name),
  );

  test.each([
    "",
    "x".repeat(129),
    "é".repeat(65),
    "a\nb",
    "a\tb",
    "a\u0000",
    "\u007f",
    "\u0085",
    "a\u2028b",
    "a\u2029b",
    "a\u200eb",
    "a\u202eb",
    "\ufeffa",
    "a\u00adb",
    "a\n",
    "\ud800",
    // not in normal form C: the same name to the eye, another account to the server
    "A\u030angstro\u0308m",
    "\u212b",
    "e\u0301",
  ])("refuses %j", (name) => expect(complaint(accountName, name)).not.toBeNull());
});

describe("invite codes", () => {
  test.each(["A", "ABCD-0123", "9".repeat(64)])("takes %p", (code) => expect(inviteCode.decode(code, "")).toBe(code));
  test.each(["", "abc", "A B", "A\n", "Ä", "9".repeat(65), "A_"])("refuses %j", (code) =>
    expect(complaint(inviteCode, code)).not.toBeNull(),
  );
});

describe("bounds", () => {
  const text = (length: number): string =>
    new Uint8Array(length).toBase64({ alphabet: "base64url", omitPadding: true });

  test.each([
    ["hash32", hash32, 32, 32],
    ["signature", signature, 64, 64],
    ["sealed value", sealedValue, SEALED_MIN, SEALED_MAX],
  ] as const)("%s", (_, codec, min, max) => {
    for (const length of [min, max]) expect(complaint(codec, text(length))).toBeNull();
    for (const length of [min - 1, max + 1]) expect(complaint(codec, text(length))).not.toBeNull();
  });

  test("a sealed value and its metadata have room for the largest payload", () => {
    expect(SEALED_MAX).toBeGreaterThan(DEFAULTS.secretBytes + 2 * SEAL_OVERHEAD + 32);
    expect(META_MAX).toBeGreaterThan(DEFAULTS.nameBytes + DEFAULTS.tags * DEFAULTS.tagBytes + SEAL_OVERHEAD);
  });

  test.each([
    ["the default", KDF.opaque, true],
    ["the test setting", KDF.test, true],
    ["no memory", { ...KDF.opaque, memoryKib: 0 }, false],
    ["no passes", { ...KDF.opaque, passes: 0 }, false],
    ["no lanes", { ...KDF.opaque, lanes: 0 }, false],
    ["a reader's whole memory", { ...KDF.opaque, memoryKib: 2 ** 32 }, false],
    ["endless passes", { ...KDF.opaque, passes: 65 }, false],
  ])("Argon2id setting of OPAQUE: %s", (_, cost, accepted) => {
    expect(complaint(ksfCost, cost) === null).toBe(accepted);
  });

  test("as many devices as an account may have, and no more; never none", () => {
    fc.assert(
      fc.property(settingsArbitrary, (value) => {
        const [first] = value.devices;
        if (!first) throw new Error("no device");
        const withDevices = (count: number) =>
          settings.encode({ ...value, devices: Array.from({ length: count }, () => first) });
        expect(complaint(settings, withDevices(DEFAULTS.devicesPerAccount))).toBeNull();
        expect(complaint(settings, withDevices(DEFAULTS.devicesPerAccount + 1))).not.toBeNull();
        expect(complaint(settings, withDevices(0))).not.toBeNull();
      }),
      { numRuns: 5 },
    );
  });
});
