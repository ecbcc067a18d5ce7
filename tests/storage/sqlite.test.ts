import { Database } from "bun:sqlite";
import { afterAll, afterEach, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { Fault } from "../../src/errors.ts";
import { SQLITE_MIGRATIONS } from "../../src/storage/migrations.ts";
import { isSqliteFit } from "../../src/storage/sqlite/open.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import { storeContract } from "./contract.ts";
import { rejection } from "./rejection.ts";
import { account, entry, filled, headAfter, keyId, leaf, record, session, userId, ZEROS } from "./rows.ts";
import { temporaryDirectories } from "./temporary.ts";

const directories = temporaryDirectories();
afterAll(directories.clean);

const opened: Store[] = [];
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
});

async function open(path: string, options?: Parameters<typeof openSqlite>[1]): Promise<Store> {
  const store = await openSqlite(path, options);
  opened.push(store);
  return store;
}

const newPath = (): string => join(directories.make(), "keyhold.db");

/** A closed database with one account in it. */
async function filledDatabase(): Promise<string> {
  const path = newPath();
  const store = await openSqlite(path);
  await store.transaction(async (tx) => tx.insertAccount(account(1)));
  await store.close();
  return path;
}

async function expectRefused(path: string, code: string, text: RegExp): Promise<void> {
  const before = readFileSync(path);
  const fault = await rejection(openSqlite(path));
  expect(fault).toBeInstanceOf(Fault);
  expect(fault).toMatchObject({ code, message: expect.stringMatching(text) });
  expect(readFileSync(path).equals(before)).toBe(true);
}

storeContract("sqlite in memory", () => openSqlite(":memory:"));
storeContract("sqlite in a file", () => openSqlite(newPath()));

test("what was acknowledged is there after closing and opening", async () => {
  const path = await filledDatabase();
  const store = await open(path);
  expect(await store.transaction(async (tx) => tx.account(userId(1)))).toEqual(account(1));
  expect(existsSync(`${path}-wal`)).toBe(true);
});

test("files are readable by their owner alone, whatever the umask, which stays as it was", async () => {
  const before = process.umask(0o000);
  try {
    const path = newPath();
    const store = await open(path);
    await store.transaction(async (tx) => tx.putSetting("a", "1"));
    expect(process.umask()).toBe(0o000);
    const files = readdirSync(join(path, ".."));
    expect(files.toSorted()).toEqual(["keyhold.db", "keyhold.db-shm", "keyhold.db-wal"]);
    for (const file of files) expect(statSync(join(path, "..", file)).mode & 0o777).toBe(0o600);
  } finally {
    process.umask(before);
  }
});

test("an empty file becomes a database", async () => {
  const path = newPath();
  writeFileSync(path, "");
  const store = await open(path);
  expect(await store.transaction(async (tx) => tx.insertAccount(account(1)))).toBe(true);
});

test("what a first start left that was cut short does not stand in the way of the next one", async () => {
  const path = join(directories.make(), "keyhold.db");
  writeFileSync(`${path}.new`, "half a database");
  writeFileSync(`${path}.new-journal`, "its journal");
  const store = await openSqlite(path);
  expect(await store.check()).toEqual([]);
  await store.close();
  expect(readdirSync(dirname(path))).toEqual(["keyhold.db"]);
});

test("the log of a database that is gone is not played into a new one", async () => {
  const path = join(directories.make(), "keyhold.db");
  const before = await openSqlite(path);
  await before.transaction((tx) => tx.putSetting("old", "value"));
  const wal = readFileSync(`${path}-wal`);
  await before.close();
  rmSync(path);
  writeFileSync(`${path}-wal`, wal);
  const store = await openSqlite(path);
  expect(await store.transaction((tx) => tx.setting("old"))).toBeUndefined();
  expect(await store.check()).toEqual([]);
  await store.close();
});

