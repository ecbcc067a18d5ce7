import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import { newId, type RequestId } from "../../src/ids.ts";
import { claimKeys, hasKeys } from "../../src/server/keycheck.ts";
import { sweep } from "../../src/server/keyserver.ts";
import { claimStatementNumber, statementNumber } from "../../src/server/statements.ts";
import { openPostgres } from "../../src/storage/postgres.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import {
  call,
  commitOf,
  exchange,
  finishRaw,
  frameOf,
  leafOf,
  logInRaw,
  logOf,
  output,
  registerRaw,
  reserveRaw,
  startRaw,
  storeRaw,
} from "../support/attacker.ts";
import { random, registerDevice, startTestServer, type TestServer } from "../support/harness.ts";
import { storing } from "../support/hostile.ts";
import { hasPostgres, POSTGRES_MS, startPostgres, type TestPostgres } from "../support/postgres.ts";

/** Two server processes on one PostgreSQL: what one knows in its memory must never decide. */

let postgres: TestPostgres;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres(["fsync = off"]);
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

const fresh = () => newId<RequestId>(random);
const EMPTY = new Uint8Array([123, 125]);

describe.skipIf(!hasPostgres)("two processes on one PostgreSQL", () => {
  let one: TestServer;
  let two: TestServer;

  beforeEach(async () => {
    const url = await postgres.create();
    const [first, second] = [await openPostgres(url), await openPostgres(url)];
    one = await startTestServer({ wrap: () => first });
    two = await startTestServer({ wrap: () => second, as: one });
  });
  afterEach(async () => {
    const faults = [...one.faults, ...two.faults];
    await Promise.all([one.close(), two.close()]);
    expect(faults).toEqual([]);
  });

  test("a login that one began ends on the other, once", async () => {
    const alice = await registerRaw(one, "alice");
    const started = await startRaw(one, "alice", alice.password);
    const ends = await Promise.all([one, two, one, two].map((server) => finishRaw(server, started)));
    expect(ends.map(({ status }) => status).toSorted()).toEqual([200, 401, 401, 401]);
  });

  test("a frame is taken by one of them, and each of a session's concurrent requests by the one that it reaches", async () => {
    const alice = await registerRaw(one, "alice");
    const session = await logInRaw(two, "alice", alice.password);
    const frames = Array.from({ length: 12 }, () => frameOf(session, "session.check", EMPTY));
    const answers = await Promise.all(
      frames.flatMap((frame) => [exchange(one, session, frame), exchange(two, session, frame)]),
    );
    const codes = answers.map(({ code }) => code).toSorted();
    expect(codes).toEqual([...Array<string>(12).fill("ok"), ...Array<string>(12).fill("replayed")]);
    expect(answers.filter(({ code, sealed }) => sealed !== (code === "ok"))).toEqual([]);
  });

  test("a session that one closed is over for the other, whatever it remembers", async () => {
    const alice = await registerRaw(one, "alice");
    const session = await logInRaw(one, "alice", alice.password);
    expect((await call(two, session, "session.check", {})).code).toBe("ok");
    expect((await call(one, session, "session.close", { sessionId: null, all: false })).code).toBe("ok");
    expect(await call(two, session, "session.check", {})).toMatchObject({ code: "session_invalid", sealed: false });
  });

  test("one request that reaches both at once is done once and answered alike", async () => {
    const alice = await registerRaw(one, "alice");
    const session = await logInRaw(one, "alice", alice.password);
    for (let round = 0; round < 4; round += 1) {
      const keyId = await reserveRaw(round % 2 === 0 ? one : two, session);
      const sealed = random(100);
      const requestId = fresh();
      const { input, done } = commitOf(
        alice,
        "secret.store",
        [{ leaf: leafOf(keyId, sealed, null), sealed }],
        requestId,
      );
      const answers = await Promise.all(
        [one, two, one, two].map((server) => call(server, session, "secret.store", input, { requestId })),
      );
      expect(new Set(answers.map(({ code, text }) => `${code} ${text}`)).size).toBe(1);
      expect(answers[0]?.code).toBe("ok");
      done();
      const entries = (await logOf(two, alice.userId, requestId)).filter(({ status }) => status === "ok");
      expect(entries.length).toBe(1);
    }
  });

  test("of two changes of one state at once, one is done and the other is stale", async () => {
    const alice = await registerRaw(one, "alice");
    const session = await logInRaw(one, "alice", alice.password);
    const made = await Promise.all(
      [one, two].map(async (server) => {
        const sealed = random(100);
        const leaf = leafOf(await reserveRaw(server, session), sealed, null);
        const requestId = fresh();
        return { server, requestId, ...commitOf(alice, "secret.store", [{ leaf, sealed }], requestId) };
      }),
    );
    const answers = await Promise.all(
      made.map(({ server, input, requestId }) => call(server, session, "secret.store", input, { requestId })),
    );
    expect(answers.map(({ code }) => code).toSorted()).toEqual(["ok", "stale"]);
  });

  test("wrong guesses are counted together", async () => {
    await registerRaw(one, "alice");
    let refused = 0;
    let taken = 0;
    for (let i = 0; i < 14; i += 1) {
      const server = i % 2 === 0 ? one : two;
      const started = await startRaw(server, "alice", "wrong").catch((error: unknown) => String(error));
      if (typeof started === "string") {
        expect(started).toContain("rate_limited");
        refused += 1;
        continue;
      }
      taken += 1;
      expect((await finishRaw(server, started)).status).toBe(401);
    }
    expect({ taken, refused }).toEqual({ taken: one.ctx.limits.loginFreeFailures + 1, refused: 3 });
  });

  test("of two that register a name at once, one gets it", async () => {
    const results = await Promise.allSettled([registerRaw(one, "bob"), registerRaw(two, "bob")]);
    expect(results.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
  });

  test("both sweep at the same time, and each unfinished login becomes one entry", async () => {
    const alice = await registerRaw(one, "alice");
    for (let i = 0; i < 5; i += 1) await startRaw(i % 2 === 0 ? one : two, "alice", alice.password);
    for (const server of [one, two]) server.advance(server.ctx.limits.loginStateMs + 1_000);
    await Promise.all([sweep(one.ctx), sweep(two.ctx), sweep(one.ctx), sweep(two.ctx)]);
    const entries = (await logOf(one, alice.userId)).filter(({ status }) => status === "timed_out");
    expect(entries.length).toBe(5);
  });

  test("clients of both see one account, and a full server-wide log", async () => {
    const device = await registerDevice(one.link(), "carol", "correct horse battery staple");
    try {
      await registerRaw(two, "dave");
      await Promise.all([one.logbook.flush(), two.logbook.flush(), one.logbook.flush(), two.logbook.flush()]);
      await one.store.transaction(async (tx) => {
        const head = await tx.logHead();
        expect((await tx.logCounts()).leaves).toBe(head?.size ?? -1);
        expect(await tx.unloggedHeads(null, 10)).toEqual([]);
      });
    } finally {
      await device.end();
    }
  });

  test("the number of the statement is one for all processes that say the same", async () => {
    const facts = {
      opaqueKeys: [random(32)],
      logKey: random(32),
      nextIdentity: null,
      incarnation: one.ctx.incarnation,
    };
    const numbers = await Promise.all(
      [one, two, one, two].map(({ store }) => claimStatementNumber(store, { ...facts, registration: "open" })),
    );
    expect(numbers).toEqual([1, 1, 1, 1]);
    expect(await claimStatementNumber(two.store, { ...facts, registration: "invite" })).toBe(2);
    expect(await claimStatementNumber(one.store, { ...facts, registration: "invite" })).toBe(2);
    expect(await statementNumber(one.store)).toBe(2);
    expect(await claimStatementNumber(one.store, { ...facts, registration: "open" })).toBe(3);
  });

  test("a database that is away answers unavailable with the time to wait, for every kind of request", async () => {
    const alice = await registerRaw(one, "alice");
    const session = await logInRaw(one, "alice", alice.password);
    await postgres.stop("immediate");
    try {
      const answer = await call(one, session, "session.check", {});
      expect(answer).toMatchObject({ code: "unavailable", sealed: false, status: 503 });
      const start = await startRaw(one, "alice", alice.password).catch((error: unknown) => String(error));
      expect(start).toContain("unavailable");
    } finally {
      await postgres.start();
    }
    expect((await call(one, session, "session.check", {})).code).toBe("ok");
    one.faults.splice(0);
    two.faults.splice(0);
  });
});

describe("a commit whose outcome is unknown", () => {
  test("is told as such, noted nowhere, and decided by the request id", async () => {
    let lose = 0;
    const wrap = (store: Store): Store => ({
      ...store,
      async transaction(work, near) {
        const result = await store.transaction(work, near);
        if (lose > 0) {
          lose -= 1;
          throw new Fault("outcome_unknown", "the connection to the database was lost during a commit");
        }
        return result;
      },
    });
    const server = await startTestServer({ wrap });
    try {
      const alice = await registerRaw(server, "alice");
      const session = await logInRaw(server, "alice", alice.password);
      await storeRaw(server, session, alice);
      const sealed = random(90);
      const leaf = leafOf(await reserveRaw(server, session), sealed, null);
      const requestId = fresh();
      const { input } = commitOf(alice, "secret.store", [{ leaf, sealed }], requestId);
      lose = 1;
      const lost = await call(server, session, "secret.store", input, { requestId });
      expect(lost).toMatchObject({ code: "outcome_unknown", sealed: false, status: 503 });
      const again = await call(server, session, "secret.store", input, { requestId });
      expect(output("secret.store", again)).toMatchObject({});
      expect(again.code).toBe("ok");
      expect((await logOf(server, alice.userId, requestId)).map(({ status }) => status)).toEqual(["ok"]);
      expect(server.faults).toEqual([]);
    } finally {
      await server.close();
    }
  });

  test("does not trouble a client: it asks again, and there is one effect", async () => {
    let lose = false;
    let commits = 0;
    const wrap = (store: Store): Store => ({
      ...store,
      async transaction(work, near) {
        const result = await store.transaction(work, near);
        commits += 1;
        // two of three: a call meets at least one, and its third try none
        if (lose && commits % 3 !== 0) throw new Fault("outcome_unknown", "the connection was lost during a commit");
        return result;
      },
    });
    const server = await startTestServer({ wrap });
    try {
      const device = await registerDevice(server.link(), "alice", "correct horse battery staple");
      lose = true;
      for (let i = 0; i < 4; i += 1) await device.client.store(storing(`key ${i}`, `value ${i}`));
      lose = false;
      expect((await device.client.list({ prefix: null, search: null, tag: null, fresh: false })).items.length).toBe(4);
      const stored = (await logOf(server, device.login.userId)).filter(({ action }) => action === "secret.store");
      expect(stored.map(({ status }) => status)).toEqual(["ok", "ok", "ok", "ok"]);
      await device.end();
    } finally {
      await server.close();
    }
  });
});

describe("keys and their database", () => {
  const keysOf = (twist: object = {}) =>
    ({
      identity: { publicKey: new Uint8Array(32).fill(1) },
      accountNameKey: new Uint8Array(32).fill(2),
      sealingKey: new Uint8Array(32).fill(3),
      shadowKey: new Uint8Array(32).fill(4),
      log: { publicKey: new Uint8Array(32).fill(5) },
      opaque: { current: { id: "1", setup: "setup" }, previous: null },
      ...twist,
    }) as unknown as Parameters<typeof claimKeys>[1];

  test("the first start records them; others are refused by the name of their file, and nothing is written", async () => {
    const store = await openSqlite(":memory:");
    expect(await hasKeys(store)).toBe(false);
    await claimKeys(store, keysOf(), "/srv/one");
    expect(await hasKeys(store)).toBe(true);
    await claimKeys(store, keysOf(), "/srv/two");
    const twists = {
      "identity.ed25519": { identity: { publicKey: new Uint8Array(32) } },
      "account-name.key": { accountNameKey: new Uint8Array(32) },
      "sealing.key": { sealingKey: new Uint8Array(32) },
      "shadow.key": { shadowKey: new Uint8Array(32) },
      "log.ed25519": { log: { publicKey: new Uint8Array(32) } },
      "opaque.json": { opaque: { current: { id: "1", setup: "other" }, previous: null } },
    };
    for (const [file, twist] of Object.entries(twists)) {
      const fault = await claimKeys(store, keysOf(twist), "/srv/one").then(
        () => undefined,
        (error: unknown) => error,
      );
      expect(fault).toMatchObject({ code: "corrupt", why: expect.stringContaining(`/srv/one/keys/${file}`) });
    }
    await claimKeys(store, keysOf(), "/srv/one");
    await store.close();
  });
});
