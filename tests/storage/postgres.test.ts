import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import { POSTGRES_MIGRATIONS } from "../../src/storage/migrations.ts";
import { openPostgres } from "../../src/storage/postgres.ts";
import type { Store } from "../../src/storage/store.ts";
import { hasPostgres, POSTGRES_MS, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { storeContract } from "./contract.ts";
import { rejection } from "./rejection.ts";
import { account, filled, keyId, leaf, record, userId } from "./rows.ts";

let postgres: TestPostgres;
beforeAll(async () => {
  // nothing here crashes the machine
  if (hasPostgres) postgres = await startPostgres(["fsync = off", "full_page_writes = off"]);
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

const opened: Store[] = [];
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});

async function open(...args: Parameters<typeof openPostgres>): Promise<Store> {
  const store = await openPostgres(...args);
  opened.push(store);
  return store;
}

const nameOf = (url: string): string => new URL(url).pathname.slice(1);

/** A database that a store has made and left, with one account in it. */
async function filledDatabase(): Promise<{ url: string; admin: Bun.SQL }> {
  const url = await postgres.create();
  const store = await openPostgres(url);
  await store.transaction(async (tx) => {
    await tx.insertAccount(account(1));
    await record(tx, 1);
  });
  await store.close();
  return { url, admin: postgres.admin(nameOf(url)) };
}

/** Everything in the database's schema: names of things and rows of tables. */
async function contentOf(admin: Bun.SQL): Promise<string> {
  const tables: { name: string }[] = await admin.unsafe(
    "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname",
  );
  const rows = await Promise.all(
    tables.map(async ({ name }) => {
      const [kind] = await admin.unsafe("SELECT relkind FROM pg_class WHERE oid = $1::regclass", [`public."${name}"`]);
      return kind.relkind === "r" ? await admin.unsafe(`SELECT t::text FROM public."${name}" AS t ORDER BY 1`) : [];
    }),
  );
  return JSON.stringify([tables, rows]);
}

async function expectRefused(url: string, admin: Bun.SQL, code: string, text: RegExp): Promise<void> {
  const before = await contentOf(admin);
  const fault = await rejection(openPostgres(url));
  expect(fault).toBeInstanceOf(Fault);
  expect(fault).toMatchObject({ code, message: expect.stringMatching(text) });
  expect(String(fault)).not.toContain(encodeURIComponent(postgres.password));
  expect(String(fault)).not.toContain(postgres.password);
  expect(await contentOf(admin)).toBe(before);
}

describe.skipIf(!hasPostgres)("postgres", () => {
  storeContract("postgres", async () => openPostgres(await postgres.create()));
  test("what was acknowledged is there after closing and opening", async () => {
    const { url } = await filledDatabase();
    const store = await open(url);
    const row = await store.transaction(async (tx) => tx.account(userId(1)));
    expect(row).toMatchObject({ userId: userId(1), record: account(1).record, settings: account(1).settings });
    expect(store.engine).toBe("postgres");
  });

  test("another program's database is refused and left alone", async () => {
    for (const statement of [
      "CREATE TABLE theirs (a int); INSERT INTO theirs VALUES (1)",
      "CREATE TABLE migration (id int, done boolean)",
      "CREATE VIEW migration AS SELECT 1 AS id, 'x' AS name, 'y' AS sha256",
      "CREATE TABLE a (id int); CREATE TABLE migration (id int, name text, sha256 text, at int)",
    ]) {
      const url = await postgres.create();
      const admin = postgres.admin(nameOf(url));
      await admin.unsafe(statement);
      await expectRefused(url, admin, "corrupt", /another program/);
    }
  });

  test("a newer schema and a changed migration are refused and left alone", async () => {
    const newer = await filledDatabase();
    await newer.admin.unsafe("INSERT INTO migration VALUES (9999, '9999-later', $1)", ["0".repeat(64)]);
    await expectRefused(newer.url, newer.admin, "unsupported", /newer keyhold/);
    const changed = await filledDatabase();
    await changed.admin.unsafe("UPDATE migration SET sha256 = $1 WHERE id = 1", ["0".repeat(64)]);
    await expectRefused(changed.url, changed.admin, "corrupt", /schema/);
  });

  test("an older schema is brought up to date; a migration that fails leaves no trace", async () => {
    const { url, admin } = await filledDatabase();
    const half = { name: "9001-half", sql: "CREATE TABLE extra (a int); INSERT INTO nowhere VALUES (1)" };
    const before = await contentOf(admin);
    expect(await rejection(openPostgres(url, { migrations: [...POSTGRES_MIGRATIONS, half] }))).toBeInstanceOf(Fault);
    expect(await contentOf(admin)).toBe(before);
    const whole = { name: "9001-whole", sql: "CREATE TABLE extra (a int)" };
    const store = await open(url, { migrations: [...POSTGRES_MIGRATIONS, whole] });
    expect(await store.check()).toEqual([]);
    expect(await rejection(openPostgres(url))).toMatchObject({ code: "unsupported" });
  });

  test("a first migration that fails leaves the database empty", async () => {
    const url = await postgres.create();
    const before = await contentOf(postgres.admin(nameOf(url)));
    const broken = [{ name: "0001-broken", sql: "CREATE TABLE extra (a int); SELECT 1 / 0" }];
    expect(await rejection(openPostgres(url, { migrations: broken }))).toBeInstanceOf(Fault);
    expect(await contentOf(postgres.admin(nameOf(url)))).toBe(before);
  });

  test("a wrong password, an absent role, an absent database and a dead port are refused in words", async () => {
    const url = await postgres.create();
    const wrong = postgres.url(nameOf(url), { password: "wrong" });
    expect(await rejection(openPostgres(wrong))).toMatchObject({ code: "denied" });
    expect(await rejection(openPostgres(postgres.url(nameOf(url), { user: "nobody" })))).toMatchObject({
      code: "denied",
    });
    expect(await rejection(openPostgres(postgres.url("absent")))).toMatchObject({ code: "not_found" });
    const dead = url.replace(`:${postgres.port}/`, ":1/");
    expect(await rejection(openPostgres(dead))).toMatchObject({ code: "unavailable", retryAfterMs: 1_000 });
    expect(await rejection(openPostgres(`${url}?sslmode=require`))).toMatchObject({ code: "tls_refused" });
  });

  test("a role that may not make tables is told so", async () => {
    const url = await postgres.create();
    const admin = postgres.admin(nameOf(url));
    await admin.unsafe("CREATE ROLE guest LOGIN PASSWORD 'guest'");
    const spec = postgres.url(nameOf(url), { user: "guest", password: "guest" });
    expect(await rejection(openPostgres(spec))).toMatchObject({
      code: "denied",
      message: expect.stringMatching(/role/),
    });
  });

  test("an encoding other than UTF8 is refused", async () => {
    await postgres
      .admin()
      .unsafe("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    expect(await rejection(openPostgres(postgres.url("latin")))).toMatchObject({ code: "corrupt" });
  });

  test("a Unix socket and a password from the environment do as well", async () => {
    const name = nameOf(await postgres.create());
    const store = await open(`postgres:///${name}?host=${postgres.socket}&port=${postgres.port}&user=keyhold`, {
      env: { PGPASSWORD: postgres.password },
    });
    expect(await store.transaction(async (tx) => tx.setting("x"))).toBeUndefined();
  });

  test("commits are durable whatever the role's default is", async () => {
    const url = await postgres.create();
    const admin = postgres.admin(nameOf(url));
    await admin.unsafe(`ALTER DATABASE ${nameOf(url)} SET synchronous_commit = 'off'`);
    const migrations = [
      ...POSTGRES_MIGRATIONS,
      {
        name: "9001-seen",
        sql: `
      CREATE TABLE seen (level TEXT NOT NULL);
      INSERT INTO seen SELECT current_setting('synchronous_commit');`,
      },
    ];
    await open(url, { migrations });
    expect([...(await admin.unsafe("SELECT level FROM seen"))]).toEqual([{ level: "on" }]);
  });

  test("rows that point to nothing and a changed schema are found by the check", async () => {
    const { url, admin } = await filledDatabase();
    const store = await open(url);
    await store.transaction(async (tx) => tx.appendLeaf(userId(1), 1, leaf(1), filled(1)));
    expect(await store.check()).toEqual([]);
    await admin.unsafe("DELETE FROM secret");
    expect((await store.check()).join()).toMatch(/leaf.*sealed_value/);
    await admin.unsafe("DELETE FROM audit_head");
    expect((await store.check()).join()).toMatch(/audit_entry/);
    await admin.unsafe("UPDATE migration SET name = 'x' WHERE id = 1");
    expect((await store.check()).join()).toMatch(/schema/);
  });

  test("a fault that the work swallows forbids the commit all the same, and its neighbours are kept", async () => {
    const store = await open(await postgres.create());
    const [bad, good] = await Promise.allSettled([
      store.transaction(async (tx) => {
        await tx.putSetting("bad", "1");
        await tx.putInvite({ codeHash: "a", createdAtMs: 1, expiresAtMs: 1, usedAtMs: null, conflicts: 0, hint: "" });
        await tx.putInvite({ codeHash: "a", createdAtMs: 1, expiresAtMs: 1, usedAtMs: null, conflicts: 0, hint: "" });
        await tx.setting("bad").catch(() => undefined);
        return "done";
      }),
      store.transaction(async (tx) => tx.putSetting("good", "1")),
    ]);
    expect(bad).toMatchObject({ status: "rejected", reason: { code: "conflict" } });
    expect(good.status).toBe("fulfilled");
    expect(await store.transaction(async (tx) => [await tx.setting("bad"), await tx.setting("good")])).toEqual([
      undefined,
      "1",
    ]);
  });

  test("a number that the database would round is refused", async () => {
    const store = await open(await postgres.create());
    for (const wrong of [0.5, Number.NaN, 2 ** 53]) {
      const put = store.transaction(async (tx) =>
        tx.putLimit({ bucket: "a", count: wrong, blockedUntilMs: 0, updatedAtMs: 0 }),
      );
      expect(await rejection(put)).toMatchObject({ code: "internal" });
    }
    expect(await store.transaction(async (tx) => tx.limit("a"))).toBeUndefined();
  });

  test("what a refused statement held is in no message", async () => {
    const store = await open(await postgres.create());
    const secret = "canary-in-a-row";
    const put = store.transaction(async (tx) => {
      await tx.putSetting("a", secret);
      await tx.putInvite({ codeHash: secret, createdAtMs: 1, expiresAtMs: 1, usedAtMs: null, conflicts: 0, hint: "" });
      await tx.putInvite({ codeHash: secret, createdAtMs: 1, expiresAtMs: 1, usedAtMs: null, conflicts: 0, hint: "" });
    });
    expect(JSON.stringify(await rejection(put).then((f) => [String(f), Object.entries(f as object)]))).not.toContain(
      secret,
    );
  });

  test("connections leave no mark behind when they are closed", async () => {
    const url = await postgres.create();
    const store = await openPostgres(url);
    await Promise.all(
      Array.from({ length: 40 }, (_, i) => store.transaction(async (tx) => tx.putSetting(`${i}`, "x"))),
    );
    const admin = postgres.admin(nameOf(url));
    expect((await admin.unsafe("SELECT * FROM commit_mark")).length).toBeGreaterThan(0);
    await store.close();
    expect((await admin.unsafe("SELECT * FROM commit_mark")).length).toBe(0);
    expect(await store.transaction(async (tx) => tx.setting("1")).catch((f: Fault) => f.code)).toBe("unavailable");
  });

  test("a key's erasure is a change of the rows at once", async () => {
    const store = await open(await postgres.create());
    await store.transaction(async (tx) => tx.appendLeaf(userId(1), 1, leaf(1), filled(1)));
    await store.transaction(async (tx) => tx.eraseSecret(userId(1), keyId(1)));
    expect(await store.transaction(async (tx) => tx.sealedValue(userId(1), keyId(1), 1))).toBeUndefined();
  });
});
