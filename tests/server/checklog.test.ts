import { Database, type SQLQueryBindings } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import type { UserId } from "../../src/ids.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { signCheckpoint } from "../../src/protocol/log.ts";
import { checkLog } from "../../src/server/checklog.ts";
import { openLogbook, startLog } from "../../src/server/logbook.ts";
import { SQLITE_MIGRATIONS } from "../../src/storage/migrations.ts";
import { connect, query } from "../../src/storage/sqlite/connection.ts";
import { sqliteTx } from "../../src/storage/sqlite/tx.ts";
import type { Store } from "../../src/storage/store.ts";
import { account, filled, record, userId } from "../storage/rows.ts";
import { seeded } from "../support/seeded.ts";

/** A store in memory whose rows a test may change behind its back. */
function openRows(): { db: Database; store: Store } {
  const db = new Database(":memory:", { strict: true });
  for (const { sql } of SQLITE_MIGRATIONS) db.run(sql);
  db.run("PRAGMA foreign_keys = 1");
  const connection = connect(db);
  const hooks = { guard: () => undefined, failed: () => undefined, erased: () => undefined };
  const tx = sqliteTx(query(connection, hooks));
  const store: Store = {
    engine: "memory",
    transaction: (work) => work(tx),
    check: async () => [],
    backup: async () => undefined,
    close: async () => connection.close(),
  };
  return { db, store };
}

const signers = [signerFromSeed(filled(1)), signerFromSeed(filled(2))] as const;
const ORIGIN = "keyhold/log/test";
const [LIVE, OTHER, ERASED, SHADOW] = [1, 2, 3, 4] as const;

let db: Database;
let ctx: { store: Store; log: { origin: string; signers: typeof signers } };

/** Two accounts, one that was removed, one unknown name; entries in several batches; the log of a second incarnation. */
beforeEach(async () => {
  const rows = openRows();
  ({ db } = rows);
  const { store } = rows;
  ctx = { store, log: { origin: ORIGIN, signers } };
  const limits = { ...DEFAULTS, logBatch: 2 };
  await store.transaction((tx) => startLog(tx, ORIGIN, { origin: "keyhold/log/before", size: 7, root: filled(3) }));
  const logbook = await openLogbook({ ...ctx, now: () => 0, limits }, (fault) => {
    throw fault;
  });
  await store.transaction(async (tx) => {
    for (const n of [LIVE, OTHER, ERASED]) await tx.insertAccount(account(n));
  });
  for (const round of [[LIVE, ERASED], [LIVE, OTHER, SHADOW], [OTHER, ERASED, LIVE], [SHADOW]]) {
    await store.transaction(async (tx) => {
      for (const n of round) await record(tx, n, {}, n === SHADOW ? 9_000 : null);
    });
    await logbook.flush();
  }
  await store.transaction((tx) => tx.removeAccount(userId(ERASED)));
});

afterEach(() => ctx.store.close());

test("a log as it was written holds, also with entries that no batch took yet", async () => {
  expect(await checkLog(ctx)).toEqual([]);
  await ctx.store.transaction((tx) => record(tx, OTHER));
  expect(await checkLog(ctx)).toEqual([]);
});

test("in a rotation either key may have signed the checkpoint, or both; a foreign key may not", async () => {
  const [head, stored] = await ctx.store.transaction(async (tx) => [await tx.logHead(), await tx.checkpoint()]);
  if (!head || !stored) throw new Error("no log");
  expect(stored.note).toBe(signCheckpoint(head, signers));
  for (const set of [[signers[0]], [signers[1]], [signers[1], signers[0]]]) {
    await ctx.store.transaction((tx) => tx.putCheckpoint({ size: head.size, note: signCheckpoint(head, set) }));
    expect(await checkLog(ctx)).toEqual([]);
  }
  const foreign = signCheckpoint(head, [signerFromSeed(filled(9))]);
  await ctx.store.transaction((tx) => tx.putCheckpoint({ size: head.size, note: foreign }));
  expect((await checkLog(ctx)).join()).toContain("not signed by this server's log key");
});