test("a changed migration is refused and the file left alone", async () => {
  const path = await filledDatabase();
  const raw = new Database(path);
  raw.run("UPDATE migration SET sha256 = ?1", ["0".repeat(64)]);
  raw.close();
  await expectRefused(path, "corrupt", /schema/);
});

test("a newer schema is refused and the file left alone", async () => {
  const path = await filledDatabase();
  const raw = new Database(path);
  raw.run("INSERT INTO migration (id, name, sha256) VALUES (9999, '9999-later', ?1)", ["0".repeat(64)]);
  raw.close();
  await expectRefused(path, "unsupported", /newer keyhold/);
});

test("an older schema is brought up to date, and not opened for reading alone", async () => {
  const path = await filledDatabase();
  const migrations = [...SQLITE_MIGRATIONS, { name: "9998-test", sql: "CREATE TABLE extra (a INTEGER) STRICT" }];
  expect(await rejection(openSqlite(path, { readonly: true, migrations }))).toMatchObject({ code: "unsupported" });
  const store = await openSqlite(path, { migrations });
  expect(await store.transaction(async (tx) => tx.account(userId(1)))).toEqual(account(1));
  await store.close();
  await expectRefused(path, "unsupported", /newer keyhold/);
});

test("a migration that fails leaves no trace", async () => {
  const path = await filledDatabase();
  const half = { name: "9998-half", sql: "CREATE TABLE extra (a INTEGER) STRICT; INSERT INTO nowhere VALUES (1)" };
  expect(await rejection(openSqlite(path, { migrations: [...SQLITE_MIGRATIONS, half] }))).toBeInstanceOf(Fault);
  const raw = new Database(path);
  expect(raw.query("SELECT name FROM sqlite_schema WHERE name = 'extra'").all()).toEqual([]);
  raw.close();
  const store = await open(path);
  expect(await store.check()).toEqual([]);
});

test("a file that is no database is refused and left alone", async () => {
  for (const text of ["hello\n", "SQLite format 3\0", "x".repeat(5_000)]) {
    const path = newPath();
    writeFileSync(path, text);
    await expectRefused(path, "corrupt", /not an SQLite database/);
    expect(readdirSync(join(path, ".."))).toEqual(["keyhold.db"]);
  }
});

test("another program's database is refused and left alone", async () => {
  for (const applicationId of [0, 0x0f05_5112]) {
    const path = newPath();
    const raw = new Database(path);
    raw.run(`PRAGMA application_id = ${applicationId}`);
    raw.run("CREATE TABLE theirs (a)");
    raw.close();
    await expectRefused(path, "corrupt", /another program/);
  }
});

test("a damaged database is refused and left alone", async () => {
  const whole = readFileSync(await filledDatabase());
  const short = newPath();
  writeFileSync(short, whole.subarray(0, whole.length - 4_096));
  await expectRefused(short, "corrupt", /end is missing/);
  const noSchema = newPath();
  writeFileSync(noSchema, Buffer.concat([whole.subarray(0, 100), Buffer.alloc(3_996, 0x55), whole.subarray(4_096)]));
  await expectRefused(noSchema, "corrupt", /damaged/);
  const zeros = newPath();
  writeFileSync(zeros, Buffer.alloc(whole.length));
  await expectRefused(zeros, "corrupt", /not an SQLite database/);
});

test("damage inside the file is found by the check and never answered with", async () => {
  const path = newPath();
  const store = await openSqlite(path);
  await store.transaction(async (tx) => {
    for (let n = 1; n <= 40; n += 1) await tx.insertAccount(account(n));
  });
  await store.close();
  const bytes = readFileSync(path);
  const at = bytes.indexOf(account(20).record);
  const page = Math.floor(at / 4_096) * 4_096;
  bytes.fill(0xee, page, page + 64);
  writeFileSync(path, bytes);
  const damaged = await open(path);
  expect((await damaged.check()).length).toBeGreaterThan(0);
  const fault = await rejection(damaged.transaction(async (tx) => tx.accounts(null, 100)));
  expect(fault).toMatchObject({ code: "corrupt" });
});

