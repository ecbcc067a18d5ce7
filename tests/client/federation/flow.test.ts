import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { holdsNoCeremonies } from "../../../src/client/federation/held.ts";
import { createFederationClient, type FederationPart } from "../../../src/client/federation/index.ts";
import { changeHeld, heldIn, withFederation } from "../../../src/client/federation/keeping.ts";
import { parcelOf, withParcel } from "../../../src/client/federation/parcel.ts";
import type { FederationClient } from "../../../src/client/federationapi.ts";
import { spkiOf } from "../../../src/crypto/identity.ts";
import { rejected } from "../../support/hostile.ts";
import { type ClientWorld, clientWorld, formed, type TestVault } from "./world.ts";

setDefaultTimeout(120_000);

/** The client API over real servers and enclaves: a key from its making to its audit. */

let world: ClientWorld;
let owner: TestVault;
let part: FederationPart;
let client: FederationClient;
const message = new TextEncoder().encode("pay 5");

beforeAll(async () => {
  world = await clientWorld();
  owner = await world.vault();
  await formed(world, owner.open);
  part = createFederationClient(owner.open, world);
  client = part.calls;
  const { url, pin } = world.server(1);
  await client.joinFederation({ url, pin, name: null, invites: [] });
});
afterAll(async () => {
  await part.end();
  for (const { at } of world.servers) expect(at.server.faults).toEqual([]);
  await world.close();
});

const wanted = (name: string, custody: "self" | "delegated" = "delegated") =>
  ({ name, federation: "trio", type: "ed25519", bytes: 32, custody, control: "unilateral", policy: null }) as const;

/** A further device of the same account, as a link makes it. */
async function another(): Promise<{ vault: TestVault; part: FederationPart }> {
  const vault = await world.vault();
  const parcel = parcelOf(heldIn(owner.open));
  if (!parcel) throw new Error("no parcel");
  await changeHeld(vault.open, (held) => withParcel(held, parcel));
  return { vault, part: createFederationClient(vault.open, world) };
}

test("a key is made, known by name, checked, used and audited", async () => {
  const made = await client.generateFederated(wanted("first"));
  expect(made).toMatchObject({ status: "fulfilled", absent: [] });
  const key = await client.federatedKey({ key: "first" });
  expect(key).toMatchObject({ keyId: made.keyId ?? "", shown: "delegated", holders: [1, 2, 3], threshold: 2 });
  const check = await client.checkFederation({ federation: "trio" });
  expect(check.keys).toMatchObject([{ name: "first", live: [1, 2, 3], certified: [1, 2, 3], proposal: null }]);
  expect(check.ok).toBe(true);
  const signed = await client.signFederated({ key: "first", message, amount: null });
  expect(signed.status).toBe("fulfilled");
  const spki = createPublicKey({
    key: Buffer.from(spkiOf(Uint8Array.fromHex(key.publicKeyHex))),
    format: "der",
    type: "spki",
  });
  expect(verify(null, message, spki, Buffer.from(signed.signatureHex ?? "", "hex"))).toBe(true);
  const hedged = await rejected(
    client.signFederated({ key: "first", message, amount: null, hedge: "any" }),
    "bad_input",
  );
  expect(hedged.message).toContain("ECDSA");
  const audit = await client.auditFederation({ federation: "trio" });
  expect(audit.findings).toEqual([]);
  expect(audit.ok).toBe(true);
});

test("a further device finds the keys by the labels that servers keep, self-custodial ones too, and can use them", async () => {
  await client.generateFederated(wanted("mine", "self"));
  const second = await another();
  try {
    const { calls } = second.part;
    expect((await calls.federations()).map(({ name }) => name)).toEqual(["trio"]);
    expect((await calls.federatedKeys()).map(({ name }) => name).sort()).toEqual(["first", "mine"]);
    const key = await calls.federatedKey({ key: "mine" });
    expect(key.shown).toBe("self-custodial");
    const signed = await calls.signFederated({ key: "mine", message, amount: null });
    const spki = createPublicKey({
      key: Buffer.from(spkiOf(Uint8Array.fromHex(key.publicKeyHex))),
      format: "der",
      type: "spki",
    });
    expect(verify(null, message, spki, Buffer.from(signed.signatureHex ?? "", "hex"))).toBe(true);
  } finally {
    await second.part.end();
  }
});

