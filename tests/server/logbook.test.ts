import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { verifyConsistency, verifyInclusion } from "../../src/crypto/tree.ts";
import { newId, type RequestId } from "../../src/ids.ts";
import { auditPseudonym } from "../../src/protocol/audit.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { type Checkpoint, openCheckpoint, positionLeaf, promiseHolds } from "../../src/protocol/log.ts";
import type { LogKeys } from "../../src/server/context.ts";
import { type Logbook, openLogbook, startLog } from "../../src/server/logbook.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import { rejection } from "../storage/rejection.ts";
import { account, filled, record } from "../storage/rows.ts";
import {
  call,
  commitOf,
  finishRaw,
  leafOf,
  logInRaw,
  output,
  outputOf,
  postInput,
  registerRaw,
  reserveRaw,
  startRaw,
  storeRaw,
} from "../support/attacker.ts";
import { random, startTestServer } from "../support/harness.ts";
import { hookedStore } from "../support/storeprobe.ts";

const old = signerFromSeed(filled(1));
const now = signerFromSeed(filled(2));
const ORIGIN = "keyhold/log/test";
const hooked = hookedStore();
let store: Store;
let nowMs = 1_000;

beforeEach(async () => {
  hooked.hook = null;
  nowMs = 1_000;
  store = hooked.wrap(await openSqlite(":memory:"));
});
afterEach(() => store.close());

const faults: unknown[] = [];
const opened = (more: { batch?: number; log?: LogKeys } = {}): Promise<Logbook> =>
  openLogbook(
    {
      store,
      now: () => nowMs,
      log: more.log ?? { origin: ORIGIN, signers: [old] },
      limits: { ...DEFAULTS, logBatch: more.batch ?? 3, logBatchMs: 5 },
    },
    (fault) => faults.push(fault),
  );

async function newest(key = old): Promise<Checkpoint> {
  const row = await store.transaction((tx) => tx.checkpoint());
  const found = row ? openCheckpoint(row.note, ORIGIN, key.publicKey) : null;
  if (!found) throw new Error("no checkpoint of this key");
  return found;
}

const write = (...users: number[]) =>
  store.transaction(async (tx) => {
    for (const n of users) {
      await tx.insertAccount(account(n));
      await record(tx, n);
    }
  });

describe("flushing", () => {
  test("an empty log has a checkpoint from the start", async () => {
    const logbook = await opened();
    await logbook.flush();
    expect(await newest()).toMatchObject({ size: 0 });
    expect(logbook.figures()).toEqual({ size: 0, signed: 0, currentAtMs: 1_000 });
  });

  test("takes every head once, in batches, the newest position of each alone", async () => {
    const logbook = await opened();
    await write(1, 2, 3, 4, 5, 6, 7);
    await write(1, 1, 2);
    nowMs = 9_000;
    await logbook.flush();
    expect(await newest()).toMatchObject({ size: 7 });
    expect(logbook.figures()).toEqual({ size: 7, signed: 7, currentAtMs: 9_000 });
    const leaves = await store.transaction((tx) => tx.logLeaves(0, 9));
    expect(leaves.map(({ seq }) => seq)).toEqual([3, 2, 1, 1, 1, 1, 1]);
    await logbook.flush();
    expect((await newest()).size).toBe(7);
  });

  test("goes on where a process stopped between the commit and the signature", async () => {
    await (await opened()).flush();
    hooked.hook = async (method, args, run) => {
      if (method === "putCheckpoint") throw new Error("killed");
      return run(...args);
    };
    await write(1, 2);
    expect(await rejection((await opened()).flush())).toMatchObject({ message: "killed" });
    hooked.hook = null;
    expect((await newest()).size).toBe(0);
    await (await opened()).flush();
    expect((await newest()).size).toBe(2);
  });

  test("leaves nothing of a batch that failed", async () => {
    const logbook = await opened();
    await logbook.flush();
    await write(1, 2);
    for (const when of ["before", "after"]) {
      hooked.hook = async (method, args, run) => {
        if (method !== "appendLog") return run(...args);
        if (when === "after") await run(...args);
        throw new Error("lost power");
      };
      expect(await rejection(logbook.flush())).toMatchObject({ message: "lost power" });
      hooked.hook = null;
      const counts = await store.transaction((tx) => tx.logCounts());
      expect(counts).toEqual({ leaves: 0, nodes: 0 });
    }
    await logbook.flush();
    expect((await newest()).size).toBe(2);
  });

  test("of two processes at once makes one log: each head once, each checkpoint a continuation", async () => {
    const [one, two] = [await opened({ batch: 2 }), await opened({ batch: 2 })];
    await one.flush();
    const seen: Checkpoint[] = [await newest()];
    for (let round = 0; round < 5; round++) {
      await write(round * 3 + 1, round * 3 + 2, round * 3 + 3);
      await Promise.all([one.flush(), two.flush(), one.flush()]);
      seen.push(await newest());
    }
    expect(seen.map(({ size }) => size)).toEqual([0, 3, 6, 9, 12, 15]);
    const users = await store.transaction((tx) => tx.logLeaves(0, 99));
    expect(new Set(users.map(({ pseudonym }) => pseudonym.toHex())).size).toBe(15);
  });

  test("repeats itself by the clock and stops when told", async () => {
    const logbook = await opened();
    logbook.start();
    await write(1);
    while (logbook.figures().size === 0) await Bun.sleep(1);
    await logbook.stop();
    await write(2);
    await Bun.sleep(30);
    expect(logbook.figures().size).toBe(1);
  });
});