test("a directory and a missing parent are refused with a fault", async () => {
  const directory = directories.make();
  mkdirSync(join(directory, "keyhold.db"));
  expect(await rejection(openSqlite(join(directory, "keyhold.db")))).toMatchObject({ code: "corrupt" });
  expect(await rejection(openSqlite(join(directory, "none", "keyhold.db")))).toMatchObject({ code: "storage" });
});

test("a store for reading alone reads, refuses to write, and makes no file", async () => {
  const path = await filledDatabase();
  const before = readFileSync(path);
  const store = await open(path, { readonly: true });
  expect(await store.transaction(async (tx) => tx.account(userId(1)))).toEqual(account(1));
  const write = store.transaction(async (tx) => tx.putSetting("a", "1"));
  expect(await rejection(write)).toMatchObject({ code: "storage", message: expect.stringMatching(/read-only/) });
  expect(await store.check()).toEqual([]);
  await store.close();
  expect(readFileSync(path).equals(before)).toBe(true);

  const absent = newPath();
  expect(await rejection(openSqlite(absent, { readonly: true }))).toMatchObject({ code: "corrupt" });
  expect(existsSync(absent)).toBe(false);
});

test("a fault that the work swallows forbids the commit all the same", async () => {
  const path = await filledDatabase();
  const store = await open(path, { readonly: true });
  const write = store.transaction(async (tx) => {
    await tx.putSetting("a", "1").catch(() => undefined);
    return "done";
  });
  expect(await rejection(write)).toMatchObject({ code: "storage" });
});

test("a value outside the integers that SQLite keeps exactly is refused", async () => {
  const store = await open(":memory:");
  for (const count of [0.5, Number.NaN]) {
    const write = store.transaction(async (tx) =>
      tx.putLimit({ bucket: "a", count, blockedUntilMs: 0, updatedAtMs: 0 }),
    );
    expect(await rejection(write)).toBeInstanceOf(Fault);
  }
  expect(await store.transaction(async (tx) => tx.limit("a"))).toBeUndefined();
});

const CANARY_META = Buffer.from("canary-in-metadata-".repeat(4));
const CANARY_VALUE = Buffer.from("canary-in-sealed-value-".repeat(700));
const CANARY_ACTION = "canary.in.audit.entry";
const CANARY_SALT = Buffer.from("canary-in-an-audit-entrys-salt!!");

/** True when the database or its WAL holds the bytes. */
function filesHold(path: string, canary: Uint8Array): boolean {
  return ["", "-wal"].some((end) => existsSync(path + end) && readFileSync(path + end).includes(canary));
}

test("a purged secret's bytes are gone from the files when the purge is acknowledged", async () => {
  const path = newPath();
  const store = await open(path);
  await store.transaction(async (tx) => {
    for (const n of [1, 2, 3]) await tx.appendLeaf(userId(1), n, leaf(n), filled(n, 3_000));
    await tx.appendLeaf(userId(1), 4, leaf(4, 1, { meta: CANARY_META }), CANARY_VALUE);
  });
  const piece = CANARY_VALUE.subarray(0, 23);
  expect(filesHold(path, piece)).toBe(true);
  expect(filesHold(path, CANARY_META)).toBe(true);
  await store.transaction(async (tx) => tx.eraseSecret(userId(1), keyId(4)));
  expect(filesHold(path, piece)).toBe(false);
  expect(filesHold(path, CANARY_META)).toBe(false);
  expect(await store.transaction(async (tx) => tx.sealedValue(userId(1), keyId(3), 1))).toEqual(filled(3, 3_000));
});

