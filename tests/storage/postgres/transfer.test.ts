import { Database } from "bun:sqlite";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkServer } from "../../../src/server/check.ts";
import { readKeyFiles } from "../../../src/server/directory.ts";
import { openKeyServer } from "../../../src/server/keyserver.ts";
import { silentLog } from "../../../src/server/log.ts";
import { restoreServer } from "../../../src/server/restore.ts";
import { openPostgres } from "../../../src/storage/postgres.ts";
import { openSqlite } from "../../../src/storage/sqlite.ts";
import type { Store } from "../../../src/storage/store.ts";
import { copyIn, demandEmptyPostgres } from "../../../src/storage/transfer.ts";
import { random, registerDevice, startTestServer } from "../../support/harness.ts";
import { rejected, storing } from "../../support/hostile.ts";
import {
  hasPostgres,
  POSTGRES_MS,
  startPostgres,
  type TestPostgres,
  testWithPostgres,
} from "../../support/postgres.ts";

/** Backups of PostgreSQL as an embedded database, and restores of one into PostgreSQL. */

let postgres: TestPostgres;
let directory: string;
const at = (name: string) => join(directory, name);

beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres();
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "keyhold-transfer-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Every row of every table, in one order. */
function contentOf(path: string): Record<string, string[]> {
  const db = new Database(path, { readonly: true });
  const names = db.query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").all() as {
    name: string;
  }[];
  const hex = (_key: string, value: unknown) => (value instanceof Uint8Array ? `hex ${value.toHex()}` : value);
  const content = names.map(({ name }) => [
    name,
    db
      .query(`SELECT * FROM ${name}`)
      .all()
      .map((row) => JSON.stringify(row, hex))
      .sort(),
  ]);
  db.close();
  return Object.fromEntries(content);
}

/** A database with a bit of everything. */
async function busy(path: string) {
  const server = await startTestServer({ path });
  await server.logbook.flush();
  const ada = await registerDevice(server.link(), "ädä", "a password of ada");
  for (let i = 0; i < 3; i++) await ada.client.store(storing(`n/${i}`, `value ${i}`));
  await ada.client.store(storing("n/0", "value 0 again"));
  await ada.client.store(storing("big", "x".repeat(60_000)));
  await ada.client.remove({ name: "n/1", purge: false });
  await ada.client.remove({ name: "n/2", purge: true });
  const { store } = server;
  await store.transaction(async (tx) => {
    await tx.putInvite({
      ...{ codeHash: "a", createdAtMs: 1, usedAtMs: null },
      expiresAtMs: 2 ** 50,
      conflicts: 0,
      hint: "é",
    });
    await tx.putDocument({ kind: "vote", id: "ünïcode", owner: "é", place: 2 ** 50, body: random(300) }, 0);
    await tx.putLimit({ bucket: "address:ünïcode", count: 3, blockedUntilMs: 0, updatedAtMs: Date.now() });
    await tx.putLoginState({
      ...{ sessionId: "0".repeat(32) as never, credentialId: random(32), userId: "1".repeat(32) as never },
      ...{ recordVersion: 0, expiresAtMs: 5, sealed: random(40), bucket: "x", addressBucket: "y" },
    });
  });
  await server.logbook.flush();
  return { server, ada };
}

describe("round trip", () => {
  testWithPostgres("embedded, PostgreSQL, embedded: every row is the same, and the server's check holds", async () => {
    const { server, ada } = await busy(at("server.db"));
    await server.store.backup(at("a.db"));
    const url = await postgres.create();
    await copyIn(url, at("a.db"));
    const store = await openPostgres(url);
    expect(await store.check()).toEqual([]);
    const { items } = await checkServer({ ...server.ctx, store });
    expect(items.filter(({ ok }) => !ok)).toEqual([]);
    await store.backup(at("b.db"));
    await store.close();
    const [before, after] = [contentOf(at("a.db")), contentOf(at("b.db"))];
    for (const table of [
      "account",
      "leaf",
      "sealed_value",
      "audit_entry",
      "log_leaf",
      "checkpoint",
      "rate_limit",
      "login_state",
      "document",
    ]) {
      expect([table, before[table]?.length ?? 0]).not.toEqual([table, 0]);
    }
    expect(after).toEqual(before);
    const again = await openSqlite(at("b.db"));
    expect(await again.check()).toEqual([]);
    await again.close();
    await ada.end();
    await server.close();
  });
});

describe("into PostgreSQL", () => {
  testWithPostgres("a database that holds anything is refused, and stays", async () => {
    const { server, ada } = await busy(at("server.db"));
    await server.store.backup(at("a.db"));
    const url = await postgres.create();
    await copyIn(url, at("a.db"));
    await rejected(copyIn(url, at("a.db")), "exists");
    await rejected(demandEmptyPostgres(url), "exists");
    await ada.end();
    await server.close();
  });

  testWithPostgres("cut short by a row that does not fit, it is empty still", async () => {
    const { server, ada } = await busy(at("server.db"));
    await server.store.backup(at("a.db"));
    const db = new Database(at("a.db"));
    // SQLite does not mind what PostgreSQL's column refuses
    db.run("PRAGMA ignore_check_constraints = 1");
    db.run("UPDATE leaf SET previous = x'00'");
    db.close();
    const url = await postgres.create();
    await copyIn(url, at("a.db")).then(
      () => {
        throw new Error("it was taken");
      },
      () => undefined,
    );
    await demandEmptyPostgres(url);
    await ada.end();
    await server.close();
  });
});

