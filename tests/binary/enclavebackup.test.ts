import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { newAgeIdentity } from "../../src/formats/age.ts";
import { STORED_KEY } from "../../src/server/ceremony/storedkeys.ts";
import { listStored, putStored } from "../../src/server/documents.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import { type Home, keyhold, openWorld, SETUP_MS, serve, type World } from "./world.ts";

/** Backups with and without the enclave (docs/operations.md §3, §21). */

setDefaultTimeout(60_000);
let world: World;
let ada: Home;
/** Meets the second restored server: whoever has accepted one restore takes no other one of the same backup. */
let ben: Home;
let identity: string;
let recipient: string;
let dir: string;
const files = () => ({
  data: join(world.dir, "b.db"),
  keys: join(world.dir, "b.age"),
  enclave: join(world.dir, "e.age"),
});
/** Codes of before the backup. */
const given: string[] = [];

const server = (...argv: string[]) => keyhold(world.dir, ["server", ...argv, "--json", "--no-input"]);
const ok = async (...argv: string[]) => {
  const ran = await server(...argv);
  expect([ran.code, ran.err]).toEqual([0, ""]);
  return JSON.parse(ran.out).data;
};
const refused = async (exit: number, ...argv: string[]) => {
  const ran = await server(...argv);
  expect([ran.code, ran.out]).toEqual([exit, ""]);
  return JSON.parse(ran.err).error;
};
const restore = (to: string, ...more: string[]) =>
  ["restore", "--dir", to, "--data", files().data, "--keys", files().keys, "--identity", identity, ...more] as const;

/** The status of a running server that has made its key for ceremonies, or the key of this number. */
async function prepared(of: string, number = 1) {
  for (;;) {
    const status = await ok("status", "--dir", of);
    if (status.ceremonyKey?.number === number) return status;
    await Bun.sleep(50);
  }
}

beforeAll(async () => {
  world = await openWorld();
  dir = join(world.dir, "server");
  [ada, ben] = await Promise.all([world.home("ada").register("ada"), world.home("ben").register("ben")]);
  const made = await newAgeIdentity();
  recipient = made.recipient;
  identity = world.file("age.txt", `${made.identity}\n`);
}, SETUP_MS);
afterAll(() => world?.close());

describe("a server that has stored keys", () => {
  test("has its enclave and its key for ceremonies from the first start on, and shows that key's words", async () => {
    const status = await prepared(dir);
    expect(status.ceremonyKey).toEqual({
      number: 1,
      fingerprintHex: expect.stringMatching(/^[0-9a-f]{64}$/),
      words: expect.stringMatching(/^([a-z]+ ){5}[a-z]+$/),
    });
    expect(readdirSync(join(dir, "enclave")).sort()).toEqual(["journal", "sealing.key"]);
  });

  test("loses nothing with an enclave that nothing was sealed by: a restore has another one", async () => {
    const [data, keys] = [join(world.dir, "first.db"), join(world.dir, "first.age")];
    await ok("backup", "--dir", dir, "--data", data, "--keys", keys, "--recipient", recipient);
    const to = join(world.dir, "first");
    const argv = ["restore", "--dir", to, "--data", data, "--keys", keys, "--identity", identity];
    expect((await ok(...argv)).lost).toBeNull();
    expect(existsSync(join(to, "enclave"))).toBe(false);
    const again = await serve(to);
    expect((await prepared(to, 2)).ceremonyKey.number).toBe(2);
    await again.stop();
    expect(again.log()).not.toContain("enclave-missing");
  });

  test("backs up its enclave into a third, sealed file, and says what a backup without it lacks", async () => {
    await ada.ok(["otp", "issue", "door", "--output", "hotp", "--to", "ada"]);
    await ben.ok(["otp", "issue", "shed", "--output", "hotp", "--to", "ben"]);
    given.push((await ada.ok(["otp", "request", "door"])).data.value);
    await ada.ok(["ceremony", "open", "pending", "--purpose", "a test", "--participants", "2", "--output", "bytes"]);
    const { data, keys, enclave } = files();
    const without = ["--data", `${data}.1`, "--keys", `${keys}.1`, "--recipient", recipient];
    expect(await ok("backup", "--dir", dir, ...without)).toMatchObject({ enclave: null, enclaveLeftOut: true });
    const to = ["--data", data, "--keys", keys, "--recipient", recipient];
    expect((await refused(2, "backup", "--dir", dir, ...to, "--enclave", keys)).code).toBe("bad_input");
    expect(await ok("backup", "--dir", dir, ...to, "--enclave", enclave)).toMatchObject({
      enclave,
      enclaveLeftOut: false,
    });
    const sealingKey = readFileSync(join(dir, "enclave", "sealing.key"));
    expect(readFileSync(enclave).includes(sealingKey)).toBe(false);
    expect(statSync(enclave).mode & 0o777).toBe(0o600);
  });

  test("is listed by the operator, and checked with what its enclave opens, running or not", async () => {
    const seen = async () => {
      const list = (await ok("ceremony", "list", "--dir", dir)) as { items: Record<string, unknown>[] };
      const checked = (await ok("check", "--dir", dir)) as { items: Record<string, unknown>[] };
      return [list.items, checked.items.find(({ name }) => name === "sealed values")];
    };
    const running = await seen();
    expect(running).toEqual([
      [expect.objectContaining({ name: "pending", organiser: "ada", status: "open", seats: 2, taken: 0 })],
      { name: "sealed values", ok: true, detail: null },
    ]);
    await world.server.stop();
    expect(await seen()).toEqual(running);
  });

  test("rotates its key for ceremonies while it is stopped", async () => {
    expect(await ok("rotate", "--dir", dir, "--ceremony")).toMatchObject({ key: "ceremony", remaining: 1 });
    expect(existsSync(join(dir, "control.sock"))).toBe(false);
  });
});

