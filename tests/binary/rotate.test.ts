import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "node:tls";
import { open } from "../../src/crypto/aead.ts";
import { type Home, openWorld, serverFlags, type World } from "./world.ts";

const PASSWORD = "correct horse battery staple rotate";
const NEW = "another horse battery staple rotate";

let world: World;
let operator: Home;
let ada: Home;
let phone: Home;
const dir = () => join(world.dir, "server");
const key = (name: string) => join(dir(), "keys", name);

beforeAll(async () => {
  world = await openWorld();
  operator = world.home("operator");
  ada = world.home("ada", PASSWORD);
  await ada.register("ada");
  await ada.ok(["store", "db"], { stdin: "s3cret" });
  phone = world.home("phone", PASSWORD);
  await phone.login("ada");
});
afterAll(() => world.close());

const rotate = (...flags: string[]) => operator.ok(["server", "rotate", ...flags, "--dir", dir(), "--no-input"]);
const refused = (code: number, ...flags: string[]) =>
  operator.fails(code, ["server", "rotate", ...flags, "--dir", dir(), "--no-input"]);
const accounts = async () =>
  (await operator.ok(["server", "user", "list", "--dir", dir()])).data.items.map(
    (one: { account: string }) => one.account,
  );
const sound = async () => {
  await operator.ok(["server", "check", "--dir", dir()]);
  expect(readdirSync(join(dir(), "keys")).filter((name) => name.includes("previous"))).toEqual([]);
};
const readable = async (home: Home, flags: readonly string[] = []) =>
  expect((await home.run(["read", "db", "--fresh", ...flags])).out).toBe("s3cret");

/** Runs with the server stopped, and starts it again where it was. */
async function stopped(work: () => Promise<unknown>): Promise<void> {
  await world.server.stop();
  try {
    await work();
  } finally {
    await world.restart();
  }
}

const HOWS = [
  ["running", (work: () => Promise<unknown>) => work()],
  ["stopped", stopped],
] as const;

describe.each(HOWS)("on a %s server", (name, how) => {
  test("--tls: after the next start another leaf, the same pin, and clients go on", async () => {
    const leaf = () =>
      new Promise<string>((resolve, reject) => {
        const socket = connect({ port: world.server.port, host: "127.0.0.1", rejectUnauthorized: false }, () => {
          resolve(socket.getPeerCertificate().fingerprint256);
          socket.end();
        });
        socket.on("error", reject);
      });
    const [before, pin] = [await leaf(), world.server.pin];
    await how(async () => expect((await rotate("--tls")).data.restart).toBe(true));
    if (name === "running") {
      expect(await leaf()).toBe(before);
      await world.restart();
    }
    expect(await leaf()).not.toBe(before);
    expect(world.server.pin).toBe(pin);
    await readable(ada);
    await readable(phone, phone.password);
  });

  test("--sealing: sessions end, names are listed still, and the old key opens nothing", async () => {
    await ada.login();
    const old = new Uint8Array(readFileSync(key("sealing.key")));
    await how(() => rotate("--sealing"));
    expect(readFileSync(key("sealing.key")).equals(old)).toBe(false);
    await ada.fails(4, ["list", "--fresh"]);
    expect(await accounts()).toEqual(["ada"]);
    await ada.login();
    await readable(ada);
    const db = new Database(join(dir(), "keyhold.db"), { readonly: true });
    const [row] = db.query("SELECT credential_id, sealed_name FROM account").all() as Record<string, Uint8Array>[];
    const credentialId = new Uint8Array(row?.["credential_id"] ?? []);
    const sealed = new Uint8Array(row?.["sealed_name"] ?? []);
    const context = { kind: "account-name", credentialId } as const;
    expect(open(new Uint8Array(readFileSync(key("sealing.key"))), context, sealed).length).toBeGreaterThan(0);
    expect(() => open(old, context, sealed)).toThrow();
    db.close();
    await sound();
  });

  test("--audit-key: an open session, the log, and what was seen of it go on", async () => {
    await ada.login();
    await ada.ok(["store", `before/${name}`], { stdin: "1" });
    await ada.ok(["audit", "verify"]);
    const before = readFileSync(key("log.ed25519"));
    await how(() => rotate("--audit-key"));
    expect(readFileSync(key("log.ed25519")).equals(before)).toBe(false);
    await ada.ok(["store", `after/${name}`], { stdin: "1" });
    expect((await ada.ok(["audit", "verify"])).data.ok).toBe(true);
    expect((await phone.ok(["audit", "verify", ...phone.password])).data.ok).toBe(true);
    const file = join(world.dir, `${name}.jsonl`);
    await ada.ok(["audit", "export", "--out", file]);
    expect((await operator.ok(["audit", "verify", "--file", file])).data.ok).toBe(true);
    await sound();
  });

  test("--opaque: a window in which every account moves at its next login", async () => {
    await ada.login();
    let remaining = -1;
    await how(async () => {
      remaining = (await rotate("--opaque")).data.remaining;
      expect(await refused(6, "--opaque")).toMatchObject({ code: "conflict" });
      expect(await refused(6, "--opaque", "--finish")).toMatchObject({ code: "conflict" });
    });
    expect(remaining).toBe(1);
    // a session goes on; a login moves the account, and says so once
    await readable(ada);
    expect((await phone.run(["read", "db", "--fresh", ...phone.password])).err).toContain("renewed its login keys");
    expect((await phone.run(["read", "db", "--fresh", ...phone.password])).err).not.toContain("renewed");
    await readable(ada);
    await how(() => rotate("--opaque", "--finish"));
    expect(await refused(3, "--opaque", "--finish")).toMatchObject({ code: "not_found" });
    await ada.login();
    await readable(ada);
    expect((await ada.ok(["audit", "verify"])).data.ok).toBe(true);
    await sound();
  });
});

test("several keys at once, none, and --finish alone are refused", async () => {
  await refused(2);
  await refused(2, "--tls", "--sealing");
  await refused(2, "--tls", "--finish");
  await refused(2, "--finish");
});

test("--opaque --finish --yes with accounts left: their login fails like any, and the kit brings them back", async () => {
  const kit = join(world.dir, "kit.txt");
  await ada.ok(["account", "recovery-kit", "--out", kit, ...ada.password]);
  await rotate("--opaque");
  expect((await rotate("--opaque", "--finish", "--yes")).data.remaining).toBe(1);
  const failure = async (home: Home, account: string) => {
    const flags = [...serverFlags(world.server, account), "--kdf", "test", "--profile", "x"];
    return { ...(await home.fails(4, ["login", ...flags, ...home.password])), requestId: undefined };
  };
  const stranger = world.home("stranger", PASSWORD);
  expect(await failure(stranger, "ada")).toEqual(await failure(stranger, "nobody"));
  await phone.fails(4, ["login", ...phone.password]);
  const fresh = world.home("fresh", NEW);
  await fresh.ok(["account", "recover", "--kit-file", kit, ...fresh.password, "--kdf", "test"]);
  await readable(fresh, fresh.password);
  // the first device follows with the new password
  const follows = world.home("ada", NEW);
  await follows.login();
  await readable(follows);
  await sound();
  expect(existsSync(key("opaque.json"))).toBe(true);
});
