import { afterAll, describe, expect, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ed25519, ed25519_FROST } from "@noble/curves/ed25519.js";
import { schnorr, schnorr_FROST, secp256k1 } from "@noble/curves/secp256k1.js";
import { sha512 } from "@noble/hashes/sha2.js";
import { Address, OutScript } from "@scure/btc-signer/payment.js";
import { SigHash, Transaction } from "@scure/btc-signer/transaction.js";
import fc from "fast-check";
import { hpkeSeal } from "../../../src/crypto/hpke.ts";
import { spkiOf } from "../../../src/crypto/identity.ts";
import { Fault } from "../../../src/errors.ts";
import { addressOf } from "../../../src/formats/address.ts";
import type { Custody } from "../../../src/protocol/federation/kinds.ts";
import { type Message, type SignedMessage, sealedInfo, signMessage } from "../../../src/protocol/federation/message.ts";
import { dropOwnerNonces } from "../../../src/protocol/federation/owner.ts";
import { beginSigning, completeSignature, endSigning, signPartial } from "../../../src/protocol/federation/signing.ts";
import { type OpenedPartial, openPartial } from "../../../src/protocol/federation/use.ts";
import {
  begin,
  complete,
  type KeyWorld,
  keyWorld,
  partialOf,
  partials,
  serverOf,
  signUse,
  signWith,
} from "./keyworld.ts";

const message = new TextEncoder().encode("pay 3 to Ada");
const CUSTODIES: readonly Custody[] = ["delegated", "self"];
const TYPES = ["ed25519", "schnorr"] as const;
const KINDS = TYPES.flatMap((type) => CUSTODIES.map((custody) => ({ type, custody })));

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Fault) return error.code;
    throw error;
  }
  return "nothing";
}

/** As others verify: Ed25519 by the platform, BIP-340 under the x-only key. */
function foreign({ certificate: c }: KeyWorld, signature: Uint8Array): boolean {
  if (c.type === "schnorr") return schnorr.verify(signature, message, c.publicKey.subarray(1));
  const key = createPublicKey({ key: Buffer.from(spkiOf(c.publicKey)), format: "der", type: "spki" });
  return verify(null, message, key, signature);
}

/** The same message with another payload, signed by its server all the same. */
function resaid(w: KeyWorld, signed: SignedMessage, payload: Message["payload"]): SignedMessage {
  const signer = w.signers.get(signed.message.from);
  if (!signer) throw new Error("no such server");
  return signMessage(signer, { ...signed.message, payload });
}