describe("restored with its enclave", () => {
  const to = () => join(world.dir, "whole");

  test("it has its stored keys, and ends ceremonies that were open", async () => {
    const { port } = world.server;
    expect(await ok(...restore(to(), "--enclave", files().enclave))).toMatchObject({ accounts: 2, lost: null });
    expect(await ok("check", "--dir", to())).toMatchObject({ ok: true });
    expect(await ok("ceremony", "list", "--dir", to(), "--all")).toMatchObject({ items: [] });
    world.server = await serve(to(), ["--listen", `127.0.0.1:${port}`]);
    await ada.ok(["sync", "--accept-restore", "--yes", ...ada.password]);
    const { value } = (await ada.ok(["otp", "request", "door", ...ada.password])).data;
    expect(given).not.toContain(value);
    await ada.ok([
      "ceremony",
      "open",
      "next",
      "--purpose",
      "a test",
      "--participants",
      "2",
      "--output",
      "bytes",
      ...ada.password,
    ]);
    await world.server.stop();
    // the journal knows that it is an older one, and the note that said so is gone
    const enclave = join(to(), "enclave");
    expect(readFileSync(join(enclave, "journal"), "utf8")).toContain('"restore"');
    expect(readdirSync(enclave).sort()).toEqual(["journal", "sealing.key"]);
  });

  test("a value that was altered in the data is found by the check, which the restore makes too", async () => {
    const altered = join(world.dir, "altered.db");
    writeFileSync(altered, readFileSync(files().data), { mode: 0o600 });
    const store = await openSqlite(altered);
    await store.transaction(async (tx) => {
      const [account] = await tx.accounts(null, 1);
      const [row] = await listStored(tx, STORED_KEY, account?.userId ?? "", null, 1);
      if (!row) throw new Error("no key");
      const sealed = row.value.sealed.map((byte, at) => (at === 30 ? byte ^ 1 : byte));
      await putStored(tx, STORED_KEY, { ...row, value: { ...row.value, sealed } }, row.version);
    });
    await store.close();
    const argv = [
      "restore",
      "--dir",
      join(world.dir, "no"),
      "--data",
      altered,
      "--keys",
      files().keys,
      "--identity",
      identity,
    ];
    const fault = await refused(8, ...argv, "--enclave", files().enclave);
    expect([fault.code, fault.why]).toEqual(["corrupt", expect.stringContaining("its version 1 does not open")]);
    // nothing of it is left that would start
    expect(readdirSync(join(world.dir, "no"))).toEqual([]);
  });

  test("files of something else are refused, and leave nothing", async () => {
    const to = join(world.dir, "mixed");
    expect((await refused(2, ...restore(to, "--enclave", files().keys))).code).toBe("bad_input");
    expect(existsSync(to)).toBe(false);
  });
});

describe("restored without its enclave", () => {
  const to = () => join(world.dir, "half");
  const flags = () => ["--dir", to()];

  test("says what is lost, and makes no other enclave by itself", async () => {
    const { port } = world.server;
    expect((await ok(...restore(to()))).lost).toEqual({ storedKeys: 2, openCeremonies: 1 });
    const { items } = (await ok("check", ...flags())) as { items: { name: string; detail: string }[] };
    expect(items.find(({ name }) => name === "sealed values")?.detail).toContain("directory is missing");
    world.server = await serve(to(), ["--listen", `127.0.0.1:${port}`]);
    await ben.ok(["sync", "--accept-restore", "--yes", ...ben.password]);
    expect(await ben.fails(3, ["otp", "request", "shed", ...ben.password])).toMatchObject({ code: "not_found" });
    expect(existsSync(join(to(), "enclave"))).toBe(false);
    expect(world.server.log()).toContain("enclave-missing");
  });

  test("begins anew only when the operator says so: what was lost stays lost, the rest goes on", async () => {
    const fault = await refused(6, "rotate", ...flags(), "--ceremony");
    expect([fault.code, fault.hint]).toEqual(["conflict", expect.stringContaining("--yes")]);
    expect(await ok("rotate", ...flags(), "--ceremony", "--yes")).toMatchObject({ key: "ceremony" });
    expect(await ok("ceremony", "list", ...flags(), "--all")).toMatchObject({ items: [] });
    const { items } = (await ok("check", ...flags())) as { items: { name: string; detail: string | null }[] };
    expect(items.map(({ detail }) => detail).join()).toContain("of another enclave than this server's");
    await ben.ok(["otp", "issue", "gate", "--output", "hotp", "--to", "ben", ...ben.password]);
    expect((await ben.ok(["otp", "request", "gate", ...ben.password])).data.value).toMatch(/^[0-9]{6}$/);
  });
});
