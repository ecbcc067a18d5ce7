import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { clientLoginStart } from "../../src/crypto/opaque.ts";
import type { UserId } from "../../src/ids.ts";
import { candidate, credentialIdOf } from "../../src/server/accounts.ts";
import { sweep } from "../../src/server/keyserver.ts";
import {
  call,
  errorOf,
  finishRaw,
  logInRaw,
  logOf,
  postInput,
  type RawOwner,
  type RawSession,
  registerRaw,
  startRaw,
} from "../support/attacker.ts";
import { startTestServer, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore, hookedStore, recorder } from "../support/storeprobe.ts";

/** What refused and broken guesses write, and what an owner sees of them. */

const FREE = 10;
const FREE_PER_ADDRESS = 20;
const SECOND = 1_000;
const WINDOW = 15 * 60 * SECOND;
const DAY = 86_400_000;
const ATTACKER = "198.51.100.7";

const hooked = hookedStore();
let file: FileStore;
let server: TestServer;
let alice: RawOwner;

beforeEach(async () => {
  file = fileStore();
  server = await startTestServer({
    path: file.path,
    wrap: hooked.wrap,
    limits: { loginFreeFailuresPerAddress: FREE_PER_ADDRESS },
  });
  // the first wait is a second: sixty guesses may take longer
  server.freeze();
  alice = await registerRaw(server, "alice");
});

