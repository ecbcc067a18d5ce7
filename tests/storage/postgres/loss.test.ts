import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { openPostgres } from "../../../src/storage/postgres.ts";
import type { Store, Tx } from "../../../src/storage/store.ts";
import { hasPostgres, POSTGRES_MS, startPostgres, type TestPostgres } from "../../support/postgres.ts";
import { type Cut, type Wirecut, wirecut } from "../../support/wirecut.ts";
import { rejection } from "../rejection.ts";

/** Connections that break, commits whose reply is lost, a database server that goes away. */

let postgres: TestPostgres;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres();
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0)) await thing.close();
});

async function open(...args: Parameters<typeof openPostgres>): Promise<Store> {
  const store = await openPostgres(...args);
  opened.unshift(store);
  return store;
}

const count = async (tx: Tx): Promise<number> => (await tx.limit("count"))?.count ?? 0;
const countUp = async (tx: Tx): Promise<void> =>
  tx.putLimit({ bucket: "count", count: (await count(tx)) + 1, blockedUntilMs: 0, updatedAtMs: 1 });

/** Runs `times` counts, `width` at a time; says how each ended. */
async function countMany(store: Store, times: number, width: number): Promise<Map<string, number>> {
  const ends = new Map<string, number>();
  let left = times;
  const one = async () => {
    while (left > 0) {
      left -= 1;
      const end = await store.transaction(countUp).then(
        () => "ok",
        (error: unknown) => (error instanceof Fault ? error.code : String(error)),
      );
      ends.set(end, (ends.get(end) ?? 0) + 1);
      if (end !== "ok") await Bun.sleep(20);
    }
  };
  await Promise.all(Array.from({ length: width }, one));
  return ends;
}

/** A store behind a line that can be cut, on a new database. */
async function cutStore(options: Parameters<typeof openPostgres>[1] = {}): Promise<{ store: Store; line: Wirecut }> {
  const url = await postgres.create();
  const line = await wirecut(postgres.port);
  opened.push(line);
  const timing = { connectMs: 300, ...options.timing };
  const store = await open(url.replace(`:${postgres.port}/`, `:${line.port}/`), { ...options, timing });
  return { store, line };
}

describe.skipIf(!hasPostgres)("a PostgreSQL that is lost", () => {
  test("backends that are ended in the middle of transactions cost nothing that was acknowledged", async () => {
    const url = await postgres.create();
    const store = await open(url);
    const name = new URL(url).pathname.slice(1);
    const admin = postgres.admin();
    let killing = true;
    let killed = 0;
    const killer = (async () => {
      while (killing) {
        const rows = await admin.unsafe(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'keyhold'",
          [name],
        );
        killed += rows.length;
        await Bun.sleep(80);
      }
    })();
    const ends = await countMany(store, 200, 8);
    killing = false;
    await killer;
    expect(killed).toBeGreaterThan(2);
    const ok = ends.get("ok") ?? 0;
    expect([...ends.keys()].filter((end) => !["ok", "unavailable"].includes(end))).toEqual([]);
    expect(ok).toBeGreaterThan(20);
    expect(await store.transaction(count)).toBe(ok);
  }, 60_000);

  for (const cut of ["reply", "request"] as const satisfies Cut[]) {
    test(`a commit whose ${cut} is lost is done once, and its work is answered`, async () => {
      const { store, line } = await cutStore();
      for (let n = 1; n <= 4; n += 1) {
        line.arm(cut);
        await store.transaction(countUp);
        expect(line.cuts()).toBe(n);
        expect(await store.transaction(count)).toBe(n);
      }
      line.arm(cut);
      await Promise.all(Array.from({ length: 20 }, () => store.transaction(countUp)));
      expect(await store.transaction(count)).toBe(24);
    });
  }

  test("a commit that arrives after it was given up does nothing", async () => {
    const { store, line } = await cutStore();
    line.arm("late");
    const work = store.transaction(countUp);
    while (line.cuts() === 0) await Bun.sleep(5);
    // the old transaction still holds its rows: this waits for the database server to end it
    const early = setTimeout(() => line.release(), 8_000);
    await work;
    clearTimeout(early);
    line.release();
    await Bun.sleep(50);
    expect(await store.transaction(count)).toBe(1);
  }, 30_000);

  test("a commit that arrives while it is looked for counts, and is not done again", async () => {
    const { store, line } = await cutStore();
    line.arm("late");
    const work = store.transaction(countUp);
    while (line.cuts() === 0) await Bun.sleep(5);
    await Bun.sleep(700);
    line.release();
    await work;
    expect(await store.transaction(count)).toBe(1);
  }, 30_000);

  test("a commit that cannot be looked up is unknown, and says so", async () => {
    const { store, line } = await cutStore({ limits: { patienceMs: 600 } });
    for (const cut of ["reply", "request"] as const) {
      line.arm(cut, true);
      expect(await rejection(store.transaction(countUp))).toMatchObject({
        code: "outcome_unknown",
        retryAfterMs: 1_000,
      });
      line.refuse(false);
      line.arm(undefined);
    }
    // the first of them took place
    expect(await store.transaction(count)).toBe(1);
  });

  test("a work that only reads runs again when its commit is lost", async () => {
    const { store, line } = await cutStore();
    line.arm("reply");
    expect(await store.transaction(async (tx) => (await tx.setting("x")) ?? "none")).toBe("none");
    expect(line.cuts()).toBe(1);
  });

  test("a line that goes silent ends in a refusal, and the store goes on over a new one", async () => {
    const { store, line } = await cutStore({ timing: { silentMs: 500, idleMs: 800 }, limits: { patienceMs: 4_000 } });
    line.arm("hole");
    await store.transaction(countUp);
    expect(line.cuts()).toBe(1);
    expect(await store.transaction(count)).toBe(1);
  }, 30_000);

  test("while no connection can be made works are refused at once, and later they are done", async () => {
    const { store, line } = await cutStore();
    await store.transaction(countUp);
    line.refuse(true);
    await postgres
      .admin()
      .unsafe("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keyhold'");
    await Bun.sleep(50);
    const refused = await Promise.all(Array.from({ length: 5 }, () => rejection(store.transaction(countUp))));
    for (const fault of refused) expect(fault).toMatchObject({ code: "unavailable", retryAfterMs: 1_000 });
    line.refuse(false);
    await store.transaction(countUp);
    expect(await store.transaction(count)).toBe(2);
  });

  test("a crash and a restart of the database server lose nothing that was acknowledged", async () => {
    const url = await postgres.create();
    const store = await open(url);
    const work = countMany(store, 300, 6);
    for (const mode of ["immediate", "fast"] as const) {
      await Bun.sleep(60);
      await postgres.stop(mode);
      await Bun.sleep(100);
      await postgres.start();
    }
    const ends = await work;
    const ok = ends.get("ok") ?? 0;
    const unknown = ends.get("outcome_unknown") ?? 0;
    expect([...ends.keys()].filter((end) => !["ok", "unavailable", "outcome_unknown"].includes(end))).toEqual([]);
    expect(ok).toBeGreaterThan(0);
    const found = await store.transaction(count);
    expect(found).toBeGreaterThanOrEqual(ok);
    expect(found).toBeLessThanOrEqual(ok + unknown);
  }, 90_000);

  test("closing while connections are lost ends", async () => {
    const { store, line } = await cutStore({ limits: { patienceMs: 300 } });
    line.arm("request", true);
    const work = store.transaction(countUp).catch(() => undefined);
    await store.close();
    await work;
    expect(await rejection(store.transaction(countUp))).toMatchObject({ code: "unavailable" });
  });
});
