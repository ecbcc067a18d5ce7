import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { hpkeKeyPair } from "../../../src/crypto/hpke.ts";
import { Fault } from "../../../src/errors.ts";
import { certificateHash } from "../../../src/protocol/federation/certificate.ts";
import type { SignedMessage } from "../../../src/protocol/federation/message.ts";
import { signMessage } from "../../../src/protocol/federation/message.ts";
import { verifyEvidence } from "../../../src/protocol/keyring/evidence.ts";
import { signResponse } from "../../../src/protocol/keyring/response.ts";
import { checkLedger } from "../../../src/server/keyring/balances.ts";
import type { Store } from "../../../src/storage/store.ts";
import type { KeyringRequestView, Report, Task } from "../../../src/wire/keyring/views.ts";
import { faultOf, type KeyringRun, keyringRun, type RunOptions, type RunParty } from "../../support/keyringrun.ts";
import { HOUR, seedOf } from "../../support/policies.ts";
import { serverKey } from "../../support/registryworld.ts";
import { seeded } from "../../support/seeded.ts";

setDefaultTimeout(60_000);

let run: KeyringRun | undefined;
const start = async (options: RunOptions = {}): Promise<KeyringRun> => {
  run = await keyringRun(options);
  return run;
};
afterEach(async () => {
  // whatever happened
  if (run) expect((await run.world.store.transaction(checkLedger)).problems).toEqual([]);
  await run?.close();
  run = undefined;
});

async function approved(r: KeyringRun, type: Parameters<KeyringRun["generate"]>[0] = "ed25519") {
  const first = await r.submit([r.generate(type)]);
  return r.vote(first, r.ann);
}

const itemOf = ({ items }: KeyringRequestView) => {
  const [item] = items;
  if (!item) throw new Error("no item");
  return item;
};

/** Keeps its last answers back. */
const silentWhen = (work: Task["work"]["do"]) => (task: Task, report: Report) =>
  task.work.do === work ? null : report;

/** A true response of a party to a request whose key is accepted. */
function trueResponse(view: KeyringRequestView, party: RunParty, change = {}): Report & { did: "response" } {
  const { itemId, certificate } = itemOf(view);
  if (!certificate) throw new Error("nothing is accepted");
  const { keyId, publicKey, attempt } = certificate.certificate;
  return party.response({
    requestId: itemId,
    attempt,
    keyId,
    publicKey,
    certificateHash: certificateHash(certificate.certificate),
    policyHash: view.policyHash,
    ...change,
  });
}

/** A request whose key is accepted and whose parties have all kept silent. */
async function accepted(r: KeyringRun): Promise<KeyringRequestView> {
  const first = await approved(r);
  for (const one of r.parties) one.twist = silentWhen("decide");
  await r.work(20);
  const view = await r.view(first);
  expect(view).toMatchObject({ status: "pending" });
  return view;
}

