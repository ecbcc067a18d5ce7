import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { useSequence } from "../../../src/protocol/channel.ts";
import { POSTGRES_MIGRATIONS } from "../../../src/storage/migrations.ts";
import { openPostgres } from "../../../src/storage/postgres.ts";
import type { Store, Tx } from "../../../src/storage/store.ts";
import { hasPostgres, POSTGRES_MS, startPostgres, type TestPostgres } from "../../support/postgres.ts";
import { rejection } from "../rejection.ts";
import { account, EVERY, filled, login, record, session, sessionId, state, userId, ZEROS } from "../rows.ts";

/** Two stores on one database: what two processes would do to each other. */

let postgres: TestPostgres;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres();
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

const opened: Store[] = [];
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});

async function pair(): Promise<{ stores: readonly [Store, Store]; url: string }> {
  const url = await postgres.create();
  const stores = [await openPostgres(url), await openPostgres(url)] as const;
  opened.push(...stores);
  return { stores, url };
}

/** Runs `work` `times` times on each of both stores at once. */
const onBoth = <T>(stores: readonly Store[], times: number, work: (tx: Tx, i: number) => Promise<T>): Promise<T[]> =>
  Promise.all(
    stores.flatMap((store) => Array.from({ length: times }, (_, i) => store.transaction((tx) => work(tx, i)))),
  );

