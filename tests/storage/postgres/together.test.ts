import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { accountOf, LeftAlone, ofAccount } from "../../../src/storage/postgres/together.ts";
import { openPostgres } from "../../../src/storage/postgres.ts";
import type { Store, Tx } from "../../../src/storage/store.ts";
import { hasPostgres, POSTGRES_MS, startPostgres, type TestPostgres } from "../../support/postgres.ts";
import { rejection } from "../rejection.ts";
import { EVERY, record, request, session, sessionId, state, userId } from "../rows.ts";

/** Works of different accounts in one transaction, in turns. */

let postgres: TestPostgres;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres(["fsync = off"]);
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

test("an account's transaction takes its own account's rows and leaves for anything else", async () => {
  const calls: string[] = [];
  const tx = new Proxy({} as Tx, { get: (_, name) => async () => void calls.push(String(name)) });
  let left = 0;
  const own = ofAccount(tx, userId(1), () => {
    left += 1;
  });
  await own.account(userId(1));
  await own.session(sessionId(7));
  await own.putRequest(request(1));
  await own.auditHead(userId(1));
  expect(calls).toEqual(["account", "session", "putRequest", "auditHead"]);
  const others: (() => Promise<unknown>)[] = [
    () => own.account(userId(2)),
    () => own.stateHashOf(userId(2)),
    () => own.putRequest(request(1, { userId: userId(2) })),
    () => own.limit("a"),
    () => own.setting("a"),
    () => own.credential(new Uint8Array(32)),
    () => own.removeAccount(userId(1)),
    () => own.accounts(null, 1),
    () => own.checkpoint(),
  ];
  for (const other of others) expect(await rejection(other())).toBeInstanceOf(LeftAlone);
  expect(left).toBe(others.length);
  expect(calls.length).toBe(4);
});

test("only an account's id names an account", () => {
  expect(accountOf(userId(3))).toBe(userId(3));
  for (const near of [undefined, "", "address:127.0.0.1", "a".repeat(31), "A".repeat(32)]) {
    expect(accountOf(near)).toBeUndefined();
  }
});

describe.skipIf(!hasPostgres)("works of different accounts", () => {
  let store: Store;
  let commits: number[];
  beforeEach(async () => {
    commits = [];
    store = await openPostgres(await postgres.create(), {
      limits: { lanes: 1 },
      committed: (transactions) => commits.push(transactions),
    });
  });
  afterEach(async () => {
    await store.close();
  });

  const users = Array.from({ length: 20 }, (_, i) => i + 1);
  const logs = (): Promise<number[]> =>
    store.transaction(async (tx) => {
      const counts: number[] = [];
      for (const n of users) counts.push((await tx.audit(userId(n), EVERY)).length);
      return counts;
    });

  test("share a commit", async () => {
    await Promise.all(
      users.map((n) =>
        store.transaction(async (tx) => {
          await tx.putRequest(request(n, { userId: userId(n) }));
          return record(tx, n);
        }, userId(n)),
      ),
    );
    expect(await logs()).toEqual(users.map(() => 1));
    expect(commits).toEqual([20]);
  });

  test("of one account take turns", async () => {
    await Promise.all(users.map(() => store.transaction(async (tx) => record(tx, 1), userId(1))));
    expect((await logs())[0]).toBe(20);
  });

  test("one that fails after it has written, by itself or by a statement, or leaves its account, hurts no other", async () => {
    await store.transaction(async (tx) => tx.putSession(session(1)));
    const spoilers: ((tx: Tx) => Promise<unknown>)[] = [
      async (tx) => {
        await record(tx, 5);
        throw new Fault("denied", "no");
      },
      async (tx) => {
        await record(tx, 5);
        await tx.appendState(userId(5), state(5, 1));
        await tx.touchSession(sessionId(1), { lastUsedMs: 1, high: 1, window: new Uint8Array(3) });
      },
      async (tx) => {
        await record(tx, 5);
        await tx.putSetting("left", String(Number((await tx.setting("left")) ?? "0") + 1));
        throw new Fault("denied", "no");
      },
      async () => {
        throw new Fault("denied", "before anything");
      },
    ];
    for (const [round, spoil] of spoilers.entries()) {
      const ends = await Promise.allSettled(
        users.map((n) => store.transaction(async (tx) => (n === 5 ? spoil(tx) : record(tx, n)), userId(n))),
      );
      expect(ends.flatMap(({ status }, i) => (status === "rejected" ? [i + 1] : []))).toEqual([5]);
      expect(await logs()).toEqual(users.map((n) => (n === 5 ? 0 : round + 1)));
    }
    expect(await store.transaction(async (tx) => tx.setting("left"))).toBeUndefined();
  });
});
