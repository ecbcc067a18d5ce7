import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { Fault } from "../../src/errors.ts";
import type { WorkspaceId } from "../../src/ids.ts";
import { BOB, evmPayment } from "../support/transactions.ts";
import { dataAt } from "./fleet.ts";
import {
  approve,
  asked,
  balances,
  FEES,
  forKey,
  fulfilled,
  INDICES,
  type Keyrings,
  keysAtServers,
  lifeOf,
  makeWorkspace,
  openKeyrings,
  ownerKey,
  short,
  shown,
  sumOf,
  until,
  watched,
} from "./keyringfleet.ts";
import { type Account, keyBody, keyringIdOf, newAccount, registryKeys, signedItem } from "./keyringsession.ts";
import { type Home, SETUP_MS, serverFlags } from "./world.ts";

/** What owners decide, and what becomes of requests that come to nothing: fees go back, and no key is made. */

setDefaultTimeout(60_000);

let all: Keyrings;
/** A third owner, who comes and goes. */
let cay: Home;
/** An owner whose requests are made here, as short-lived as a test likes. */
let eve: Account;
let registry: Uint8Array;
beforeAll(async () => {
  all = await openKeyrings();
  [cay, eve, { registry }] = await Promise.all([all.person("cay"), newAccount(all, "owner"), registryKeys(all)]);
}, SETUP_MS);
afterAll(async () => {
  eve?.end();
  await all?.close();
});

const CREDITS = 100;
/** A workspace of its own, in which so many must agree. */
async function crew(name: string, others: readonly string[], quorum: number, credits = CREDITS): Promise<string> {
  const id = await makeWorkspace(all.ann, "ann", name, others, quorum);
  if (credits > 0) await all.credit(id, credits);
  return id;
}
const ben = async () => `ben=${await ownerKey(all.ben)}`;
const evil = () => `eve=${eve.signer.publicKey.toHex()}`;

const standing = async (workspace: string) => {
  const { balance, escrowed } = (await all.ann.ok(["workspace", "show", workspace])).data;
  return { balance, escrowed };
};
const HELD = { balance: CREDITS - FEES.key, escrowed: FEES.key } as const;
const FREE = { balance: CREDITS, escrowed: 0 } as const;
const keysIn = async (workspace: string) => (await all.ann.ok(["workspace", "keys", workspace])).data.items;

/** The request is over so, its fee is back, no server has made a key for it; and watching says so. */
async function cameToNothing(workspace: string, id: string, status: string, exit: number): Promise<void> {
  expect(await shown(all.ann, id)).toMatchObject({ status });
  expect(await standing(workspace)).toEqual(FREE);
  expect(await keysIn(workspace)).toEqual([]);
  const failed = await all.ann.fails(exit, ["request", "watch", short(id)]);
  expect(failed.hint).toContain("given back");
  expect(sumOf((await balances(all)).values())).toBe(0);
}