describe.each(KINDS)("$type, $custody", ({ type, custody }) => {
  test("any threshold of servers signs: others verify it, under even and odd keys", async () => {
    const signs = new Set<number | undefined>();
    for (const seed of type === "schnorr" ? [1, 2, 3, 4] : [1]) {
      const w = await keyWorld({ type, custody, seed });
      signs.add(w.certificate.publicKey[0]);
      for (const roster of [
        [1, 3],
        [1, 2, 3],
      ])
        expect(foreign(w, await signWith(w, roster, message))).toBe(true);
    }
    if (type === "schnorr") expect([...signs].toSorted()).toEqual([2, 3]);
  });

  test("an imported key signs like a generated one", async () => {
    const imported = groupScalar(type);
    for (const seed of [1, 2]) {
      const w = await keyWorld({ type, custody, imported, seed });
      expect(w.certificate.publicKey.toHex()).toEndWith(publicOf(type, imported));
      expect(foreign(w, await signWith(w, [2, 3], message))).toBe(true);
    }
  });

  test("sparse indices up to 255 and higher thresholds", async () => {
    const w = await keyWorld({ type, custody, threshold: 3, indices: [2, 7, 200, 255], seed: 9 });
    expect(foreign(w, await signWith(w, [2, 7, 255], message))).toBe(true);
  });

  test("a lying partial is named, and no signature comes of it", async () => {
    const w = await keyWorld({ type, custody });
    const { Fn } = w.group.frost.utils;
    const bent: ((value: Uint8Array) => Uint8Array | null)[] = [
      (value) => Fn.toBytes(Fn.add(Fn.fromBytes(value), 1n)),
      () => new Uint8Array(32),
      () => new Uint8Array(32).fill(0xff),
      (value) => value.subarray(1),
      () => null,
    ];
    for (const bend of bent) {
      const s = begin(w, [1, 2, 3], message);
      const opened = await partials(w, s);
      const lying = opened.map((p): OpenedPartial => (p.index === 2 && p.value ? { ...p, value: bend(p.value) } : p));
      const done = complete(s, lying);
      expect(done.result).toBe("failed");
      if (done.result !== "failed") return;
      expect(done.culprits.map((c) => [c.index, c.reason])).toEqual([[2, "bad_partial"]]);
      expect(done.culprits[0]?.evidence.map((e) => e.message.payload.round)).toEqual([
        "nonces",
        "nonces",
        "nonces",
        "partial",
      ]);
    }
  });

  test("a partial for another message, and one that is another server's, are named", async () => {
    const w = await keyWorld({ type, custody });
    for (const wrong of ["other message", "other server"]) {
      const s = begin(w, [1, 2], message);
      const [a, b] = await partials(w, s);
      const stale = await partials(w, begin(w, [1, 2], new TextEncoder().encode("pay 300 to Ada")));
      if (!a || !b) throw new Error("two servers");
      const value = (wrong === "other server" ? a.value : stale[1]?.value) ?? null;
      const mixed = complete(s, [a, { ...b, value }]);
      expect(mixed.result === "failed" && mixed.culprits.map((c) => c.index)).toEqual([2]);
    }
  });

  test("what a server seals wrongly names it", async () => {
    const w = await keyWorld({ type, custody });
    const s = begin(w, [1, 2], message);
    const said = await partialOf(w, s, 1);
    const bad = resaid(w, said, { round: "partial", sealed: w.random(80) });
    const first = await openPartial(s.use, w.recipient, bad);
    expect(first.value).toBeNull();
    const second = await openPartial(s.use, w.recipient, await partialOf(w, s, 2));
    const done = complete(s, [first, second]);
    expect(done.result === "failed" && done.culprits.map((c) => c.index)).toEqual([1]);
    // sealed as another round's is no partial either
    const info = sealedInfo(said.message, "share");
    const sealed = await hpkeSeal(w.recipient.publicKey, info, new Uint8Array(32), w.random);
    expect((await openPartial(s.use, w.recipient, resaid(w, said, { round: "partial", sealed }))).value).toBeNull();
  });

  test("a session signs once: neither another list nor the same one gets a second partial", async () => {
    const w = await keyWorld({ type, custody });
    const s = begin(w, [1, 2], message);
    const session = s.sessions.get(1);
    if (!session) throw new Error("no session");
    expect((await signPartial(session, s.nonces, w.random)).result).toBe("said");
    expect(session.secret).toBeNull();
    expect(await codeOf(() => signPartial(session, s.nonces, w.random))).toBe("replayed");
    const again = beginSigning({ ...s.use, ...serverOf(w, 2) });
    expect(await codeOf(() => signPartial(session, [session.nonces, again.nonces], w.random))).toBe("replayed");
  });

  test("two calls at once give one partial", async () => {
    const w = await keyWorld({ type, custody });
    const s = begin(w, [1, 2], message);
    const session = s.sessions.get(1);
    if (!session) throw new Error("no session");
    const both = await Promise.allSettled([
      signPartial(session, s.nonces, w.random),
      signPartial(session, s.nonces, w.random),
    ]);
    expect(both.map((one) => one.status).toSorted()).toEqual(["fulfilled", "rejected"]);
  });

  test("a list that is refused costs no nonces", async () => {
    const w = await keyWorld({ type, custody });
    const s = begin(w, [1, 2], message);
    const other = begin(w, [1, 2], message);
    const wider = begin(w, [1, 2, 3], message);
    const [first, second] = s.nonces;
    const session = s.sessions.get(1);
    if (!first || !second || !session) throw new Error("two servers");
    const forged = { ...second, signature: second.signature.map((byte, i) => (i === 3 ? byte ^ 1 : byte)) };
    const borrowed = { ...second, message: { ...second.message, from: 1 } };
    const echo = resaid(w, second, { round: "echo", seen: [] });
    const lists: [string, SignedMessage[]][] = [
      ["bad_input", []],
      ["bad_input", [first]],
      ["bad_input", [second]],
      ["bad_input", [first, second, second]],
      ["bad_input", [first, first, second]],
      ["bad_input", [first, echo]],
      ["integrity", [first, forged]],
      ["integrity", [first, borrowed]],
      ["integrity", [first, ...other.nonces.slice(1)]],
      ["integrity", [first, second, ...wider.nonces.slice(2)]],
      ["integrity", [...other.nonces]],
    ];
    for (const [code, list] of lists) {
      expect(await codeOf(() => signPartial(session, list, w.random))).toBe(code);
      expect(session.secret).not.toBeNull();
    }
    expect((await signPartial(session, s.nonces, w.random)).result).toBe("said");
  });

  test("nonces and partials of another attempt or roster of the same request are refused", async () => {
    const w = await keyWorld({ type, custody });
    const s = begin(w, [1, 2], message);
    const session = s.sessions.get(1);
    const [first] = s.nonces;
    if (!session || !first) throw new Error("no session");
    const partial = await partialOf(w, begin(w, [1, 2], message), 2);
    for (const change of [{ attempt: 2 }, { roster: [1, 2, 3] }]) {
      const use = { ...s.use, order: { ...s.use.order, ...change } };
      const other = beginSigning({ ...use, ...serverOf(w, 2) });
      expect(await codeOf(() => signPartial(session, [first, other.nonces], w.random))).toBe("integrity");
      const { requestId, orderHash } = other.nonces.message;
      const moved = { ...partial.message, attempt: use.order.attempt, requestId, orderHash };
      const signed = resaid(w, { ...partial, message: moved }, partial.message.payload);
      expect(await codeOf(() => openPartial(s.use, w.recipient, signed))).toBe("integrity");
    }
    expect(await codeOf(() => openPartial(s.use, w.recipient, first))).toBe("integrity");
  });

  test("a server does not sign over nonces of its own that it has not drawn", async () => {
    const w = await keyWorld({ type, custody });
    const { use } = signUse(w, [1, 2], message);
    const session = beginSigning({ ...use, ...serverOf(w, 1) });
    const twin = beginSigning({ ...use, ...serverOf(w, 1) });
    const peer = beginSigning({ ...use, ...serverOf(w, 2) });
    expect(await codeOf(() => signPartial(session, [twin.nonces, peer.nonces], w.random))).toBe("integrity");
  });

  test("two sets of nonces of one server name it, and end the session", async () => {
    const w = await keyWorld({ type, custody });
    const { use } = signUse(w, [1, 2], message);
    const session = beginSigning({ ...use, ...serverOf(w, 1) });
    const one = beginSigning({ ...use, ...serverOf(w, 2) }).nonces;
    const two = beginSigning({ ...use, ...serverOf(w, 2) }).nonces;
    const step = await signPartial(session, [session.nonces, one, two], w.random);
    expect(step).toEqual({ result: "failed", culprits: [{ index: 2, reason: "equivocation", evidence: [one, two] }] });
    expect(session.secret).toBeNull();
  });

  test("nonces that are no points of prime order name their server", async () => {
    const w = await keyWorld({ type, custody });
    const bytes = w.group.pointBytes;
    const small =
      type === "ed25519"
        ? "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
        : "02ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
    const identity = new Uint8Array(bytes);
    if (type === "ed25519") identity[0] = 1;
    for (const point of [Uint8Array.fromHex(small), identity, new Uint8Array(bytes).fill(0xff), new Uint8Array(32)]) {
      const s = begin(w, [1, 2], message);
      const [first, second] = s.nonces;
      const session = s.sessions.get(1);
      if (!first || second?.message.payload.round !== "nonces" || !session) throw new Error("two servers");
      for (const where of ["hiding", "binding"] as const) {
        const bad = resaid(w, second, { ...second.message.payload, [where]: point });
        const fresh = { ...session, secret: session.secret };
        const step = await signPartial(fresh, [first, bad], w.random);
        expect(step.result === "failed" && step.culprits).toEqual([
          { index: 2, reason: "bad_commitments", evidence: [bad] },
        ]);
        const done = completeSignature({ ...s.use, nonces: [first, bad], partials: [], owner: s.owner });
        expect(done.result === "failed" && done.culprits.map((c) => c.index)).toEqual([2]);
      }
    }
  });

  test("orders and certificates that do not fit begin nothing", async () => {
    const w = await keyWorld({ type, custody });
    const { use } = signUse(w, [1, 2], message);
    const one = serverOf(w, 1);
    const nobody = { ...use.order, ownerNonces: null };
    const stranger = (await keyWorld({ type, custody: "self", seed: 77 })) satisfies KeyWorld;
    const somebody = { ...use.order, ownerNonces: signUse(stranger, [1, 2], message).use.order.ownerNonces };
    const c = use.certificate;
    const wrong: [string, () => unknown][] = [
      ["bad_input", () => beginSigning({ ...use, ...serverOf(w, 3) })],
      ["bad_input", () => beginSigning({ ...use, order: { ...use.order, roster: [1] }, ...one })],
      ["bad_input", () => beginSigning({ ...use, order: { ...use.order, roster: [1, 1] }, ...one })],
      ["bad_input", () => beginSigning({ ...use, order: { ...use.order, roster: [2, 1] }, ...one })],
      ["bad_input", () => beginSigning({ ...use, order: { ...use.order, roster: [0, 1, 2] }, ...one })],
      ["bad_input", () => beginSigning({ ...use, order: { ...use.order, roster: [1, 2, 4] }, ...one })],
      ["bad_input", () => beginSigning({ ...use, order: custody === "self" ? nobody : somebody, ...one })],
      ["bad_input", () => beginSigning({ ...use, manifest: { ...use.manifest, epoch: 2 }, ...one })],
      ["bad_input", () => beginSigning({ ...use, certificate: { ...c, owner: w.random(32) }, ...one })],
      ["bad_input", () => beginSigning({ ...use, certificate: { ...c, type: "p256" }, ...one })],
      ["stale", () => beginSigning({ ...use, certificate: { ...c, generation: 1 }, ...one })],
      [
        "integrity",
        () => beginSigning({ ...use, certificate: { ...c, publicKey: stranger.certificate.publicKey }, ...one }),
      ],
      ["corrupt", () => beginSigning({ ...use, ...one, share: w.shares.get(2) ?? one.share })],
      ["corrupt", () => beginSigning({ ...use, ...one, share: new Uint8Array(32) })],
    ];
    for (const [code, work] of wrong) expect(await codeOf(work)).toBe(code);
  });

  test("an ended session has no secrets and signs nothing", async () => {
    const w = await keyWorld({ type, custody });
    const s = begin(w, [1, 2], message);
    const session = s.sessions.get(1);
    const kept = session?.secret;
    if (!session || !kept) throw new Error("no session");
    endSigning(session);
    expect([...kept.hiding, ...kept.binding, ...kept.share].every((byte) => byte === 0)).toBe(true);
    expect(await codeOf(() => signPartial(session, s.nonces, w.random))).toBe("replayed");
    expect([...(w.shares.get(1) ?? [])].some((byte) => byte !== 0)).toBe(true);
  });

  test("a completion takes one partial of each server, no more and no fewer", async () => {
    const w = await keyWorld({ type, custody });
    const s = begin(w, [1, 2], message);
    const [a, b] = await partials(w, s);
    if (!a || !b) throw new Error("two servers");
    for (const list of [[], [a], [a, a], [a, b, b]]) expect(await codeOf(() => complete(s, list))).toBe("bad_input");
    expect(complete(s, [b, a]).result).toBe("signed");
  });
});