describe("responses", () => {
  test("the first makes the request partial, the threshold fulfils it, the late one is recorded", async () => {
    const r = await start();
    const view = await accepted(r);
    const { itemId } = itemOf(view);
    const say = (index: number) => r.party(index).report({ itemId, seq: 0 }, trueResponse(view, r.party(index)));
    await say(3);
    expect((await r.view(view)).status).toBe("partial");
    await say(1);
    expect((await r.view(view)).status).toBe("fulfilled");
    await say(2);
    const done = await r.view(view);
    expect(itemOf(done).responses).toHaveLength(3);
    const keyId = itemOf(done).certificate?.certificate.keyId as never;
    expect((await r.world.call("keyring.key", { keyId }, r.ann)).responses).toHaveLength(3);
    expect(await r.balance()).toEqual({ balance: 970, escrowed: 0 });
    // nobody is asked any more
    for (const one of r.parties) expect(await one.tasks()).toEqual([]);
  });

  test("a duplicate changes nothing; other accounts, other keyrings and forged signatures change nothing", async () => {
    const r = await start();
    const view = await accepted(r);
    const { itemId } = itemOf(view);
    const one = r.party(1);
    const said = trueResponse(view, one);
    await one.report({ itemId, seq: 0 }, said);
    const before = await r.view(view);
    await one.report({ itemId, seq: 0 }, said);
    expect(await r.view(view)).toEqual(before);

    const two = r.party(2);
    const forged = trueResponse(view, two);
    const signature = forged.response.signature.with(3, (forged.response.signature[3] ?? 0) ^ 1);
    const changed = { did: "response", response: { ...forged.response, signature } } as const;
    expect(await faultOf(two.report({ itemId, seq: 0 }, changed))).toStartWith("integrity");
    expect(await faultOf(one.report({ itemId, seq: 0 }, forged))).toStartWith("denied");
    const foreign = trueResponse(view, two, { keyringId: "9".repeat(64) });
    await two.report({ itemId, seq: 0 }, foreign);
    expect(await r.view(view)).toEqual(before);

    // an account with a party key of its own that the keyring does not name
    const eve = await r.world.connector("eve");
    const { key: _, ...words } = forged.response.response;
    const response = signResponse(eve.party, words);
    const reports = [{ itemId, seq: 0, report: { did: "response" as const, response } }];
    await r.world.call("party.report", { reports }, eve);
    expect(await r.view(view)).toEqual(before);
    // an owner is no party
    expect(await faultOf(r.world.call("party.report", { reports }, r.ann))).toStartWith("denied");
  });

  test("a contradicting one is evidence, its party is excluded, quarantined and not paid", async () => {
    const r = await start();
    const view = await accepted(r);
    const { itemId } = itemOf(view);
    await r.party(1).report({ itemId, seq: 0 }, trueResponse(view, r.party(1)));
    await r.party(1).report({ itemId, seq: 0 }, trueResponse(view, r.party(1), { attempt: 7 }));
    const caught = await r.view(view);
    expect(caught.evidence).toHaveLength(1);
    const [proof] = caught.evidence;
    if (!proof) throw new Error("no evidence");
    verifyEvidence({ keyring: r.keyringId, party: r.party(1).who.party.publicKey, ...proof });
    await r.party(2).report({ itemId, seq: 0 }, trueResponse(view, r.party(2)));
    expect((await r.view(view)).status).toBe("partial");
    await r.party(3).report({ itemId, seq: 0 }, trueResponse(view, r.party(3)));
    expect((await r.view(view)).status).toBe("fulfilled");
    const keyring = await r.world.call("keyring.get", { keyringId: r.keyringId }, r.ann);
    expect(keyring.parties.map(({ quarantined }) => quarantined)).toEqual([true, false, false]);
    const { items } = await r.world.call("workspace.ledger", { workspaceId: r.workspaceId, after: 0 }, r.ann);
    const paid = items.find(({ kind }) => kind === "pay")?.postings.filter(({ credit }) => credit > 0);
    expect(paid?.map(({ account, credit }) => [account.split(":").at(-1), credit])).toEqual([
      ["p2", 15],
      ["p3", 15],
    ]);
    // too few are left for the next key
    expect(await faultOf(r.submit([r.generate()]))).toStartWith("conflict");
  });

  test("rejections and other certificates fail the request once agreement has become impossible, not before", async () => {
    const r = await start();
    const view = await accepted(r);
    const { itemId } = itemOf(view);
    await r
      .party(1)
      .report({ itemId, seq: 0 }, trueResponse(view, r.party(1), { certificateHash: new Uint8Array(32) }));
    expect((await r.view(view)).status).toBe("partial");
    const rejection = r.party(2).response({ requestId: itemId, verdict: "rejected", reason: "the disk is full" });
    await r.party(2).report({ itemId, seq: 0 }, rejection);
    const over = await r.view(view);
    expect(over).toMatchObject({ status: "rejected", why: "the disk is full" });
    expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
    await r.party(3).report({ itemId, seq: 0 }, trueResponse(view, r.party(3)));
    expect(itemOf(await r.view(view)).responses).toHaveLength(3);
    expect((await r.view(view)).status).toBe("rejected");
  });

  test("one that comes after the time is over is recorded and fulfils nothing", async () => {
    const r = await start();
    const view = await accepted(r);
    const { itemId } = itemOf(view);
    await r.party(1).report({ itemId, seq: 0 }, trueResponse(view, r.party(1)));
    r.world.nowMs += HOUR;
    await r.party(2).report({ itemId, seq: 0 }, trueResponse(view, r.party(2)));
    const over = await r.view(view);
    expect(over.status).toBe("expired");
    expect(itemOf(over).responses).toHaveLength(2);
    expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
    const keys = { workspaceId: r.workspaceId, keyringId: null, type: null, after: null };
    expect((await r.world.call("keyring.keys", keys, r.ann)).items).toEqual([]);
  });
});