describe("a request comes to nothing", () => {
  test("an owner rejects it: the reason is told, the fee is back, and no vote counts any more", async () => {
    await crew("refusing", [await ben()], 2);
    const id = await asked(all.ann, forKey("ed25519", "refusing"));
    expect(await standing("refusing")).toEqual(HELD);
    await all.ben.ok(["approval", "reject", short(id), "--reason", "not this quarter"]);
    await cameToNothing("refusing", id, "rejected", 5);
    expect(await shown(all.ann, id)).toMatchObject({ votes: [{ verdict: "approve" }, { verdict: "reject" }] });
    // it is on nobody's list, and cannot be cancelled either
    expect((await all.ben.ok(["workspace", "inbox"])).data.items).toEqual([]);
    await all.ann.fails(6, ["request", "cancel", short(id), "--yes"]);
    expect((await all.ann.ok(["workspace", "ledger", "refusing"])).data.items).toMatchObject([
      { kind: "credit", amount: CREDITS },
      { kind: "escrow", amount: -FEES.key },
      { kind: "refund", amount: FEES.key },
    ]);
  });

  test("it is cancelled: the other owner finds nothing to agree to", async () => {
    await crew("changing-minds", [await ben()], 2);
    const id = await asked(all.ann, forKey("ed25519", "changing-minds"));
    expect((await all.ann.ok(["request", "cancel", short(id), "--yes"])).data.status).toBe("cancelled");
    await cameToNothing("changing-minds", id, "cancelled", 6);
    expect((await all.ben.ok(["workspace", "inbox"])).data.items).toEqual([]);
    // again changes nothing, and who asks again asks anew
    expect((await all.ann.ok(["request", "cancel", short(id), "--yes"])).data.status).toBe("cancelled");
    const next = await asked(all.ann, forKey("ed25519", "changing-minds"));
    expect(next).not.toBe(id);
    await all.ann.ok(["request", "cancel", short(next), "--yes"]);
  });

  test("a stranger cannot reject, approve, cancel or see it", async () => {
    await crew("private", [await ben()], 2);
    const id = await asked(all.ann, forKey("ed25519", "private"));
    await ownerKey(cay);
    for (const argv of [
      ["approval", "approve", short(id), "--yes"],
      ["approval", "reject", short(id), "--reason", "because"],
      ["request", "cancel", short(id), "--yes"],
      ["request", "show", short(id)],
      ["workspace", "show", "private"],
      ["workspace", "keys", "private"],
    ]) {
      expect([argv[1], (await cay.fails(3, argv)).code]).toEqual([argv[1], "not_found"]);
    }
    expect(await shown(all.ann, id)).toMatchObject({ status: "pending", votes: [{ owner: "ann" }] });
    expect(await standing("private")).toEqual(HELD);
    await all.ann.ok(["request", "cancel", short(id), "--yes"]);
  });

  test("its time is over while nobody agrees; or while the parties are away, and they are too late", async () => {
    const [ignoring, waiting] = [await crew("ignoring", [evil()], 1), await crew("hasty", [evil()], 1)];
    const ask = async (workspaceId: string, lastsMs: number): Promise<string> => {
      const item = signedItem(all, eve.signer, { registry, workspaceId, lastsMs }, keyBody("ed25519", workspaceId));
      const given = {
        workspaceId: workspaceId as WorkspaceId,
        keyringId: keyringIdOf(all),
        items: [item],
        feeMax: null,
      };
      return (await eve.call("keyring.request", given)).requestId;
    };
    const isOver = async (id: string) => (await shown(all.ann, id)).status !== "pending";
    const ignored = await ask(ignoring, 12_000);
    expect(await standing("ignoring")).toEqual(HELD);
    for (const index of INDICES) all.freeze(index, true);
    const late = await ask(waiting, 12_000);
    expect(await approve(all.ann, late)).toMatchObject({ approved: true, status: "pending" });
    for (const id of [ignored, late]) await until(() => isOver(id), 250);
    for (const index of INDICES) all.freeze(index, false);
    await cameToNothing("ignoring", ignored, "expired", 11);
    await cameToNothing("hasty", late, "expired", 11);
    expect((await all.ann.ok(["workspace", "inbox"])).data.items).toEqual([]);
    // the next one goes its way, so that they have all been at work since
    const { data } = await all.ann.ok(["request", ...forKey("ed25519", "hasty"), "--wait", "--yes"]);
    expect(data.status).toBe("fulfilled");
    expect(lifeOf(all, late).items.map(({ value }) => value)).toEqual([null]);
    const [{ keyId }] = await keysIn("hasty");
    for (const atServer of keysAtServers(all)) expect(atServer).toContain(keyId);
    expect(new Set(keysAtServers(all).map(({ length }) => length)).size).toBe(1);
  });

  test("there are too few credits: the client says so, and so does the registry", async () => {
    const workspaceId = await crew("poor", [evil()], 1, FEES.key - 1);
    const failed = await all.ann.fails(5, ["request", ...forKey("ed25519", "poor"), "--yes"]);
    expect(failed.message).toContain(`costs ${FEES.key} credits`);
    const terms = { registry, workspaceId, lastsMs: 60_000 };
    const item = signedItem(all, eve.signer, terms, keyBody("ed25519", workspaceId));
    const given = { workspaceId: workspaceId as WorkspaceId, keyringId: keyringIdOf(all), items: [item], feeMax: null };
    const fault = await eve.call("keyring.request", given).catch((error: unknown) => error);
    expect(fault instanceof Fault ? [fault.code, fault.message] : fault).toEqual([
      "conflict",
      `the workspace has ${FEES.key - 1} credits, and this request costs ${FEES.key}`,
    ]);
    expect((await all.ann.ok(["request", "list", "--workspace", "poor"])).data.items).toEqual([]);
    expect(await standing("poor")).toEqual({ balance: FEES.key - 1, escrowed: 0 });
    // one credit more, and the very same request is taken
    await all.credit(workspaceId, 1);
    expect(await eve.call("keyring.request", given)).toMatchObject({ status: "pending" });
    expect(await standing("poor")).toEqual({ balance: 0, escrowed: FEES.key });
  });
});

