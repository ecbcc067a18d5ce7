import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { open as openSealed } from "../../src/crypto/aead.ts";
import { newId, type RequestId } from "../../src/ids.ts";
import { loginReplyKey } from "../../src/protocol/channel.ts";
import { type Codec, decodeJson, schemaOf } from "../../src/wire/codec.ts";
import { loginAnswer } from "../../src/wire/factor.ts";
import { operations, type SessionOperation } from "../../src/wire/operations.ts";
import {
  call,
  errorOf,
  exchange,
  finishRaw,
  frameOf,
  logInRaw,
  logOf,
  output,
  outputOf,
  postFrame,
  type RawOwner,
  registerRaw,
  startRaw,
  utf8,
} from "../support/attacker.ts";
import { blind, draft, factors, letters, STEP } from "../support/factors.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { valuesOf } from "../support/schemavalues.ts";
import { type FileStore, fileStore, hookedStore, recorder } from "../support/storeprobe.ts";

const MINUTE = 60_000;
const hooked = hookedStore();
let file: FileStore;
let server: TestServer;
let alice: RawOwner;

async function serve(options: Parameters<typeof startTestServer>[0] = {}): Promise<void> {
  file = fileStore();
  server = await startTestServer({ path: file.path, wrap: hooked.wrap, ...options });
  // what is valid now stays so however slow the machine is
  server.freeze();
  alice = await registerRaw(server, "alice");
}

beforeEach(() => serve());