describe("attempts", () => {
  test("who is not there is waited for a little, left out, told the decision, and answers late", async () => {
    const r = await start({ n: 5, threshold: 3 });
    r.party(5).up = false;
    const first = await approved(r);
    await r.work();
    expect(itemOf(await r.view(first)).attempt).toBe(0);
    r.world.nowMs += 2_000;
    await r.work();
    const done = await r.view(first);
    expect(done.status).toBe("fulfilled");
    expect(itemOf(done).certificate?.certificate.holders).toEqual([1, 2, 3, 4]);
    r.party(5).up = true;
    await r.work();
    expect(itemOf(await r.view(first)).responses).toHaveLength(5);
  });

  test("a server that loses an attempt leads to another one with fresh randomness, and to one key", async () => {
    const r = await start();
    const first = await approved(r);
    let lost = 0;
    const orders = new Set<string>();
    r.party(2).twist = (task, report) => {
      if (task.work.do === "begin") orders.add(task.work.order.signature.toHex());
      return report;
    };
    for (let i = 0; i < 100; i++) {
      let done = 0;
      for (const one of r.parties) done += await one.poll();
      const { attempt } = itemOf(await r.view(first));
      // in the middle of the first two attempts
      if (attempt > lost && attempt < 3) {
        for (const one of r.parties) await one.poll();
        r.party(2).restart();
        lost = attempt;
      }
      if (done === 0) break;
    }
    const done = await r.view(first);
    expect(done.status).toBe("fulfilled");
    expect(itemOf(done).attempt).toBe(3);
    expect(orders.size).toBe(3);
    expect(r.parties.map(({ shares }) => shares.size)).toEqual([1, 1, 1]);
  });

  test("who stops in the middle is left out after the time for a step, if others suffice", async () => {
    const r = await start({ n: 5, threshold: 3 });
    const first = await approved(r);
    r.party(4).twist = silentWhen("relay");
    await r.work(20);
    expect((await r.view(first)).status).toBe("pending");
    r.party(4).up = false;
    r.world.nowMs += 30_000;
    await r.work();
    r.world.nowMs += 2_000;
    await r.work();
    const done = await r.view(first);
    expect(done.status).toBe("fulfilled");
    expect(itemOf(done).certificate?.certificate.holders).toEqual([1, 2, 3, 5]);
  });

  test("where everyone is needed an absent server holds the request up, and uses no attempts up", async () => {
    const r = await start();
    const first = await approved(r);
    r.party(3).up = false;
    for (let i = 0; i < 12; i++) {
      await r.work(5);
      r.world.nowMs += 31_000;
    }
    expect(itemOf(await r.view(first)).attempt).toBe(0);
    r.party(3).up = true;
    await r.work();
    expect((await r.view(first)).status).toBe("fulfilled");
  });

  test("a server that sends a wrong partial signature is left out of the next attempt", async () => {
    const r = await start();
    const { certificate } = await r.key();
    const view = await r.submit([r.use(certificate)]);
    await r.vote(view, r.ann);
    let lies = 0;
    r.party(1).twist = (_, report) => {
      if (report.did !== "said") return report;
      const messages = report.messages.map((one): SignedMessage => {
        if (one.message.payload.round !== "partial") return one;
        lies += 1;
        const payload = { round: "partial", sealed: new Uint8Array(80).fill(lies) } as const;
        return signMessage(serverKey(1), { ...one.message, payload });
      });
      return { ...report, messages };
    };
    await r.work();
    const done = await r.view(view);
    expect(lies).toBe(1);
    expect(done.status).toBe("fulfilled");
    expect(itemOf(done)).toMatchObject({ attempt: 2 });
  });

  test("a server that a use did not take is told that it is over, once it has answered; the others are not", async () => {
    for (const type of ["schnorr", "secp256k1"] as const) {
      const r = await start();
      const { certificate } = await r.key(type);
      for (const { decisions } of r.parties) decisions.clear();
      const client = (await hpkeKeyPair(seedOf("client"))).publicKey;
      const first = await r.submit([r.use(certificate, "message", type === "schnorr" ? undefined : client)]);
      await r.vote(first, r.ann);
      await r.work();
      const view = await r.view(first);
      expect(itemOf(view).responses).toHaveLength(3);
      expect(view.status).toBe(type === "schnorr" ? "fulfilled" : "partial");
      expect(r.parties.map(({ decisions }) => [...decisions.values()])).toEqual([[], [], ["cancel "]]);
      await r.close();
      run = undefined;
    }
  });

  test("a use that never succeeds ends after eight attempts, with its fee back", async () => {
    const r = await start();
    const { certificate } = await r.key();
    const view = await r.submit([r.use(certificate)]);
    await r.vote(view, r.ann);
    for (const one of r.parties) {
      one.twist = (task, report) =>
        task.work.do === "relay" ? { did: "missed", attempt: task.work.attempt, why: "lost", final: true } : report;
    }
    await r.work();
    const over = await r.view(view);
    expect(over).toMatchObject({ status: "rejected", why: "it has used up its attempts" });
    expect(itemOf(over).attempt).toBe(8);
    expect(await r.balance()).toEqual({ balance: 970, escrowed: 0 });
    await r.work();
    for (const one of r.parties) expect(await one.tasks()).toEqual([]);
  });

  test("parties whose servers refuse end a request for which too few are left", async () => {
    const r = await start();
    const first = await approved(r);
    const { itemId } = itemOf(first);
    r.party(1).twist = () => r.party(1).response({ requestId: itemId, verdict: "rejected", reason: "not here" });
    await r.party(1).poll();
    const over = await r.view(first);
    // three of three servers make a key, whatever the threshold of responses
    expect(over).toMatchObject({ status: "rejected", why: "too few parties can take part" });
    expect(await r.balance()).toEqual({ balance: 1_000, escrowed: 0 });
  });
});

