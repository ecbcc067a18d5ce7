import { afterAll, describe, expect, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ed25519, ristretto255 } from "@noble/curves/ed25519.js";
import { p256 } from "@noble/curves/nist.js";
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import { shake256 } from "@noble/hashes/sha3.js";
import { Address, OutScript, p2wpkh } from "@scure/btc-signer/payment.js";
import { Transaction } from "@scure/btc-signer/transaction.js";
import fc from "fast-check";
import { canon } from "../../../src/crypto/canon.ts";
import { deriveKey } from "../../../src/crypto/kdf.ts";
import { Fault } from "../../../src/errors.ts";
import { addressOf } from "../../../src/formats/address.ts";
import type { Certificate } from "../../../src/protocol/federation/certificate.ts";
import { importedScalar, shareOut, shownControl, shownCustody } from "../../../src/protocol/federation/custody.ts";
import { type EcdsaType, signEcdsa } from "../../../src/protocol/federation/ecdsa.ts";
import { groupOf } from "../../../src/protocol/federation/groups.ts";
import { CUSTODIES, FEDERATED_TYPES, type FederatedType } from "../../../src/protocol/federation/kinds.ts";
import {
  ownerPart,
  ownerPartHolds,
  ownerScalar,
  pointOf,
  verifyOwnerPart,
} from "../../../src/protocol/federation/owner.ts";
import { planCeremony } from "../../../src/protocol/federation/plan.ts";
import { combineRelease, releaseShare } from "../../../src/protocol/federation/release.ts";
import {
  type FederatedRequest,
  type KeyPurpose,
  requestIdOf,
  valueHash,
} from "../../../src/protocol/federation/request.ts";
import { bytesOf, sealValue, sharedValue } from "../../../src/protocol/federation/sharedvalue.ts";
import type { OpenedPartial } from "../../../src/protocol/federation/use.ts";
import { ceremonyWorld, importTerms } from "../../support/ceremonyworld.ts";
import { type KeyWorld, keyWorld, release, releaseUse, serverOf, signUse } from "./keyworld.ts";

const KINDS = FEDERATED_TYPES.flatMap((type) => CUSTODIES.map((custody) => ({ type, custody })));
const message = new TextEncoder().encode("pay 3 to Ada");

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Fault) return error.code;
    throw error;
  }
  return "nothing";
}

/** The private scalar, as the client gets it from a roster. */
async function exported(w: KeyWorld, roster: readonly number[]): Promise<Uint8Array> {
  const use = releaseUse(w, roster);
  const done = combineRelease({ ...use, partials: await release(w, use), ownerScalar: w.ownerScalar });
  if (done.result === "failed" || done.culprits.length > 0) throw new Error("an honest server was named");
  return done.scalar;
}

/** The secret by schoolbook interpolation, without the house's or the library's code. */
function slowly(order: bigint, littleEndian: boolean, shares: readonly (readonly [number, Uint8Array])[]): bigint {
  const number = (b: Uint8Array) => BigInt(`0x${(littleEndian ? b.slice().reverse() : b).toHex()}`);
  const mod = (n: bigint) => ((n % order) + order) % order;
  const power = (base: bigint, exponent: bigint): bigint =>
    exponent === 0n ? 1n : mod(power(mod(base * base), exponent / 2n) * (exponent % 2n === 1n ? base : 1n));
  const inverse = (n: bigint) => power(mod(n), order - 2n);
  return shares.reduce((sum, [i, share]) => {
    const others = shares.map(([j]) => j).filter((j) => j !== i);
    const top = others.reduce((p, j) => mod(p * BigInt(j)), 1n);
    const low = others.reduce((p, j) => mod(p * BigInt(j - i)), 1n);
    return mod(sum + number(share) * top * inverse(low));
  }, 0n);
}

