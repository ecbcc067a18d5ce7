import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import type { FederatedKeyId, FederatedRequestId } from "../../src/ids.ts";
import { verifyEvidence } from "../../src/protocol/keyring/evidence.ts";
import { type PartyResponse, type SignedResponse, signResponse } from "../../src/protocol/keyring/response.ts";
import { KEYRING } from "../../src/server/keyring/documents.ts";
import { decodeJson } from "../../src/wire/codec.ts";
import { equivocationProof } from "../../src/wire/keyring/records.ts";
import { random } from "../support/harness.ts";
import {
  approve,
  asked,
  balances,
  forKey,
  fulfilled,
  INDICES,
  type Keyrings,
  lifeOf,
  openKeyrings,
  storedIn,
  sumOf,
  until,
  watched,
} from "./keyringfleet.ts";
import { type Account, keyringIdOf, newAccount, partyAccount, registryKeys } from "./keyringsession.ts";
import { SETUP_MS } from "./world.ts";

/** Strangers who answer, and parties who lie: nothing of it makes a key, or moves a credit (docs/protocol.md §9.4). */

setDefaultTimeout(60_000);

let all: Keyrings;
let registry: Uint8Array;
/** Sessions that are closed at the end. */
const accounts: Account[] = [];
const entered = async (account: Promise<Account>): Promise<Account> => {
  const opened = await account;
  accounts.push(opened);
  return opened;
};
beforeAll(async () => {
  all = await openKeyrings();
  ({ registry } = await registryKeys(all));
}, SETUP_MS);
afterAll(async () => {
  for (const one of accounts) one.end();
  await all?.close();
});

const faultOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: unknown) => (error instanceof Fault ? error.code : String(error)),
  );

/** The item of a request of one item, as the registry knows it. */
function itemOf(requestId: string): FederatedRequestId {
  const [item, another] = lifeOf(all, requestId).items;
  if (!item || another) throw new Error("not one item");
  return item.itemId;
}

const rejecting = (itemId: FederatedRequestId, reason: string): Omit<PartyResponse, "key"> => ({
  keyringId: keyringIdOf(all),
  requestId: itemId,
  verdict: "rejected",
  attempt: 0,
  keyId: null,
  publicKey: null,
  certificateHash: null,
  policyHash: new Uint8Array(32),
  reason,
});

/** A word on a key that nobody has made. */
const inventing = (itemId: FederatedRequestId): Omit<PartyResponse, "key"> => ({
  ...rejecting(itemId, ""),
  verdict: "fulfilled",
  attempt: 1,
  keyId: "ab".repeat(32) as FederatedKeyId,
  publicKey: random(32),
  certificateHash: random(32),
});

const tell = (account: Account, itemId: FederatedRequestId, response: SignedResponse) =>
  account.call("party.report", { reports: [{ itemId, seq: 0, report: { did: "response", response } }] });

/** Everything that a forger might want to change. */
async function state(...ids: readonly string[]) {
  const evidence = storedIn(all.registry.dir, KEYRING).map(({ value }) => value);
  return { lives: ids.map((id) => lifeOf(all, id)), balances: await balances(all), evidence };
}

