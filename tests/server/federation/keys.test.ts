import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  type Certificate,
  certificateHash,
  keyIdOf,
  type SignedCertificate,
  signCertificate,
} from "../../../src/protocol/federation/certificate.ts";
import { signErasure } from "../../../src/protocol/federation/erasure.ts";
import { signDecision } from "../../../src/protocol/federation/request.ts";
import {
  accept,
  acceptance,
  codeOf,
  drive,
  type FederationWorld,
  federationWorld,
  generateBody,
  keyAt,
  makeKey,
  type Party,
  type Person,
  submit,
} from "./world.ts";

let world: FederationWorld;
beforeEach(async () => {
  world = await federationWorld();
});
afterEach(() => world.close());

const inform = (party: Party, certificate: SignedCertificate, erasures: readonly never[] = [], who?: Person) =>
  party.call("federation.inform", { certificate, erasures: [...erasures] }, who);

/** The same certificate with something else in it, signed by all servers and the owner. */
function forged(certificate: Certificate, change: Partial<Certificate>): SignedCertificate {
  const next = { ...certificate, ...change };
  return {
    certificate: next,
    signatures: next.holders.map((i) => signCertificate(world.enclaves.server(i).keys.signer, i, next)),
    acceptance: signDecision(world.owner.request, {
      requestId: next.requestId,
      verdict: "accept",
      attempt: next.attempt,
      certificateHash: certificateHash(next),
    }),
  };
}

async function refresh(before: SignedCertificate): Promise<SignedCertificate> {
  const { keyId, generation, threshold, holders } = before.certificate;
  const request = world.request({ kind: "reshare", keyId, generation, mode: "refresh", threshold, holders });
  await submit(world, request);
  return acceptance(world, await drive(world, request, [1, 2, 3]));
}

describe("a server that was absent", () => {
  test("learns of a key that it never heard of, without a share", async () => {
    const request = world.request(generateBody());
    const present = world.parties.slice(0, 2);
    await submit(world, request);
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3]));
    await accept(world, certificate, present);
    const party = world.party(3);
    const { requestId } = certificate.certificate;
    await party.store.transaction(async (tx) => {
      await tx.removeDocument("request", requestId);
      await tx.removeDocument("pendingShare", `${requestId}:1`);
    });
    const view = await inform(party, certificate);
    expect([view.certificate, view.held]).toEqual([certificate, false]);
    expect(await inform(party, certificate)).toEqual(view);
  });

  test("takes the acceptance that it missed out of the certificate, and its share with it", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const certificate = acceptance(world, await drive(world, request, [1, 2, 3]));
    const view = await inform(world.party(3), certificate);
    expect(view.held).toBe(true);
    const { requestId } = certificate.certificate;
    expect((await world.party(3).call("federation.request", { requestId })).status).toBe("fulfilled");
  });

  test("of a reshare is brought to the newest generation, and never back", async () => {
    const { certificate: first } = await makeKey(world);
    const second = await refresh(first);
    await accept(world, second, world.parties.slice(0, 2));
    const party = world.party(3);
    expect((await keyAt(party, first)).certificate).toEqual(first);
    const view = await inform(party, second);
    expect([view.certificate, view.held]).toEqual([second, true]);
    expect(view.erasures.map(({ index }) => index)).toEqual([3]);
    // what is older is known already, also where the request that made it is not
    expect(await inform(party, first)).toEqual(view);
    await party.store.transaction((tx) => tx.removeDocument("request", first.certificate.requestId));
    expect(await inform(party, first)).toEqual(view);
  });
});