describe("owners change while requests are open", () => {
  test("whoever asked is removed: the request ends, and the fee is back", async () => {
    await crew("leaving", [await ben(), `cay=${await ownerKey(cay)}`], 2);
    const id = await asked(cay, forKey("ed25519", "leaving"));
    expect(await standing("leaving")).toEqual(HELD);
    await dataAt(all.ann, 9, ["workspace", "owner", "remove", "leaving", "cay", "--yes"]);
    // one of two is no quorum
    expect(await shown(all.ben, id)).toMatchObject({ status: "pending" });
    expect((await all.ben.ok(["workspace", "agree", "leaving", "--yes"])).data.complete).toBe(true);
    await cameToNothing("leaving", id, "rejected", 5);
    await cay.fails(3, ["request", "show", short(id)]);
    await cay.fails(3, ["request", ...forKey("ed25519", "leaving"), "--yes"]);
  });

  test("whoever agreed is removed while the parties are away: the votes of before do not count", async () => {
    await crew("shrinking", [await ben(), `cay=${await ownerKey(cay)}`], 2);
    for (const index of INDICES) all.freeze(index, true);
    const id = await asked(all.ann, forKey("ed25519", "shrinking"));
    expect(await approve(cay, id)).toMatchObject({ approved: true });
    await dataAt(all.ann, 9, ["workspace", "owner", "remove", "shrinking", "cay", "--yes"]);
    await all.ben.ok(["workspace", "agree", "shrinking", "--yes"]);
    for (const index of INDICES) all.freeze(index, false);
    expect(await shown(all.ann, id)).toMatchObject({ status: "pending", approved: false });
    await approve(all.ben, id);
    expect(await shown(all.ann, id)).toMatchObject({ status: "pending", approved: false });
    expect(await keysIn("shrinking")).toEqual([]);
    // the requester's own word is asked for again, under the policy of now
    await approve(all.ann, id);
    expect(await watched(all.ann, id)).toMatchObject({ status: "fulfilled" });
    expect(await keysIn("shrinking")).toHaveLength(1);
  });

  test("one of two must agree from now on: the quorum changes by both, and then one is enough", async () => {
    await crew("quorum", [await ben()], 2);
    const id = await asked(all.ann, forKey("ed25519", "quorum"));
    const begun = await dataAt(all.ann, 9, ["workspace", "policy", "quorum", "--sign", "1"]);
    expect(begun).toMatchObject({ version: 2, complete: false, drafts: [{ version: 3, signedBy: ["ann"] }] });
    // who began it cannot make up for the other
    await dataAt(all.ann, 9, ["workspace", "agree", "quorum", "--yes"]);
    expect(await shown(all.ann, id)).toMatchObject({ approved: false });
    const agreed = (await all.ben.ok(["workspace", "agree", "quorum", "--yes"])).data;
    expect(agreed).toMatchObject({ version: 3, complete: true, drafts: [] });
    await approve(all.ann, id);
    expect(await watched(all.ann, id)).toMatchObject({ status: "fulfilled" });
    const { data } = await all.ben.ok(["request", ...forKey("schnorr", "quorum"), "--wait", "--yes"]);
    expect(data).toMatchObject({ status: "fulfilled", votes: [{ owner: "ben", verdict: "approve" }] });
  });
});

