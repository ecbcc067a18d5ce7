import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errorOf, exitOf, keyhold, openWorld, SETUP_MS, serve, spawn, type World } from "../binary/world.ts";
import { seeded } from "../support/seeded.ts";

/** A server directory that is not as it was left: refused at the start with the reason, and left as it is. */

setDefaultTimeout(90_000);
let world: World;
/** A server directory with an account and secrets, stopped in order; and another server's. */
let good: string;
let other: string;
/** A copy of the owner's home as the server was stopped, and the flags that give its password. */
let owner: string;
let password: readonly string[];

beforeAll(async () => {
  world = await openWorld();
  const home = await world.home("owner").register("owner");
  for (const name of ["one", "two", "three"]) await home.ok(["store", name], { stdin: `value of ${name}` });
  await world.server.stop();
  ({ password } = home);
  owner = world.file("owner-then");
  mkdirSync(owner, { mode: 0o700 });
  for (const part of ["config", "data"]) cpSync(join(home.dir, part), join(owner, part), { recursive: true });
  good = world.file("server");
  const stranger = await openWorld();
  await stranger.home("stranger").register("stranger", { login: false });
  await stranger.server.stop();
  other = world.file("stranger");
  cpSync(stranger.file("server"), other, { recursive: true });
  await stranger.close();
}, SETUP_MS);
afterAll(() => world.close());

/** Everything in a server directory that a refused start may not touch, by name and hash: an empty log says nothing. */
function contents(dir: string): Record<string, string> {
  const read = (name: string) => readFileSync(join(dir, name));
  const files = [...new Bun.Glob("**/*").scanSync({ cwd: dir, onlyFiles: true })]
    .filter((name) => name !== "lock" && !name.endsWith("-shm"))
    .filter((name) => !name.endsWith("-wal") || read(name).length > 0);
  return Object.fromEntries(files.sort().map((name) => [name, createHash("sha256").update(read(name)).digest("hex")]));
}

let copies = 0;

/** Breaks a copy of the good directory and starts a server on it. */
async function startBroken(breakIt: (dir: string, database: string) => void) {
  const dir = world.file(`broken-${copies++}`);
  cpSync(good, dir, { recursive: true });
  breakIt(dir, join(dir, "keyhold.db"));
  const before = contents(dir);
  const child = await spawn(world.dir, ["serve", "--dir", dir, "--listen", "127.0.0.1:0", "--json"]);
  const reader = child.stdout.getReader();
  // a server that starts all the same says so, and is ended
  const { value, done } = await reader.read();
  if (!done) child.kill("SIGKILL");
  const err = await child.stderr.text();
  await child.exited;
  const code = exitOf(child);
  const ran = { code, out: new TextDecoder().decode(value), bytes: new Uint8Array(0), err };
  if (!done) return { code: 0, error: "", text: "it starts" };
  const error = errorOf(ran);
  expect(contents(dir)).toEqual(before);
  rmSync(dir, { recursive: true, force: true });
  return { code: ran.code, error: error.code, text: `${error.message} ${error.why ?? ""} ${error.hint ?? ""}` };
}

function edit(database: string, sql: string): void {
  const db = new Database(database);
  db.run("PRAGMA journal_mode = DELETE");
  db.run(sql);
  db.close();
}

const DATABASES: [string, (dir: string, database: string) => void, string, RegExp][] = [
  ["no database at all, but bytes", (_, db) => writeFileSync(db, seeded(1).bytes(9_000)), "corrupt", /not an SQLite/],
  [
    "one that was cut in half",
    (_, db) => truncateSync(db, Math.floor(readFileSync(db).length / 8_192) * 4_096),
    "corrupt",
    /end is missing/,
  ],
  [
    "one whose header was overwritten",
    (_, db) => writeFileSync(db, seeded(2).bytes(60), { flag: "r+" }),
    "corrupt",
    /not an SQLite/,
  ],
  ["another program's", (_, db) => edit(db, "PRAGMA application_id = 1"), "corrupt", /another program/],
  [
    "a newer keyhold's",
    (_, db) => edit(db, "INSERT INTO migration (id, name, sha256) VALUES (99, '0099-later', 'x')"),
    "unsupported",
    /newer keyhold/,
  ],
  [
    "one with another schema",
    (_, db) => edit(db, "UPDATE migration SET sha256 = 'x' WHERE id = 1"),
    "corrupt",
    /schema/,
  ],
];