describe("what it refuses to sign", () => {
  const stored = (sql: (tx: Parameters<Parameters<Store["transaction"]>[0]>[0]) => Promise<unknown>) =>
    store.transaction(async (tx) => {
      await sql(tx);
    });

  beforeEach(async () => {
    await write(1, 2, 3);
    await (await opened()).flush();
  });

  const BREAKS: [string, () => Promise<unknown>, RegExp][] = [
    [
      "a log that is shorter than its checkpoint",
      () => stored((tx) => tx.startLog({ origin: ORIGIN, size: 0, root: filled(1), restart: null }, [])),
      /root|not this server's|shorter/,
    ],
    [
      "a checkpoint of a stranger",
      () => stored((tx) => tx.putCheckpoint({ size: 3, note: "x\n" })),
      /not this server's/,
    ],
    [
      "another root than the nodes give",
      () =>
        stored(async (tx) => {
          const head = await tx.logHead();
          if (head) await tx.appendLog(head, { size: 3, root: filled(9) }, { leaves: [], nodes: [], heads: [] });
        }),
      /nodes do not give its root/,
    ],
    [
      "the log of another server",
      () => stored((tx) => tx.startLog({ origin: "keyhold/log/other", size: 0, root: filled(1), restart: null }, [])),
      /another server/,
    ],
  ];

  test.each(BREAKS)("%s", async (_what, breakIt, why) => {
    await breakIt();
    const fault = await rejection((await opened()).flush());
    expect(fault).toMatchObject({ code: "corrupt", why: expect.stringMatching(why) });
  });

  test("reports a standing failure once, not at every turn", async () => {
    await BREAKS[3]?.[1]();
    faults.length = 0;
    const logbook = await opened();
    logbook.start();
    await Bun.sleep(60);
    await logbook.stop();
    expect(faults).toHaveLength(1);
  });
});

test("a rotation signs with both keys, and at its end with the new one alone", async () => {
  await write(1);
  await (await opened()).flush();
  await (await opened({ log: { origin: ORIGIN, signers: [now, old] } })).flush();
  expect(await newest(old)).toEqual(await newest(now));
  await (await opened({ log: { origin: ORIGIN, signers: [now] } })).flush();
  expect((await newest(now)).size).toBe(1);
  expect(await rejection(newest(old))).toBeInstanceOf(Error);
});