describe("refusals in the middle", () => {
  test("a server that refuses in the middle of a use is not waited for: the others go on", async () => {
    const r = await start();
    const { certificate } = await r.key();
    const view = await r.submit([r.use(certificate)]);
    await r.vote(view, r.ann);
    const { itemId } = itemOf(view);
    r.party(1).twist = (task, report) =>
      task.work.do === "relay"
        ? r.party(1).response({ requestId: itemId, verdict: "rejected", reason: "its policy denies it now" })
        : report;
    await r.work();
    const done = await r.view(view);
    expect(done.status).toBe("fulfilled");
    expect(itemOf(done).attempt).toBe(2);
  });

  test("a word that it is fulfilled, before there is a result, agrees with nothing and costs nobody the attempt", async () => {
    const r = await start();
    const first = await approved(r);
    const { itemId } = itemOf(first);
    await r.party(3).report({ itemId, seq: 0 }, r.party(3).response({ requestId: itemId, attempt: 1 }));
    expect((await r.view(first)).status).toBe("partial");
    await r.work();
    const done = await r.view(first);
    expect(done.status).toBe("fulfilled");
    expect(itemOf(done).attempt).toBe(1);
    // it has said another thing since: that is the proof
    expect(done.evidence).toHaveLength(1);
  });
});