describe("self-custodial keys", () => {
  test.each(TYPES)("%s: the servers alone, all of them, make no signature", async (type) => {
    const w = await keyWorld({ type, custody: "self" });
    const delegated: KeyWorld = {
      ...w,
      ownerScalar: null,
      certificate: { ...w.certificate, custody: "delegated", ownerPoint: null },
    };
    // no server takes D + C for a key of theirs alone
    expect(await codeOf(() => signWith(delegated, [1, 2, 3], message))).toBe("integrity");
    // and what they make with shares of d alone does not verify under it
    const frost = type === "ed25519" ? ed25519_FROST : schnorr_FROST;
    const d = frost.combineSecret(
      [...w.shares].map(([index, share]) => ({
        identifier: frost.Identifier.fromNumber(index),
        signingShare: new Uint8Array(share),
      })),
      { min: 2, max: 3 },
    );
    expect(foreign(w, frost.sign(message, d))).toBe(false);
    const s = begin(w, [1, 2, 3], message);
    const opened = await partials(w, s);
    const { Fn } = frost.utils;
    const sum = opened.reduce((z, p) => Fn.add(z, Fn.fromBytes(p.value ?? new Uint8Array(32))), Fn.ZERO);
    const done = complete(s, opened);
    if (done.result !== "signed") throw new Error("not signed");
    // even with the R of a finished signature
    const without = new Uint8Array([...done.signature.subarray(0, 32), ...Fn.toBytes(sum)]);
    expect(foreign(w, done.signature)).toBe(true);
    expect(foreign(w, without)).toBe(false);
  });

  test.each(TYPES)("%s: servers that pool everything after a signature do not learn the owner's part", async (type) => {
    const w = await keyWorld({ type, custody: "self", seed: 5 });
    const s = begin(w, [1, 2], message);
    const opened = await partials(w, s);
    const done = complete(s, opened);
    if (done.result !== "signed" || !w.ownerScalar) throw new Error("not signed");
    const { Fn } = w.group.frost.utils;
    const z = Fn.fromBytes(done.signature.subarray(32));
    const rest = opened.reduce((left, p) => Fn.sub(left, Fn.fromBytes(p.value ?? new Uint8Array(32))), z);
    const R = done.signature.subarray(0, 32);
    const e =
      type === "ed25519"
        ? Fn.create(littleEndian(sha512(join3(R, w.certificate.publicKey, message))))
        : Fn.create(
            bigEndian(schnorr.utils.taggedHash("BIP0340/challenge", R, w.certificate.publicKey.subarray(1), message)),
          );
    const guess = Fn.div(rest, e);
    const c = Fn.fromBytes(w.ownerScalar);
    // without a nonce of the owner's, what is left of z would be ±e·c
    expect([c, Fn.neg(c)]).not.toContain(guess);
  });

  test.each(TYPES)("%s: the owner's nonces are used once, and only those that the order names", async (type) => {
    const w = await keyWorld({ type, custody: "self" });
    const s = begin(w, [1, 2], message);
    const opened = await partials(w, s);
    const other = begin(w, [1, 2], message);
    const use = (owner: typeof s.owner) => completeSignature({ ...s.use, nonces: s.nonces, partials: opened, owner });
    expect(await codeOf(() => use(null))).toBe("bad_input");
    expect(await codeOf(() => use(other.owner))).toBe("bad_input");
    expect(other.owner?.nonces.secret).not.toBeNull();
    const kept = s.owner?.nonces.secret;
    expect(use(s.owner).result).toBe("signed");
    expect(s.owner?.nonces.secret).toBeNull();
    expect([...(kept?.hiding ?? [1]), ...(kept?.binding ?? [1])].every((byte) => byte === 0)).toBe(true);
    expect(await codeOf(() => use(s.owner))).toBe("replayed");
    if (other.owner) dropOwnerNonces(other.owner.nonces);
    expect(other.owner?.nonces.secret).toBeNull();
  });

  test("another owner's part makes no signature", async () => {
    for (const type of TYPES) {
      const w = await keyWorld({ type, custody: "self" });
      const s = begin(w, [1, 2], message);
      const opened = await partials(w, s);
      if (!s.owner) throw new Error("no owner");
      const owner = {
        ...s.owner,
        scalar: (await keyWorld({ type, custody: "self", seed: 8 })).ownerScalar ?? s.owner.scalar,
      };
      expect(() => completeSignature({ ...s.use, nonces: s.nonces, partials: opened, owner })).toThrow();
    }
  });
});

