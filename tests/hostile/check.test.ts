import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Home, keyhold, openWorld, SETUP_MS, serverFlags, type World } from "../binary/world.ts";

/**
 * A database that somebody edited by hand: `keyhold server check` says what is wrong, and no client is given a wrong
 * value, whether anybody runs that check or not.
 */

setDefaultTimeout(60_000);

const VALUES: Readonly<Record<string, string>> = { a: "value of a, second", b: "value of b", c: "value of c" };
let world: World;
let ada: Home;
let dir: string;
let good: string;
let goodHome: string;
/** Ids as the statements write them. */
const ids: Record<string, string> = {};

beforeAll(async () => {
  world = await openWorld();
  ada = await world.home("ada").register("ada");
  const eve = await world.home("eve").register("eve");
  for (const [name, first] of [["a", "value of a, first"]] as const) await ada.ok(["store", name], { stdin: first });
  for (const [name, value] of Object.entries(VALUES)) {
    const { data } = await ada.ok(["store", name], { stdin: value });
    ids[name] = `x'${data.keyId}'`;
  }
  await ada.ok(["store", "gone"], { stdin: "removed" });
  await ada.ok(["remove", "gone", "--yes"]);
  await eve.ok(["store", "a"], { stdin: "value of eve" });
  const { data } = await ada.ok(["audit", "verify"]);
  expect(data.ok).toBe(true);
  await ada.ok(["agent", "stop"]);
  goodHome = world.file("good-home");
  // an agent that is ending may be writing its vault
  cpSync(ada.dir, goodHome, { recursive: true, filter: (path) => !path.includes(".vault.tmp-") });
  await world.server.stop();
  dir = world.file("server");
  good = world.file("good");
  cpSync(dir, good, { recursive: true });
  const db = new Database(join(good, "keyhold.db"), { readonly: true });
  const users = db
    .query(
      "SELECT hex(user_id) AS id, (SELECT COUNT(*) FROM leaf AS l WHERE l.user_id = a.user_id) AS n FROM account AS a ORDER BY n",
    )
    .all() as { id: string; n: number }[];
  db.close();
  const [eves, adas] = users;
  expect(users.length).toBe(2);
  ids["ada"] = `x'${adas?.id ?? ""}'`;
  ids["eve"] = `x'${eves?.id ?? ""}'`;
}, SETUP_MS);
afterAll(() => world.close());

/** Puts the good database and the client's home back and edits the database; words in braces are ids. */
function edit(...statements: readonly string[]): number {
  for (const name of ["keyhold.db", "keyhold.db-wal", "keyhold.db-shm"]) rmSync(join(dir, name), { force: true });
  cpSync(join(good, "keyhold.db"), join(dir, "keyhold.db"));
  // a client that has seen more than this database would refuse it for that alone
  rmSync(ada.dir, { recursive: true });
  cpSync(goodHome, ada.dir, { recursive: true });
  const db = new Database(join(dir, "keyhold.db"));
  try {
    db.run("PRAGMA foreign_keys = OFF");
    let changes = 0;
    for (const statement of statements) {
      const whole = statement.replaceAll(/\{(\w+)\}/g, (_, name: string) => ids[name] ?? "");
      changes += db.run(whole).changes;
    }
    db.run("PRAGMA wal_checkpoint(TRUNCATE)");
    return changes;
  } finally {
    db.close();
  }
}

async function check(): Promise<{ code: number; said: string }> {
  const ran = await keyhold(ada.dir, ["server", "check", "--dir", dir, "--json"]);
  return { code: ran.code, said: ran.out + ran.err };
}

/** Reads everything with a client that trusts nothing: each answer is the truth or a failure. */
async function neverWrong(): Promise<{ failures: number }> {
  await world.restart();
  let failures = 0;
  try {
    for (const [name, value] of Object.entries(VALUES)) {
      const ran = await ada.run(["read", name, "--fresh", ...ada.password]);
      if (ran.code === 0) expect([name, ran.out]).toEqual([name, value]);
      else expect([name, ran.out, ran.code]).toEqual([name, "", expect.any(Number)]);
      failures += ran.code === 0 ? 0 : 1;
    }
    const first = await ada.run(["get", "a", "--version", "1", "--reveal", "--fresh", "--json", ...ada.password]);
    if (first.code === 0) expect(JSON.parse(first.out).data.value).toBe("value of a, first");
    const listed = await ada.run(["list", "--fresh", "--json", ...ada.password]);
    if (listed.code === 0) {
      const names = JSON.parse(listed.out).data.items.map(({ name }: { name: string }) => name);
      expect(names).toEqual(Object.keys(VALUES));
    } else {
      failures += 1;
    }
  } finally {
    await world.server.stop();
  }
  return { failures };
}

