import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { concat, ZERO_HASH_BYTES } from "../../src/crypto/bytes.ts";
import { canon } from "../../src/crypto/canon.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import { type LeafRecord, leafHash, leafMetaFits } from "../../src/protocol/leaf.ts";
import { WRAPPED_BYTES } from "../../src/protocol/secret.ts";
import { bentFields, leafArbitrary } from "../support/arbitraries.ts";

describe("leafHash", () => {
  test("depends on every field, except that metadata enters by its hash", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(leafArbitrary, (leaf) => {
        const hash = leafHash(leaf).toHex();
        for (const { field, value } of bentFields(leaf)) {
          seen.add(field);
          expect({ field, same: leafHash(value).toHex() === hash }).toEqual({ field, same: field === "meta" });
        }
      }),
    );
    expect([...seen].sort()).toEqual(
      ["keyId", "meta", "metaHash", "previous", "publicKey", "sealedHash", "serial", "status", "version"].sort(),
    );
  });

  test("does not change when the metadata is purged", () => {
    fc.assert(fc.property(leafArbitrary, (leaf) => expect(leafHash({ ...leaf, meta: null })).toEqual(leafHash(leaf))));
  });

  test("tells no public key from an empty one, serial from version, and hash from hash", () => {
    fc.assert(
      fc.property(leafArbitrary, (leaf) => {
        const none = leafHash({ ...leaf, publicKey: null });
        expect(leafHash({ ...leaf, publicKey: new Uint8Array(0) })).not.toEqual(none);
        fc.pre(leaf.serial !== leaf.version);
        expect(leafHash({ ...leaf, serial: leaf.version, version: leaf.serial })).not.toEqual(leafHash(leaf));
        expect(leafHash({ ...leaf, sealedHash: leaf.metaHash, metaHash: leaf.sealedHash })).not.toEqual(leafHash(leaf));
        expect(leafHash({ ...leaf, metaHash: leaf.previous, previous: leaf.metaHash })).not.toEqual(leafHash(leaf));
      }),
    );
  });

  test("is SHA-256 over the documented encoding", () => {
    const leaf: LeafRecord = {
      keyId: "000102030405060708090a0b0c0d0e0f" as LeafRecord["keyId"],
      serial: 2,
      version: 1,
      sealedHash: new Uint8Array(32).fill(1),
      metaHash: new Uint8Array(32).fill(2),
      meta: Uint8Array.of(9),
      publicKey: null,
      status: "removed",
      previous: ZERO_HASH_BYTES,
    };
    const { keyId, serial, version, sealedHash, metaHash, publicKey, status, previous } = leaf;
    expect(leafHash(leaf)).toEqual(
      sha256(canon("keyhold/v1/leaf", keyId, serial, version, sealedHash, metaHash, publicKey, status, previous)),
    );
    expect(leafHash(leaf).length).toBe(32);
  });
});

describe("leafMetaFits", () => {
  const base = fc.sample(leafArbitrary, { numRuns: 1, seed: 7 })[0];
  if (!base) throw new Error("no sample");
  const meta = new Uint8Array(WRAPPED_BYTES + 30).fill(5);
  const fitting: LeafRecord = { ...base, status: "live", meta, metaHash: sha256(meta.subarray(WRAPPED_BYTES)) };

  test("holds for the metadata that the leaf commits to, in every status", () => {
    for (const status of ["live", "removed", "purged"] as const) {
      expect(leafMetaFits({ ...fitting, status })).toBe(true);
    }
  });

  test("fails for any other metadata", () => {
    const wrapped = meta.subarray(0, WRAPPED_BYTES);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (other) => {
        fc.pre(Buffer.compare(other, meta.subarray(WRAPPED_BYTES)) !== 0);
        expect(leafMetaFits({ ...fitting, meta: concat(wrapped, other) })).toBe(false);
        expect(leafMetaFits({ ...fitting, meta: other })).toBe(false);
      }),
    );
    expect(leafMetaFits({ ...fitting, meta: meta.subarray(0, -1) })).toBe(false);
    expect(leafMetaFits({ ...fitting, metaHash: ZERO_HASH_BYTES })).toBe(false);
    expect(leafMetaFits({ ...fitting, metaHash: fitting.metaHash.subarray(0, 31) })).toBe(false);
  });

  test("does not depend on the wrapped key in front: a new account key may wrap it anew", () => {
    const other = concat(new Uint8Array(WRAPPED_BYTES).fill(6), meta.subarray(WRAPPED_BYTES));
    expect(leafMetaFits({ ...fitting, meta: other })).toBe(true);
  });

  test("may be missing only where the leaf is purged", () => {
    expect(leafMetaFits({ ...fitting, meta: null, status: "purged" })).toBe(true);
    expect(leafMetaFits({ ...fitting, meta: null, status: "live" })).toBe(false);
    expect(leafMetaFits({ ...fitting, meta: null, status: "removed" })).toBe(false);
  });
});
