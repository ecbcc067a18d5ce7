import { expect, test } from "bun:test";
import { generateKey, importKey } from "../../../src/client/federation/generate.ts";
import type { HeldKey } from "../../../src/client/federation/held.ts";
import { releaseKey, signWithKey } from "../../../src/client/federation/use.ts";
import type { Hedge } from "../../../src/crypto/hedge.ts";
import { ecdsaHolds } from "../../../src/protocol/federation/ecdsa.ts";
import { CUSTODIES, FEDERATED_TYPES } from "../../../src/protocol/federation/kinds.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { type ClientWorld, certificatesOf, clientWorld, WISH } from "./clientworld.ts";

function keyOf({ disk }: ClientWorld, keyId: string | null): HeldKey {
  const key = disk.keys.find((one) => one.keyId === keyId);
  if (!key) throw new Error("no such key in the vault");
  return key;
}

const MESSAGE = new TextEncoder().encode("pay 5 to Ada");

for (const type of FEDERATED_TYPES) {
  for (const custody of CUSTODIES) {
    test(`${type}, ${custody}: three servers make a key, and two of them serve it`, async () => {
      const world = await clientWorld(3, 2);
      const made = await generateKey(world.ground, { ...WISH, type, custody });
      expect(made).toMatchObject({ status: "fulfilled", absent: [] });
      expect([...certificatesOf(world, made.keyId ?? "").values()]).toEqual([[1, 2, 3]]);
      expect(world.disk.requests).toEqual([]);
      const key = keyOf(world, made.keyId);
      world.down.add(1);
      if (type === "bytes" || type === "ristretto255") {
        const purpose = type === "bytes" ? "retrieve" : "export";
        const first = await releaseKey(world.ground, key, purpose);
        world.down.clear();
        world.down.add(3);
        const second = await releaseKey(world.ground, key, purpose);
        expect(first.value?.length).toBe(32);
        expect(second.value).toEqual(first.value as Uint8Array);
        return;
      }
      const signed = await signWithKey(world.ground, key, MESSAGE, null);
      expect(signed.status).toBe("fulfilled");
      const signature = Uint8Array.fromHex(signed.signatureHex ?? "");
      expect(signature).toHaveLength(64);
      if (type === "ed25519" || type === "schnorr") {
        expect(signatureHolds(key.certificate.certificate, MESSAGE, signature)).toBe(true);
      }
      expect(keyOf(world, made.keyId).released).toBe(type === "secp256k1" || type === "p256");
      expect(world.disk.requests).toEqual([]);
    });
  }
}

for (const custody of CUSTODIES) {
  test(`a hedge changes the signature that a released ${custody} key makes here, and it still holds`, async () => {
    const world = await clientWorld(3, 2);
    const made = await generateKey(world.ground, { ...WISH, type: "secp256k1", custody });
    const key = keyOf(world, made.keyId);
    const sign = async (hedge: Hedge | null) => {
      const { signatureHex } = await signWithKey(world.ground, key, MESSAGE, null, undefined, hedge);
      return Uint8Array.fromHex(signatureHex ?? "");
    };
    const hedge = { secret: new Uint8Array(32).fill(1), fresh: new Uint8Array(32).fill(2) };
    const [plain, again, hedged] = [await sign(null), await sign(null), await sign(hedge)];
    expect(again).toEqual(plain);
    expect(hedged).not.toEqual(plain);
    const { publicKey } = key.certificate.certificate;
    const holds = (one: Uint8Array) => ecdsaHolds("secp256k1", publicKey, { message: MESSAGE, prehashed: false }, one);
    expect([plain, hedged].map(holds)).toEqual([true, true]);
  });
}

for (const custody of CUSTODIES) {
  test(`imported bytes come back, ${custody}; the value is wiped`, async () => {
    const world = await clientWorld(3, 2);
    const value = new TextEncoder().encode("an old secret of any length");
    const origin = custody === "self" ? "imported" : "custodial";
    const made = await importKey(world.ground, { ...WISH, type: "bytes", custody }, value, origin);
    expect(made.status).toBe("fulfilled");
    expect(keyOf(world, made.keyId).certificate.certificate.origin).toBe(origin);
    expect(value.every((byte) => byte === 0)).toBe(true);
    const got = await releaseKey(world.ground, keyOf(world, made.keyId), "retrieve");
    expect(new TextDecoder().decode(got.value ?? new Uint8Array(0))).toBe("an old secret of any length");
  });
}
