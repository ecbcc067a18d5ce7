import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { newId, type RequestId } from "../../src/ids.ts";
import { createDispatcher } from "../../src/server/dispatch.ts";
import {
  call,
  commitOf,
  exchange,
  frameOf,
  leafOf,
  logInRaw,
  logOf,
  output,
  postFrame,
  type RawOwner,
  type RawSession,
  registerRaw,
  reserveRaw,
  storeRaw,
} from "../support/attacker.ts";
import { addTestDevice, random, registerDevice, startTestServer, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore } from "../support/storeprobe.ts";

let file: FileStore;
let server: TestServer;
let alice: RawOwner;
let session: RawSession;

beforeEach(async () => {
  file = fileStore();
  server = await startTestServer({ path: file.path });
  alice = await registerRaw(server, "alice");
  session = await logInRaw(server, "alice", alice.password);
});

afterEach(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

/** What a refused mutation may touch: its sequence, and the log. */
const TRACES = ["session", "audit_entry", "audit_head"];
const freshId = () => newId<RequestId>(random);

async function prepared(sealed = random(100)) {
  const keyId = await reserveRaw(server, session);
  const leaf = leafOf(keyId, sealed, null);
  return { keyId, leaf, sealed, changes: [{ leaf, sealed }] };
}

describe("idempotency", () => {
  test("one request id and body: one effect, the same answer, also from another session and process", async () => {
    const { changes } = await prepared();
    const requestId = freshId();
    const { input } = commitOf(alice, "secret.store", changes, requestId);
    const first = await call(server, session, "secret.store", input, { requestId });
    expect(first.code).toBe("ok");
    const stored = file.dump("session");
    const other = await logInRaw(server, "alice", alice.password);
    const beside = { dispatcher: createDispatcher(server.ctx, (fault) => server.faults.push(fault)) };
    for (const [over, at] of [
      [server, session],
      [server, other],
      [beside, other],
    ] as const) {
      const again = await call(over, at, "secret.store", input, { requestId });
      expect([again.code, again.text]).toEqual(["ok", first.text]);
    }
    expect(file.dump("session", "audit_entry", "audit_head", "rate_limit")).toBe(
      stored
        .split("\n")
        .filter((line) => !/^(audit_entry|audit_head|rate_limit):/.test(line))
        .join("\n"),
    );
    expect(await logOf(server, alice.userId, requestId)).toHaveLength(1);
  });

  test("the same request many times at once has one effect", async () => {
    const { changes } = await prepared();
    const requestId = freshId();
    const { input } = commitOf(alice, "secret.store", changes, requestId);
    const answers = await Promise.all(
      Array.from({ length: 12 }, () => call(server, session, "secret.store", input, { requestId })),
    );
    expect(new Set(answers.map(({ code, text }) => `${code} ${text}`)).size).toBe(1);
    expect(answers[0]?.code).toBe("ok");
    expect(await logOf(server, alice.userId, requestId)).toHaveLength(1);
    expect(file.sql("SELECT * FROM leaf")).toHaveLength(1);
  });

  test("another body under the same id conflicts, also under another operation", async () => {
    const one = await prepared();
    const two = await prepared();
    const requestId = freshId();
    const made = commitOf(alice, "secret.store", one.changes, requestId);
    expect((await call(server, session, "secret.store", made.input, { requestId })).code).toBe("ok");
    made.done();
    const before = file.dump(...TRACES);
    for (const [operation, changes] of [
      ["secret.store", two.changes],
      ["secret.import", one.changes],
      ["secret.generate", two.changes],
    ] as const) {
      const { input } = commitOf(alice, operation, changes, requestId);
      const answer = await call(server, session, operation, input, { requestId });
      expect([answer.code, answer.status]).toEqual(["conflict", 409]);
    }
    expect(file.dump(...TRACES)).toBe(before);
    const again = await call(server, session, "secret.store", made.input, { requestId });
    expect(again.code).toBe("ok");
  });

  test("the same id of two accounts are two requests", async () => {
    const bob = await registerRaw(server, "bob");
    const bobs = await logInRaw(server, "bob", bob.password);
    const requestId = freshId();
    const mine = await prepared();
    const his = await reserveRaw(server, bobs);
    const sealed = random(120);
    const a = commitOf(alice, "secret.store", mine.changes, requestId);
    const b = commitOf(bob, "secret.store", [{ leaf: leafOf(his, sealed, null), sealed }], requestId);
    expect((await call(server, session, "secret.store", a.input, { requestId })).code).toBe("ok");
    expect((await call(server, bobs, "secret.store", b.input, { requestId })).code).toBe("ok");
  });

  test("stale is the final answer to its request id, even once it would fit", async () => {
    const { changes } = await prepared();
    const requestId = freshId();
    const early = { ...alice };
    await storeRaw(server, session, alice);
    const stale = commitOf(early, "secret.store", changes, requestId);
    const first = await call(server, session, "secret.store", stale.input, { requestId });
    expect([first.code, first.status]).toEqual(["stale", 409]);
    expect(first.head?.revision).toBe(2);
    const fitting = commitOf(alice, "secret.store", changes, requestId);
    const again = await call(server, session, "secret.store", fitting.input, { requestId });
    expect([again.code, again.text]).toEqual(["stale", first.text]);
    const { input } = commitOf(alice, "secret.store", changes, freshId());
    const fresh = await call(server, session, "secret.store", input, { requestId: input.state.state.requestId });
    expect(fresh.code).toBe("ok");
  });

  test("a refusal other than stale is not final: the id is free for a sound request", async () => {
    const { changes } = await prepared();
    const requestId = freshId();
    const bad = commitOf(alice, "secret.store", changes, requestId, { revision: 9 });
    expect((await call(server, session, "secret.store", bad.input, { requestId })).code).toBe("bad_input");
    const good = commitOf(alice, "secret.store", changes, requestId);
    expect((await call(server, session, "secret.store", good.input, { requestId })).code).toBe("ok");
  });

  test("reservations repeat under their request id, in order, and are another account's business", async () => {
    const requestId = freshId();
    const first = await call(server, session, "secret.reserve", { count: 8 }, { requestId });
    const again = await call(server, session, "secret.reserve", { count: 8 }, { requestId });
    expect(again.text).toBe(first.text);
    const { items } = output("secret.reserve", first);
    expect(new Set(items.map(({ keyId }) => keyId)).size).toBe(8);
    expect(new Set(items.map((item) => item.random.toHex())).size).toBe(8);
    const bob = await registerRaw(server, "bob");
    const bobs = await logInRaw(server, "bob", bob.password);
    const his = output("secret.reserve", await call(server, bobs, "secret.reserve", { count: 8 }, { requestId }));
    expect(his.items.some(({ keyId }) => items.some((item) => item.keyId === keyId))).toBe(false);
  });
});

describe("at once", () => {
  test("twenty stores by two devices lose nothing", async () => {
    const first = await registerDevice(server.link(), "bob", "correct horse");
    const second = await addTestDevice(server.link(), "bob", "correct horse");
    try {
      const store = (device: typeof first, i: number) =>
        device.client.store({ name: `n${i}`, type: null, value: Uint8Array.of(i), tags: [], where: null });
      await Promise.all(Array.from({ length: 20 }, (_, i) => store(i % 2 === 0 ? first : second, i)));
      for (const device of [first, second]) {
        await device.client.sync();
        const { items } = await device.client.list({ prefix: null, search: null, tag: null, fresh: true });
        expect(items.map(({ name }) => name).sort()).toEqual(Array.from({ length: 20 }, (_, i) => `n${i}`).sort());
        expect((await device.client.auditVerify()).ok).toBe(true);
      }
      for (let i = 0; i < 20; i++) {
        const { value } = await first.client.get({
          name: `n${i}`,
          version: null,
          reveal: true,
          fresh: true,
          save: false,
        });
        expect(value).toEqual(Uint8Array.of(i));
      }
    } finally {
      await first.end();
      await second.end();
    }
  }, 30_000);

  test("of many signed successors of one state, one is taken and the others learn that they are stale", async () => {
    const made: ({ requestId: RequestId } & ReturnType<typeof commitOf>)[] = [];
    for (let i = 0; i < 10; i++) {
      const { changes } = await prepared();
      const requestId = freshId();
      made.push({ requestId, ...commitOf(alice, "secret.store", changes, requestId) });
    }
    const frames = made.map(({ requestId, input }) => call(server, session, "secret.store", input, { requestId }));
    const codes = (await Promise.all(frames)).map(({ code }) => code);
    expect(codes.filter((code) => code === "ok")).toHaveLength(1);
    expect(codes.filter((code) => code === "stale")).toHaveLength(9);
    expect(file.sql("SELECT * FROM leaf")).toHaveLength(1);
    expect(file.sql("SELECT * FROM account_state")).toHaveLength(2);
  });

  test("a lost reply and a retry give one effect", async () => {
    const { changes } = await prepared();
    const requestId = freshId();
    const { input } = commitOf(alice, "secret.store", changes, requestId);
    const { operations } = await import("../../src/wire/operations.ts");
    const { encodeJson } = await import("../../src/wire/codec.ts");
    const body = new TextEncoder().encode(encodeJson(operations["secret.store"].input, input));
    await postFrame(server, "secret.store", frameOf(session, "secret.store", body, { requestId }).bytes);
    const again = await exchange(server, session, frameOf(session, "secret.store", body, { requestId }));
    expect(again.code).toBe("ok");
    expect(await logOf(server, alice.userId, requestId)).toHaveLength(1);
    expect(file.sql("SELECT * FROM leaf")).toHaveLength(1);
  });
});