test("a removed account's bytes are gone from the files, the links of its log are not", async () => {
  const path = newPath();
  const store = await open(path);
  const link = await store.transaction(async (tx) => {
    await tx.insertAccount({ ...account(1), sealedName: CANARY_META });
    await tx.insertAccount(account(2));
    const item = { ...entry(1, ZEROS, { action: CANARY_ACTION }), salt: Uint8Array.from(CANARY_SALT) };
    await tx.appendAudit(item, headAfter(item), null);
    await record(tx, 1);
    await tx.appendLeaf(userId(1), 1, leaf(1), CANARY_VALUE);
    return headAfter(item).link;
  });
  const gone = [CANARY_META, CANARY_VALUE.subarray(0, 23), Buffer.from(CANARY_ACTION), CANARY_SALT];
  for (const canary of gone) expect(filesHold(path, canary)).toBe(true);
  await store.transaction(async (tx) => tx.removeAccount(userId(1)));
  for (const canary of gone) expect(filesHold(path, canary)).toBe(false);
  expect(filesHold(path, link)).toBe(true);
  expect(await store.transaction(async (tx) => tx.account(userId(2)))).toEqual(account(2));
});

test("a removed document's bytes are gone from the files; the entry of an index costs no checkpoint", async () => {
  const path = newPath();
  const store = await open(path);
  const put = (kind: string, body: Uint8Array) =>
    store.transaction((tx) => tx.putDocument({ kind, id: "a", owner: "", place: 1, body }, 0));
  const removed = (kind: string) => store.transaction((tx) => tx.removeDocument(kind, "a"));
  await put("share", CANARY_META);
  await put("openRequest", new TextEncoder().encode("{}"));
  expect(await removed("openRequest")).toBe(true);
  expect(statSync(`${path}-wal`).size).toBeGreaterThan(0);
  expect(filesHold(path, CANARY_META)).toBe(true);
  expect(await removed("share")).toBe(true);
  expect(filesHold(path, CANARY_META)).toBe(false);
});

test("a transaction that fails after a purge keeps the secret", async () => {
  const store = await open(newPath());
  await store.transaction(async (tx) => tx.appendLeaf(userId(1), 1, leaf(1), filled(1)));
  const purge = store.transaction(async (tx) => {
    await tx.eraseSecret(userId(1), keyId(1));
    throw new RangeError("no");
  });
  expect(await rejection(purge)).toBeInstanceOf(RangeError);
  expect(await store.transaction(async (tx) => tx.sealedValue(userId(1), keyId(1), 1))).toEqual(filled(1));
});

test("a crash's files, copied as they stand, open with all that was acknowledged", async () => {
  const path = newPath();
  const store = await open(path);
  await store.transaction(async (tx) => tx.insertAccount(account(1)));
  const copy = newPath();
  copyFileSync(path, copy);
  copyFileSync(`${path}-wal`, `${copy}-wal`);
  const reopened = await open(copy);
  expect(await reopened.transaction(async (tx) => tx.account(userId(1)))).toEqual(account(1));
});

test("SQLite before 3.51.3 is not fit", () => {
  for (const version of ["3.51.3", "3.51.10", "3.52.0", "4.0.0", "3.100.0"]) expect(isSqliteFit(version)).toBe(true);
  for (const version of ["3.51.2", "3.9.99", "3.43.2", "2.99.99", "", "x"]) expect(isSqliteFit(version)).toBe(false);
});

test("a database from before the second factor keeps its sessions, which are whole", async () => {
  const path = newPath();
  await (await openSqlite(path, { migrations: SQLITE_MIGRATIONS.slice(0, 3) })).close();
  const db = new Database(path);
  const { sessionId: id, factor } = session(1);
  db.run("INSERT INTO session VALUES (?, ?, ?, 1, 1, 1000, 0, ?)", [
    Uint8Array.fromHex(id),
    new Uint8Array(16),
    new Uint8Array(72),
    new Uint8Array(128),
  ]);
  db.close();
  const store = await open(path);
  expect((await store.transaction((tx) => tx.session(id)))?.factor).toBe(factor);
});