describe("processes", () => {
  for (const [name, between] of [
    ["a registry that is restarted after every call", (r: KeyringRun) => r.restart()],
    ["two registries that take turns", () => undefined],
  ] as const) {
    test(`${name} makes exactly one key, with one decision, and one signature`, async () => {
      const r = await start();
      if (name.startsWith("two")) r.alternate();
      const first = await approved(r);
      for (let i = 0; i < 60; i++) {
        for (const one of r.parties) {
          between(r);
          await one.poll();
        }
      }
      const done = await r.view(first);
      expect(done.status).toBe("fulfilled");
      expect(itemOf(done).attempt).toBe(1);
      const { certificate } = itemOf(done);
      if (!certificate) throw new Error("no key");
      const words = new Set(r.parties.flatMap(({ decisions }) => [...decisions.values()]));
      expect([...words]).toEqual([`accept ${certificateHash(certificate.certificate).toHex()}`]);
      const use = await r.submit([r.use(certificate)]);
      await r.vote(use, r.ann);
      for (let i = 0; i < 20; i++) {
        for (const one of r.parties) {
          between(r);
          await one.poll();
        }
      }
      expect(await r.view(use)).toMatchObject({ status: "fulfilled" });
      expect(await r.balance()).toEqual({ balance: 967, escrowed: 0 });
    });
  }

  for (const seed of [1, 2, 3]) {
    test(`transactions that fail before or after they are durable lose nothing (${seed})`, async () => {
      const chance = seeded(seed);
      let failing = false;
      const fails = () => failing && (chance.bytes(1)[0] ?? 0) < 16;
      const wrap = (store: Store): Store => {
        const transaction: Store["transaction"] = async (work, near) => {
          if (fails()) throw new Fault("storage", "the disk is away");
          const done = await store.transaction(work, near);
          if (fails()) throw new Fault("storage", "the disk was away when this was written");
          return done;
        };
        return Object.assign(Object.create(store), { transaction });
      };
      const r = await start({ world: { wrap } });
      const drive = async (of: KeyringRequestView) => {
        failing = true;
        for (let i = 0; i < 80; i++) {
          for (const one of r.parties) await one.poll().catch(() => undefined);
          await r.world.service.sweep().catch(() => undefined);
          // what a process that ended in the middle has left lying
          if (i % 10 === 9) r.world.nowMs += 31_000;
        }
        failing = false;
        await r.work();
        return r.view(of);
      };
      const made = await drive(await approved(r));
      expect(made.status).toBe("fulfilled");
      const { certificate } = itemOf(made);
      if (!certificate) throw new Error("no key");
      for (const { shares, decisions } of r.parties) {
        expect([...shares.keys()]).toEqual([certificate.certificate.keyId]);
        expect([...decisions.values()]).toEqual([`accept ${certificateHash(certificate.certificate).toHex()}`]);
      }
      const use = await r.submit([r.use(certificate), r.use(certificate, "other")]);
      expect(await drive(await r.vote(use, r.ann))).toMatchObject({ why: "", status: "fulfilled" });
      expect(await r.balance()).toEqual({ balance: 964, escrowed: 0 });
    });
  }

  test("an order that was to be signed when the process ended is signed after a while", async () => {
    const r = await start();
    const first = await approved(r);
    const { ctx } = r.world.site;
    const { random } = ctx;
    const broken = () => {
      throw new Error("the process ends here");
    };
    Object.assign(ctx, { random: broken });
    for (const one of r.parties) await one.poll().catch(() => undefined);
    Object.assign(ctx, { random });
    r.restart();
    await r.work();
    expect(itemOf(await r.view(first)).attempt).toBe(0);
    r.world.nowMs += 2_000;
    await r.work();
    expect(await r.view(first)).toMatchObject({ status: "fulfilled" });
  });
});