test("a server that lost its share: check proposes the repair, which brings it back", async () => {
  const { keyId } = await client.federatedKey({ key: "first" });
  const { store } = world.server(3).at.server;
  await store.transaction(async (tx) => {
    for (const { id } of await tx.documents("share", keyId, null, 10)) await tx.removeDocument("share", id);
  });
  const before = await client.checkFederation({ federation: "trio" });
  expect(before.ok).toBe(false);
  expect(before.keys.find(({ name }) => name === "first")).toMatchObject({
    live: [1, 2],
    certified: [1, 2, 3],
    proposal: "keyhold key repair first",
  });
  const done = await client.reshareFederated({ key: "first", mode: "repair", threshold: null, holders: null });
  expect(done.status).toBe("fulfilled");
  const after = await client.checkFederation({ federation: "trio" });
  expect(after.keys.find(({ name }) => name === "first")).toMatchObject({ live: [1, 2, 3], proposal: null });
  expect((await client.auditFederation({ federation: "trio" })).findings).toEqual([]);
  // its label went with it: a further device still finds it by name
  const second = await another();
  expect((await second.part.calls.federatedKey({ key: "first" })).generation).toBe(1);
  await second.part.end();
});

test("what a ceremony's server has seen is custodial for good: after a refresh and a release, and on a further device", async () => {
  const value = new Uint8Array(32).fill(9);
  const input = { ...wanted("combined"), type: "bytes", value: value.slice(), origin: "custodial" } as const;
  expect(holdsNoCeremonies(heldIn(owner.open))).toBe(true);
  const made = await client.importFederated(input);
  // a program from before there were such keys does not open the vault, and loses no mark
  expect(holdsNoCeremonies(heldIn(owner.open))).toBe(false);
  const about = { keyId: made.keyId ?? "", shown: "custodial", origin: "custodial", released: false };
  expect(await client.federatedKey({ key: "combined" })).toMatchObject(about);
  await client.reshareFederated({ key: "combined", mode: "refresh", threshold: null, holders: null });
  expect(await client.federatedKey({ key: "combined" })).toMatchObject({ ...about, generation: 1 });
  const got = await client.releaseFederated({ key: "combined", purpose: "retrieve" });
  expect(got.value).toEqual(value);
  expect(await client.federatedKey({ key: "combined" })).toMatchObject({ ...about, released: true });
  const second = await another();
  expect(await second.part.calls.federatedKey({ key: "combined" })).toMatchObject({ ...about, released: true });
  await second.part.end();
  await client.importFederated({ ...input, name: "brought", value: value.slice(), origin: "imported" });
  const brought = await client.federatedKey({ key: "brought" });
  expect(brought).toMatchObject({ shown: "delegated", origin: "imported" });
});

test("what no federation has is not found", async () => {
  await rejected(client.federatedKey({ key: "nothing" }), "not_found");
  await rejected(client.checkFederation({ federation: "nothing" }), "not_found");
  await rejected(client.continueRequest({ requestId: "ab".repeat(32) }), "not_found");
});

test("a log that was cut is a finding, and does not hide the others' views", async () => {
  const federation = heldIn(owner.open).federations[0];
  if (!federation) throw new Error("no federation");
  const before = federation.servers;
  await part.end();
  part = createFederationClient(owner.open, world);
  client = part.calls;
  await changeHeld(owner.open, (held) =>
    withFederation(held, federation.federationId, (one) => ({
      ...one,
      servers: one.servers.map((s) => (s.index === 2 ? { ...s, verified: { ...s.verified, seq: 100_000 } } : s)),
    })),
  );
  const audit = await client.auditFederation({ federation: "trio" });
  expect(audit.ok).toBe(false);
  expect(audit.findings.join()).toContain("server 2");
  expect(audit.findings.join()).toContain("log of this account was cut");
  expect(audit.servers.map(({ index }) => index)).toEqual([1, 3]);
  await changeHeld(owner.open, (held) =>
    withFederation(held, federation.federationId, (one) => ({ ...one, servers: before })),
  );
});
