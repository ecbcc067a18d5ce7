import { afterEach, expect, test } from "bun:test";
import { type Held, NOTHING_HELD } from "../../../src/client/federation/held.ts";
import type { Ground } from "../../../src/client/keyring/ground.ts";
import { keyringCalls } from "../../../src/client/keyring/index.ts";
import { addressOf } from "../../../src/formats/address.ts";
import type { FederatedType } from "../../../src/protocol/federation/kinds.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { rejected } from "../../support/hostile.ts";
import { type KeyringRun, keyringRun } from "../../support/keyringrun.ts";
import { seedOf, signerOf } from "../../support/policies.ts";
import { manifestOf, nextManifest, type RegistryPerson } from "../../support/registryworld.ts";
import { seeded } from "../../support/seeded.ts";

/* The client over the real registry, whose parties' servers are the real protocol's parts. */

const runs: KeyringRun[] = [];
afterEach(async () => {
  for (const run of runs.splice(0)) await run.close();
});

/** An account at the real registry, with a vault in memory. */
async function account({ world }: KeyringRun, name: string) {
  const who: RegistryPerson = await world.stranger(name);
  const secret = seedOf(`secret of ${name}`);
  const state: { held: Held } = { held: { ...NOTHING_HELD, federationSecret: secret } };
  const stream = seeded(name.length + name.charCodeAt(0));
  const ground: Ground = {
    identity: world.registry.publicKey,
    scope: world.scope,
    url: "https://registry.test",
    userId: who.userId,
    call: (operation, input) => world.call(operation, input, who),
    ask: () => world.service["keyring.info"]({ address: "127.0.0.1" }, {}),
    secret: () => secret,
    held: () => state.held,
    change: async (change) => {
      state.held = change(state.held);
    },
    manifestsFrom: () => [],
    now: () => world.nowMs,
    random: (length) => stream.bytes(length),
    notice: () => undefined,
  };
  const client = keyringCalls(
    (work) => work(ground),
    async () => async () => undefined,
  );
  return { client, state };
}

const seedKey = (name: string) => signerOf(name).publicKey.toHex();

/** Two accounts in one workspace in which both must agree. */
async function two() {
  const run = await keyringRun();
  runs.push(run);
  const { client: ada, state } = await account(run, "ada");
  const { client: bob } = await account(run, "bob");
  const owners = [{ name: "bob", keyHex: (await bob.keyringOwner()).keyHex }];
  await ada.keyringOwner();
  const made = await ada.createWorkspace({ name: "funds", owners, self: "ada", admin: 2, sign: 2 });
  await run.world.control["registry.credit"]({ workspaceId: made.workspaceId, amount: 500, note: "" } as never);
  const keyring = (await ada.keyrings())[0]?.name ?? "";
  /** A key that both have agreed to, and that the parties have made. */
  const key = async (type: FederatedType) => {
    const { requestId } = await ada.requestKey({ workspace: "funds", keyring, type });
    await bob.voteKeyring({ requestId, verdict: "approve", reason: "" });
    await run.work();
    const done = await ada.keyringRequest({ requestId });
    expect(done.status).toBe("fulfilled");
    return { requestId, keyId: done.items[0]?.keyId ?? "" };
  };
  return { run, ada, bob, made, keyring, key, state };
}

test("a workspace of two, a change that both sign, and an owner who is removed", async () => {
  const { run, ada, bob, made } = await two();
  expect(made).toMatchObject({ version: 2, admins: "2 of ada, bob" });
  const { client: cleo } = await account(run, "cleo");
  const { keyHex } = await cleo.keyringOwner();
  const change = { kind: "ownerAdded", name: "cleo", keyHex } as const;
  const begun = await ada.changeWorkspace({ workspace: "funds", change });
  expect(begun).toMatchObject({ complete: false, drafts: [{ signedBy: ["ada"] }], balance: 500 });
  await rejected(cleo.workspace({ workspace: "funds" }), "not_found");
  const hashHex = (await bob.workspace({ workspace: "funds" })).drafts[0]?.hashHex ?? "";
  const done = await bob.changeWorkspace({ workspace: "funds", change: { kind: "approve", hashHex } });
  expect(done).toMatchObject({ complete: true, version: 3, drafts: [] });
  expect((await cleo.workspace({ workspace: "funds" })).owners.map(({ own }) => own)).toEqual([false, false, true]);
  const removal = { kind: "ownerRemoved", name: "cleo" } as const;
  for (const who of [ada, bob]) await who.changeWorkspace({ workspace: "funds", change: removal });
  await rejected(cleo.workspace({ workspace: made.workspaceId }), "not_found");
  expect(await cleo.workspaces()).toEqual([]);
});

test("a key of each type: requested, approved, made and verified; addresses, ledger and events", async () => {
  const { ada, bob, key } = await two();
  for (const type of ["ed25519", "schnorr", "secp256k1"] as const) {
    const { keyId, requestId } = await key(type);
    const shown = await bob.keyringKey({ key: keyId.slice(0, 16) });
    expect(shown).toMatchObject({ keyId, type, workspace: "funds", shown: "delegated" });
    expect(shown.confirmedBy.length).toBeGreaterThanOrEqual(2);
    if (type === "schnorr") {
      const { address } = await ada.keyringAddress({ key: keyId, kind: "btc-p2tr", network: "regtest", prefix: null });
      const outputKey = Uint8Array.fromHex(shown.publicKeyHex);
      expect(address).toBe(addressOf({ as: "btc-p2tr", network: "regtest", prefix: null, outputKey }));
    }
    expect(
      (await ada.keyringRequests({ workspace: "funds", status: "fulfilled" })).map((one) => one.requestId),
    ).toContain(requestId);
  }
  expect(await ada.keyringKeys({ workspace: "funds", keyring: null, type: null })).toHaveLength(3);
  expect(await ada.keyringKeys({ workspace: "funds", keyring: null, type: "schnorr" })).toHaveLength(1);
  const ledger = await bob.workspaceLedger({ workspace: "funds" });
  expect(ledger.filter(({ kind }) => kind === "escrow").map(({ amount }) => amount)).toEqual([-30, -30, -30]);
  expect(ledger[0]).toMatchObject({ kind: "credit", amount: 500 });
  expect(await bob.workspace({ workspace: "funds" })).toMatchObject({ balance: 410, escrowed: 0 });
  const events = await ada.workspaceEvents({ workspace: "funds", after: 0 });
  expect(events.map(({ event }) => event)).toContain("request.fulfilled");
  const last = events.at(-1)?.seq ?? 0;
  expect(await ada.workspaceEvents({ workspace: "funds", after: last })).toEqual([]);
});