describe("others' tools", () => {
  const scratch = mkdtempSync(join(tmpdir(), "keyhold-signing-"));
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  test.each(CUSTODIES)("openssl verifies an Ed25519 signature of a %s key", async (custody) => {
    const w = await keyWorld({ type: "ed25519", custody, seed: 21 });
    const file = (name: string, bytes: Uint8Array) => {
      const path = join(scratch, `${custody}-${name}`);
      writeFileSync(path, bytes);
      return path;
    };
    const args = (signature: Uint8Array, name: string) => [
      "openssl",
      "pkeyutl",
      "-verify",
      "-pubin",
      "-keyform",
      "DER",
      "-inkey",
      file("key", spkiOf(w.certificate.publicKey)),
      "-rawin",
      "-in",
      file("message", message),
      "-sigfile",
      file(name, signature),
    ];
    const signature = await signWith(w, [2, 3], message);
    expect(Bun.spawnSync(args(signature, "good")).exitCode).toBe(0);
    signature[40] = (signature[40] ?? 0) ^ 1;
    expect(Bun.spawnSync(args(signature, "bad")).exitCode).not.toBe(0);
  });

  test.each(CUSTODIES)("a taproot output of a %s key is spent with its signature", async (custody) => {
    for (const seed of [31, 32, 33]) {
      const w = await keyWorld({ type: "schnorr", custody, seed });
      const output = w.certificate.publicKey.subarray(1);
      const script = OutScript.encode({ type: "tr", pubkey: output });
      const address = addressOf({ as: "btc-p2tr", outputKey: w.certificate.publicKey, network: null, prefix: null });
      expect(OutScript.encode(Address().decode(address))).toEqual(script);
      const tx = new Transaction({ allowUnknownInputs: true });
      tx.addInput({ txid: "11".repeat(32), index: 0, witnessUtxo: { script, amount: 10_000n } });
      tx.addOutputAddress("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 9_000n);
      const sighash = tx.preimageWitnessV1(0, [script], SigHash.DEFAULT, [10_000n]);
      const signature = await signWith(w, [1, 3], sighash);
      expect(schnorr.verify(signature, sighash, output)).toBe(true);
      tx.updateInput(0, { tapKeySig: signature });
      tx.finalize();
      expect(tx.getInput(0).finalScriptWitness).toEqual([signature]);
    }
  });

  test("a self-custodial Ed25519 key is a plain Ed25519 key to noble's strict verifier", async () => {
    const w = await keyWorld({ type: "ed25519", custody: "self", seed: 3 });
    expect(
      ed25519.verify(await signWith(w, [1, 2], message), message, w.certificate.publicKey, { zip215: false }),
    ).toBe(true);
  });
});

test("messages of any length are signed", async () => {
  const worlds = await Promise.all(KINDS.map((kind) => keyWorld(kind)));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...worlds), fc.uint8Array({ maxLength: 300 }), async (w, text) => {
      const signature = await signWith(w, [1, 2], text);
      expect(signature).toHaveLength(64);
      expect(await signWith(w, [1, 2], text)).not.toEqual(signature);
    }),
    { numRuns: 8 },
  );
});

const join3 = (...parts: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const bigEndian = (bytes: Uint8Array) => BigInt(`0x${bytes.toHex()}`);
const littleEndian = (bytes: Uint8Array) => bigEndian(bytes.slice().reverse());

/** A scalar as an import leaves it: of `schnorr` with an even y. */
function groupScalar(type: (typeof TYPES)[number]): Uint8Array {
  const bytes = new Uint8Array(32).fill(7);
  if (type === "ed25519") return ed25519.Point.Fn.toBytes(ed25519.utils.getExtendedPublicKey(bytes).scalar);
  const { Fn, BASE } = secp256k1.Point;
  const n = Fn.fromBytes(bytes);
  return Fn.toBytes(BASE.multiply(n).toBytes()[0] === 2 ? n : Fn.neg(n));
}

function publicOf(type: (typeof TYPES)[number], scalar: Uint8Array): string {
  if (type === "ed25519") return ed25519.getPublicKey(new Uint8Array(32).fill(7)).toHex();
  return schnorr.getPublicKey(scalar).toHex();
}
