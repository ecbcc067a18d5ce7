import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { decodeModel } from "../../src/client/model.ts";
import type { HeadSummary, ShownPromise } from "../../src/client/session.ts";
import { readVaultFile } from "../../src/client/vaultfile.ts";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { appendLeaves, consistencyPlan, foldProof, inclusionPlan } from "../../src/crypto/tree.ts";
import type { UserId } from "../../src/ids.ts";
import { auditPseudonym } from "../../src/protocol/audit.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { openCheckpoint, positionLeaf, signCheckpoint, signPromise } from "../../src/protocol/log.ts";
import { openVaultWithKey } from "../../src/protocol/vault.ts";
import type { OutputOf } from "../../src/wire/operations.ts";
import { addTestDevice, random, registerDevice, type TestDevice } from "../support/harness.ts";
import {
  asking,
  detected,
  editing,
  inventing,
  rejected,
  startVillain,
  storing,
  type Villain,
} from "../support/hostile.ts";

setDefaultTimeout(60_000);
const PASSWORD = "a password of ada";
let villain: Villain;
let ada: TestDevice;
let offset = 0;
let count = 0;
const devices: TestDevice[] = [];

beforeAll(async () => {
  villain = await startVillain({ promptLog: false });
});
afterAll(() => villain.close());
beforeEach(async () => {
  offset = 0;
  ada = await device(() => registerDevice(villain.link, `ada ${++count}`, PASSWORD));
  await ada.client.store(storing("a", "first"));
});
afterEach(async () => {
  for (const one of devices.splice(0)) await one.end();
  expect(villain.server.faults).toEqual([]);
});

/** A device whose clock the test moves, and which waits for nothing. */
async function device(make: () => Promise<TestDevice>): Promise<TestDevice> {
  const made = await make();
  Object.assign(made.open.around, { now: () => Date.now() + offset, pause: async () => undefined });
  devices.push(made);
  return made;
}

const flush = () => villain.server.logbook.flush();
const log = () => ada.open.box.model.bound?.log;
const userId = () => ada.login.userId;
const later = (ms: number = DEFAULTS.logMergeMs + 1) => {
  offset += ms;
};
const fresh = () => ada.client.get(asking("a", { fresh: true }));
const asked = (operation: string) => villain.seen.filter((one) => one.operation === operation).length;
type Proof = OutputOf<"log.proof">;

/** Every proof of the log as an attacker changes it; who answers has the log key. */
const proving = (edit: (proof: Proof) => Proof | Promise<Proof>) => editing(villain, { "log.proof": edit });
const logKey = (): Signer => villain.server.ctx.log.signers[0];
const origin = () => villain.server.ctx.log.origin;

describe("a promise", () => {
  const promising = (make: (promise: ShownPromise | null, head: HeadSummary, user: UserId) => ShownPromise | null) =>
    editing(villain, {}, undefined, make);
  const write = () => ada.client.store(storing("b", "second"));
  const signed = (signer: Signer, salt: Uint8Array, head: HeadSummary, user: UserId): ShownPromise => {
    const atMs = 1_000;
    const place = { origin: origin(), pseudonym: auditPseudonym(user, salt), seq: head.auditSeq, link: head.auditLink };
    return { salt, atMs, signature: signPromise(signer, { ...place, atMs }) };
  };

  test("comes with every change, with an earlier answer given again too, and is kept until it is proven", async () => {
    expect(log()).toMatchObject({ seq: 0, checkpoint: null, newest: null });
    const first = log()?.oldest?.seq ?? 0;
    await write();
    await fresh();
    await ada.client.rename({ from: "b", to: "c" });
    expect(log()?.oldest?.seq).toBe(first);
    expect(log()?.newest?.seq).toBeGreaterThan(first + 2);
    await flush();
    await ada.client.auditVerify();
    expect(log()).toMatchObject({ oldest: null, newest: null });
  });

  test("that is missing beside an acknowledged change is detected", async () => {
    const fault = await villain.during(
      promising(() => null),
      () => rejected(write(), "integrity"),
    );
    expect(fault.why).toContain("without promising");
  });

  test("of another key, for another position, time or account is detected", async () => {
    const other = await registerDevice(villain.link, `eve ${count}`, PASSWORD);
    const wrong: ((promise: ShownPromise, head: HeadSummary, user: UserId) => ShownPromise)[] = [
      (p, head, user) => signed(signerFromSeed(random(32)), p.salt, head, user),
      (p, head, user) => signed(logKey(), p.salt, { ...head, auditSeq: head.auditSeq - 1 }, user),
      (p, head, user) => signed(logKey(), p.salt, { ...head, auditLink: random(32) }, user),
      (p) => ({ ...p, atMs: p.atMs + 1 }),
      (p, head) => signed(logKey(), p.salt, head, other.login.userId),
    ];
    for (const make of wrong) {
      const attack = promising((promise, head, user) => (promise ? make(promise, head, user) : null));
      const fault = await villain.during(attack, () => rejected(write(), "integrity"));
      expect(fault.why).toContain("log key's signature");
      await fresh();
    }
    await other.end();
  });

  test("under another pseudonym than before is detected", async () => {
    const attack = promising((_promise, head, user) => signed(logKey(), random(32), head, user));
    const fault = await villain.during(attack, () => rejected(write(), "integrity"));
    expect(fault.why).toContain("another pseudonym");
  });

  test("is followed up once it is due, by one question, and then no more", async () => {
    await flush();
    const before = asked("log.proof");
    await fresh();
    expect(asked("log.proof")).toBe(before);
    later();
    await fresh();
    expect(asked("log.proof")).toBe(before + 1);
    expect(log()).toMatchObject({ oldest: null, newest: null });
    expect(log()?.checkpoint).not.toBeNull();
    later();
    await fresh();
    expect(asked("log.proof")).toBe(before + 1);
  });

  test("that the log does not keep in time is detected; before its time it is not", async () => {
    await fresh();
    later(DEFAULTS.logMergeMs - 5_000);
    await fresh();
    later(5_001);
    const fault = await rejected(fresh(), "integrity");
    expect(fault.why).toMatch(/promised to hold entry \d+ of this account and does not/);
    await flush();
    await fresh();
  });

  test("is still owed to the next process", async () => {
    const { path } = ada.open.box;
    const key = ada.open.box.vault.key.slice();
    await ada.client.close();
    const { body } = openVaultWithKey(readVaultFile(path) ?? new Uint8Array(0), key);
    expect(decodeModel(body).bound?.log).toEqual(log());
    expect(log()?.oldest).not.toBeNull();
  });
});