describe.skipIf(!hasPostgres)("two stores on one PostgreSQL", () => {
  test("of all that swap the same state, one wins, round after round", async () => {
    const { stores } = await pair();
    await stores[0].transaction(async (tx) => tx.insertAccount(account(1)));
    let current = account(1).stateHash;
    for (let round = 2; round < 8; round += 1) {
      const expected = current;
      const won = await onBoth(stores, 5, async (tx, i) => {
        const stateHash = filled(round * 100 + i);
        return (await tx.swapState(userId(1), expected, { state: state(1, round), stateHash })) ? stateHash : undefined;
      });
      const hashes = won.filter((hash) => hash !== undefined);
      expect(hashes.length).toBe(1);
      current = hashes[0] ?? current;
      expect((await stores[1].transaction(async (tx) => tx.account(userId(1))))?.stateHash).toEqual(current);
    }
  });

  test("each sequence of a session is used once, whichever store sees it first", async () => {
    const { stores } = await pair();
    await stores[0].transaction(async (tx) => tx.putSession(session(1)));
    const used = await onBoth(stores, 60, async (tx, i) => {
      const row = await tx.session(sessionId(1));
      const next = row && useSequence(row, i + 1);
      if (!next) return 0;
      await tx.touchSession(sessionId(1), { lastUsedMs: 5, ...next });
      return i + 1;
    });
    const accepted = used.filter((sequence) => sequence > 0).toSorted((a, b) => a - b);
    expect(accepted).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
  });

  test("a login state is taken once", async () => {
    const { stores } = await pair();
    for (let n = 1; n <= 5; n += 1) {
      await stores[0].transaction(async (tx) => tx.putLoginState(login(n)));
      const taken = await onBoth(stores, 6, async (tx) => tx.takeLoginState(sessionId(n)));
      expect(taken.filter((row) => row !== undefined)).toEqual([login(n)]);
    }
  });

  test("guesses are counted exactly, from a bucket that is not there on", async () => {
    const { stores } = await pair();
    await onBoth(stores, 60, async (tx) => {
      const row = await tx.limit("a");
      await tx.putLimit({ bucket: "a", count: (row?.count ?? 0) + 1, blockedUntilMs: 0, updatedAtMs: 1 });
    });
    expect((await stores[0].transaction(async (tx) => tx.limit("a")))?.count).toBe(120);
  });

  test("one value is drawn by all that find none", async () => {
    const { stores } = await pair();
    let drawn = 0;
    const seen = await onBoth(stores, 10, async (tx) => {
      const known = await tx.setting("incarnation");
      if (known !== undefined) return known;
      drawn += 1;
      await tx.putSetting("incarnation", `drawn ${drawn}`);
      return `drawn ${drawn}`;
    });
    expect(new Set(seen).size).toBe(1);
  });

  test("a row that the other store inserts first is seen on the second look, or is a conflict", async () => {
    const { stores } = await pair();
    const put = await Promise.allSettled(
      stores.map((store) => store.transaction(async (tx) => tx.putSession(session(9)))),
    );
    expect(put.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
    const looked = await onBoth(stores, 5, async (tx) => {
      if (await tx.session(sessionId(10))) return "there";
      await tx.putSession(session(10));
      return "made";
    });
    expect(looked.filter((word) => word === "made").length).toBe(1);
    const accounts = await onBoth(stores, 4, async (tx) => tx.insertAccount(account(3)));
    expect(accounts.filter(Boolean).length).toBe(1);
  });

  test("logs grow without a gap under both", async () => {
    const { stores } = await pair();
    await onBoth(stores, 40, async (tx) => record(tx, 1));
    const entries = await stores[0].transaction(async (tx) => tx.audit(userId(1), EVERY));
    expect(entries.map(({ entry }) => entry.seq)).toEqual(Array.from({ length: 80 }, (_, i) => i + 1));
  });

  test("an account that is removed keeps nothing of a login at the same time", async () => {
    const { stores } = await pair();
    for (let n = 1; n <= 6; n += 1) {
      await stores[0].transaction(async (tx) => {
        await tx.insertAccount(account(n));
        await record(tx, n);
      });
      await Promise.all([
        stores[0].transaction(async (tx) => tx.removeAccount(userId(n))),
        stores[1].transaction(async (tx) => {
          if (!(await tx.credential(account(n).credentialId))) return;
          await tx.putSession(session(n, { userId: userId(n) }));
          await record(tx, n);
        }),
      ]);
      await stores[0].transaction(async (tx) => {
        expect(await tx.account(userId(n))).toBeUndefined();
        expect(await tx.sessionsOf(userId(n))).toEqual([]);
        expect(await tx.audit(userId(n), EVERY)).toEqual([]);
      });
    }
  });

  test("both sweep the same rows, and each row goes once", async () => {
    const { stores } = await pair();
    await stores[0].transaction(async (tx) => {
      for (let n = 1; n <= 40; n += 1) await tx.putLoginState(login(n));
    });
    const taken = (await onBoth(stores, 4, async (tx) => tx.takeExpiredLoginStates(100, 8))).flat();
    const rest = await stores[0].transaction(async (tx) => tx.takeExpiredLoginStates(100, 100));
    const ids = [...taken, ...rest].map((row) => row.expiresAtMs).toSorted((a, b) => a - b);
    expect(ids).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  });

  test("a transaction sees one moment, whatever the other store commits meanwhile", async () => {
    const { stores } = await pair();
    await stores[0].transaction(async (tx) => {
      await tx.putSetting("a", "0");
      await tx.putSetting("b", "0");
    });
    let running = true;
    const writer = (async () => {
      for (let n = 1; running; n += 1) {
        await stores[1].transaction(async (tx) => {
          await tx.putSetting("a", `${n}`);
          await tx.putSetting("b", `${n}`);
        });
      }
    })();
    for (let i = 0; i < 100; i += 1) {
      const [a, b] = await stores[0].transaction(async (tx) => [await tx.setting("a"), await tx.setting("b")]);
      expect(a).toBe(b);
    }
    running = false;
    await writer;
  });

  test("works near the same thing take turns on one store and need no second try", async () => {
    const { stores } = await pair();
    let runs = 0;
    await Promise.all(
      Array.from({ length: 60 }, () =>
        stores[0].transaction(async (tx) => {
          runs += 1;
          const row = await tx.limit("near");
          await tx.putLimit({ bucket: "near", count: (row?.count ?? 0) + 1, blockedUntilMs: 0, updatedAtMs: 1 });
        }, "one account"),
      ),
    );
    expect(runs).toBe(60);
    expect((await stores[0].transaction(async (tx) => tx.limit("near")))?.count).toBe(60);
  });

  test("more works than may wait are refused with the time to wait", async () => {
    const url = await postgres.create();
    const store = await openPostgres(url, { limits: { waiting: 5 } });
    opened.push(store);
    const results = await Promise.allSettled(
      Array.from({ length: 9 }, (_, i) => store.transaction(async (tx) => tx.putSetting(`${i}`, ""))),
    );
    const refused = results.filter((result) => result.status === "rejected");
    expect(refused.length).toBe(4);
    for (const { reason } of refused) expect(reason).toMatchObject({ code: "unavailable", retryAfterMs: 1_000 });
  });

  test("four processes that start on an empty database make one schema", async () => {
    for (const url of [await postgres.create(), await postgres.create()]) {
      const script = join(import.meta.dir, "starter.ts");
      const children = Array.from({ length: 4 }, () =>
        Bun.spawn([process.execPath, script], {
          env: { ...process.env, STARTER_URL: url },
          stdin: "ignore",
          stdout: "pipe",
          stderr: "pipe",
        }),
      );
      const said = await Promise.all(
        children.map(async (child) => `${await child.stdout.text()}${await child.stderr.text()}${await child.exited}`),
      );
      expect(new Set(said)).toEqual(new Set([said[0] ?? ""]));
      expect(said[0]).toMatch(/^incarnation [0-9a-f]{32}\n0$/);
      const rows = await postgres.admin(new URL(url).pathname.slice(1)).unsafe("SELECT id, name FROM migration");
      expect(rows.length).toBe(POSTGRES_MIGRATIONS.length);
    }
  });

  test("the same head of the server-wide log is moved once", async () => {
    const { stores } = await pair();
    const before = { size: 0, root: new Uint8Array(32) };
    await stores[0].transaction(async (tx) => tx.startLog({ origin: "o", restart: null, ...before }, []));
    const leaf = (n: number) => ({ hash: filled(n), pseudonym: filled(n), seq: 1, link: filled(n) });
    const won = await onBoth(stores, 5, async (tx, i) =>
      tx.appendLog(before, { size: 1, root: filled(i) }, { leaves: [leaf(i)], nodes: [], heads: [] }),
    );
    expect(won.filter(Boolean).length).toBe(1);
    expect(await stores[0].transaction(async (tx) => tx.logCounts())).toEqual({ leaves: 1, nodes: 0 });
  });

  test("an entry on a head that the other store moved is a conflict", async () => {
    const { stores } = await pair();
    const item = await stores[0].transaction(async (tx) => record(tx, 1));
    const stale = stores[1].transaction(async (tx) => tx.appendAudit(item, { seq: 1, link: ZEROS.link }, null));
    expect(await rejection(stale)).toMatchObject({ code: "conflict" });
  });
});