const other = (table: string, column: string, key: string) =>
  `UPDATE ${table} SET ${column} = (SELECT ${column} FROM ${table} AS o WHERE o.${key} <> ${table}.${key} LIMIT 1) WHERE ${key} = {a}`;

/** What was done by hand, and what the check says. */
const EDITS: Readonly<Record<string, readonly [RegExp, ...string[]]>> = {
  "another secret's value": [
    /version 2 is missing or another value/,
    "UPDATE sealed_value SET sealed = (SELECT sealed FROM sealed_value WHERE key_id = {b}) WHERE key_id = {a} AND version = 2",
  ],
  "another user's value": [
    /is missing or another value/,
    "UPDATE sealed_value SET sealed = (SELECT sealed FROM sealed_value WHERE user_id = {eve}) WHERE key_id = {b}",
  ],
  "the first version in place of the second": [
    /version 2 is missing or another value/,
    "UPDATE sealed_value SET sealed = (SELECT sealed FROM sealed_value WHERE key_id = {a} AND version = 1) WHERE key_id = {a}",
  ],
  "an older version's value": [
    /version 1 is missing or another value/,
    "UPDATE sealed_value SET sealed = zeroblob(length(sealed)) WHERE key_id = {a} AND version = 1",
  ],
  "a value cut short": [
    /is missing or another value/,
    "UPDATE sealed_value SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE key_id = {c}",
  ],
  "a value erased": [/is missing or another value/, "DELETE FROM sealed_value WHERE key_id = {c}"],
  "metadata of another secret": [/metadata of another change/, other("leaf", "meta", "key_id")],
  "metadata and its hash of another secret": [
    /do not give the signed root|history/,
    other("leaf", "meta", "key_id"),
    other("leaf", "meta_hash", "key_id"),
  ],
  "a secret taken away": [
    /do not give the signed root/,
    "DELETE FROM sealed_value WHERE key_id = {b}",
    "DELETE FROM leaf WHERE key_id = {b}",
    "DELETE FROM secret WHERE key_id = {b}",
  ],
  "a removal taken back": [/do not give the signed root/, "UPDATE leaf SET status = 'live' WHERE status = 'removed'"],
  "a secret declared removed": [
    /do not give the signed root/,
    "UPDATE leaf SET status = 'removed' WHERE key_id = {a} AND serial = 2",
  ],
  "a secret put back to its first change": [
    /do not give the signed root|history/,
    "UPDATE secret SET serial = 1 WHERE key_id = {a}",
  ],
  "an older change of a secret": [
    /its history breaks at change 2/,
    "UPDATE leaf SET version = 7 WHERE key_id = {a} AND serial = 1",
  ],
  "a secret given to another user": [
    /do not give the signed root/,
    "UPDATE sealed_value SET user_id = {eve} WHERE key_id = {b}",
    "UPDATE leaf SET user_id = {eve} WHERE key_id = {b}",
    "UPDATE secret SET user_id = {eve} WHERE key_id = {b}",
  ],
  "a device in the settings": [
    /the settings are not the signed ones/,
    "UPDATE account SET settings = json_set(settings, '$.devices[1]', json_extract(settings, '$.devices[0]')) WHERE user_id = {ada}",
  ],
  "the settings of another user": [
    /the settings are not the signed ones/,
    "UPDATE account SET settings = (SELECT settings FROM account WHERE user_id = {eve}) WHERE user_id = {ada}",
  ],
  "settings that are none": [/settings/, "UPDATE account SET settings = '{}' WHERE user_id = {ada}"],
  "a token of a device": [
    /the devices' tokens are not those of the settings/,
    "INSERT INTO device_token (user_id, token_hash, failures) VALUES ({ada}, zeroblob(32), 0)",
  ],
  "a token of another user's device": [
    /the devices' tokens are not those of the settings/,
    "UPDATE device_token SET token_hash = zeroblob(32) WHERE user_id = {ada}",
  ],
  "the state before the newest one": [
    /the states do not end at the current one|the state is not the one its hash names/,
    "UPDATE account SET state = (SELECT state FROM account_state AS s WHERE s.user_id = {ada} ORDER BY revision DESC LIMIT 1 OFFSET 1) WHERE user_id = {ada}",
  ],
  "the account put back by one state": [
    /do not give the signed root|do not end/,
    "UPDATE account SET state = (SELECT state FROM account_state AS s WHERE s.user_id = {ada} ORDER BY revision DESC LIMIT 1 OFFSET 1), state_hash = (SELECT state_hash FROM audit_entry WHERE user_id = {ada} AND state_hash IS NOT NULL ORDER BY seq DESC LIMIT 1 OFFSET 1) WHERE user_id = {ada}",
    "DELETE FROM account_state WHERE user_id = {ada} AND revision = (SELECT MAX(revision) FROM account_state WHERE user_id = {ada})",
  ],
  "a signature of the newest state": [
    /signatures do not hold/,
    "UPDATE account SET state = json_set(state, '$.deviceSignature', json_extract(state, '$.identitySignature')) WHERE user_id = {ada}",
  ],
  "a state in the middle": [
    /the states break at revision 3/,
    "DELETE FROM account_state WHERE user_id = {ada} AND revision = 3",
  ],
  "the record of a request": [
    /the request of revision \d+ is another one/,
    "UPDATE request SET reply = replace(reply, '\"revision\":3', '\"revision\":4') WHERE user_id = {ada} AND operation = 'secret.store'",
  ],
  "the record of a request, gone": [
    /the request of revision \d+ is another one/,
    "DELETE FROM request WHERE user_id = {ada} AND operation = 'secret.remove'",
  ],
  "an entry of the log": [
    /the log breaks at entry [56]/,
    "UPDATE audit_entry SET status = 'denied' WHERE user_id = {ada} AND seq = 5",
  ],
  "an entry of the log, gone": [/the log breaks at entry/, "DELETE FROM audit_entry WHERE user_id = {ada} AND seq = 4"],
  "the end of the log": [
    /the log does not end at its head/,
    "DELETE FROM audit_entry WHERE user_id = {ada} AND seq = (SELECT MAX(seq) FROM audit_entry WHERE user_id = {ada})",
  ],
  "the head of the log": [
    /the log does not end at its head/,
    "UPDATE audit_head SET link = zeroblob(32) WHERE user_id = {ada}",
  ],
  "a session given to another user": [
    /a session belongs to another account/,
    "UPDATE session SET user_id = {ada} WHERE user_id = {eve}",
  ],
  "the names of two accounts in exchange": [
    /the sealed name is another account's/,
    "UPDATE account SET sealed_name = (SELECT sealed_name FROM account AS o WHERE o.user_id <> account.user_id)",
  ],
  "another incarnation": [
    /the state is another account's|incarnation/,
    "UPDATE setting SET value = lower(hex(randomblob(16))) WHERE name = 'incarnation'",
  ],
};

