import { describe, expect, test } from "bun:test";
import { hpkeKeyPair } from "../../../src/crypto/hpke.ts";
import { Fault } from "../../../src/errors.ts";
import { groupOf } from "../../../src/protocol/federation/groups.ts";
import {
  CUSTODIES,
  type Custody,
  FEDERATED_TYPES,
  type FederatedType,
} from "../../../src/protocol/federation/kinds.ts";
import { ownerPart, ownerScalar, pointOf } from "../../../src/protocol/federation/owner.ts";
import { combineRelease } from "../../../src/protocol/federation/release.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { checkPublicKey } from "../../../src/protocol/federation/signingkey.ts";
import {
  type CeremonyWorld,
  ceremonyWorld,
  confirmedOf,
  generateBody,
  orderOf,
  type Run,
  requestOf,
  reshareTerms,
  runCeremony,
  sharesOf,
} from "../../support/ceremonyworld.ts";
import { type KeyWorld, release, releaseUse, signWith } from "./keyworld.ts";

const message = new TextEncoder().encode("pay 3 to Ada");
const KINDS = FEDERATED_TYPES.flatMap((type) => CUSTODIES.map((custody) => ({ type, custody })));

/** What a ceremony leaves behind, ready for use. */
async function usable(world: CeremonyWorld, run: Run, owner: Uint8Array | null): Promise<KeyWorld> {
  const [first] = confirmedOf(run).values();
  if (!first) throw new Error("nobody confirmed");
  const { certificate } = first;
  return {
    group: groupOf(certificate.type),
    manifest: world.manifest,
    certificate,
    signers: world.signers,
    shares: sharesOf(run),
    ownerScalar: owner,
    recipient: await hpkeKeyPair(world.random.bytes(32)),
    requester: world.requester,
    random: world.random.bytes,
  };
}

async function generated(world: CeremonyWorld, type: FederatedType, custody: Custody): Promise<KeyWorld> {
  const { manifest, random } = world;
  const owner = custody === "self" ? ownerScalar(type, random.bytes(32)) : null;
  const draft = requestOf(world, generateBody(type, { custody }));
  const { federationId, nonce, requester } = draft;
  const part = owner && ownerPart(type, owner, federationId, nonce, requester, random.bytes);
  const request = { ...draft, body: generateBody(type, { custody, owner: part }) };
  const terms = { manifest, request, order: orderOf(request, [1, 2, 3]), before: null };
  return usable(world, await runCeremony(world, terms), owner);
}

async function worksWith(w: KeyWorld, roster: readonly number[]): Promise<boolean> {
  const { type, publicKey } = w.certificate;
  if (type === "ed25519" || type === "schnorr")
    return signatureHolds(w.certificate, message, await signWith(w, roster, message));
  const use = releaseUse(w, roster);
  const done = combineRelease({ ...use, partials: await release(w, use), ownerScalar: w.ownerScalar });
  return done.result === "combined" && pointOf(type, done.scalar).toHex() === publicKey.toHex();
}

describe.each(KINDS)("$type, $custody", ({ type, custody }) => {
  test("a generated key is used, refreshed and used again; old and new shares do not mix", async () => {
    const world = ceremonyWorld([1, 2, 3], 2, 11);
    const w = await generated(world, type, custody);
    checkPublicKey(w.certificate);
    expect(await worksWith(w, [1, 3])).toBe(true);
    const terms = reshareTerms(world, w.certificate, { threshold: 2, holders: [1, 2, 3] }, [1, 2, 3]);
    const run = await runCeremony(world, terms, { oldShares: w.shares });
    const fresh = await usable(world, run, w.ownerScalar);
    expect(fresh.certificate.publicKey).toEqual(w.certificate.publicKey);
    expect(await worksWith(fresh, [2, 3])).toBe(true);
    const old = w.shares.get(2);
    if (!old) throw new Error("no share");
    const mixed = { ...fresh, shares: new Map([...fresh.shares, [2, old]]) };
    const fault = await worksWith(mixed, [2, 3]).then(
      () => null,
      (error: unknown) => error,
    );
    expect(fault).toBeInstanceOf(Fault);
    expect((fault as Fault).code).toBe("corrupt");
  });
});

test("a certificate whose taproot key is not the tweak of what was generated signs nothing", async () => {
  const world = ceremonyWorld([1, 2, 3], 2, 12);
  for (const custody of CUSTODIES) {
    const w = await generated(world, "schnorr", custody);
    const { untweaked, commitments } = w.certificate;
    if (!untweaked || !commitments[0]) throw new Error("not tweaked");
    expect(() => checkPublicKey(w.certificate)).not.toThrow();
    for (const wrong of [commitments[0], pointOf("schnorr", new Uint8Array(32).fill(1))])
      expect(() => checkPublicKey({ ...w.certificate, untweaked: wrong })).toThrow(Fault);
  }
});