test("signatures: Schnorr and Ed25519 by the servers, ECDSA by the client of who asked", async () => {
  const { run, ada, bob, key } = await two();
  const [ed, ec] = [await key("ed25519"), await key("secp256k1")];
  const message = new TextEncoder().encode("hello");
  const item = { form: "message", message, input: 0, amount: null } as const;
  for (const { keyId } of [ed, ec]) {
    const asked = await ada.requestSignatures({ items: [{ key: keyId, ...item }] });
    expect((await bob.keyringInbox()).map(({ requestId }) => requestId)).toEqual([asked.requestId]);
    await bob.voteKeyring({ requestId: asked.requestId, verdict: "approve", reason: "" });
    await run.work();
    await ada.continueKeyringRequest({ requestId: asked.requestId });
    await run.work();
    const done = await bob.keyringRequest({ requestId: asked.requestId });
    expect(done.status).toBe("fulfilled");
    const [signed] = done.items;
    if (!signed?.publicKeyHex || !signed.signatureHex) throw new Error("no signature");
    const of = { type: signed.type as FederatedType, publicKey: Uint8Array.fromHex(signed.publicKeyHex) };
    expect(signatureHolds(of, message, Uint8Array.fromHex(signed.signatureHex))).toBe(true);
  }
  expect((await bob.keyringKey({ key: ec.keyId })).shown).toBe("released");
  expect((await bob.keyringKey({ key: ed.keyId })).shown).toBe("delegated");
});

test("a request that is rejected, and one that is cancelled, give the fee back", async () => {
  const { ada, bob, keyring } = await two();
  const ask = () => ada.requestKey({ workspace: "funds", keyring, type: "ed25519" });
  const first = await ask();
  const no = await bob.voteKeyring({ requestId: first.requestId, verdict: "reject", reason: "not now" });
  expect(no).toMatchObject({ status: "rejected" });
  const second = await ask();
  expect((await bob.workspace({ workspace: "funds" })).escrowed).toBe(30);
  expect(await bob.cancelKeyringRequest({ requestId: second.requestId })).toMatchObject({ status: "cancelled" });
  expect(await bob.workspace({ workspace: "funds" })).toMatchObject({ balance: 500, escrowed: 0 });
});

test("a keyring of a joined federation: made, changed by its admin alone, and moved to a later epoch", async () => {
  const { run, ada, state } = await two();
  const manifest = manifestOf();
  const fees = { key: 7, signature: 2 };
  const parties = [1, 2].map((index) => ({ name: `n${index}`, index, keyHex: seedKey(`n${index}`) }));
  const wanted = { name: "second", federation: "test", threshold: null, fees, parties };
  await rejected(ada.createKeyring(wanted), "not_found");
  const { federationId, name } = manifest.manifest;
  const federation = { federationId, name, joinedAtMs: 1, servers: [], policies: [] };
  state.held = { ...state.held, federations: [{ ...federation, manifests: [manifest] }] };
  expect(await ada.createKeyring(wanted)).toMatchObject({ name: "second", threshold: 2, fees, own: true });
  const keyring = "second";
  const added = { kind: "partyAdded", name: "n3", index: 3, keyHex: seedKey("n3") } as const;
  expect((await ada.changeKeyring({ keyring, change: added })).parties).toHaveLength(3);
  for (const change of [
    { kind: "threshold", threshold: 3 },
    { kind: "fees", key: 1, signature: 1 },
    { kind: "active", active: false },
  ] as const) {
    await ada.changeKeyring({ keyring, change });
  }
  const now = await ada.keyring({ keyring });
  expect(now).toMatchObject({ threshold: 3, fees: { key: 1, signature: 1 }, active: false });
  const next = nextManifest(manifest.manifest, {});
  state.held = { ...state.held, federations: [{ ...federation, manifests: [manifest, next] }] };
  const moved = await ada.changeKeyring({ keyring, change: { kind: "manifest" } });
  expect(moved.words).not.toEqual(now.words);
  const eve = await account(run, "eve");
  await eve.client.keyringOwner();
  await rejected(
    eve.client.changeKeyring({ keyring, change: { kind: "active", active: true } }),
    "denied",
    "not_found",
  );
});

test("tokens are made, listed without what they are, and revoked", async () => {
  const { ada, bob } = await two();
  const { tokenId, token } = await ada.createToken({ workspace: "funds", name: "ci", expiresInMs: 3_600_000 });
  expect(token.length).toBeGreaterThan(30);
  expect(await bob.tokens({ workspace: "funds" })).toMatchObject([{ tokenId, name: "ci" }]);
  await bob.revokeToken({ workspace: "funds", tokenId });
  expect(await bob.tokens({ workspace: "funds" })).toEqual([]);
});