const idOf = (n: number): Uint8Array => Uint8Array.fromHex(userId(n) as UserId);

describe("changes by hand are named", () => {
  const CHANGES: [string, string, SQLQueryBindings[], RegExp][] = [
    ["a leaf that is edited", "UPDATE log_leaf SET seq = seq + 1 WHERE idx = 3", [], /leaf 3 has another content/],
    ["a leaf that is gone", "DELETE FROM log_leaf WHERE idx = 3", [], /leaves|leaf 3 is missing/],
    ["the last leaf that is gone", "DELETE FROM log_leaf WHERE idx = 9", [], /leaves/],
    [
      "a leaf too many",
      "INSERT INTO log_leaf SELECT idx + 1, hash, pseudonym, seq, link FROM log_leaf WHERE idx = 9",
      [],
      /leaves/,
    ],
    ["a node that is edited", "UPDATE log_node SET hash = zeroblob(32) WHERE level = 2 AND idx = 0", [], /node 2\/0/],
    ["a node too many", "INSERT INTO log_node VALUES (9, 9, zeroblob(32))", [], /too many/],
    ["another root", "UPDATE log_head SET root = zeroblob(32)", [], /do not give its root/],
    ["a shorter log", "UPDATE log_head SET size = size - 1", [], /leaves/],
    ["another origin", "UPDATE log_head SET origin = 'keyhold/log/other'", [], /another server/],
    ["no log at all", "DELETE FROM log_head", [], /never begun/],
    ["no checkpoint", "DELETE FROM checkpoint", [], /no checkpoint/],
    ["a checkpoint of another size", "UPDATE checkpoint SET size = size - 1", [], /not of its size/],
    [
      "a checkpoint that is edited",
      "UPDATE checkpoint SET note = replace(note, 'log/test', 'log/text')",
      [],
      /not signed/,
    ],
    ["another checkpoint before the restore", "UPDATE log_head SET restart_size = 8", [], /first leaf/],
    [
      "an edited entry",
      "UPDATE audit_entry SET status = 'fine' WHERE user_id = ?1 AND seq = 2",
      [idOf(LIVE)],
      /breaks at entry 3/,
    ],
    [
      "the last entry edited",
      "UPDATE audit_entry SET status = 'fine' WHERE user_id = ?1 AND seq = 3",
      [idOf(LIVE)],
      /stored links/,
    ],
    ["a cut log", "DELETE FROM audit_entry WHERE user_id = ?1 AND seq = 3", [idOf(LIVE)], /does not end at its head/],
    [
      "a cut log with its head",
      "UPDATE audit_head SET seq = 1, link = (SELECT link FROM audit_entry e WHERE e.user_id = audit_head.user_id AND e.seq = 1) WHERE user_id = ?1",
      [idOf(LIVE)],
      /ahead of it/,
    ],
    [
      "another salt",
      "UPDATE audit_head SET log_salt = zeroblob(32) WHERE user_id = ?1",
      [idOf(LIVE)],
      /pseudonym is not that/,
    ],
    [
      "an account without a pseudonym",
      "UPDATE audit_head SET log_salt = NULL WHERE user_id = ?1",
      [idOf(LIVE)],
      /no pseudonym/,
    ],
    [
      "a position marked as not logged",
      "UPDATE audit_head SET logged_seq = 1 WHERE user_id = ?1",
      [idOf(LIVE)],
      /counts as logged up to 1/,
    ],
    [
      "an account that expires",
      "UPDATE audit_head SET expires_at_ms = 1 WHERE user_id = ?1",
      [idOf(LIVE)],
      /but expires/,
    ],
    [
      "an account that is gone without erasure",
      "DELETE FROM account WHERE user_id = ?1",
      [idOf(LIVE)],
      /belongs to nobody/,
    ],
    [
      "an account marked as erased",
      "UPDATE audit_head SET pseudonym = zeroblob(32) WHERE user_id = ?1",
      [idOf(LIVE)],
      /its account is there/,
    ],
    [
      "an erased pseudonym exchanged",
      "UPDATE audit_head SET pseudonym = zeroblob(32) WHERE user_id = ?1",
      [idOf(ERASED)],
      /counts as logged up to 2/,
    ],
  ];

  test.each(CHANGES)("%s", async (_what, sql, params, names) => {
    db.query(sql).run(...params);
    expect((await checkLog(ctx)).join("\n")).toMatch(names);
  });
});

