import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { clientLoginStart } from "../../src/crypto/opaque.ts";
import { Fault } from "../../src/errors.ts";
import { createDispatcher } from "../../src/server/dispatch.ts";
import { sweep } from "../../src/server/keyserver.ts";
import type { InputOf } from "../../src/wire/operations.ts";
import {
  errorOf,
  finishRaw,
  frameOf,
  logInRaw,
  logOf,
  postFrame,
  postInput,
  prepareRaw,
  type RawOwner,
  registerRaw,
  startRaw,
  utf8,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { startRegistration } from "../support/opaque-oracle.ts";
import { type FileStore, fileStore, hookedStore } from "../support/storeprobe.ts";

/** What strangers can make the server write, evaluate and verify, and what they cannot take from others. */

const FREE = 10;
const FREE_PER_ADDRESS = 20;
const SECOND = 1_000;
const WINDOW = 15 * 60 * SECOND;
const OFFICE = "198.51.100.7";

const hooked = hookedStore();
let file: FileStore;
let server: TestServer;
let alice: RawOwner;

beforeEach(async () => {
  file = fileStore();
  // a wait that lasts longer than any of these tests
  const limits = { loginFreeFailuresPerAddress: FREE_PER_ADDRESS, loginBackoffFirstMs: WINDOW };
  server = await startTestServer({ path: file.path, wrap: hooked.wrap, limits });
  server.freeze();
  alice = await registerRaw(server, "alice");
});

afterEach(async () => {
  hooked.around = null;
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

const guess = (account: string, address: string, token: Uint8Array | null = null) =>
  postInput(
    server,
    "session.login.start",
    { account, request: clientLoginStart("wrong horse").request, deviceToken: token },
    address,
  );

const register = (account: string, address: string) =>
  postInput(
    server,
    "account.register.start",
    { account, invite: null, request: startRegistration(utf8("password")).request },
    address,
  );

const rows = (table: string): number => file.sql(`SELECT * FROM ${table}`).length;

/** Somebody's guesses at many names, until their address has to wait. */
async function block(address: string): Promise<void> {
  for (let i = 0; i <= FREE_PER_ADDRESS; i++) expect((await guess(`name ${address} ${i}`, address)).status).toBe(200);
  expect((await guess("one more", address)).status).toBe(429);
}

describe("behind an address that others' guesses block, a known device", () => {
  test("logs in, and the others stay blocked", async () => {
    await block(OFFICE);
    await logInRaw(server, "alice", alice.password, { token: alice.token, address: OFFICE });
    expect((await guess("one more", OFFICE)).status).toBe(429);
    expect((await guess("alice", OFFICE)).status).toBe(429);
  });

  test("has ten guesses, then its token is void and it waits like the others", async () => {
    await block(OFFICE);
    for (let i = 0; i < FREE; i++) expect((await guess("alice", OFFICE, alice.token)).status).toBe(200);
    expect((await guess("alice", OFFICE, alice.token)).status).toBe(429);
    // and it is void at other addresses: there it is a guess like any other
    for (let i = 0; i <= FREE; i++) expect((await guess("alice", `192.0.2.${i}`, alice.token)).status).toBe(200);
    expect((await guess("alice", "192.0.2.99", alice.token)).status).toBe(429);
  });

  test("is no key for another account, nor is a made-up token one", async () => {
    await registerRaw(server, "bob");
    await block(OFFICE);
    for (const [account, token] of [
      ["bob", alice.token],
      ["nobody", alice.token],
      ["alice", random(32)],
      ["alice", new Uint8Array(32)],
    ] as const) {
      expect((await guess(account, OFFICE, token)).status).toBe(429);
    }
  });

  test("does not shorten the wait of its address, nor use up what is free there", async () => {
    await block(OFFICE);
    const wait = async () => errorOf(await guess("one more", OFFICE)).retryAfterMs ?? 0;
    const before = await wait();
    for (let i = 0; i < 30; i++)
      await logInRaw(server, "alice", alice.password, { token: alice.token, address: OFFICE });
    expect(await wait()).toBeGreaterThan(0);
    expect(await wait()).toBeLessThanOrEqual(before);
    for (let i = 0; i < FREE; i++) expect((await guess("alice", "203.0.113.5", alice.token)).status).toBe(200);
    for (let i = 0; i <= FREE_PER_ADDRESS; i++) expect((await guess(`n${i}`, "203.0.113.5")).status).toBe(200);
  });

  test("its logins are in the log like all others", async () => {
    await block(OFFICE);
    const started = await startRaw(server, "alice", "wrong horse", { token: alice.token, address: OFFICE });
    expect((await finishRaw(server, started)).status).toBe(401);
    await guess("alice", OFFICE, alice.token);
    server.advance(61 * SECOND);
    await sweep(server.ctx);
    const entries = (await logOf(server, alice.userId)).filter(({ action }) => action === "session.login");
    expect(entries.map(({ status }) => status)).toEqual(["login_failed", "timed_out"]);
  });
});

describe("attempts to register a taken name", () => {
  const taken = async () =>
    (await logOf(server, alice.userId)).filter(({ status }) => status === "exists").map(({ count }) => count);

  test("are one counted entry a window in the owner's log, and none is lost", async () => {
    for (let i = 0; i < 60; i++) expect((await register("alice", `192.0.2.${i}`)).status).toBe(409);
    expect(await taken()).toEqual([1]);
    server.advance(WINDOW + 1);
    expect((await register("alice", "192.0.2.99")).status).toBe(409);
    expect(await taken()).toEqual([1, 60]);
    for (let i = 0; i < 5; i++) await register("alice", `203.0.113.${i}`);
    server.advance(WINDOW + 1);
    await sweep(server.ctx);
    expect(await taken()).toEqual([1, 60, 5]);
    await sweep(server.ctx);
    expect(await taken()).toEqual([1, 60, 5]);
  });

  test("spend the address, so that names cannot be asked for without end", async () => {
    for (let i = 0; i <= FREE_PER_ADDRESS; i++) expect((await register("alice", OFFICE)).status).toBe(409);
    expect((await register("alice", OFFICE)).status).toBe(429);
    expect((await register("a free name", OFFICE)).status).toBe(429);
  });
});

describe("what one address can make the server write", () => {
  test("ends with its free guesses, whatever it asks for", async () => {
    const tables = ["login_state", "rate_limit", "audit_entry", "audit_head"];
    for (let i = 0; i < 60; i++) await guess(`name ${i}`, OFFICE);
    for (let i = 0; i < 60; i++) await register(`other ${i}`, OFFICE);
    const written = tables.map(rows);
    for (let i = 0; i < 60; i++) {
      await guess(`later ${i}`, OFFICE);
      await register(`later still ${i}`, OFFICE);
    }
    expect(tables.map(rows)).toEqual(written);
    expect(written[0]).toBe(FREE_PER_ADDRESS + 1);
  });

  test("is swept when it is over", async () => {
    const tables = ["login_state", "rate_limit", "audit_entry", "audit_head"];
    const before = tables.map(rows);
    for (let i = 0; i < 60; i++) await guess(`name ${i}`, OFFICE);
    for (let i = 0; i < 60; i++) await register(`other ${i}`, "198.51.100.8");
    server.advance(61 * SECOND);
    await sweep(server.ctx);
    server.advance(25 * 3_600 * SECOND);
    await sweep(server.ctx);
    expect(tables.map(rows)).toEqual([0, 0, ...before.slice(2)]);
  });

  test("is swept in one go, also where it is more than one transaction takes", async () => {
    const abandoned = 700;
    for (let i = 0; i < abandoned; i++) {
      expect((await guess(`name ${i}`, `10.0.${i >>> 8}.${i & 255}`)).status).toBe(200);
    }
    server.advance(61 * SECOND);
    await sweep(server.ctx);
    expect(rows("login_state")).toBe(0);
    expect(file.sql("SELECT * FROM audit_entry WHERE status = 'timed_out'")).toHaveLength(abandoned);
  }, 60_000);
});

describe("without a reservation, which is counted,", () => {
  test("the last request of a registration has no signature verified", async () => {
    const made = await prepareRaw(server, "mallory");
    const unsound = (changes: Partial<InputOf<"account.register">> = {}) => {
      const { state } = made.input;
      return postInput(server, "account.register", {
        ...made.input,
        ...changes,
        state: { ...state, identitySignature: random(64) },
      });
    };
    expect(errorOf(await unsound()).code).toBe("bad_input");
    server.advance(61 * SECOND);
    await sweep(server.ctx);
    expect(errorOf(await unsound()).code).toBe("timed_out");
  });
});

describe("two processes on one store", () => {
  /** The same store, keys and clock behind another entry. */
  const second = (): TestServer => ({ ...server, dispatcher: createDispatcher({ ...server.ctx }, () => undefined) });
  const guessAt = (at: TestServer, address: string, token: Uint8Array | null = null) =>
    postInput(
      at,
      "session.login.start",
      { account: "alice", request: clientLoginStart("wrong horse").request, deviceToken: token },
      address,
    );

  test.each(["one address", "many addresses", "a known device"])("share the limit of %s", async (what) => {
    const processes = [server, second()] as const;
    const replies = await Promise.all(
      Array.from({ length: 60 }, (_, i) => {
        const address = what === "many addresses" ? `192.0.2.${i}` : OFFICE;
        return guessAt(processes[i & 1] ?? server, address, what === "a known device" ? alice.token : null);
      }),
    );
    const passed = replies.filter(({ status }) => status === 200).length;
    // a token has its ten, and then the account's limit holds for it as well
    expect(passed).toBe(what === "a known device" ? FREE + FREE + 1 : FREE + 1);
  });

  test("a login begun at one ends at the other, once", async () => {
    const other = second();
    const started = await startRaw(server, "alice", alice.password);
    const replies = await Promise.all([
      finishRaw(other, started),
      finishRaw(server, started),
      finishRaw(other, started),
    ]);
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 401, 401]);
  });
});

describe("a store that takes no more for now", () => {
  const busy = async (): Promise<never> => {
    throw new Fault("unavailable", "the server is busy: too many writes wait", { retryAfterMs: 1_000 });
  };

  test("is 503 with the time to wait, in clear, for anonymous requests and sessions, and uses up nothing", async () => {
    const session = await logInRaw(server, "alice", alice.password);
    const before = file.dump();
    const frame = frameOf(session, "session.check", utf8("{}"));
    hooked.around = busy;
    for (const reply of [await guess("alice", OFFICE), await postFrame(server, "session.check", frame.bytes)]) {
      expect(reply).toMatchObject({ status: 503, outcome: "unavailable", retryAfterMs: 1_000 });
      expect(errorOf(reply)).toMatchObject({ code: "unavailable", retryAfterMs: 1_000 });
    }
    hooked.around = null;
    expect(file.dump()).toBe(before);
    // the same frame again: it was not counted as used
    expect((await postFrame(server, "session.check", frame.bytes)).status).toBe(200);
  });
});