afterEach(async () => {
  hooked.hook = null;
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

function guess(account: string, address: string, options: { token?: Uint8Array; request?: Uint8Array } = {}) {
  const request = options.request ?? clientLoginStart("wrong horse").request;
  return postInput(server, "session.login.start", { account, request, deviceToken: options.token ?? null }, address);
}

const userOf = (account: string): Promise<UserId> =>
  server.store.transaction(async (tx) => (await candidate(server.ctx, tx, credentialIdOf(server.ctx, account))).userId);

/** Entries of a name's log, real or shadow, that are no success. */
const failuresOf = async (account: string) =>
  (await logOf(server, await userOf(account))).filter(({ status }) => status !== "ok");

const rows = (table: string) => file.sql(`SELECT * FROM ${table}`).length;

async function blockAddress(): Promise<void> {
  for (let i = 0; i <= FREE_PER_ADDRESS; i++) expect((await guess(`name${i}`, ATTACKER)).status).toBe(200);
  // so long a wait that the test does not end it
  for (let i = 0; i < 9; i++) {
    const refused = await guess("first", ATTACKER);
    expect(refused.status).toBe(429);
    server.advance((errorOf(refused).retryAfterMs ?? 0) + 1);
    expect((await guess(`more${i}`, ATTACKER)).status).toBe(200);
  }
}

describe("a blocked address", () => {
  test("writes one entry a window, whatever names it asks for", async () => {
    await blockAddress();
    server.advance(1);
    const tables = ["rate_limit", "audit_entry", "audit_head", "login_state"];
    const before = tables.map(rows);
    for (let i = 0; i < 50; i++) expect((await guess(`random${i}`, ATTACKER)).status).toBe(429);
    expect(tables.map(rows)).toEqual(before);
  });

  test("shows its first name of a window one refused attempt, known or not", async () => {
    const seen: (readonly string[])[] = [];
    for (const [i, name] of ["alice", "nobdy"].entries()) {
      const address = `198.51.100.${i}`;
      for (let n = 0; n <= FREE_PER_ADDRESS; n++) await guess(`x${i}${n}`, address);
      const record = recorder();
      hooked.hook = record.hook;
      expect((await guess(name, address)).status).toBe(429);
      expect((await guess(name, address)).status).toBe(429);
      hooked.hook = null;
      seen.push(record.lines);
      expect((await failuresOf(name)).map(({ status, count }) => [status, count])).toEqual([["rate_limited", 1]]);
    }
    expect(seen[0]?.some((line) => line.startsWith("appendAudit"))).toBe(true);
    // the log of an unknown name begins with this entry, so that only its head differs
    expect(seen[1]).toEqual(seen[0] ?? []);
  });

  test("is noted again in the next window", async () => {
    await blockAddress();
    server.advance(WINDOW + 1);
    expect((await guess("alice", ATTACKER)).status).toBe(200);
    expect((await guess("alice", ATTACKER)).status).toBe(429);
    expect((await failuresOf("alice")).map(({ status }) => status)).toEqual(["rate_limited"]);
  });

  test("does not count against the names it asks for", async () => {
    await blockAddress();
    for (let i = 0; i < 3 * FREE; i++) expect((await guess("alice", ATTACKER)).status).toBe(429);
    expect((await guess("alice", "203.0.113.1")).status).toBe(200);
  });
});

describe("the owner sees", () => {
  test.each(["alice", "nobdy"])(
    "%s: every attempt that the account's limit refused, also without a next one",
    async (name) => {
      for (let i = 0; i <= FREE; i++) await guess(name, `10.0.0.${i}`);
      for (let i = 0; i < 60; i++) expect((await guess(name, `10.1.0.${i}`)).status).toBe(429);
      const limited = async () => (await failuresOf(name)).filter(({ status }) => status === "rate_limited");
      await sweep(server.ctx);
      expect((await limited()).map(({ count }) => count)).toEqual([1]);
      server.advance(WINDOW + 1);
      await sweep(server.ctx);
      await sweep(server.ctx);
      expect((await limited()).map(({ action, count }) => [action, count])).toEqual([
        ["session.login", 1],
        ["session.login", 59],
      ]);
    },
  );

  test("nothing of a window without a further attempt but its one entry", async () => {
    for (let i = 0; i <= FREE + 1; i++) await guess("alice", `10.0.0.${i}`);
    server.advance(WINDOW + 1);
    await sweep(server.ctx);
    const limited = (await failuresOf("alice")).filter(({ status }) => status === "rate_limited");
    expect(limited.map(({ count }) => count)).toEqual([1]);
    expect(file.sql("SELECT * FROM rate_limit WHERE bucket LIKE 'refused:%'")).toEqual([]);
  });

  test("a malformed start: it was counted, so it is in the log, of a known and of an unknown name alike", async () => {
    const seen: (readonly string[])[] = [];
    for (const name of ["alice", "nobdy"]) {
      await guess(name, "10.0.0.1", { request: new Uint8Array(96) });
      const record = recorder();
      hooked.hook = record.hook;
      const reply = await guess(name, "10.0.0.2", { request: new Uint8Array(96) });
      hooked.hook = null;
      expect(errorOf(reply).code).toBe("bad_input");
      expect((await failuresOf(name)).map(({ action, status }) => `${action} ${status}`)).toEqual(
        new Array(2).fill("session.login bad_input"),
      );
      seen.push(record.lines);
    }
    expect(seen[1]).toEqual(seen[0] ?? []);
    for (let i = 0; i < FREE - 1; i++) await guess("alice", `10.0.2.${i}`, { request: new Uint8Array(96) });
    expect((await guess("alice", "10.0.3.1")).status).toBe(429);
  });
});

describe("a stranger who guesses for ever", () => {
  /** Holds the account's wait at its longest, as one request in 15 minutes does. */
  async function besiege(): Promise<void> {
    for (let i = 0; i < FREE + 12; i++) {
      await guess("alice", `10.0.0.${i}`);
      const refused = await guess("alice", `10.0.1.${i}`);
      if (refused.status === 429) server.advance((errorOf(refused).retryAfterMs ?? 0) + 1);
    }
    expect((await guess("alice", "10.0.2.1")).status).toBe(200);
    expect(errorOf(await guess("alice", "10.0.2.2")).retryAfterMs).toBeGreaterThan(14 * 60 * SECOND);
  }

  const startChange = (session: RawSession) =>
    call(server, session, "account.password.start", { request: clientLoginStart("new").request.slice(0, 32) });

  test("does not keep the owner from changing the password", async () => {
    await besiege();
    const session = await logInRaw(server, "alice", alice.password, { token: alice.token, address: "10.9.9.9" });
    expect((await startChange(session)).code).toBe("ok");
    expect((await guess("alice", "10.0.2.3")).status).toBe(429);
  });

  test("a session's password starts are its own: another session's are neither spent nor lifted", async () => {
    const one = await logInRaw(server, "alice", alice.password);
    const two = await logInRaw(server, "alice", alice.password);
    for (let i = 0; i <= FREE; i++) expect((await startChange(one)).code).toBe("ok");
    expect((await startChange(one)).code).toBe("rate_limited");
    expect((await startChange(two)).code).toBe("ok");
    expect((await startChange(one)).code).toBe("rate_limited");
    expect((await guess("alice", "10.0.2.3")).status).toBe(200);
  });
});

describe("a device's token that ten failures made void", () => {
  async function voided(): Promise<void> {
    for (let i = 0; i < FREE; i++) {
      expect((await guess("alice", `10.8.0.${i}`, { token: alice.token })).status).toBe(200);
    }
    expect((await guess("alice", "10.8.1.1", { token: alice.token })).status).toBe(200);
  }

  /** True while a login with the token is held by the account's limit. */
  async function countsAgainstAccount(): Promise<boolean> {
    for (let i = 0; i <= FREE; i++) await guess("alice", `10.7.0.${i}`);
    return (await guess("alice", "10.7.1.1", { token: alice.token })).status === 429;
  }

  test("stays void however long nobody uses it", async () => {
    await voided();
    for (let day = 0; day < 3; day++) {
      server.advance(DAY + SECOND);
      await sweep(server.ctx);
    }
    expect(await countsAgainstAccount()).toBe(true);
  });

  test("is good again once the owner logs in with it", async () => {
    await voided();
    await logInRaw(server, "alice", alice.password, { token: alice.token, address: "10.9.9.9" });
    expect(await countsAgainstAccount()).toBe(false);
  });

  test("stays void when the owner logs in without it", async () => {
    await voided();
    await logInRaw(server, "alice", alice.password, { address: "10.9.9.9" });
    expect(await countsAgainstAccount()).toBe(true);
  });

  test("is not lifted through another account that lists the same token", async () => {
    for (let i = 1; i < FREE; i++) await guess("alice", `10.8.0.${i}`, { token: alice.token });
    const mallory = await registerRaw(server, "mallory");
    const [device] = alice.settings.devices;
    const row = await server.store.transaction((tx) => tx.account(mallory.userId));
    if (!device || !row) throw new Error("no device");
    const settings = { ...row.settings, devices: [...row.settings.devices, device] };
    await server.store.transaction((tx) =>
      tx.swapState(mallory.userId, row.stateHash, { state: row.state, stateHash: row.stateHash, settings }),
    );
    await logInRaw(server, "mallory", mallory.password, { token: alice.token, address: "10.9.9.8" });
    await guess("alice", "10.8.0.0", { token: alice.token });
    expect(await countsAgainstAccount()).toBe(true);
  });
});

test("a failed login reads no account as a whole, so that its size does not tell", async () => {
  const methods: string[] = [];
  hooked.hook = (method, args, run) => {
    methods.push(method);
    return run(...args);
  };
  const { sessionId } = await startRaw(server, "alice", "wrong horse");
  expect((await finishRaw(server, { sessionId, fitting: undefined })).status).toBe(401);
  for (let i = 0; i < FREE; i++) await guess("alice", `10.0.0.${i}`);
  expect((await guess("alice", "10.0.1.1")).status).toBe(429);
  await startRaw(server, "nobdy", "x");
  server.advance(61 * SECOND);
  await sweep(server.ctx);
  expect(methods).toContain("appendAudit");
  for (const whole of ["account", "accountByCredential", "accounts"]) expect(methods).not.toContain(whole);
});