describe("a proof", () => {
  const verify = () => ada.client.auditVerify();
  const resigned = (
    proof: Proof,
    changes: Partial<{ origin: string; size: number; root: Uint8Array }>,
    key = logKey(),
  ) => {
    const open = openCheckpoint(proof.checkpoint, origin(), logKey().publicKey);
    if (!open) throw new Error("no checkpoint");
    const changed = { ...open, ...changes };
    return { ...proof, checkpoint: signCheckpoint(changed, [key]) };
  };
  const place = (proof: Proof, changes: Partial<NonNullable<Proof["logged"]>>): Proof =>
    proof.logged ? { ...proof, logged: { ...proof.logged, ...changes } } : proof;

  beforeEach(async () => {
    await flush();
    await verify();
    await ada.client.store(storing("b", "second"));
    await registerDevice(villain.link, `bob ${count}`, PASSWORD).then((bob) => bob.end());
    await flush();
  });

  const LIES: [string, (proof: Proof) => Proof, RegExp][] = [
    ["a checkpoint of another key", (p) => resigned(p, {}, signerFromSeed(random(32))), /not signed by the log key/],
    ["a checkpoint of another log", (p) => resigned(p, { origin: `${origin()}0` }), /not signed by the log key/],
    ["another root", (p) => resigned(p, { root: random(32) }), /do not continue/],
    ["a smaller tree", (p) => resigned(p, { size: 1 }), /went back|do not continue/],
    ["no proof of consistency", (p) => ({ ...p, consistency: [] }), /do not continue/],
    [
      "a bent proof of consistency",
      (p) => ({ ...p, consistency: p.consistency.map(() => random(32)) }),
      /do not continue/,
    ],
    ["no place in the log", (p) => ({ ...p, logged: null }), /lost entry/],
    ["another place", (p) => place(p, { index: (p.logged?.index ?? 0) + 1 }), /does not hold this account's entry/],
    [
      "a bent proof",
      (p) => place(p, { inclusion: (p.logged?.inclusion ?? []).map(() => random(32)) }),
      /does not hold/,
    ],
    ["another entry", (p) => place(p, { link: random(32) }), /does not hold this account's entry/],
    ["another pseudonym", (p) => place(p, { salt: random(32) }), /another pseudonym/],
  ];

  test.each(LIES)("with %s is detected, and nothing is pinned", async (_what, edit, why) => {
    const before = log();
    const fault = await villain.during(proving(edit), () => rejected(verify(), "integrity"));
    expect(fault.why).toMatch(why);
    expect(log()).toEqual(before);
    await verify();
  });

  test("of what the log held before is detected: it cannot go back for one account alone", async () => {
    const old: Proof[] = [];
    await villain.during(
      proving((proof) => {
        old.push(proof);
        return proof;
      }),
      verify,
    );
    await ada.client.store(storing("c", "third"));
    await flush();
    await verify();
    const fault = await villain.during(
      proving(() => old[0] as Proof),
      () => rejected(verify(), "integrity"),
    );
    expect(fault.why).toMatch(/went back/);
  });

  test("that is withheld is detected", async () => {
    for (const error of ["not_found", "bad_input", "denied"] as const) {
      const attack = inventing(villain, "log.proof", () => ({ error }));
      const fault = await villain.during(attack, () => rejected(verify(), "integrity"));
      expect(fault.why).toContain("withholds the proof");
    }
    // a server that says it cannot is not believed either, but not accused
    const busy = inventing(villain, "log.proof", () => ({ error: "unavailable" }));
    await villain.during(busy, () => rejected(verify(), "unavailable"));
    later();
    await villain.during(
      inventing(villain, "log.proof", () => ({ error: "not_found" })),
      () => rejected(ada.client.store(storing("d", "x")), "integrity"),
    );
  });

  /** A tree of the attacker's own that continues the pinned one and holds a leaf of its choice at the end. */
  const grown = (position: (honest: NonNullable<Proof["logged"]>) => { seq: number; link: Uint8Array }) =>
    proving(async (proof) => {
      const { logged } = proof;
      if (!logged) return proof;
      const { pseudonym, ...now } = { pseudonym: auditPseudonym(userId(), logged.salt), ...position(logged) };
      const { store } = villain.server;
      const head = await store.transaction((tx) => tx.logHead());
      const leaves = await store.transaction((tx) => tx.logLeaves(0, 100_000));
      const hashes = [...leaves.map(({ hash }) => hash), positionLeaf({ pseudonym, ...now })];
      const tree = appendLeaves(0, [], hashes);
      const nodes = new Map(tree.nodes.map(({ level, index, hash }) => [`${level}/${index}`, hash]));
      const hashOf = ({ level, index }: { level: number; index: number }) =>
        (level === 0 ? hashes[index] : nodes.get(`${level}/${index}`)) as Uint8Array;
      const pinned = openCheckpoint(log()?.checkpoint?.note ?? "", origin(), logKey().publicKey);
      const since = consistencyPlan(pinned?.size ?? 0, tree.size);
      const inside = inclusionPlan(tree.size - 1, tree.size);
      expect(head?.size).toBe(tree.size - 1);
      return {
        checkpoint: signCheckpoint({ origin: origin(), size: tree.size, root: tree.root }, [logKey()]),
        logged: { ...logged, ...now, index: tree.size - 1, inclusion: foldProof(inside, inside.flat().map(hashOf)) },
        consistency: foldProof(since, since.flat().map(hashOf)),
      };
    });

  test("of an entry that is not the account's: the chain does not pass through it", async () => {
    const seen = ada.open.box.model.bound?.witnessed.seq ?? 0;
    await detected(
      villain,
      ada,
      grown(({ seq }) => ({ seq, link: random(32) })),
      verify,
    );
    const unseen = grown(() => ({ seq: seen - 1, link: random(32) }));
    const fault = await villain.during(unseen, () => rejected(verify(), "integrity"));
    expect(fault.why).toMatch(/not the one that was seen before|another entry/);
    const ahead = await villain.during(
      grown(() => ({ seq: 10_000, link: random(32) })),
      () => rejected(verify(), "integrity"),
    );
    expect(ahead.why).toContain("no answer names");
  });

  test("the honest tree grown by the account's own entry is accepted: the attack itself is sound", async () => {
    const { verified } = ada.open.box.model.bound ?? {};
    expect(verified).toBeDefined();
    const done = await villain.during(
      grown(({ seq, link }) => ({ seq, link })),
      verify,
    );
    expect(done.log?.index).toBe((done.log?.size ?? 0) - 1);
    // now the attacker is bound to that tree: the honest one is no continuation of it
    const fault = await rejected(verify(), "integrity");
    expect(fault.why).toMatch(/withholds the proof/);
  });
});

test("two devices know the account under one pseudonym: a second one for a fork is detected", async () => {
  const second = await device(() => addTestDevice(villain.link, `ada ${count}`, PASSWORD));
  await flush();
  await ada.client.auditVerify();
  const fork = random(32);
  const attack = proving((proof) => (proof.logged ? { ...proof, logged: null } : proof));
  const salted = editing(villain, {}, undefined, (promise, head, user) => {
    if (!promise) return null;
    const place = { origin: origin(), pseudonym: auditPseudonym(user, fork), seq: head.auditSeq, link: head.auditLink };
    return { salt: fork, atMs: 1, signature: signPromise(logKey(), { ...place, atMs: 1 }) };
  });
  // this device has not read the first entry yet
  if (second.open.box.model.bound) second.open.box.model.bound.log = { ...second.open.box.model.bound.log, salt: null };
  await villain.during(salted, () => second.client.store(storing("fork", "x")));
  const fault = await villain.during(attack, () => rejected(second.client.auditVerify(), "integrity"));
  expect(fault.why).toContain("another pseudonym than its first entry");
});
