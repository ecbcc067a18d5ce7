import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { initLocal, loginNewDevice, registerAccount } from "../../src/client/enrol.ts";
import { type AccountInput, type Home, loginProfile, openOffline, openProfile } from "../../src/client/home.ts";
import { changePassword } from "../../src/client/password.ts";
import { type Profile, readProfile } from "../../src/client/profile.ts";
import { createServerSetup, opaqueReady, serverPublicKey } from "../../src/crypto/opaque.ts";
import { Fault } from "../../src/errors.ts";
import { silentLog } from "../../src/server/log.ts";
import { type Handle, type RunningServer, startServer } from "../../src/server.ts";
import { pinOf } from "../../src/wire/pin.ts";
import { signStatement } from "../../src/wire/statement.ts";
import { passwordOf, random, startTestServer, type TestServer, testSurroundings } from "../support/harness.ts";
import { asking, EVERYTHING, rejected, storing, textOf } from "../support/hostile.ts";
import { loopbackLeaf, newIdentity } from "../support/listener.ts";

const PASSWORD = "a password of ada";
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

function newHome(): Home {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-home-"));
  ends.push(async () => rmSync(directory, { recursive: true, force: true }));
  return { profiles: join(directory, "config"), vaults: join(directory, "data") };
}

function profileOf(home: Home): Profile {
  const found = readProfile(home.profiles, "default");
  if (!found) throw new Error("no profile");
  return found;
}

const closing = <C extends { close(): Promise<void> }>(client: C): C => {
  ends.push(() => client.close());
  return client;
};

const everything = (home: Home): string => {
  const files = [home.profiles, home.vaults].flatMap((directory) =>
    existsSync(directory)
      ? readdirSync(directory, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath, entry.name))
      : [],
  );
  return files.map((file) => readFileSync(file, "latin1")).join("\n");
};

describe("a vault without a server", () => {
  const input = (password = PASSWORD) => ({ profile: "default", password: passwordOf(password), kdf: "test" as const });
  const open = async (home: Home, password = PASSWORD) =>
    closing(await openOffline(home, profileOf(home), passwordOf(password), testSurroundings()));

  test("init, store, get, versions, and another process reads it", async () => {
    const home = newHome();
    const made = await initLocal(home, input(), testSurroundings());
    expect(statSync(made.vault).mode & 0o777).toBe(0o600);
    const client = await open(home);
    expect((await client.store(storing("a", "one"))).info).toMatchObject({ where: "local", version: 1 });
    await client.store(storing("a", "two"));
    await client.generate({ name: "g", type: "ed25519", length: null, tags: [], replace: false, where: null });
    const other = await open(home);
    expect(await read(other, "a")).toBe("two");
    expect(await read(other, "a", 1)).toBe("one");
    expect((await other.restore({ name: "a", version: 1 })).info.version).toBe(3);
    expect(await read(client, "a")).toBe("one");
    expect((await other.list({ ...EVERYTHING, fresh: false })).items.map(({ name }) => name)).toEqual(["a", "g"]);
  });

  const read = async (client: Awaited<ReturnType<typeof openOffline>>, name: string, version: number | null = null) =>
    new TextDecoder().decode((await client.get(asking(name, { version }))).value ?? undefined);

  test("a wrong password opens nothing and changes nothing; a second init is refused", async () => {
    const home = newHome();
    const { vault } = await initLocal(home, input(), testSurroundings());
    const before = readFileSync(vault);
    const fault = await rejected(open(home, "another password"), "wrong_password");
    expect(fault.exit).toBe(4);
    await rejected(initLocal(home, input("third password"), testSurroundings()), "exists");
    expect(readFileSync(vault).equals(before)).toBe(true);
  });

  test("a vault whose profile is lost is never replaced: init, register and login leave its bytes alone", async () => {
    const home = newHome();
    const { vault } = await initLocal(home, input(), testSurroundings());
    await (await open(home)).store(storing("precious", "value"));
    rmSync(home.profiles, { recursive: true });
    const files = () => [vault, `${vault}.previous`].map((file) => readFileSync(file).toString("hex"));
    const before = files();
    const account = {
      ...input(),
      server: { url: "https://127.0.0.1:1", pin: pinOf(random(32)), tlsCaPem: null },
      account: "ada",
    };
    for (const attempt of [
      () => initLocal(home, input(), testSurroundings()),
      () => registerAccount(home, { ...account, invite: null }, testSurroundings()),
      () => loginNewDevice(home, account, testSurroundings()),
    ]) {
      const fault = await rejected(attempt(), "exists");
      expect(fault.exit).toBe(6);
      expect(fault.hint).toContain("--profile");
    }
    expect(files()).toEqual(before);
    expect(existsSync(home.profiles)).toBe(false);
  });

  test("a login as a new device never replaces a local profile", async () => {
    const home = newHome();
    const { vault } = await initLocal(home, input(), testSurroundings());
    const before = readFileSync(vault);
    const server = { url: "https://127.0.0.1:1", pin: pinOf(random(32)), tlsCaPem: null };
    await rejected(loginNewDevice(home, { ...input(), server, account: "ada" }, testSurroundings()), "exists");
    expect(readFileSync(vault).equals(before)).toBe(true);
    expect(profileOf(home).server).toBeNull();
  });

  test("what needs a server says so, and names, values and the password do not lie about", async () => {
    const home = newHome();
    await initLocal(home, input(), testSurroundings());
    const client = await open(home);
    await client.store(storing("canary name", "canary value", { tags: ["canary tag"] }));
    for (const where of ["server", "both"] as const)
      await rejected(client.store(storing("b", "x", { where })), "bad_input");
    await rejected(client.get(asking("canary name", { fresh: true })), "bad_input");
    await rejected(client.sync(), "bad_input");
    expect(everything(home)).not.toContain("canary");
    expect(everything(home)).not.toContain(PASSWORD);
    const status = await client.status();
    expect([status.server, status.account, status.session, status.sync]).toEqual([null, null, null, null]);
  });
});