afterEach(async () => {
  hooked.hook = null;
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

const { codeNow, bring, enrolment, wrongCode, enrol, restricted, check } = factors(() => ({ server, alice }));

describe("a login to an account with a second factor", () => {
  test("shows nothing of the account but its id, before and after a wrong code", async () => {
    const { key } = await enrol(alice);
    const started = await startRaw(server, "alice", alice.password);
    const { sealed } = outputOf("session.login", await finishRaw(server, started));
    const sessionKey = started.fitting?.sessionKey ?? new Uint8Array(64);
    const replyKey = loginReplyKey(sessionKey, server.ctx.keys.identity, started.sessionId);
    const plain = openSealed(replyKey, { kind: "login-reply", sessionId: started.sessionId }, sealed);
    expect(Object.keys(JSON.parse(new TextDecoder().decode(plain))).sort()).toEqual(["expiresAtMs", "needs", "userId"]);
    expect(decodeJson(loginAnswer, plain)).toMatchObject({ userId: alice.userId, needs: "factor" });
    const session = await restricted();
    const refused = await bring(session, wrongCode(key));
    expect(refused).toMatchObject({ code: "factor_failed", sealed: true });
    expect(refused.text).not.toContain(Buffer.from(alice.settings.wrappedIdentity).toString("base64url"));
    const shown = await bring(session, codeNow(key));
    expect(output("session.factor", shown).settings).toEqual(alice.settings);
    expect(output("session.factor", shown).head).toEqual(alice.state);
    expect(await check(session)).toBe("ok");
  });

  test("refuses every other operation of the table, sealed, and does nothing of it", async () => {
    await enrol(alice);
    const session = await restricted();
    const names = (Object.keys(operations) as SessionOperation[]).filter(
      (name) => operations[name].auth === "session" && name !== "session.factor",
    );
    expect(names.length).toBeGreaterThan(70);
    const before = file.sql("SELECT * FROM session").length;
    const { key, codes: kept } = draft();
    const enabling = enrolment(alice, key, kept);
    const codes: [string, string, boolean][] = [];
    for (const name of names) {
      const { input: shape } = operations[name] as { input: Codec<unknown> };
      const made = name === "account.factor.enable" ? enabling : sampleOf(shape);
      const input = shape.encode(made);
      const frame = frameOf(session, name, utf8(JSON.stringify(input)));
      const { code, sealed } = await exchange(server, session, frame);
      codes.push([name, code, sealed]);
    }
    // a signature of random bytes is looked at before the session is; nothing is done either way
    const others = codes.filter(([, code]) => code !== "factor_required");
    expect(others.filter(([name]) => !carriesState(name as SessionOperation))).toEqual([]);
    expect(
      codes.every(([, code, sealed]) => sealed && ["factor_required", "integrity", "bad_input"].includes(code)),
    ).toBe(true);
    expect(codes.filter(([, code]) => code === "factor_required").length).toBeGreaterThan(60);
    expect(file.sql("SELECT * FROM session").length).toBe(before);
    expect(await bring(session, "000000")).toMatchObject({ sealed: true });
  }, 60_000);

  test("a code is accepted once: by no other session, in no order", async () => {
    const { key } = await enrol(alice);
    const [one, two] = [await restricted(), await restricted()];
    const code = codeNow(key);
    const both = await Promise.all([bring(one, code), bring(two, code)]);
    expect(both.map((answer) => answer.code).sort()).toEqual(["factor_failed", "ok"]);
    const third = await restricted();
    expect((await bring(third, code)).code).toBe("factor_failed");
    // nor the code of a step before one that was accepted
    expect((await bring(third, codeNow(key, -1))).code).toBe("factor_failed");
    expect((await bring(third, codeNow(key, 1))).code).toBe("ok");
  });

  test("the code that enabled it is used up", async () => {
    const session = await restricted();
    const { key, codes } = draft();
    await call(server, session, "account.factor.enable", enrolment(alice, key, codes));
    expect((await bring(await restricted(), codeNow(key))).code).toBe("factor_failed");
  });

  test.each([-2, -1, 0, 1, 2])("a code of %p steps away is taken within one step alone", async (steps) => {
    const { key } = await enrol(alice);
    server.advance(4 * STEP);
    const expected = Math.abs(steps) <= 1 ? "ok" : "factor_failed";
    expect((await bring(await restricted(), codeNow(key, steps))).code).toBe(expected);
  });

  test("five wrong codes end the session, not the account", async () => {
    const { key } = await enrol(alice);
    const session = await restricted();
    for (let i = 0; i < 5; i++) expect((await bring(session, wrongCode(key))).code).toBe("factor_failed");
    expect(await bring(session, codeNow(key))).toMatchObject({ code: "session_invalid", sealed: false });
    expect((await bring(await restricted(), codeNow(key))).code).toBe("ok");
  });

  test("wrong codes are counted with the backoff of logins, which no new session resets", async () => {
    const { key } = await enrol(alice);
    for (let guess = 1; guess <= 10; guess++) await bring(await restricted(), wrongCode(key));
    const waits: (number | null)[] = [];
    for (let guess = 11; guess <= 16; guess++) {
      await bring(await restricted(), wrongCode(key));
      const blocked = await bring(await restricted(), codeNow(key));
      expect(blocked.code).toBe("rate_limited");
      const { retryAfterMs } = JSON.parse(blocked.text) as { retryAfterMs: number };
      waits.push(retryAfterMs);
      server.advance(retryAfterMs);
    }
    expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000]);
  });

  test("a device that is listed waits for its own wrong codes alone", async () => {
    const { key } = await enrol(alice);
    for (let guess = 1; guess <= 12; guess++) await bring(await restricted(), wrongCode(key));
    expect((await bring(await restricted(), codeNow(key))).code).toBe("rate_limited");
    expect((await bring(await restricted(alice.token), codeNow(key))).code).toBe("ok");
    // and that success did not lift the stranger's wait
    expect((await bring(await restricted(), codeNow(key, 1))).code).toBe("rate_limited");
  });

  test("a recovery code works once, in any writing, and while guesses have to wait", async () => {
    const { key, codes } = await enrol(alice);
    for (let guess = 1; guess <= 12; guess++) await bring(await restricted(), wrongCode(key));
    const [first = "", second = ""] = codes;
    expect((await bring(await restricted(), letters(first.toLowerCase().replaceAll("-", " ")))).code).toBe("ok");
    expect((await bring(await restricted(), letters(first))).code).toBe("factor_failed");
    const session = await restricted();
    expect((await bring(session, letters(second))).code).toBe("ok");
    expect(output("account.factor", await call(server, session, "account.factor", {})).codes).toBe(8);
  });

  test("two sessions with one recovery code: one wins", async () => {
    const { codes } = await enrol(alice);
    const [one, two] = [await restricted(), await restricted()];
    const both = await Promise.all([one, two].map((session) => bring(session, letters(codes[0] ?? ""))));
    expect(both.map(({ code }) => code).sort()).toEqual(["factor_failed", "ok"]);
  });

  test("a code serves no other account, and none in clear or in another session's frame", async () => {
    const { key, codes } = await enrol(alice);
    const mallory = await registerRaw(server, "mallory");
    await enrol(mallory);
    const own = await logInRaw(server, "mallory", mallory.password);
    expect((await bring(own, codeNow(key))).code).toBe("factor_failed");
    expect((await bring(own, letters(codes[0] ?? ""))).code).toBe("factor_failed");
    const body = JSON.stringify({ code: codeNow(key), blind: Buffer.from(blind()).toString("base64url") });
    const clear = await server.dispatcher.handle("session.factor", "application/json", utf8(body), { address: "::1" });
    expect(clear.status).toBe(415);
    const session = await restricted();
    const frame = frameOf({ ...session, keys: own.keys }, "session.factor", utf8(body));
    expect(errorOf(await postFrame(server, "session.factor", frame.bytes)).code).toBe("bad_input");
    expect(await check(session)).toBe("factor_required");
  });

  test("is in the owner's log, without a code, and so is each wrong one", async () => {
    const { key, codes } = await enrol(alice);
    const session = await restricted();
    await bring(session, wrongCode(key));
    const right = codeNow(key);
    await bring(session, right);
    const entries = await logOf(server, alice.userId);
    const seen = entries.slice(-3).map(({ action, status }) => `${action} ${status}`);
    expect(seen).toEqual(["session.login factor_required", "session.factor factor_failed", "session.factor ok"]);
    for (const text of [right, ...codes, ...codes.map(letters)]) {
      expect(JSON.stringify(entries)).not.toContain(`"${text}"`);
    }
  });

  test("nothing in the database is a key or a code in clear", async () => {
    const { key, codes } = await enrol(alice);
    const rows = file.sql<{ body: Uint8Array }>("SELECT body FROM document WHERE kind = 'secondFactor'");
    expect(rows).toHaveLength(1);
    const body = Buffer.from(rows[0]?.body ?? []);
    expect(body.includes(Buffer.from(key))).toBe(false);
    expect(body.toString()).not.toContain(Buffer.from(key).toString("base64url"));
    for (const text of codes) expect(body.toString()).not.toContain(letters(text));
  });

  test("a restricted session takes the place of no whole one, and is over in ten minutes", async () => {
    await server.close();
    file.end();
    await serve({ limits: { sessionsPerAccount: 2 } });
    const { key } = await enrol(alice);
    const whole = await restricted();
    await bring(whole, codeNow(key));
    const waiting = await restricted();
    server.advance(1_000);
    for (let i = 0; i < 4; i++) await restricted();
    expect(await check(whole)).toBe("ok");
    expect((await bring(waiting, codeNow(key, 1))).code).toBe("session_invalid");
    const last = await restricted();
    server.advance(11 * MINUTE);
    expect((await bring(last, codeNow(key))).code).toBe("session_invalid");
    expect(await check(whole)).toBe("ok");
  });

  test("a repeated request finds the session whole", async () => {
    const { key } = await enrol(alice);
    const session = await restricted();
    const [requestId, code] = [newId<RequestId>(random), codeNow(key)];
    for (let i = 0; i < 2; i++) {
      const answer = await call(server, session, "session.factor", { code, blind: blind() }, { requestId });
      expect(output("session.factor", answer).head).toEqual(alice.state);
    }
  });
});