describe.each(KINDS)("$type, $custody", ({ type, custody }) => {
  test("any threshold of shares makes the key of the certificate, and one fewer does not", async () => {
    const w = await keyWorld({ type, custody, threshold: 3, indices: [1, 4, 9, 255] });
    const whole = await exported(w, [1, 4, 9]);
    expect(pointOf(type, whole)).toEqual(w.certificate.publicKey);
    expect(await exported(w, [4, 9, 255])).toEqual(whole);
    expect(await exported(w, [1, 4, 9, 255])).toEqual(whole);
    const use = releaseUse(w, [1, 4, 9]);
    const few = (await release(w, use)).slice(0, 2);
    expect(await codeOf(() => combineRelease({ ...use, partials: few, ownerScalar: w.ownerScalar }))).toBe("bad_input");
    expect(await codeOf(() => releaseShare({ ...releaseUse(w, [1, 4]), ...serverOf(w, 1) }))).toBe("bad_input");
    // nor does the certificate of another threshold make them enough
    const lax = { ...use, certificate: { ...use.certificate, threshold: 2 } };
    expect(await codeOf(() => combineRelease({ ...lax, partials: few, ownerScalar: w.ownerScalar }))).toBe("integrity");
  });

  test("what the client combines is what schoolbook arithmetic says", async () => {
    const w = await keyWorld({ type, custody, threshold: 3, indices: [1, 4, 9, 255] });
    const { order, parseScalar } = w.group;
    const littleEndian = type === "ed25519" || type === "ristretto255" || type === "bytes";
    const servers = slowly(order, littleEndian, [...w.shares].slice(1));
    const owner = w.ownerScalar ? parseScalar(w.ownerScalar) : 0n;
    expect(parseScalar(await exported(w, [1, 4, 9]))).toBe((servers + owner) % order);
  });

  test("a wrong share is named and left out; too few right ones make nothing", async () => {
    const w = await keyWorld({ type, custody });
    const { Fn } = w.group.frost.utils;
    const bends: ((value: Uint8Array) => Uint8Array | null)[] = [
      (value) => Fn.toBytes(Fn.add(Fn.fromBytes(value), 1n)),
      () => new Uint8Array(32),
      () => new Uint8Array(32).fill(0xff),
      (value) => value.subarray(1),
      () => null,
    ];
    for (const bend of bends) {
      const use = releaseUse(w, [1, 2, 3]);
      const honest = await release(w, use);
      const lying = honest.map((p): OpenedPartial => (p.index === 2 && p.value ? { ...p, value: bend(p.value) } : p));
      const named = [{ index: 2, reason: "bad_share" as const, evidence: [honest[1]?.message] }];
      const most = combineRelease({ ...use, partials: lying, ownerScalar: w.ownerScalar });
      if (most.result === "failed") throw new Error("two right shares are enough");
      expect(most.culprits as unknown).toEqual(named);
      expect(pointOf(type, most.scalar)).toEqual(w.certificate.publicKey);
      const few = combineRelease({ ...use, partials: lying.slice(0, 2), ownerScalar: w.ownerScalar });
      expect(few as unknown).toEqual({ result: "failed", culprits: named });
    }
  });

  test("the owner's part is needed where there is one, and refused where there is none", async () => {
    const w = await keyWorld({ type, custody });
    const use = releaseUse(w, [1, 2]);
    const opened = await release(w, use);
    const other = ownerScalar(type, new Uint8Array(32).fill(3));
    const wrong = w.ownerScalar ? null : other;
    expect(await codeOf(() => combineRelease({ ...use, partials: opened, ownerScalar: wrong }))).toBe("bad_input");
    if (w.ownerScalar)
      expect(await codeOf(() => combineRelease({ ...use, partials: opened, ownerScalar: other }))).toBe("integrity");
    const twice = [...opened, ...opened.slice(0, 1)];
    expect(await codeOf(() => combineRelease({ ...use, partials: twice, ownerScalar: w.ownerScalar }))).toBe(
      "bad_input",
    );
  });

  test("an import comes back, and is shared out under the owner's part too", async () => {
    const value = new Uint8Array(32).fill(type === "ristretto255" ? 9 : 0x5a);
    const w0 = await keyWorld({ type, custody });
    const imported = importedScalar(type, value, w0.random);
    const w = await keyWorld({ type, custody, imported, seed: 4 });
    expect(await exported(w, [1, 3])).toEqual(imported);
    expect(w.certificate.publicKey).toEqual(pointOf(type, imported));
  });
});