describe("an account over HTTPS", () => {
  let backend: TestServer;
  let running: RunningServer;
  let handle: Handle;
  let input: AccountInput;

  beforeEach(async () => {
    await opaqueReady();
    const identity = await newIdentity();
    const setup = createServerSetup();
    const keys = {
      identity: identity.publicKey,
      accountName: random(32),
      sealing: random(32),
      shadow: random(32),
      opaque: { id: "1", setup },
      previousSealing: null,
      previousOpaque: null,
    };
    backend = await startTestServer({ keys });
    const { incarnation } = backend.ctx;
    Object.assign(backend.ctx, {
      statement: () =>
        signStatement(identity, {
          number: 7,
          expiresAtMs: Date.now() + 60_000,
          opaqueKeys: [serverPublicKey(setup)],
          logKey: backend.ctx.log.signers[0].publicKey,
          nextIdentity: null,
          incarnation,
          registration: "open",
        }),
    });
    handle = (name, contentType, body, remote) => backend.dispatcher.handle(name, contentType, body, remote);
    const pin = pinOf(identity.publicKey);
    running = await startServer({
      listen: { host: "127.0.0.1", port: 0 },
      tls: await loopbackLeaf(identity),
      pin,
      log: silentLog,
      handle: (...request) => handle(...request),
    });
    ends.push(async () => {
      await running.stop(0);
      await backend.close();
    });
    input = {
      profile: "default",
      server: { url: running.url, pin, tlsCaPem: null },
      account: "ada",
      password: passwordOf(PASSWORD),
      kdf: "test",
    };
  });

  const register = (home: Home, more: Partial<AccountInput> = {}) =>
    registerAccount(home, { ...input, ...more, invite: null }, testSurroundings());
  const login = async (home: Home, password = PASSWORD) => {
    const done = await loginProfile(home, profileOf(home), passwordOf(password), testSurroundings(), {
      keep: false,
    });
    closing(done.client);
    return done;
  };

  test("register, log in, store; a second home logs in as a new device and reads it", async () => {
    const home = newHome();
    const made = await register(home);
    const profile = profileOf(home);
    expect(profile).toMatchObject({ name: "default", account: "ada", userId: made.userId, loggedOut: false });
    expect(profile.server?.statementNumber).toBe(7);
    expect(profile.server?.caPem).toContain("BEGIN CERTIFICATE");
    const first = await login(home);
    await first.client.store(storing("a", "value"));
    const other = newHome();
    const second = await loginNewDevice(other, input, testSurroundings());
    closing(second.client);
    expect(await textOf(second.client, "a")).toBe("value");
    expect((await second.client.devices()).items.length).toBe(2);
    expect((await second.client.auditVerify()).ok).toBe(true);
    const again = await login(other);
    expect(await textOf(again.client, "a")).toBe("value");
    expect(everything(home)).not.toContain(PASSWORD);
  });

  test("a byte order mark is part of the password", async () => {
    const home = newHome();
    await register(home, { password: passwordOf(`\ufeff${PASSWORD}`) });
    await rejected(login(home), "login_failed");
    await login(home, `\ufeff${PASSWORD}`);
  });

  test("closing a client that keeps its session leaves it open, else it is closed on the server", async () => {
    const home = newHome();
    await register(home);
    const profile = profileOf(home);
    for (const keep of [true, false]) {
      const done = await loginProfile(home, profile, passwordOf(PASSWORD), testSurroundings(), { keep });
      await done.client.close();
      const row = await backend.store.transaction((tx) => tx.session(done.session.id));
      expect(row !== undefined).toBe(keep);
    }
  });

  test("wrong password, unknown account, another pin: each its own failure, nothing written", async () => {
    const home = newHome();
    await register(home);
    await rejected(login(home, "another password"), "login_failed");
    for (const more of [{ account: "eve" }, { password: passwordOf("another password") }]) {
      const fresh = newHome();
      await rejected(loginNewDevice(fresh, { ...input, ...more }, testSurroundings()), "login_failed");
      expect(existsSync(fresh.profiles)).toBe(false);
      expect(existsSync(fresh.vaults)).toBe(false);
    }
    const fresh = newHome();
    const server = { ...input.server, pin: pinOf(random(32)) };
    await rejected(register(fresh, { account: "bob", server }), "pin_mismatch");
    expect(existsSync(fresh.profiles)).toBe(false);
  });

  test("register a name that is taken: exists, and no profile or vault stays", async () => {
    await register(newHome());
    const other = newHome();
    await rejected(register(other), "exists");
    expect(readProfile(other.profiles, "default")).toBeNull();
    await rejected(register(other), "exists");
  });

  test("register again over a finished profile is refused before the server hears of it", async () => {
    const home = newHome();
    await register(home);
    const before = running.requests();
    await rejected(register(home, { account: "bob" }), "exists");
    expect(running.requests()).toBe(before);
  });

  for (const moment of ["before", "after"] as const) {
    test(`the answer to the registration is lost ${moment} it was committed: the same call completes it`, async () => {
      const home = newHome();
      const honest = handle;
      handle = async (name, contentType, body, remote) => {
        if (name !== "account.register") return honest(name, contentType, body, remote);
        if (moment === "after") await honest(name, contentType, body, remote);
        throw new Fault("unavailable", "no answer");
      };
      await rejected(register(home), "unavailable");
      expect(readProfile(home.profiles, "default")?.userId).toBeNull();
      handle = honest;
      const made = await register(home);
      expect(readProfile(home.profiles, "default")?.userId).toBe(made.userId);
      const { client } = await login(home);
      await client.store(storing("a", "value"));
      expect(await textOf(client, "a")).toBe("value");
      expect((await client.auditVerify()).ok).toBe(true);
    });
  }

  test("an account's vault whose profile is lost is not replaced; moved away, the device is set up anew", async () => {
    const home = newHome();
    await register(home);
    const first = await login(home);
    await first.client.store(storing("here alone", "value", { where: "local" }));
    const path = join(home.vaults, "default.vault");
    const bytes = readFileSync(path);
    rmSync(home.profiles, { recursive: true });
    await rejected(register(home, { account: "bob" }), "exists");
    await rejected(loginNewDevice(home, input, testSurroundings()), "exists");
    expect(readFileSync(path).equals(bytes)).toBe(true);
    renameSync(path, join(home.vaults, "kept"));
    await rejected(loginNewDevice(home, input, testSurroundings()), "exists");
    renameSync(`${path}.previous`, join(home.vaults, "kept.previous"));
    closing((await loginNewDevice(home, input, testSurroundings())).client);
  });

  test("a new device that was cut short is set up again by the same login", async () => {
    await register(newHome());
    const home = newHome();
    const honest = handle;
    handle = async (name, contentType, body, remote) => {
      if (name !== "account.device.add") return honest(name, contentType, body, remote);
      throw new Fault("denied", "not now");
    };
    await rejected(loginNewDevice(home, input, testSurroundings()), "integrity", "denied", "outcome_unknown");
    handle = honest;
    closing((await loginNewDevice(home, input, testSurroundings())).client);
    expect(profileOf(home).userId).not.toBeNull();
    closing((await login(home)).client);
  });

  test("a new password is not recorded under an OPAQUE key that the server's identity did not sign", async () => {
    const home = newHome();
    await register(home);
    const honest = handle;
    const { opaque } = backend.ctx.keys;
    handle = async (name, contentType, body, remote) => {
      if (name === "account.password.start") {
        Object.assign(backend.ctx.keys, { opaque: { id: opaque.id, setup: createServerSetup() } });
      }
      try {
        return await honest(name, contentType, body, remote);
      } finally {
        Object.assign(backend.ctx.keys, { opaque });
      }
    };
    const passwords = { old: passwordOf(PASSWORD), next: passwordOf("the next password") };
    const fault = await rejected(changePassword(home, profileOf(home), passwords, testSurroundings()), "integrity");
    expect(fault.message).toContain("OPAQUE key");
    handle = honest;
    closing((await login(home)).client);
  });

  test("the server is away at login: the vault opens alone and says so", async () => {
    const home = newHome();
    await register(home);
    const first = await login(home);
    await first.client.store(storing("a", "value"));
    await first.client.close();
    await running.stop(0);
    const notices: string[] = [];
    const profile = profileOf(home);
    const opened = await openProfile(home, profile, passwordOf(PASSWORD), testSurroundings(notices), { keep: false });
    closing(opened.client);
    expect(opened.login).toBeNull();
    await opened.client.list({ prefix: null, search: null, tag: null, fresh: false });
    expect(notices.join()).toContain("the server is away: from the vault, synced");
    expect((await opened.client.get(asking("a"))).from).toBe("vault");
    await rejected(opened.client.store(storing("b", "x", { where: "server" })), "unreachable");
    expect((await opened.client.store(storing("b", "x"))).queued).toBe(true);
    await rejected(
      openProfile(home, profile, passwordOf("another password"), testSurroundings(), { keep: false }),
      "wrong_password",
    );
  });

  test("a login that shows an older account than the vault pins is refused at once, and the vault keeps its password", async () => {
    const home = newHome();
    await register(home);
    const { client } = await login(home);
    const before = await backend.store.transaction((tx) => tx.account(profileOf(home).userId ?? ("" as never)));
    if (!before) throw new Error("no account");
    await client.store(storing("a", "value"));
    await client.close();
    // yesterday's account row, with everything that hangs on it
    const { transaction } = backend.store;
    Object.assign(backend.store, {
      transaction: (work: Parameters<typeof transaction>[0]) =>
        transaction((tx) =>
          work(
            new Proxy(tx, {
              get: (target, name) =>
                name === "account" || name === "accountByCredential" ? async () => before : Reflect.get(target, name),
            }),
          ),
        ),
    });
    const path = join(home.vaults, "default.vault");
    const bytes = readFileSync(path);
    const fault = await rejected(login(home), "integrity");
    expect(fault.exit).toBe(8);
    expect(readFileSync(path).equals(bytes)).toBe(true);
    Object.assign(backend.store, { transaction });
    const later = await login(home);
    expect(await textOf(later.client, "a")).toBe("value");
  });

  test("a vault of another account does not open with this login", async () => {
    const home = newHome();
    await register(home);
    const other = newHome();
    await register(other, { account: "bob" });
    const mine = join(home.vaults, "default.vault");
    const theirs = readFileSync(join(other.vaults, "default.vault"));
    rmSync(mine);
    await Bun.write(mine, theirs);
    await rejected(login(home), "wrong_password", "integrity");
  });
});
