import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { newId, type SessionId } from "../../src/ids.ts";
import { channelKeys } from "../../src/protocol/channel.ts";
import { createDispatcher } from "../../src/server/dispatch.ts";
import type { SessionRow } from "../../src/storage/store.ts";
import {
  call,
  errorOf,
  exchange,
  frameOf,
  logInRaw,
  output,
  postFrame,
  type RawOwner,
  type RawSession,
  registerRaw,
  utf8,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore, hookedStore } from "../support/storeprobe.ts";

const HOUR = 3_600_000;
const hooked = hookedStore();
let file: FileStore;
let server: TestServer;
let alice: RawOwner;
let session: RawSession;

beforeEach(async () => {
  file = fileStore();
  server = await startTestServer({ path: file.path, wrap: hooked.wrap });
  alice = await registerRaw(server, "alice");
  session = await logInRaw(server, "alice", alice.password);
});

afterEach(async () => {
  hooked.hook = null;
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

const EMPTY = utf8("{}");
const otherDispatcher = () => ({ dispatcher: createDispatcher(server.ctx, (fault) => server.faults.push(fault)) });
const check = (at: RawSession = session, over: Pick<TestServer, "dispatcher"> = server) =>
  call(over, at, "session.check", {});

describe("a session's row", () => {
  /** Mallory's own session, its row given to alice: what a writer of the database would try. */
  async function moved(known: boolean, over: Pick<TestServer, "dispatcher">) {
    const mallory = await registerRaw(server, "mallory");
    const own = await logInRaw(server, "mallory", mallory.password);
    if (known) expect((await check(own)).code).toBe("ok");
    file.sql(
      "UPDATE session SET user_id = ? WHERE session_id = ?",
      Uint8Array.fromHex(alice.userId),
      Uint8Array.fromHex(own.sessionId),
    );
    const before = (await call(server, session, "session.list", {})).head?.auditSeq;
    const asAlice = {
      ...own,
      keys: channelKeys(own.sessionKey, server.ctx.keys.identity, alice.userId, own.sessionId),
    };
    const codes: string[] = [];
    for (const attempt of [own, { ...asAlice, sequence: 50 }]) {
      const frame = frameOf(attempt, "session.list", EMPTY);
      const reply = await postFrame(over, frame.operation, frame.bytes);
      expect(typeof reply.body).toBe("string");
      codes.push(errorOf(reply).code);
    }
    expect(await (await call(server, session, "session.check", {})).head?.auditSeq).toBe((before ?? 0) + 1);
    return codes;
  }

  test("moved to another account is refused by a process that never saw it", async () => {
    expect(await moved(false, otherDispatcher())).toEqual(["integrity", "integrity"]);
  });

  test("moved to another account is refused by a process that holds its keys", async () => {
    const [own, foreign] = await moved(true, server);
    expect(own).toBe("session_invalid");
    expect(["bad_input", "integrity"]).toContain(foreign ?? "");
  });

  test("copied under another session id is refused", async () => {
    const [row] = file.sql<Record<string, Uint8Array | number>>("SELECT * FROM session");
    if (!row) throw new Error("no session");
    const copy = newId<SessionId>(random);
    await server.store.transaction((tx) =>
      tx.putSession({
        sessionId: copy,
        userId: alice.userId,
        sealedKey: row["sealed_key"] as Uint8Array,
        createdAtMs: server.ctx.now(),
        lastUsedMs: server.ctx.now(),
        expiresAtMs: server.ctx.now() + HOUR,
        high: 0,
        window: new Uint8Array(128),
        factor: "none",
      } satisfies SessionRow),
    );
    expect((await check({ ...session, sessionId: copy })).code).toBe("integrity");
  });

  test("does not hold the session's key", () => {
    const [row] = file.sql<{ sealed_key: Uint8Array }>("SELECT sealed_key FROM session");
    for (const key of [session.sessionKey, session.keys.request, session.keys.reply]) {
      expect(row?.sealed_key.toHex()).not.toContain(key.toHex());
    }
  });
});

describe("a session ends", () => {
  test("after an hour without use", async () => {
    for (let i = 0; i < 3; i++) {
      server.advance(HOUR - 1_000);
      expect((await check()).code).toBe("ok");
    }
    server.advance(HOUR);
    const over = await check();
    expect(over).toMatchObject({ code: "session_invalid", sealed: false, status: 401 });
    server.advance(-1_000);
  });

  test("after twelve hours, however busy", async () => {
    for (let i = 0; i < 23; i++) {
      server.advance(HOUR / 2);
      expect((await check()).code).toBe("ok");
    }
    server.advance(HOUR / 2);
    expect((await check()).code).toBe("session_invalid");
  });

  test("when it is closed; closing it again says so, and the others live on", async () => {
    const other = await logInRaw(server, "alice", alice.password);
    expect(
      output("session.close", await call(server, session, "session.close", { sessionId: null, all: false })),
    ).toEqual({ closed: 1 });
    expect((await check()).code).toBe("session_invalid");
    expect((await call(server, session, "session.close", { sessionId: null, all: false })).code).toBe(
      "session_invalid",
    );
    expect((await check(other)).code).toBe("ok");
  });

  test("when another one closes it, also for a process that holds its keys", async () => {
    const other = await logInRaw(server, "alice", alice.password);
    expect((await check(other)).code).toBe("ok");
    expect((await check(other, otherDispatcher())).code).toBe("ok");
    await call(server, session, "session.close", { sessionId: other.sessionId, all: false });
    expect((await check(other)).code).toBe("session_invalid");
    expect((await check()).code).toBe("ok");
  });

  test("with all the others", async () => {
    const others = [await logInRaw(server, "alice", alice.password), await logInRaw(server, "alice", alice.password)];
    const bob = await registerRaw(server, "bob");
    const bobs = await logInRaw(server, "bob", bob.password);
    expect(
      output("session.close", await call(server, session, "session.close", { sessionId: null, all: true })),
    ).toEqual({ closed: 3 });
    for (const one of [session, ...others]) expect((await check(one)).code).toBe("session_invalid");
    expect((await check(bobs)).code).toBe("ok");
  });

  test("when the account is disabled", async () => {
    await server.store.transaction((tx) => tx.setDisabled(alice.userId, true));
    expect((await check()).code).toBe("session_invalid");
  });

  test("only by its own account: another's session id is answered like a made-up one", async () => {
    const bob = await registerRaw(server, "bob");
    const bobs = await logInRaw(server, "bob", bob.password);
    const real = await call(server, bobs, "session.close", { sessionId: session.sessionId, all: false });
    const fake = await call(server, bobs, "session.close", { sessionId: newId<SessionId>(random), all: false });
    expect([real.code, real.text, real.status]).toEqual([fake.code, fake.text, fake.status]);
    expect(real.code).toBe("not_found");
    expect((await check()).code).toBe("ok");
  });

  test("and is no longer listed", async () => {
    await logInRaw(server, "alice", alice.password);
    server.advance(HOUR - 1_000);
    const fresh = await logInRaw(server, "alice", alice.password);
    server.advance(2_000);
    const { items } = output("session.list", await call(server, fresh, "session.list", {}));
    expect(items.map(({ sessionId, current }) => ({ sessionId, current }))).toEqual([
      { sessionId: fresh.sessionId, current: true },
    ]);
  });
});

test("a session outlives its server process: the keys and the window are in the store", async () => {
  await check();
  const frame = frameOf(session, "session.check", EMPTY);
  await exchange(server, session, frame);
  const other = otherDispatcher();
  expect((await exchange(other, session, frame)).code).toBe("replayed");
  expect((await check(session, other)).code).toBe("ok");
});