describe("what is let out", () => {
  test("a share leaves for what its key is for, and to sign only from ECDSA keys", async () => {
    for (const type of FEDERATED_TYPES) {
      const w = await keyWorld({ type });
      const ask = (body: Parameters<typeof releaseUse>[2]) =>
        codeOf(() => releaseShare({ ...releaseUse(w, [1, 2], body), ...serverOf(w, 1) }));
      const ecdsa = type === "secp256k1" || type === "p256";
      expect(await ask({ purpose: "sign", message })).toBe(ecdsa ? "nothing" : "bad_input");
      expect(await ask({ purpose: "sign" })).toBe("bad_input");
      expect(await ask({ purpose: "export", message })).toBe("bad_input");
      expect(await ask({ purpose: "retrieve" })).toBe(type === "bytes" ? "nothing" : "bad_input");
      expect(await ask({ purpose: "export" })).toBe(type === "bytes" ? "bad_input" : "nothing");
    }
  });

  test("only by a server of the roster, only its own share, only for a release", async () => {
    const w = await keyWorld({ type: "secp256k1" });
    const use = releaseUse(w, [1, 2]);
    expect(await codeOf(() => releaseShare({ ...use, ...serverOf(w, 3) }))).toBe("bad_input");
    expect(
      await codeOf(() => releaseShare({ ...use, ...serverOf(w, 1), share: w.shares.get(2) ?? w.random(32) })),
    ).toBe("corrupt");
    const ed = await keyWorld({ type: "ed25519" });
    expect(await codeOf(() => releaseShare({ ...signUse(ed, [1, 2], message).use, ...serverOf(ed, 1) }))).toBe(
      "bad_input",
    );
    const { certificate } = use;
    const swapped = { ...certificate, publicKey: pointOf("secp256k1", new Uint8Array(32).fill(1)) };
    expect(await codeOf(() => releaseShare({ ...use, certificate: swapped, ...serverOf(w, 1) }))).toBe("integrity");
  });
});

describe("released keys sign", () => {
  const scratch = mkdtempSync(join(tmpdir(), "keyhold-release-"));
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));
  const SPKI = {
    p256: "3039301306072a8648ce3d020106082a8648ce3d030107032200",
    secp256k1: "3036301006072a8648ce3d020106052b8104000a032200",
  };
  const spki = (type: EcdsaType, key: Uint8Array) => Uint8Array.fromHex(SPKI[type] + key.toHex());
  const ECDSA = (["p256", "secp256k1"] as const).flatMap((type) => CUSTODIES.map((custody) => ({ type, custody })));

  test.each(ECDSA)("$type, $custody: openssl and the platform verify", async ({ type, custody }) => {
    const w = await keyWorld({ type, custody, seed: 6 });
    const { compact, der } = signEcdsa(type, await exported(w, [1, 2]), message);
    const key = spki(type, w.certificate.publicKey);
    if (type === "p256") {
      const publicKey = createPublicKey({ key: Buffer.from(key), format: "der", type: "spki" });
      expect(verify("sha256", message, publicKey, der)).toBe(true);
      expect(verify("sha256", message, { key: publicKey, dsaEncoding: "ieee-p1363" }, compact)).toBe(true);
    }
    const file = (name: string, bytes: Uint8Array) => {
      const path = join(scratch, `${type}-${custody}-${name}`);
      writeFileSync(path, bytes);
      return path;
    };
    const checks = (name: string, text: Uint8Array) =>
      Bun.spawnSync([
        ...["openssl", "dgst", "-sha256", "-keyform", "DER", "-verify", file("key", key)],
        ...["-signature", file("signature", der), file(name, text)],
      ]).exitCode;
    expect(checks("message", message)).toBe(0);
    expect(checks("other", new Uint8Array(3))).not.toBe(0);
    const order = groupOf(type).order;
    expect(BigInt(`0x${compact.subarray(32).toHex()}`) <= order / 2n).toBe(true);
    // RFC 6979: the same again
    expect(signEcdsa(type, await exported(w, [2, 3]), message).compact).toEqual(compact);
  });

  test("RFC 6979 A.2.5: P-256 with SHA-256, in the lower half", () => {
    const key = Uint8Array.fromHex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    const { compact } = signEcdsa("p256", key, new TextEncoder().encode("sample"));
    expect(compact.subarray(0, 32).toHex()).toBe("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716");
    const s = BigInt("0xf7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8");
    expect(BigInt(`0x${compact.subarray(32).toHex()}`)).toBe(groupOf("p256").order - s);
  });

  test("zero and the order sign nothing", async () => {
    for (const type of ["p256", "secp256k1"] as const)
      for (const scalar of [
        new Uint8Array(32),
        Uint8Array.fromHex(groupOf(type).order.toString(16)),
        new Uint8Array(31),
      ])
        expect(await codeOf(() => signEcdsa(type, scalar, message))).toBe("bad_input");
  });

  test.each(CUSTODIES)("a p2wpkh output of a %s key is spent with it", async (custody) => {
    const w = await keyWorld({ type: "secp256k1", custody, seed: 7 });
    const { publicKey } = w.certificate;
    const { script } = p2wpkh(publicKey);
    const address = addressOf({ as: "btc-p2wpkh", publicKey, network: null, prefix: null });
    expect(OutScript.encode(Address().decode(address))).toEqual(script);
    const tx = new Transaction();
    tx.addInput({ txid: "22".repeat(32), index: 1, witnessUtxo: { script, amount: 10_000n } });
    tx.addOutputAddress(address, 9_000n);
    expect(tx.sign(new Uint8Array(await exported(w, [1, 2])))).toBe(1);
    tx.finalize();
    expect(tx.getInput(0).finalScriptWitness?.[1]).toEqual(new Uint8Array(publicKey));
  });
});