describe("what is told of a key", () => {
  test("is refused without enough signatures, without acceptance, and from others", async () => {
    const { certificate } = await makeKey(world);
    const { certificate: c } = certificate;
    const party = world.party(1);
    const few = { ...certificate, signatures: certificate.signatures.slice(1) };
    expect(await codeOf(inform(party, few))).toBe("integrity");
    const stranger = signDecision(world.neighbour.request, certificate.acceptance.decision);
    expect(await codeOf(inform(party, { ...certificate, acceptance: stranger }))).toBe("integrity");
    expect(await codeOf(inform(party, certificate, [], world.neighbour))).toBe("not_found");
    for (const change of [
      { publicKey: c.commitments[1] as Uint8Array },
      { type: "ristretto255" },
      { custody: "self" },
      { control: "shared" },
      { length: 31 },
      { origin: "imported" },
      { origin: "custodial" },
    ] as const) {
      const next = forged(c, { ...change, generation: 1, predecessor: certificateHash(c) });
      expect([JSON.stringify(change), await codeOf(inform(party, next))]).toEqual([
        JSON.stringify(change),
        "integrity",
      ]);
    }
    expect((await keyAt(party, certificate)).certificate).toEqual(certificate);
  });

  test("leaves another account's request alone, whose shares wait for their owner", async () => {
    const request = world.request(generateBody());
    await submit(world, request);
    const own = acceptance(world, await drive(world, request, [1, 2, 3]));
    // servers that pool with a neighbour sign a certificate in which the owner's request is the neighbour's
    const next = { ...own.certificate, owner: world.neighbour.request.publicKey };
    const stolen: SignedCertificate = {
      certificate: next,
      signatures: next.holders.map((i) => signCertificate(world.enclaves.server(i).keys.signer, i, next)),
      acceptance: signDecision(world.neighbour.request, {
        ...own.acceptance.decision,
        certificateHash: certificateHash(next),
      }),
    };
    const party = world.party(3);
    expect(await codeOf(inform(party, stolen, [], world.neighbour))).toBe("not_found");
    await accept(world, own);
    expect((await keyAt(party, own)).held).toBe(true);
  });

  test("of which nothing is known takes a signer more than there may be liars: nobody's key id is taken", async () => {
    await world.close();
    world = await federationWorld({ n: 5, threshold: 3 });
    const request = world.request(generateBody());
    await submit(world, request, world.parties.slice(0, 4));
    const own = acceptance(world, await drive(world, request, [1, 2, 3, 4]));
    const { commitments } = own.certificate;
    const owner = world.neighbour.request.publicKey;
    const few = { holders: [1, 2], threshold: 2, commitments: commitments.slice(0, 2), owner };
    for (const change of [{ origin: "imported" }, { generation: 1, predecessor: new Uint8Array(32) }] as const) {
      const next: Certificate = { ...own.certificate, ...few, ...change };
      const { signatures, acceptance: own2 } = forged(next, {});
      const stolen: SignedCertificate = {
        certificate: next,
        signatures,
        acceptance: signDecision(world.neighbour.request, own2.decision),
      };
      expect(await codeOf(inform(world.party(5), stolen, [], world.neighbour))).toBe("integrity");
    }
    expect((await inform(world.party(5), own)).certificate).toEqual(own);
  });

  test("freezes the key when another certificate of the same generation was accepted too", async () => {
    const { certificate: first } = await makeKey(world);
    const second = await refresh(first);
    await accept(world, second);
    const party = world.party(1);
    const twin = forged(second.certificate, { transcript: new Uint8Array(32).fill(5) });
    expect(await codeOf(inform(party, twin))).toBe("conflict");
    const view = await keyAt(party, second);
    expect([view.frozen, view.certificate]).toEqual([true, second]);
  });

  test("keeps erasures that members have signed, the newest of each", async () => {
    const { certificate: first } = await makeKey(world);
    const second = await refresh(first);
    await accept(world, second);
    const party = world.party(1);
    const { keyId } = second.certificate;
    const { manifest } = world.enclaves;
    const erasure = (index: number, generation: number, by = index) =>
      signErasure(world.enclaves.server(by).keys.signer, manifest, { index, keyId, generation });
    const brought = [erasure(2, 0), erasure(3, 0, 2), erasure(3, 1)] as never[];
    const view = await inform(party, second, brought);
    // of a third server a forged one, and one of shares that are in use
    expect(view.erasures.map(({ index, generation }) => [index, generation])).toEqual([
      [1, 0],
      [2, 0],
    ]);
    expect(await inform(party, second, brought)).toEqual(view);
  });
});

describe("the list of keys", () => {
  test("is the owner's, in pages", async () => {
    const made: string[] = [];
    const party = world.party(1);
    const { certificate } = await makeKey(world);
    const template = certificate.certificate;
    // certificates that other servers say they made: each is a key without a share here
    for (let i = 0; i < 17; i++) {
      const requestId = i.toString(16).padStart(64, "0") as Certificate["requestId"];
      const keyId = keyIdOf(template.federationId, requestId, 1, template.transcript, template.publicKey);
      await inform(party, forged(template, { requestId, keyId }));
      made.push(keyId);
    }
    const { federationId } = world.enclaves.manifest;
    const page = await party.call("federation.keys", { federationId, after: null });
    expect([page.items.length, page.more]).toEqual([16, true]);
    const after = page.items.at(-1)?.certificate.certificate.keyId ?? null;
    const rest = await party.call("federation.keys", { federationId, after });
    expect([rest.items.length, rest.more]).toEqual([2, false]);
    const ids = [...page.items, ...rest.items].map((one) => one.certificate.certificate.keyId);
    expect(new Set(ids)).toEqual(new Set([template.keyId, ...(made as typeof ids)]));
    const theirs = await party.call("federation.keys", { federationId, after: null }, world.neighbour);
    expect(theirs).toEqual({ items: [], more: false });
  });
});
