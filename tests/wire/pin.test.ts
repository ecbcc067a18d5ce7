import { describe, expect, test } from "bun:test";
import { createPublicKey, hash } from "node:crypto";
import { signerFromSeed, spkiOf } from "../../src/crypto/identity.ts";
import { parsePin, pinOf } from "../../src/wire/pin.ts";

describe("pin", () => {
  const { publicKey } = signerFromSeed(new Uint8Array(32).fill(7));

  test("is the hash of the platform's own SPKI encoding", () => {
    const key = createPublicKey({ key: Buffer.from(spkiOf(publicKey)), format: "der", type: "spki" });
    const der = key.export({ format: "der", type: "spki" });
    expect(pinOf(publicKey)).toBe(`sha256:${hash("sha256", der, "base64url")}`);
  });

  test("of a known key stays the same", () => {
    expect(parsePin(pinOf(publicKey))).toBe(pinOf(publicKey));
    expect(pinOf(publicKey)).not.toBe(pinOf(signerFromSeed(new Uint8Array(32).fill(8)).publicKey));
  });

  test.each([
    "",
    "sha256:",
    "sha1:abc",
    `sha256:${"A".repeat(42)}B`,
    `sha256:${"A".repeat(44)}`,
    `SHA256:${"A".repeat(43)}`,
    ` sha256:${"A".repeat(43)}`,
  ])("%p is refused", (text) => {
    expect(() => parsePin(text)).toThrow(expect.objectContaining({ code: "bad_input" }));
  });
});
