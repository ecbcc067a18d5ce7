import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { clientLoginStart } from "../../src/crypto/opaque.ts";
import { addressBucket } from "../../src/server/limits.ts";
import {
  errorOf,
  finishRaw,
  logInRaw,
  logOf,
  postInput,
  type RawOwner,
  registerRaw,
  startRaw,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { hookedStore } from "../support/storeprobe.ts";

const FREE = 10;
const SECOND = 1_000;
const DAY = 86_400_000;

const hooked = hookedStore();
let server: TestServer;
let alice: RawOwner;

beforeEach(async () => {
  server = await startTestServer({ wrap: hooked.wrap });
  server.freeze();
  alice = await registerRaw(server, "alice");
});

afterEach(async () => {
  hooked.hook = null;
  hooked.around = null;
  expect(server.faults).toEqual([]);
  await server.close();
});

async function disable(owner: RawOwner, disabled = true): Promise<void> {
  await server.store.transaction((tx) => tx.setDisabled(owner.userId, disabled));
}

/** A failing login from its start to its end. */
async function failing(account: string, password = "wrong horse", address?: string) {
  const options = address === undefined ? {} : { address };
  const started = await startRaw(server, account, password, options);
  return { started, finished: await finishRaw(server, { sessionId: started.sessionId, fitting: undefined }) };
}

async function refusedStart(account: string, options: { address?: string; token?: Uint8Array } = {}) {
  const { request } = clientLoginStart("wrong horse");
  const input = { account, request, deviceToken: options.token ?? null };
  return postInput(server, "session.login.start", input, options.address);
}

describe("rate limits of an account", () => {
  test.each(["alice", "nobdy"])("%s: ten guesses are free, then 1 s doubling to 15 min", async (name) => {
    for (let i = 0; i < FREE; i++) expect((await refusedStart(name, { address: `10.0.0.${i}` })).status).toBe(200);
    const waits: number[] = [];
    const start = server.ctx.now();
    for (let i = 0; i < 12; i++) {
      expect((await refusedStart(name, { address: `10.0.1.${i}` })).status).toBe(200);
      const refused = await refusedStart(name, { address: `10.0.2.${i}` });
      expect(refused).toMatchObject({ status: 429, outcome: "rate_limited" });
      const wait = errorOf(refused).retryAfterMs ?? 0;
      waits.push(Math.round(wait / SECOND));
      server.advance(wait + 1);
    }
    expect(server.ctx.now()).toBeGreaterThan(start);
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
  });

  test("a refused attempt is not counted, so waiting is enough", async () => {
    for (let i = 0; i <= FREE; i++) await refusedStart("alice");
    const first = errorOf(await refusedStart("alice"));
    expect(first.code).toBe("rate_limited");
    for (let i = 0; i < 50; i++) await refusedStart("alice");
    server.advance(SECOND + 1);
    expect((await refusedStart("alice")).status).toBe(200);
  });

  test("known, unknown and disabled names are refused alike", async () => {
    const off = await registerRaw(server, "david");
    await disable(off);
    hooked.hook = null;
    const frozen = server.ctx.now();
    const originalNow = server.ctx.now;
    Object.assign(server.ctx, { now: () => frozen });
    try {
      const bodies = new Set<string>();
      for (const name of ["alice", "nobdy", "david"]) {
        for (let i = 0; i <= FREE; i++)
          expect((await refusedStart(name, { address: `10.1.${name.length}.${i}` })).status).toBe(200);
        const refused = await refusedStart(name, { address: "10.2.0.1" });
        expect(refused.status).toBe(429);
        bodies.add(String(refused.body));
      }
      expect(bodies.size).toBe(1);
    } finally {
      Object.assign(server.ctx, { now: originalNow });
    }
  });

  test("are forgotten after a success", async () => {
    for (let i = 0; i < FREE - 1; i++) await failing("alice");
    await logInRaw(server, "alice", alice.password);
    for (let i = 0; i <= FREE; i++) expect((await refusedStart("alice")).status).toBe(200);
    expect((await refusedStart("alice")).status).toBe(429);
  });

  test("are forgotten after a day without attempts", async () => {
    for (let i = 0; i <= FREE + 1; i++) {
      await refusedStart("alice");
      server.advance(SECOND);
    }
    server.advance(DAY);
    for (let i = 0; i <= FREE; i++) expect((await refusedStart("alice")).status).toBe(200);
    expect((await refusedStart("alice")).status).toBe(429);
  });

  test("hold for guesses that come at once", async () => {
    const replies = await Promise.all(
      Array.from({ length: 30 }, (_, i) => refusedStart("alice", { address: `10.0.0.${i}` })),
    );
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(FREE + 1);
  });

  test("are counted before the answer: a start that nobody finishes counts", async () => {
    for (let i = 0; i <= FREE; i++) await startRaw(server, "alice", "wrong horse");
    expect((await refusedStart("alice")).status).toBe(429);
  });

  test("a flood on an account is in its log: one counted entry a window, not one an attempt", async () => {
    for (let i = 0; i <= FREE; i++) await refusedStart("alice");
    for (let i = 0; i < 200; i++) expect((await refusedStart("alice", { address: `10.3.0.${i}` })).status).toBe(429);
    server.advance(16 * 60 * SECOND);
    await refusedStart("alice");
    await refusedStart("alice");
    const limited = (await logOf(server, alice.userId)).filter(({ status }) => status === "rate_limited");
    expect(limited.map(({ action }) => action)).toEqual(["session.login", "session.login"]);
    expect(limited.map(({ count }) => count)).toEqual([1, 200]);
  });
});

describe("a known device", () => {
  const attack = async () => {
    for (let i = 0; i <= FREE; i++) await refusedStart("alice", { address: `10.0.0.${i}` });
    expect((await refusedStart("alice", { address: "10.0.1.1" })).status).toBe(429);
  };

  test("still gets in while strangers are held off, and they stay held off", async () => {
    await attack();
    await logInRaw(server, "alice", alice.password, { token: alice.token, address: "10.9.9.9" });
    expect((await refusedStart("alice", { address: "10.0.1.2" })).status).toBe(429);
  });

  test("its token is void after ten failures, then the account's limit holds", async () => {
    await attack();
    for (let i = 0; i < FREE; i++) {
      expect((await refusedStart("alice", { token: alice.token, address: `10.8.0.${i}` })).status).toBe(200);
    }
    for (let i = 0; i < 3; i++) {
      expect((await refusedStart("alice", { token: alice.token, address: "10.8.1.1" })).status).toBe(429);
    }
  });

  test("guesses at once do not get more than ten out of a token", async () => {
    await attack();
    const replies = await Promise.all(
      Array.from({ length: 25 }, (_, i) => refusedStart("alice", { token: alice.token, address: `10.8.2.${i}` })),
    );
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(FREE);
  });

  test("a success gives the token its ten back", async () => {
    for (let i = 0; i < FREE - 1; i++) await refusedStart("alice", { token: alice.token, address: `10.8.0.${i}` });
    await logInRaw(server, "alice", alice.password, { token: alice.token });
    await attack();
    await logInRaw(server, "alice", alice.password, { token: alice.token, address: "10.9.9.9" });
  });

  test("is known to its own account only, and a made-up token to none", async () => {
    await registerRaw(server, "bob");
    for (const token of [alice.token, random(32), new Uint8Array(32)]) {
      for (let i = 0; i <= FREE; i++) await refusedStart("bob", { token, address: `10.0.0.${i}` });
      expect((await refusedStart("bob", { token, address: "10.0.1.1" })).status).toBe(429);
    }
  });

  test("a token does not tell an unknown name from a known one", async () => {
    const a = await failing("alice");
    const { request } = clientLoginStart("x");
    const input = { account: "nobdy", request, deviceToken: alice.token };
    const reply = await postInput(server, "session.login.start", input);
    expect(String(reply.body).length).toBe(String(a.started.reply.body).length);
  });
});

describe("rate limits of an address", () => {
  test("a hundred guesses over many names are free, then the address waits whatever the name", async () => {
    const small = await startTestServer({ limits: { loginFreeFailuresPerAddress: 12 } });
    small.freeze();
    try {
      const start = (account: string, address: string) => {
        const { request } = clientLoginStart("x");
        return postInput(small, "session.login.start", { account, request, deviceToken: null }, address);
      };
      for (let i = 0; i <= 12; i++) expect((await start(`name${i}`, "198.51.100.7")).status).toBe(200);
      expect((await start("other", "198.51.100.7")).status).toBe(429);
      expect((await start("other", "::ffff:198.51.100.7")).status).toBe(429);
      expect((await start("other", "198.51.100.8")).status).toBe(200);
      small.advance(SECOND + 1);
      expect((await start("other", "198.51.100.7")).status).toBe(200);
    } finally {
      await small.close();
    }
  });

  test("IPv6 shares a bucket per /64, however it is written", () => {
    const same = [
      "2001:db8:1:2::1",
      "2001:db8:1:2:ffff:ffff:ffff:ffff",
      "2001:0DB8:0001:0002::",
      "2001:db8:1:2::9%eth0",
    ];
    expect(new Set(same.map(addressBucket)).size).toBe(1);
    const different = ["2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8::1", "::1", "fe80::1", "192.0.2.1", "192.0.2.2"];
    expect(new Set(different.map(addressBucket)).size).toBe(different.length);
    expect(addressBucket("::ffff:192.0.2.1")).toBe(addressBucket("192.0.2.1"));
    expect(addressBucket("::FFFF:c000:201")).toBe(addressBucket("192.0.2.1"));
    expect(addressBucket("::ffff:c000:202")).not.toBe(addressBucket("192.0.2.1"));
  });

  test("a login held open does not lift the wait that others' failures brought", async () => {
    const small = await startTestServer({ limits: { loginFreeFailuresPerAddress: 3 } });
    small.freeze();
    try {
      await registerRaw(small, "mallory");
      const held = await startRaw(small, "mallory", "correct horse");
      const guess = async (name: string) => {
        const { request } = clientLoginStart("x");
        return (await postInput(small, "session.login.start", { account: name, request, deviceToken: null })).status;
      };
      for (let i = 0; i < 3; i++) expect(await guess(`name${i}`)).toBe(200);
      small.advance(SECOND + 1);
      expect(await guess("name3")).toBe(200);
      expect(await guess("name4")).toBe(429);
      expect((await finishRaw(small, held)).status).toBe(200);
      expect(await guess("name5")).toBe(429);
    } finally {
      await small.close();
    }
  });

  test("a success takes back its own count and no failure of others", async () => {
    const small = await startTestServer({ limits: { loginFreeFailuresPerAddress: 6 } });
    small.freeze();
    try {
      await registerRaw(small, "alice");
      const guess = async (name: string) => {
        const { request } = clientLoginStart("x");
        return (await postInput(small, "session.login.start", { account: name, request, deviceToken: null })).status;
      };
      for (let i = 0; i < 6; i++) {
        expect(await guess(`name${i}`)).toBe(200);
        if (i < 5) await logInRaw(small, "alice", "correct horse");
      }
      expect(await guess("name7")).toBe(200);
      expect(await guess("name8")).toBe(429);
    } finally {
      await small.close();
    }
  });
});