/** Writes until told to stop; what it has written by then. */
function writer(store: Store) {
  let stop = false;
  const acknowledged: string[] = [];
  const running = (async () => {
    for (let i = 0; !stop; i++) {
      const name = `written:${i}`;
      await store.transaction(async (tx) => {
        await tx.putSetting(name, "1");
        await tx.putSetting(`${name}:twin`, "1");
      });
      acknowledged.push(name);
    }
  })();
  return {
    acknowledged,
    async end() {
      stop = true;
      await running;
    },
  };
}

/** A backup under load holds what was acknowledged before, and no half of anything. */
async function underLoad(store: Store, path: string): Promise<void> {
  const load = writer(store);
  while (load.acknowledged.length < 30) await Bun.sleep(1);
  const before = [...load.acknowledged];
  await store.backup(path);
  await load.end();
  expect(load.acknowledged.length).toBeGreaterThan(before.length);
  const db = new Database(path, { readonly: true });
  const found = new Set((db.query("SELECT name FROM setting").all() as { name: string }[]).map(({ name }) => name));
  db.close();
  expect(before.filter((name) => !found.has(name))).toEqual([]);
  for (const name of found) if (/^written:\d+$/.test(name)) expect(found.has(`${name}:twin`)).toBe(true);
  expect([...found].filter((name) => name.endsWith(":twin") && !found.has(name.slice(0, -5)))).toEqual([]);
}

describe("a backup while others write", () => {
  testWithPostgres("of PostgreSQL", async () => {
    const store = await openPostgres(await postgres.create());
    await underLoad(store, at("backup.db"));
    await store.close();
  });

  testWithPostgres("of an embedded database", async () => {
    const store = await openSqlite(at("server.db"));
    await underLoad(store, at("backup.db"));
    await store.close();
  });

  testWithPostgres("that cannot be written leaves nothing", async () => {
    const store = await openPostgres(await postgres.create());
    const path = join(directory, "absent", "backup.db");
    await store.backup(path).then(
      () => {
        throw new Error("it was written");
      },
      () => undefined,
    );
    expect(existsSync(path)).toBe(false);
    await store.close();
  });
});

describe("a server's restore into PostgreSQL", () => {
  const serverAt = (dir: string, database: string | null) =>
    openKeyServer({ dir, database, registration: "open", version: "test", log: silentLog, opaqueWorkers: 1 });
  const restoring = async (dir: string, database: string, keys: ReadonlyMap<string, Uint8Array>) =>
    restoreServer({ dir, database, data: at("data.db"), keys, random, now: Date.now });

  async function backedUp() {
    mkdirSync(at("old"), { mode: 0o700 });
    const server = await serverAt(at("old"), null);
    const { incarnation } = server.ctx;
    await server.ctx.store.backup(at("data.db"));
    await server.close();
    return { incarnation, keys: await readKeyFiles(at("old")) };
  }

  testWithPostgres("starts as a server of a new incarnation, and needs both halves", async () => {
    const { incarnation, keys } = await backedUp();
    const url = await postgres.create();
    const done = await restoring(at("new"), url, keys);
    expect(done.previousIncarnation).toBe(incarnation);
    expect(existsSync(at("new/keyhold.db"))).toBe(false);
    const server = await serverAt(at("new"), url);
    expect(server.ctx.incarnation).toBe(done.incarnation);
    await server.close();
    await rejected(serverAt(at("elsewhere"), url), "corrupt");
  });

  testWithPostgres("cut short before its commit it is begun again, after it it is found complete", async () => {
    const { keys } = await backedUp();
    const url = await postgres.create();
    mkdirSync(at("new"), { mode: 0o700 });
    const mark = at("new/restore-not-complete");
    writeFileSync(mark, "restoring\n", { mode: 0o600 });
    writeFileSync(at("new/keyhold.db.restoring"), "half", { mode: 0o600 });
    await rejected(serverAt(at("new"), url), "corrupt");
    await demandEmptyPostgres(url);
    const done = await restoring(at("new"), url, keys);
    // as a kill between the commit and the removal of the mark leaves it
    writeFileSync(mark, done.incarnation, { mode: 0o600 });
    await rejected(serverAt(at("new"), url), "corrupt");
    expect(await restoring(at("new"), url, keys)).toEqual(done);
    expect(existsSync(mark)).toBe(false);
    await (await serverAt(at("new"), url)).close();
    // another's mark is not believed
    writeFileSync(mark, "0".repeat(32), { mode: 0o600 });
    await rejected(restoring(at("new"), url, keys), "exists");
  });

  testWithPostgres("of a database that holds anything is refused, and nothing is left", async () => {
    const { keys } = await backedUp();
    const url = await postgres.create();
    await restoring(at("new"), url, keys);
    await rejected(restoring(at("other"), url, keys), "exists");
    expect(existsSync(at("other"))).toBe(false);
  });
});