describe("a policy of recipients and amounts", () => {
  const MOST = 10n ** 16n;
  const other = "0x2222222222222222222222222222222222222222";
  let keyId: string;

  beforeAll(async () => {
    await crew("suppliers", [await ben()], 2);
    const id = await asked(all.ann, forKey("secp256k1", "suppliers"));
    await approve(all.ben, id);
    keyId = (await watched(all.ann, id)).items[0]?.keyId ?? "";
    const { document } = (await all.ann.ok(["workspace", "show", "suppliers"])).data;
    const small = {
      name: "small",
      effect: "allow",
      actions: ["release"],
      amount: { unit: "wei.1", max: `${MOST}` },
      recipients: [BOB],
      requesterMayApprove: true,
      require: { group: "owners", atLeast: 1 },
    };
    const file = all.fleet.world.file("suppliers.json", JSON.stringify({ ...document, rules: [small] }));
    await dataAt(all.ann, 9, ["workspace", "policy", "suppliers", "--file", file]);
    await all.ben.ok(["workspace", "agree", "suppliers", "--yes"]);
  }, SETUP_MS);

  let files = 0;
  /** Asks ann's client to sign a payment. */
  const pay = (over: Parameters<typeof evmPayment>[0]) => {
    files += 1;
    const file = all.fleet.world.file(`payment-${files}`);
    writeFileSync(file, evmPayment(over).toHex({ includeSignature: false }));
    return all.ann.run(["request", "signature", "--key", keyId, "--evm-file", file, "--wait", "--yes", "--json"]);
  };

  test("allows a small payment to whom it names, by one owner", async () => {
    const before = (await standing("suppliers")).balance;
    const ran = await pay({ value: MOST / 2n });
    expect([ran.code, ran.code === 0 ? "" : ran.err]).toEqual([0, ""]);
    expect(JSON.parse(ran.out).data).toMatchObject({ status: "fulfilled", votes: [{ owner: "ann" }] });
    expect(await standing("suppliers")).toEqual({ balance: before - FEES.signature, escrowed: 0 });
  });

  test.each([
    ["to somebody else", { to: other }],
    ["of more than it allows", { value: MOST }],
    ["on another chain", { chainId: 10n }],
    ["that calls a contract which cannot be read", { data: "0xdeadbeef", gasLimit: 90_000n }],
  ])("denies one %s, and takes no fee", async (_what, over) => {
    const before = await standing("suppliers");
    const ran = await pay(over);
    expect([ran.code, ran.out]).toEqual([5, ""]);
    expect(JSON.parse(ran.err.trim().split("\n").at(-1) ?? "").error).toMatchObject({ code: "denied" });
    expect(await standing("suppliers")).toEqual(before);
  });

  test("denies a digest, which says nothing, and a key", async () => {
    const before = await standing("suppliers");
    const digest = ["--key", keyId, "--digest", "11".repeat(32), "--wait", "--yes"];
    expect((await all.ann.fails(5, ["request", "signature", ...digest])).code).toBe("denied");
    const failed = await all.ann.fails(5, ["request", ...forKey("ed25519", "suppliers"), "--wait", "--yes"]);
    expect(failed.code).toBe("denied");
    expect(await standing("suppliers")).toEqual(before);
  });
});

test("a second device of the owner who asked finishes an ECDSA signature that the first one began", async () => {
  const made = await fulfilled(all, forKey("secp256k1"));
  const [{ keyId, publicKeyHex } = { keyId: null, publicKeyHex: null }] = made.items;
  const message = new TextEncoder().encode("from the train");
  const file = all.fleet.world.file("train", message);
  const id = await asked(all.ann, ["signature", "--key", String(keyId), "--message-file", file]);
  // one that is linked, and one that knows the password alone: no server can give it the owner's secret
  const [second, bare] = ["ann-second", "ann-bare"].map((name) =>
    all.fleet.world.home(name, "correct horse battery staple ann"),
  );
  if (!second || !bare) throw new RangeError("two devices");
  const { data: link } = await all.ann.ok(["account", "device", "link"]);
  await second.ok(["account", "device", "accept", link.code, ...second.password, "--kdf", "test"]);
  await second.ok(["login", ...second.password, "--kdf", "test"]);
  await bare.ok(["login", ...serverFlags(all.registry.server(), "ann"), ...bare.password, "--kdf", "test"]);
  await approve(all.ben, id);
  // shares are let out to ann's client, and nobody else's can do anything with them
  await until(async () => (await shown(second, id)).finishable, 200);
  for (const home of [all.ben, bare]) {
    const status = expect.stringMatching(/^(pending|partial)$/);
    expect(await shown(home, id)).toMatchObject({ finishable: false, status });
  }
  const done = await watched(second, id);
  expect(done).toMatchObject({ status: "fulfilled" });
  const signature = Uint8Array.fromHex(done.items[0]?.signatureHex ?? "");
  expect(secp256k1.verify(signature, message, Uint8Array.fromHex(publicKeyHex ?? ""))).toBe(true);
  // the first one sees the same, and so does the other owner
  expect((await watched(all.ann, id)).items).toEqual(done.items);
  expect((await shown(all.ben, id)).items[0]?.signatureHex).toBe(done.items[0]?.signatureHex ?? "");
  for (const home of [all.ann, second, all.ben]) {
    const keys = (await home.ok(["workspace", "keys", "treasury"])).data.items;
    expect(keys).toMatchObject([{ keyId, shown: "released" }]);
  }
});
