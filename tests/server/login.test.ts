import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { sha256 } from "../../src/crypto/kdf.ts";
import { clientLoginStart } from "../../src/crypto/opaque.ts";
import { newId, type RequestId, type UserId } from "../../src/ids.ts";
import { credentialIdOf } from "../../src/server/accounts.ts";
import { createDispatcher } from "../../src/server/dispatch.ts";
import { sweepLogins } from "../../src/server/handlers/login.ts";
import type { LoginStateRow } from "../../src/storage/store.ts";
import {
  call,
  finishRaw,
  logInRaw,
  logOf,
  outputOf,
  postInput,
  type RawOwner,
  type RawSession,
  registerRaw,
  startRaw,
  WRONG_KE3,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { parseKe2 } from "../support/opaque-oracle.ts";
import { hookedStore, recorder } from "../support/storeprobe.ts";

const SECOND = 1_000;
const DAY = 86_400_000;

const hooked = hookedStore();
let server: TestServer;
let alice: RawOwner;

beforeEach(async () => {
  server = await startTestServer({ wrap: hooked.wrap });
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

const shadowOf = (account: string): Promise<UserId> => {
  const seen: UserId[] = [];
  hooked.hook = (method, args, run) => {
    if (method === "putLoginState") seen.push((args[0] as LoginStateRow).userId);
    return run(...args);
  };
  return startRaw(server, account, "x").then(() => {
    hooked.hook = null;
    const [userId] = seen;
    if (!userId) throw new Error("no login state was written");
    return userId;
  });
};

describe("wrong password, unknown account and disabled account", () => {
  test("are one answer, at the start and at the end", async () => {
    await registerRaw(server, "carol");
    const carol = await registerRaw(server, "david");
    await disable(carol);
    const answers = [await failing("alice"), await failing("nobdy"), await failing("david")];
    for (const { started, finished } of answers) {
      expect(started.reply.status).toBe(200);
      expect(finished).toMatchObject({ status: 401, contentType: "application/json", outcome: "login_failed" });
    }
    expect(new Set(answers.map(({ started }) => String(started.reply.body).length)).size).toBe(1);
    expect(new Set(answers.map(({ finished }) => String(finished.body))).size).toBe(1);
  });

  test("the right password of a disabled account is answered like a wrong one", async () => {
    await disable(alice);
    const { fitting, sessionId } = await startRaw(server, "alice", alice.password);
    expect(fitting).toBeUndefined();
    const reply = await finishRaw(server, { sessionId, fitting });
    const unknown = await failing("nobdy");
    expect(reply).toEqual(unknown.finished);
    await disable(alice, false);
    await logInRaw(server, "alice", alice.password);
  });

  test("run the same statements on the same kind of rows", async () => {
    const off = await registerRaw(server, "david");
    await disable(off);
    // a first failure each, so that a log and a bucket exist for all
    for (const name of ["alice", "nobdy", "david"]) await failing(name);
    const runs: string[][] = [];
    for (const name of ["alice", "nobdy", "david"]) {
      const record = recorder();
      hooked.hook = record.hook;
      await failing(name);
      hooked.hook = null;
      runs.push(record.lines);
    }
    expect(runs[0]?.length).toBeGreaterThan(8);
    expect(runs[0]?.filter((line) => line.startsWith("appendAudit"))).toHaveLength(1);
    expect(runs[1]).toEqual(runs[0] ?? []);
    expect(runs[2]).toEqual(runs[0] ?? []);
  });

  test("an abandoned start runs the same statements too, and becomes a failed event", async () => {
    const runs: string[][] = [];
    for (const name of ["alice", "nobdy"]) {
      const record = recorder();
      hooked.hook = record.hook;
      await startRaw(server, name, "wrong horse");
      server.advance(61 * SECOND);
      expect(await sweepLogins(server.ctx)).toBe(1);
      hooked.hook = null;
      runs.push(record.lines);
    }
    expect(runs[1]).toEqual(runs[0] ?? []);
    const last = (await logOf(server, alice.userId)).at(-1);
    expect(last).toMatchObject({ action: "session.login", status: "timed_out", session: null });
  });

  test("unknown names get shadow rows that expire", async () => {
    const shadow = await shadowOf("nobdy");
    await failing("nobdy");
    await failing("nobdy");
    const entries = await logOf(server, shadow);
    expect(entries.map(({ action, status }) => `${action} ${status}`)).toEqual(
      new Array(2).fill("session.login login_failed"),
    );
    server.advance(DAY + 1);
    expect(await server.store.transaction((tx) => tx.sweepShadowAudit(server.ctx.now()))).toBe(2);
    expect(await logOf(server, shadow)).toEqual([]);
    expect((await logOf(server, alice.userId)).length).toBe(1);
  });

  test("the shadow account of a name is always the same, and no other name's", async () => {
    expect(await shadowOf("nobdy")).toBe(await shadowOf("nobdy"));
    expect(await shadowOf("nobdy")).not.toBe(await shadowOf("somebody"));
  });

  test("the OPRF answer to a fixed KE1 is the same before and after the name is registered", async () => {
    const { request } = clientLoginStart("probe");
    const evaluated = async () => {
      const reply = await postInput(server, "session.login.start", { account: "erin", request, deviceToken: null });
      const [ke2] = outputOf("session.login.start", reply).responses;
      return parseKe2(ke2 ?? new Uint8Array(0)).evaluated.toHex();
    };
    const before = await evaluated();
    expect(await evaluated()).toBe(before);
    const erin = await registerRaw(server, "erin");
    expect(await evaluated()).toBe(before);
    await disable(erin);
    expect(await evaluated()).toBe(before);
  });

  test("failures are in the owner's log, with the request id", async () => {
    const { sessionId } = await startRaw(server, "alice", "wrong horse");
    const requestId = newId<RequestId>(random);
    await finishRaw(server, { sessionId, fitting: undefined }, requestId);
    const entries = await logOf(server, alice.userId, requestId);
    expect(entries).toHaveLength(1);
    expect(entries[0]).toMatchObject({ action: "session.login", status: "login_failed", session: null, keyId: null });
  });
});

describe("half a login", () => {
  test("is good for one finish", async () => {
    const started = await startRaw(server, "alice", alice.password);
    expect((await finishRaw(server, started)).status).toBe(200);
    const again = await finishRaw(server, started);
    expect(again).toEqual((await failing("alice")).finished);
    expect(await server.store.transaction((tx) => tx.sessionsOf(alice.userId))).toHaveLength(1);
  });

  test("is good for one finish even when two come at once", async () => {
    const started = await startRaw(server, "alice", alice.password);
    const replies = await Promise.all([finishRaw(server, started), finishRaw(server, started)]);
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 401]);
    expect(await server.store.transaction((tx) => tx.sessionsOf(alice.userId))).toHaveLength(1);
  });

  test("is spent by a wrong finish", async () => {
    const started = await startRaw(server, "alice", alice.password);
    expect((await finishRaw(server, { ...started, fitting: undefined })).status).toBe(401);
    expect((await finishRaw(server, started)).status).toBe(401);
  });

  test("ends after 60 s, and the late finish is in the log: no guess goes unseen", async () => {
    for (const sweep of [false, true]) {
      const before = (await logOf(server, alice.userId)).length;
      const started = await startRaw(server, "alice", alice.password);
      server.advance(60 * SECOND + 1);
      if (sweep) await sweepLogins(server.ctx);
      expect((await finishRaw(server, started)).status).toBe(401);
      const entries = (await logOf(server, alice.userId)).slice(before);
      expect(entries).toHaveLength(1);
      expect(entries[0]?.status).not.toBe("ok");
    }
    expect(await server.store.transaction((tx) => tx.sessionsOf(alice.userId))).toEqual([]);
  });

  test("a finish that the server cannot check is in the log too", async () => {
    const started = await startRaw(server, "alice", alice.password);
    const before = (await logOf(server, alice.userId)).length;
    const { pool } = server.ctx;
    const { Fault } = await import("../../src/errors.ts");
    const busy = {
      run: () => Promise.reject(new Fault("unavailable", "too many logins at once")),
      close: () => undefined,
    };
    Object.assign(server.ctx, { pool: busy });
    try {
      expect((await finishRaw(server, started)).status).toBe(503);
    } finally {
      Object.assign(server.ctx, { pool });
    }
    expect((await logOf(server, alice.userId)).slice(before).map(({ status }) => status)).toEqual(["unavailable"]);
    expect((await finishRaw(server, started)).status).toBe(401);
  });

  test("dies when the record changes in between", async () => {
    const started = await startRaw(server, "alice", alice.password);
    await server.store.transaction(async (tx) => {
      const row = await tx.account(alice.userId);
      if (row) await tx.replaceRecord(alice.userId, row.record, row.setupId);
    });
    const reply = await finishRaw(server, started);
    expect(reply.status).toBe(401);
    expect(await server.store.transaction((tx) => tx.sessionsOf(alice.userId))).toEqual([]);
  });

  test("dies when the account is disabled or removed in between", async () => {
    const first = await startRaw(server, "alice", alice.password);
    const second = await startRaw(server, "alice", alice.password);
    await disable(alice);
    expect((await finishRaw(server, first)).status).toBe(401);
    await server.store.transaction((tx) => tx.removeAccount(alice.userId));
    expect((await finishRaw(server, second)).status).toBe(401);
  });

  const FORGED: [string, (row: LoginStateRow, other: RawOwner) => Partial<LoginStateRow>][] = [
    ["another account", (_row, other) => ({ userId: other.userId })],
    [
      "another account and name",
      (_row, other) => ({ userId: other.userId, credentialId: credentialIdOf(server.ctx, other.account) }),
    ],
    ["a later expiry", (row) => ({ expiresAtMs: row.expiresAtMs + DAY })],
    ["another record version", (row) => ({ recordVersion: row.recordVersion + 1 })],
    ["a flipped bit", (row) => ({ sealed: row.sealed.map((byte, i) => (i === 40 ? byte ^ 1 : byte)) })],
    ["a cut end", (row) => ({ sealed: row.sealed.slice(0, -1) })],
  ];
  test.each(FORGED)("altered in the database is refused: %s", async (_what, change) => {
    const mallory = await registerRaw(server, "mallory", "mallory's horse");
    const started = await startRaw(server, "mallory", mallory.password);
    hooked.hook = async (method, args, run) => {
      const row = (await run(...args)) as LoginStateRow | undefined;
      return method === "takeLoginState" && row ? { ...row, ...change(row, alice) } : row;
    };
    const reply = await finishRaw(server, started);
    hooked.hook = null;
    expect([401, 422]).toContain(reply.status);
    for (const { userId } of [alice, mallory]) {
      expect(await server.store.transaction((tx) => tx.sessionsOf(userId))).toEqual([]);
    }
  });

  test("moved to another session id in the database is refused", async () => {
    const first = await startRaw(server, "alice", alice.password);
    const second = await startRaw(server, "alice", alice.password);
    hooked.hook = async (method, args, run) => {
      if (method !== "takeLoginState") return run(...args);
      const row = (await run(first.sessionId)) as LoginStateRow;
      return { ...row, sessionId: second.sessionId };
    };
    const reply = await finishRaw(server, { sessionId: second.sessionId, fitting: first.fitting });
    hooked.hook = null;
    expect([401, 422]).toContain(reply.status);
    expect(await server.store.transaction((tx) => tx.sessionsOf(alice.userId))).toEqual([]);
  });

  test("sealed in the store: the session key is not there", async () => {
    let sealed = new Uint8Array(0);
    hooked.hook = (method, args, run) => {
      if (method === "putLoginState") sealed = (args[0] as LoginStateRow).sealed as Uint8Array<ArrayBuffer>;
      return run(...args);
    };
    const { fitting } = await startRaw(server, "alice", alice.password);
    expect(sealed.length).toBeGreaterThan(64);
    expect(sealed.toHex()).not.toContain(fitting?.sessionKey.toHex() ?? "missing");
  });

  test("can be finished by another process on the same store and keys", async () => {
    const other = createDispatcher(server.ctx, (fault) => server.faults.push(fault));
    const started = await startRaw(server, "alice", alice.password);
    const reply = await finishRaw({ ...server, dispatcher: other }, started);
    expect(reply.status).toBe(200);
    expect((await finishRaw(server, started)).status).toBe(401);
  });

  test("cannot be finished by a server with another sealing key", async () => {
    const ctx = { ...server.ctx, keys: { ...server.ctx.keys, sealing: random(32) } };
    const other = createDispatcher(ctx, (fault) => server.faults.push(fault));
    const started = await startRaw(server, "alice", alice.password);
    expect((await finishRaw({ ...server, dispatcher: other }, started)).status).toBeGreaterThanOrEqual(400);
  });

  test("a made-up session id is answered like a wrong password", async () => {
    const input = { requestId: newId<RequestId>(random), sessionId: newId<never>(random), finish: WRONG_KE3, setup: 0 };
    expect(await postInput(server, "session.login", input)).toEqual((await failing("alice")).finished);
  });
});

describe("sessions of a login", () => {
  test("two logins give two sessions, each with its own keys", async () => {
    const one = await logInRaw(server, "alice", alice.password);
    const two = await logInRaw(server, "alice", alice.password);
    expect(one.sessionId).not.toBe(two.sessionId);
    expect(sha256(one.sessionKey)).not.toEqual(sha256(two.sessionKey));
    for (const session of [one, two]) expect((await call(server, session, "session.check", {})).code).toBe("ok");
  });

  test("above the most, the one unused for longest ends", async () => {
    const small = await startTestServer({ limits: { sessionsPerAccount: 3 } });
    try {
      await registerRaw(small, "alice");
      const sessions: RawSession[] = [];
      for (let i = 0; i < 3; i++) {
        sessions.push(await logInRaw(small, "alice", "correct horse"));
        small.advance(SECOND);
      }
      const [first, second] = sessions;
      if (!first || !second) throw new Error("no sessions");
      await call(small, first, "session.check", {});
      small.advance(SECOND);
      sessions.push(await logInRaw(small, "alice", "correct horse"));
      const codes: string[] = [];
      for (const session of sessions) codes.push((await call(small, session, "session.check", {})).code);
      expect(codes).toEqual(["ok", "session_invalid", "ok", "ok"]);
    } finally {
      await small.close();
    }
  });
});