test.each(DATABASES)("a database that is %s is refused and left alone", async (_name, breakIt, code, why) => {
  const refused = await startBroken(breakIt);
  expect(refused).toMatchObject({ error: code, text: expect.stringMatching(why) });
  expect(refused.code).not.toBe(0);
});

/** The leaf of TLS is no key of the database: a new one is made at any time. */
const KEYS = () =>
  readdirSync(join(good, "keys"))
    .filter((name) => !name.startsWith("tls."))
    .sort();

test("each key file that is missing, cut or overwritten is refused, and named", async () => {
  expect(KEYS().length).toBeGreaterThanOrEqual(6);
  for (const name of KEYS()) {
    const cases: [string, (path: string) => void][] = [
      ["missing", (path) => rmSync(path)],
      ["cut", (path) => truncateSync(path, 5)],
      ["empty", (path) => truncateSync(path, 0)],
    ];
    for (const [what, breakIt] of cases) {
      const refused = await startBroken((dir) => breakIt(join(dir, "keys", name)));
      expect([name, what, refused.code === 0, refused.text.includes(name)]).toEqual([name, what, false, true]);
    }
  }
});

test("each key file of another server is refused: its rows do not open, its log does not fit", async () => {
  for (const name of KEYS()) {
    const refused = await startBroken((dir) => cpSync(join(other, "keys", name), join(dir, "keys", name)));
    expect([name, refused.error, refused.text.includes(name)]).toEqual([name, "corrupt", true]);
  }
});

/** Where the OPAQUE records of accounts lie in a database's file: whether one is whole, its owner's login alone tells. */
function recordsIn(database: string, bytes: Buffer): readonly number[] {
  const db = new Database(database, { readonly: true });
  try {
    const rows = db.query("SELECT record FROM account").all() as { record: Uint8Array }[];
    return rows.map(({ record }) => bytes.indexOf(record));
  } finally {
    db.close();
  }
}

test("a database whose pages were overwritten never gives a wrong value: it is refused, or the check names it", async () => {
  const random = seeded(5);
  const outcomes = { refused: 0, named: 0, harmless: 0 };
  // a copy: to open a database may leave files beside it
  const looked = world.file("looked");
  cpSync(good, looked, { recursive: true });
  const records = recordsIn(join(looked, "keyhold.db"), readFileSync(join(good, "keyhold.db")));
  expect(records.every((from) => from > 0)).toBe(true);
  for (let round = 0; round < 12; round++) {
    const dir = world.file(`pages-${round}`);
    cpSync(good, dir, { recursive: true });
    const database = join(dir, "keyhold.db");
    const bytes = readFileSync(database);
    // most of a small database is empty
    const full = (place: number) => bytes.subarray(place, place + 64).every((byte) => byte !== 0);
    let at = 0;
    do at = 100 + random.int(bytes.length - 164);
    while (!full(at));
    const inRecord = records.some((from) => at + 64 > from && at < from + 192);
    bytes.set(random.bytes(64), at);
    writeFileSync(database, bytes);
    const before = contents(dir);
    const { port } = world.server;
    const server = await serve(dir, ["--listen", `127.0.0.1:${port}`]).catch(() => null);
    if (server === null) {
      expect(contents(dir)).toEqual(before);
      outcomes.refused += 1;
      continue;
    }
    // each round begins anew for the device too: it would notice that the server went back
    const device = world.file(`device-${round}`);
    cpSync(owner, device, { recursive: true });
    const checked = await keyhold(world.dir, ["server", "check", "--dir", dir, "--json"]);
    let right = 0;
    for (const name of ["one", "two", "three"]) {
      const got = await keyhold(device, ["read", name, "--fresh", ...password]);
      if (got.code !== 0) continue;
      expect(got.out).toBe(`value of ${name}`);
      right += 1;
    }
    // what no row holds any more is the one place where damage does no harm
    if (checked.code === 0) expect([at, right]).toEqual([at, inRecord ? 0 : 3]);
    outcomes[checked.code === 0 ? "harmless" : "named"] += 1;
    await server.stop("SIGKILL");
  }
  expect(outcomes.refused + outcomes.named).toBeGreaterThan(4);
});