describe("bytes", () => {
  const scalar = new Uint8Array(32).fill(8);
  const keyId = "ab".repeat(32) as Certificate["keyId"];

  test("are SHAKE256 of a key of the scalar, bound to key id and length", () => {
    const seed = deriveKey(scalar, 32, new Uint8Array(0), "keyhold/v1/federated-bytes", keyId, 100);
    expect(bytesOf(scalar, keyId, 100)).toEqual(shake256(seed, { dkLen: 100 }));
    expect(canon("keyhold/v1/federated-bytes", keyId, 100)).not.toEqual(
      canon("keyhold/v1/federated-bytes", keyId, 101),
    );
    const others = [
      bytesOf(scalar, keyId, 101).subarray(0, 100),
      bytesOf(scalar, "cd".repeat(32) as Certificate["keyId"], 100),
      bytesOf(
        scalar.map((byte) => byte ^ 1),
        keyId,
        100,
      ),
    ];
    for (const other of others) expect(other).not.toEqual(bytesOf(scalar, keyId, 100));
    for (const length of [1, 32, 65_536]) expect(bytesOf(scalar, keyId, length)).toHaveLength(length);
  });

  test.each(CUSTODIES)("%s: retrieved bytes do not depend on which servers let shares out", async (custody) => {
    const w = await keyWorld({ type: "bytes", custody, length: 77 });
    const one = sharedValue(w.certificate, await exported(w, [1, 2]), null);
    expect(one).toHaveLength(77);
    expect(sharedValue(w.certificate, await exported(w, [2, 3]), null)).toEqual(one);
  });

  test("imported bytes come back; with another request, scalar, length or a bent ciphertext they do not", async () => {
    const value = new TextEncoder().encode("correct horse battery staple");
    const base = await keyWorld({ type: "bytes" });
    const imported = importedScalar("bytes", value, base.random);
    expect(importedScalar("bytes", value, base.random)).not.toEqual(imported);
    const w = await keyWorld({ type: "bytes", imported, length: value.length });
    const origin = { federationId: w.manifest.federationId, requester: w.requester.publicKey, nonce: w.random(32) };
    const sealedValue = sealValue(imported, origin, value, w.random);
    expect(sealedValue).toHaveLength(value.length + 41);
    const c = w.certificate;
    const body = {
      kind: "import",
      type: "bytes",
      length: value.length,
      custody: "delegated",
      control: "unilateral",
      policy: null,
      owner: null,
      origin: "imported",
      threshold: 2,
      holders: [1, 2, 3],
      commitments: c.commitments,
      sealedValue,
    } as const;
    const request: FederatedRequest = { ...origin, epoch: 1, createdAtMs: 0, expiresAtMs: 1, keyring: null, body };
    const certificate = { ...c, value: { requestId: requestIdOf(request), hash: valueHash(sealedValue) } };
    const scalar = await exported(w, [1, 3]);
    expect(sharedValue(certificate, scalar, request)).toEqual(value);
    const bent = sealedValue.map((byte, i) => (i === 30 ? byte ^ 1 : byte));
    const bentRequest = { ...request, body: { ...body, sealedValue: bent } };
    const bentValue = { requestId: requestIdOf(bentRequest), hash: valueHash(bent) };
    const moved = { ...request, nonce: w.random(32) };
    const movedValue = { requestId: requestIdOf(moved), hash: valueHash(sealedValue) };
    const wrong: [Certificate, Uint8Array, FederatedRequest | null][] = [
      [certificate, scalar, null],
      [certificate, scalar, bentRequest],
      [{ ...certificate, value: bentValue }, scalar, bentRequest],
      [{ ...certificate, value: movedValue }, scalar, moved],
      [{ ...certificate, length: 5 }, scalar, request],
      [certificate, w.shares.get(1) ?? scalar, request],
    ];
    for (const [cert, x, from] of wrong) expect(await codeOf(() => sharedValue(cert, x, from))).toBe("integrity");
    expect(await codeOf(() => sharedValue({ ...certificate, type: "p256" }, scalar, request))).toBe("bad_input");
  });
});