// ---- Random changes ----

const { int, pick, bytes } = seeded(6962);

/** Of an erased account nothing but its sequences, its last link and its head means anything any more. */
const TABLES = [
  ["audit_entry", `user_id != x'${userId(ERASED)}'`],
  ["audit_head", "1"],
  ["log_leaf", "1"],
  ["log_node", "1"],
  ["log_head", "1"],
  ["checkpoint", "1"],
] as const;

type Value = Uint8Array | string | number | null;

/** Another value of the same type. */
function changed(value: Value, others: readonly Value[]): Value {
  const other = pick(others);
  if (int(4) === 0 && !same(other, value)) return other;
  if (value === null) return pick<Value>([0, 1, int(1_000_000), bytes(32), bytes(16), "x"]);
  if (typeof value === "number") return pick([value + 1, value - 1, int(2 ** 40), 0, -1].filter((n) => n !== value));
  const raw = typeof value === "string" ? new TextEncoder().encode(value) : value.slice();
  const at = int(raw.length);
  raw[at] = (raw[at] ?? 0) ^ (1 << int(typeof value === "string" ? 7 : 8));
  return typeof value === "string" ? new TextDecoder().decode(raw) : raw;
}

const same = (a: Value, b: Value): boolean =>
  a instanceof Uint8Array && b instanceof Uint8Array ? Buffer.compare(a, b) === 0 : a === b;

/** Changes one row at random; gives what it did, or null when the database itself refused it. */
function mutate(): string | null {
  const [table, where] = pick(TABLES);
  const rows = db.query(`SELECT * FROM ${table} WHERE ${where}`).all() as Record<string, Value>[];
  const row = pick(rows);
  const keys = Object.keys(row);
  const match = keys.map((key, i) => `${key} IS ?${i + 1}`).join(" AND ");
  const values = keys.map((key) => row[key] ?? null);
  const shadow = row["user_id"] instanceof Uint8Array && same(row["user_id"], idOf(SHADOW));
  try {
    // the oldest entries of an unknown name expire, and all of it does
    if (int(10) === 0 && !shadow) {
      db.query(`DELETE FROM ${table} WHERE ${match}`).run(...values);
      return `delete from ${table}`;
    }
    const column = pick(keys);
    const value = changed(
      row[column] ?? null,
      rows.map((one) => one[column] ?? null),
    );
    // when the log of an unknown name expires is nobody's promise
    if (shadow && column === "expires_at_ms" && typeof value === "number") return null;
    const sql = `UPDATE ${table} SET ${column} = ?${keys.length + 1} WHERE ${match}`;
    db.query(sql).run(...values, value);
    return `${table}.${column}: ${String(row[column])} -> ${String(value)}`;
  } catch {
    return null;
  }
}

test("7,000 random changes of stored rows: each is found", async () => {
  const missed: string[] = [];
  const kinds = new Set<string>();
  for (let done = 0; done < 7_000; ) {
    db.run("SAVEPOINT mutation");
    const what = mutate();
    if (what !== null) {
      done += 1;
      kinds.add(what.split(":")[0] ?? "");
      const found = await checkLog(ctx).catch((error: unknown) => [String(error)]);
      if (found.length === 0) missed.push(what);
    }
    db.run("ROLLBACK TO mutation");
    db.run("RELEASE mutation");
  }
  expect(missed).toEqual([]);
  expect(kinds.size).toBeGreaterThan(35);
  expect(await checkLog(ctx)).toEqual([]);
}, 300_000);