test("a new incarnation's log begins with the checkpoint of the one before and takes every head anew", async () => {
  await write(1, 2);
  await (await opened()).flush();
  const before = await newest();
  const again = "keyhold/log/again";
  await store.transaction((tx) => startLog(tx, again, before));
  await (await opened({ log: { origin: again, signers: [old] } })).flush();
  const head = await store.transaction((tx) => tx.logHead());
  expect(head).toMatchObject({ origin: again, size: 3, restart: before });
  const note = (await store.transaction((tx) => tx.checkpoint()))?.note ?? "";
  expect(openCheckpoint(note, again, old.publicKey)?.size).toBe(3);
  expect(openCheckpoint(note, ORIGIN, old.publicKey)).toBeNull();
});

describe("over the wire", () => {
  test("proofs hold for the account that asks, and from every earlier size", async () => {
    const server = await startTestServer();
    const alice = await registerRaw(server, "alice");
    const session = await logInRaw(server, "alice", alice.password);
    await registerRaw(server, "bob");
    const { origin, signers } = server.ctx.log;
    const checkpoints: Checkpoint[] = [];
    for (let i = 0; i < 5; i++) {
      await storeRaw(server, session, alice);
      await registerRaw(server, `other ${i}`);
      await server.logbook.flush();
      const { checkpoint } = outputOf("log.checkpoint", await postInput(server, "log.checkpoint", {}));
      const found = openCheckpoint(checkpoint, origin, signers[0].publicKey);
      if (found) checkpoints.push(found);
    }
    expect(checkpoints).toHaveLength(5);
    for (const { size, root } of checkpoints) {
      const proof = output("log.proof", await call(server, session, "log.proof", { since: size }));
      const top = openCheckpoint(proof.checkpoint, origin, signers[0].publicKey);
      if (!top) throw new Error("no checkpoint");
      expect(verifyConsistency(size, root, top.size, top.root, proof.consistency)).toBe(true);
      if (!proof.logged) throw new Error("not logged");
      const { salt, seq, link, index, inclusion } = proof.logged;
      const leaf = positionLeaf({ pseudonym: auditPseudonym(alice.userId, salt), seq, link });
      expect(verifyInclusion(leaf, index, top.size, inclusion, top.root)).toBe(true);
    }
    const beyond = await call(server, session, "log.proof", { since: 10_000 });
    expect(beyond.code).toBe("bad_input");
    await server.close();
  });

  test("an unknown name's log enters the tree like a known one's", async () => {
    const server = await startTestServer({ promptLog: false });
    await registerRaw(server, "alice");
    await server.logbook.flush();
    const before = server.logbook.figures().size;
    for (const name of ["alice", "nobody"]) {
      await finishRaw(server, await startRaw(server, name, "wrong"));
      const size = server.logbook.figures().size;
      await server.logbook.flush();
      expect([name, server.logbook.figures().size]).toEqual([name, size + 1]);
    }
    expect(server.logbook.figures().size).toBe(before + 2);
    await server.close();
  });

  test("a change, its recorded answer and a refused change bring a promise over their position; a read brings none", async () => {
    const server = await startTestServer();
    const alice = await registerRaw(server, "alice");
    const session = await logInRaw(server, "alice", alice.password);
    expect((await call(server, session, "session.check", {})).promise).toBeNull();
    const requestId = newId<RequestId>(random);
    const sealed = random(120);
    const leaf = leafOf(await reserveRaw(server, session), sealed, null);
    const made = commitOf(alice, "secret.store", [{ leaf, sealed }], requestId);
    const answers = [
      await call(server, session, "secret.store", made.input, { requestId }),
      await call(server, session, "secret.store", made.input, { requestId }),
      await call(server, session, "secret.store", made.input),
    ];
    expect(answers.map(({ code }) => code === "ok")).toEqual([true, true, false]);
    const { origin, signers } = server.ctx.log;
    for (const { head, promise } of answers) {
      if (!head || !promise) throw new Error("no promise");
      const { salt, atMs, signature } = promise;
      const pseudonym = auditPseudonym(alice.userId, salt);
      const place = { origin, pseudonym, seq: head.auditSeq, link: head.auditLink, atMs };
      expect(promiseHolds(signers[0].publicKey, place, signature)).toBe(true);
      expect(promiseHolds(signers[0].publicKey, { ...place, seq: place.seq + 1 }, signature)).toBe(false);
    }
    await server.close();
  });
});