test("an import brings a ciphertext for bytes alone, and of their length", async () => {
  const world = ceremonyWorld([1, 2, 3], 2);
  for (const type of ["bytes", "p256"] as const) {
    const { terms } = importTerms(world, type, 2, [1, 2, 3], new Uint8Array(32).fill(1));
    const { body } = terms.request;
    if (body.kind !== "import") throw new Error("no import");
    const planned = (sealedValue: Uint8Array | null) => {
      const request = { ...terms.request, body: { ...body, sealedValue } };
      const order = { ...terms.order, requestId: requestIdOf(request) };
      return codeOf(() => planCeremony({ ...terms, request, order }));
    };
    const right = type === "bytes" ? new Uint8Array(32 + 41) : null;
    expect(await planned(right)).toBe("nothing");
    for (const wrong of [type === "bytes" ? null : new Uint8Array(73), new Uint8Array(72), new Uint8Array(74)])
      expect(await planned(wrong)).toBe("bad_input");
  }
});

describe("sharing out", () => {
  const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

  test("imported scalars are the keys that others know", () => {
    const value = new Uint8Array(32).fill(0x5a);
    expect(pointOf("ed25519", importedScalar("ed25519", value, random))).toEqual(ed25519.getPublicKey(value));
    expect(pointOf("secp256k1", importedScalar("secp256k1", value, random))).toEqual(secp256k1.getPublicKey(value));
    expect(pointOf("p256", importedScalar("p256", value, random))).toEqual(p256.getPublicKey(value));
    expect(importedScalar("ristretto255", new Uint8Array(32).fill(9), random)).toEqual(new Uint8Array(32).fill(9));
    for (let i = 1; i < 9; i++) {
      const point = pointOf("schnorr", importedScalar("schnorr", new Uint8Array(32).fill(i), random));
      expect(point[0]).toBe(2);
      expect(point.subarray(1)).toEqual(schnorr.getPublicKey(new Uint8Array(32).fill(i)));
    }
  });

  test("zero, numbers beyond the order and other lengths are refused", async () => {
    for (const type of FEDERATED_TYPES.filter((one) => one !== "bytes" && one !== "ed25519"))
      for (const value of [
        new Uint8Array(32),
        new Uint8Array(32).fill(0xff),
        new Uint8Array(31).fill(1),
        new Uint8Array(33),
      ])
        expect(await codeOf(() => importedScalar(type, value, random))).toBe("bad_input");
    expect(await codeOf(() => importedScalar("ed25519", new Uint8Array(31), random))).toBe("bad_input");
    const scalar = new Uint8Array(32).fill(5);
    const out = (threshold: number, holders: readonly number[], own: Uint8Array | null = null, x = scalar) =>
      codeOf(() => shareOut({ type: "secp256k1", threshold, holders, scalar: x, ownerScalar: own, random }));
    expect(await out(2, [1, 2])).toBe("nothing");
    for (const [t, holders] of [
      [1, [1, 2]],
      [3, [1, 2]],
      [2, [1, 1, 2]],
      [2, [0, 1]],
      [2, [1, 256]],
    ] as const)
      expect(await out(t, holders)).toBe("bad_input");
    expect(await out(2, [1, 2], scalar)).toBe("bad_input");
    expect(await out(2, [1, 2], null, new Uint8Array(32))).toBe("bad_input");
  });

  test("every share fits the commitments, by schoolbook arithmetic", () => {
    fc.assert(
      fc.property(
        fc.constantFrom<FederatedType>("secp256k1", "ristretto255"),
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.boolean(),
        fc.integer({ min: 2, max: 4 }),
        fc.uniqueArray(fc.integer({ min: 1, max: 255 }), { minLength: 4, maxLength: 6 }),
        (type, seed, self, threshold, holders) => {
          const scalar = ownerScalar(type, seed);
          const own = self
            ? ownerScalar(
                type,
                seed.map((byte) => byte ^ 0xff),
              )
            : null;
          const out = shareOut({ type, threshold, holders, scalar, ownerScalar: own, random });
          expect(out.commitments).toHaveLength(threshold);
          const { order, parseScalar, base } = groupOf(type);
          const picked = out.shares.slice(0, threshold).map((s) => [s.index, s.share] as const);
          const d = slowly(order, type === "ristretto255", picked);
          expect(base.multiply(d).toBytes()).toEqual(out.commitments[0] ?? new Uint8Array(0));
          expect((d + (own ? parseScalar(own) : 0n)) % order).toBe(parseScalar(scalar));
        },
      ),
      { numRuns: 10 },
    );
  });
});