describe("server check", () => {
  // twice: what the client refuses below, it refuses for what was edited
  for (const time of ["first", "second"]) {
    test(`finds nothing wrong with a database that nobody touched, a ${time} time`, async () => {
      edit();
      expect(await check()).toEqual({ code: 0, said: expect.not.stringContaining('"ok":false') });
      expect(await neverWrong()).toEqual({ failures: 0 });
    });
  }

  for (const [what, [said, ...statements]] of Object.entries(EDITS)) {
    test(`names what was edited: ${what}`, async () => {
      expect(edit(...statements)).toBeGreaterThan(0);
      const found = await check();
      expect([found.code, found.said]).toEqual([8, expect.stringMatching(said)]);
      await neverWrong();
    });
  }
});

test("an OPAQUE record in exchange lets nobody in with another's password", async () => {
  edit("UPDATE account SET record = (SELECT record FROM account AS o WHERE o.user_id <> account.user_id)");
  await world.restart();
  try {
    expect((await ada.fails(4, ["list", ...ada.password])).code).toBe("login_failed");
    const newcomer = world.home("newcomer", "correct horse battery staple eve");
    const flags = [...serverFlags(world.server, "ada"), ...newcomer.password, "--kdf", "test"];
    expect((await newcomer.fails(4, ["login", ...flags])).code).toBe("login_failed");
  } finally {
    await world.server.stop();
  }
});