/** A well-formed input; a schema leaves out what only the codec knows. */
function sampleOf(shape: Codec<unknown>): unknown {
  for (const value of fc.sample(valuesOf(schemaOf(shape)), { numRuns: 200, seed: 7 })) {
    try {
      return shape.decode(value, "input");
    } catch {
      // the next one
    }
  }
  throw new Error("no input fits");
}

const carriesState = (name: SessionOperation): boolean =>
  Object.hasOwn(schemaOf(operations[name].input as Codec<unknown>).properties ?? {}, "state");

describe("wrong password and unknown account", () => {
  test("are answered alike, byte for byte and statement for statement, whoever has a factor", async () => {
    await registerRaw(server, "bobby");
    await enrol(alice);
    const fail = async (account: string) => {
      const started = await startRaw(server, account, "wrong horse");
      const finished = await finishRaw(server, { sessionId: started.sessionId, fitting: undefined });
      return { length: String(started.reply.body).length, finished };
    };
    for (const name of ["alice", "bobby", "nobdy"]) await fail(name);
    const runs: { lines: string[]; answer: Awaited<ReturnType<typeof fail>> }[] = [];
    for (const name of ["alice", "bobby", "nobdy"]) {
      const record = recorder();
      hooked.hook = record.hook;
      const answer = await fail(name);
      hooked.hook = null;
      runs.push({ lines: record.lines, answer });
    }
    expect(runs[1]).toEqual(runs[0] as (typeof runs)[0]);
    expect(runs[2]).toEqual(runs[0] as (typeof runs)[0]);
    expect(runs[0]?.lines.length).toBeGreaterThan(8);
  });

  test("an account without a factor logs in as before", async () => {
    const started = await startRaw(server, "alice", alice.password);
    const { sealed } = outputOf("session.login", await finishRaw(server, started));
    const sessionKey = started.fitting?.sessionKey ?? new Uint8Array(64);
    const key = loginReplyKey(sessionKey, server.ctx.keys.identity, started.sessionId);
    const plain = openSealed(key, { kind: "login-reply", sessionId: started.sessionId }, sealed);
    const names = ["userId", "expiresAtMs", "settings", "head", "auditSeq", "auditLink"];
    expect(Object.keys(JSON.parse(new TextDecoder().decode(plain)))).toEqual(names);
  });
});