describe("forged responses", () => {
  test("of strangers, under wrong signatures, of other requests: they change nothing, and the key is made", async () => {
    for (const index of INDICES) all.freeze(index, true);
    const ids = [await asked(all.ann, forKey("ed25519")), await asked(all.ann, forKey("schnorr"))];
    for (const id of ids) await approve(all.ben, id);
    const [own, other] = ids.map(itemOf);
    if (!own || !other) throw new Error("two items");
    const stranger = await entered(newAccount(all, "party"));
    const north = await entered(partyAccount(all, 1));
    const before = await state(...ids);

    // a stranger with a party key of its own: nobody's party, so that it is heard and nothing follows
    for (const word of [rejecting(own, "no"), inventing(own)])
      expect(await faultOf(tell(stranger, own, signResponse(stranger.signer, word)))).toBe("done");
    // in a party's name, without its key; and the words of one party brought by another account
    const forged = signResponse(stranger.signer, rejecting(own, "no"));
    const renamed = { ...forged, response: { ...forged.response, key: north.signer.publicKey } };
    for (const account of [stranger, north]) expect(await faultOf(tell(account, own, renamed))).toBe("integrity");
    const signed = signResponse(north.signer, rejecting(own, "no"));
    expect(await faultOf(tell(stranger, own, signed))).toBe("denied");
    // a party's own words with a bit changed after it has signed them
    const flipped = signed.signature.with(9, (signed.signature[9] ?? 0) ^ 1);
    expect(await faultOf(tell(north, own, { ...signed, signature: flipped }))).toBe("integrity");
    const changed = { ...signed, response: { ...signed.response, reason: "yes" } };
    expect(await faultOf(tell(north, own, changed))).toBe("integrity");
    // about another request, of another keyring, of none at all
    expect(await faultOf(tell(north, other, signed))).toBe("bad_input");
    const elsewhere = { ...rejecting(own, "no"), keyringId: "cd".repeat(32) as never };
    expect(await faultOf(tell(north, own, signResponse(north.signer, elsewhere)))).toBe("done");
    const nowhere = "ef".repeat(32) as FederatedRequestId;
    expect(await faultOf(tell(north, nowhere, signResponse(north.signer, rejecting(nowhere, "no"))))).toBe("done");
    // owners are no parties
    const owner = await entered(newAccount(all, "owner"));
    expect(await faultOf(tell(owner, own, signResponse(owner.signer, rejecting(own, "no"))))).toBe("denied");

    expect(await state(...ids)).toEqual(before);
    for (const index of INDICES) all.freeze(index, false);
    for (const id of ids) expect(await watched(all.ann, id)).toMatchObject({ status: "fulfilled" });
  });

  test("a party that says two things is quarantined, and a third person can verify it", async () => {
    for (const index of INDICES) all.freeze(index, true);
    const id = await asked(all.ann, forKey("ed25519"));
    await approve(all.ben, id);
    const item = itemOf(id);
    const south = await entered(partyAccount(all, 3));
    const [first, second] = [rejecting(item, "not today"), inventing(item)].map((word) =>
      signResponse(south.signer, word),
    );
    if (!first || !second) throw new Error("two words");
    expect(await faultOf(tell(south, item, first))).toBe("done");
    const once = await state(id);
    expect(once.lives[0]?.items[0]?.responses).toHaveLength(1);
    // the same word again is the same word
    expect(await faultOf(tell(south, item, first))).toBe("done");
    expect(await state(id)).toEqual(once);
    expect(await faultOf(tell(south, item, second))).toBe("done");

    const { evidence, parties } = (await all.keeper.ok(["keyring", "show", "vaults"])).data;
    expect(parties.map((one: { quarantined: boolean }) => one.quarantined)).toEqual([false, false, true]);
    expect(evidence).toMatchObject([{ party: "south" }]);
    // as it is printed, in another process, with nothing else at hand
    const printed = new TextEncoder().encode(JSON.stringify(evidence[0].proof));
    const proof = decodeJson(equivocationProof, printed);
    expect(proof.party).toEqual(south.signer.publicKey);
    verifyEvidence(proof);
    expect(() => verifyEvidence({ ...proof, second: proof.first })).toThrow("does not prove");
    expect(() => verifyEvidence({ ...proof, party: registry })).toThrow("does not prove");
    const touched = { ...proof.second, signature: proof.second.signature.with(3, 0).with(4, 0) };
    expect(() => verifyEvidence({ ...proof, second: touched })).toThrow("does not prove");

    expect((await all.keeper.run(["keyring", "status", "vaults"])).code).toBe(10);
    for (const index of INDICES) all.freeze(index, false);
    // a key takes all three servers, and one of them has refused: the fee goes back
    await until(() => lifeOf(all, id).status === "rejected", 100);
    // a new request is made without it: two are too few for a key, and enough for a signature
    const refused = await all.ann.fails(6, ["request", ...forKey("ed25519"), "--yes"]);
    expect(refused.code).toBe("conflict");
    const [key] = (await all.ann.ok(["workspace", "keys", "treasury", "--type", "ed25519"])).data.items;
    const file = all.fleet.world.file("without-south", "by two of three");
    const done = await fulfilled(all, ["signature", "--key", key.keyId, "--message-file", file]);
    expect(done.parties.map(({ name }) => name)).toEqual(["north", "east"]);
    const south0 = (await balances(all)).get(`party:${all.keyringId}:south`);
    await all.keeper.ok(["keyring", "party", "clear", "vaults", "south", "--yes"]);
    expect((await all.keeper.ok(["keyring", "show", "vaults"])).data.evidence).toHaveLength(1);
    await fulfilled(all, forKey("ed25519"));
    expect((await balances(all)).get(`party:${all.keyringId}:south`)).toBe(Number(south0) + 3);
    expect(sumOf((await balances(all)).values())).toBe(0);
  });
});
