import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { filesBelow, traces } from "../binary/traces.ts";
import { type Home, keyhold, openWorld, SETUP_MS, serve, serverFlags, type World } from "../binary/world.ts";

/**
 * Whoever took the server's data, or its keys, but not both (docs/threat-model.md, adversary B): what an operator keeps
 * apart in two backups. The server and the clients are the executable.
 */

setDefaultTimeout(60_000);

const SECRETS = {
  account: "canary-account-bettong",
  name: "canary/name/quoll",
  value: "canary value dibbler 41c9",
  older: "canary older value 77ab",
  tag: "canary-tag-phascogale",
  password: "canary password mulgara",
  next: "canary next password antechinus",
};

let world: World;
let home: Home;
let data: string;
let keys: string;
const forbidden: Record<string, Uint8Array> = {};

beforeAll(async () => {
  world = await openWorld();
  home = await world.home("owner", SECRETS.password).register(SECRETS.account);
  await home.ok(["store", SECRETS.name, "--tag", SECRETS.tag], { stdin: SECRETS.older });
  await home.ok(["store", SECRETS.name, "--tag", SECRETS.tag], { stdin: SECRETS.value });
  await home.ok(["generate", "generated", "--type", "bytes"]);
  forbidden["a generated value"] = (await home.run(["read", "generated"])).bytes;
  const further = await world.home("further", SECRETS.password).login(SECRETS.account);
  await further.ok(["get", SECRETS.name, "--fresh"]);
  const next = world.file("next-password", SECRETS.next);
  await home.ok(["account", "password", ...home.password, "--new-password-file", next]);
  for (const { dir } of [home, further]) {
    const profile = JSON.parse(readFileSync(join(dir, "config", "profiles", "profiles", "default.json"), "utf8"));
    const token = Object.entries(profile).find(([field]) => /token/i.test(field))?.[1];
    forbidden[`the device token of ${dir}`] = Buffer.from(String(token), "base64url");
  }
  for (const [what, text] of Object.entries(SECRETS)) forbidden[what] = Buffer.from(text);
  await world.server.stop();
  const dir = world.file("server");
  data = world.file("stolen-data");
  keys = world.file("stolen-keys");
  for (const path of [data, keys]) mkdirSync(path, { mode: 0o700 });
  for (const name of readdirSync(dir)) {
    if (name.startsWith("keyhold.db")) cpSync(join(dir, name), join(data, name));
  }
  cpSync(join(dir, "keys"), join(keys, "keys"), { recursive: true });
}, SETUP_MS);
afterAll(() => world.close());

/** Which of the secrets lie below a directory, in whatever form. */
function found(dir: string): string[] {
  const files = filesBelow(dir);
  return Object.entries(forbidden).flatMap(([what, bytes]) => {
    expect([what, bytes.length >= 14]).toEqual([what, true]);
    const forms = [Buffer.from(bytes), ...traces(Buffer.from(bytes).toString("latin1"))];
    const latin = Buffer.from(bytes).toString("latin1");
    // bytes that are no text would be encoded twice over by way of one
    const plain = Buffer.from(latin, "utf8").equals(Buffer.from(bytes)) ? forms : [forms[0] ?? Buffer.alloc(0)];
    const encoded = ["hex", "base64", "base64url"] as const;
    const all = [...plain, ...encoded.map((form) => Buffer.from(Buffer.from(bytes).toString(form).slice(0, -2)))];
    return all.some((form) => files.some((file) => file.bytes.includes(form))) ? [what] : [];
  });
}

/** Tries a password against a directory with a server of its own. */
async function guesses(dir: string, passwords: readonly string[]): Promise<{ code: number; said: string }[]> {
  const server = await serve(dir);
  try {
    const said: { code: number; said: string }[] = [];
    for (const [i, password] of passwords.entries()) {
      const thief = world.home(`thief-${i}-${dir.length}`, password);
      const flags = [...serverFlags(server, SECRETS.account), ...thief.password, "--kdf", "test"];
      const ran = await thief.run(["login", ...flags, "--json"]);
      said.push({ code: ran.code, said: ran.out + ran.err });
    }
    return said;
  } finally {
    await server.stop();
  }
}

/** Puts the stolen data into a server's directory, and takes out of it what says that it is another server's. */
function putData(dir: string): void {
  for (const name of readdirSync(dir)) if (name.startsWith("keyhold.db")) rmSync(join(dir, name));
  for (const name of readdirSync(data)) cpSync(join(data, name), join(dir, name));
  const db = new Database(join(dir, "keyhold.db"));
  db.run("DELETE FROM setting WHERE name LIKE 'key:%'");
  db.close();
}

const GUESSES = [SECRETS.next, SECRETS.password, "another password", "canary next password"];

test("the search finds what is there: the profile of a device has its token and the account's name", () => {
  const own = found(join(home.dir, "config"));
  expect(own).toContain("account");
  expect(own).toContain(`the device token of ${home.dir}`);
});

describe("the data alone", () => {
  test("holds no name, value, tag, password, account name or device token", () => {
    expect(filesBelow(data).map(({ path }) => path.replace(data, ""))).toContain("/keyhold.db");
    expect(found(data)).toEqual([]);
  });

  test("is no server: without the keys it does not start", async () => {
    const ran = await keyhold(data, ["serve", "--dir", data, "--listen", "127.0.0.1:0", "--json"]);
    expect([ran.code, ran.out]).toEqual([expect.any(Number), ""]);
    expect(ran.code).not.toBe(0);
  });

  test("gives no test of a guess: under keys of the thief's own the right password is refused like any other", async () => {
    const own = world.file("thief-keys");
    mkdirSync(own, { mode: 0o700 });
    await (await serve(own)).stop();
    putData(own);
    const said = await guesses(own, GUESSES);
    expect(new Set(said.map((one) => JSON.stringify(one))).size).toBe(1);
    expect(said[0]?.code).toBe(4);
  });

  test("gives none even with all keys but the OPAQUE set-up", async () => {
    const own = world.file("thief-setup");
    mkdirSync(own, { mode: 0o700 });
    await (await serve(own)).stop();
    const setup = readFileSync(join(own, "keys", "opaque.json"));
    cpSync(join(keys, "keys"), join(own, "keys"), { recursive: true, force: true });
    await Bun.write(join(own, "keys", "opaque.json"), setup);
    putData(own);
    const said = await guesses(own, GUESSES);
    expect(new Set(said.map((one) => JSON.stringify(one))).size).toBe(1);
    expect(said[0]?.code).toBe(4);
  });
});

describe("the keys alone", () => {
  test("hold nothing of any account", () => {
    expect(filesBelow(keys).length).toBeGreaterThan(4);
    expect(found(keys)).toEqual([]);
  });

  test("give no test of a guess: every password is that of a name that does not exist", async () => {
    const own = world.file("keys-only");
    cpSync(keys, own, { recursive: true });
    const said = await guesses(own, GUESSES);
    expect(new Set(said.map((one) => JSON.stringify(one))).size).toBe(1);
    expect(said[0]?.code).toBe(4);
  });
});

test("both together are the server: the right password is told from the others, at the price of its derivation", async () => {
  const both = world.file("both");
  cpSync(keys, both, { recursive: true });
  for (const name of readdirSync(data)) cpSync(join(data, name), join(both, name));
  expect((await guesses(both, GUESSES)).map(({ code }) => code)).toEqual([0, 4, 4, 4]);
});