describe("the owner's part", () => {
  const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
  const request = {
    federationId: "12".repeat(32) as Certificate["federationId"],
    nonce: random(32),
    requester: random(32),
  };

  test.each(FEDERATED_TYPES.map((type) => [type]))("%s: proof of possession, bound to the request", async (type) => {
    const scalar = ownerScalar(type, new Uint8Array(32).fill(1));
    expect(ownerScalar(type, new Uint8Array(32).fill(1))).toEqual(scalar);
    expect(ownerScalar(type, new Uint8Array(32).fill(2))).not.toEqual(scalar);
    const part = ownerPart(type, scalar, request.federationId, request.nonce, request.requester, random);
    expect(ownerPartHolds(type, part, request)).toBe(true);
    const elsewhere = [
      { ...request, federationId: "13".repeat(32) as Certificate["federationId"] },
      { ...request, nonce: random(32) },
      { ...request, requester: random(32) },
    ];
    for (const other of elsewhere) expect(ownerPartHolds(type, part, other)).toBe(false);
    const mine = ownerPart(
      type,
      ownerScalar(type, new Uint8Array(32).fill(3)),
      request.federationId,
      request.nonce,
      request.requester,
      random,
    );
    expect(ownerPartHolds(type, { ...part, point: mine.point }, request)).toBe(false);
    expect(ownerPartHolds(type, { ...part, proof: mine.proof }, request)).toBe(false);
    expect(ownerPartHolds(type, { ...part, proof: part.proof.subarray(1) }, request)).toBe(false);
    for (let at = 0; at < part.proof.length; at += 7) {
      const proof = part.proof.map((byte, i) => (i === at ? byte ^ 1 : byte));
      expect(ownerPartHolds(type, { ...part, proof }, request)).toBe(false);
    }
    const purpose: KeyPurpose = { type, length: 32, custody: "self", control: "unilateral", policy: null, owner: part };
    expect(await codeOf(() => verifyOwnerPart(purpose, request))).toBe("nothing");
    expect(await codeOf(() => verifyOwnerPart({ ...purpose, owner: { ...part, point: mine.point } }, request))).toBe(
      "integrity",
    );
    expect(await codeOf(() => verifyOwnerPart({ ...purpose, owner: null }, request))).toBe("bad_input");
    expect(await codeOf(() => verifyOwnerPart({ ...purpose, custody: "delegated" }, request))).toBe("bad_input");
  });

  test("points of small order and the identity are nobody's part", () => {
    const part = ownerPart(
      "ed25519",
      ownerScalar("ed25519", random(32)),
      request.federationId,
      request.nonce,
      request.requester,
      random,
    );
    const order8 = ed25519.Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
    for (const point of [order8, ed25519.Point.ZERO, ed25519.Point.fromBytes(part.point).add(order8)])
      expect(ownerPartHolds("ed25519", { ...part, point: point.toBytes() }, request)).toBe(false);
    const zero = ristretto255.Point.ZERO.toBytes();
    expect(ownerPartHolds("ristretto255", { ...part, point: zero }, request)).toBe(false);
  });
});

test("custody is shown as it is for good", () => {
  for (const origin of ["generated", "imported"] as const) {
    expect(shownCustody({ custody: "self", origin }, false)).toBe("self-custodial");
    expect(shownCustody({ custody: "delegated", origin }, false)).toBe("delegated");
    for (const custody of CUSTODIES) expect(shownCustody({ custody, origin }, true)).toBe("released");
  }
  // a ceremony's server has had all of it, whatever servers and owner do with their shares
  for (const custody of CUSTODIES) {
    for (const released of [false, true])
      expect(shownCustody({ custody, origin: "custodial" }, released)).toBe("custodial");
  }
  expect(shownControl({ control: "shared" }, false)).toBe("shared");
  expect(shownControl({ control: "shared" }, true)).toBe("unilateral in fact");
  expect(shownControl({ control: "unilateral" }, true)).toBe("unilateral");
});
