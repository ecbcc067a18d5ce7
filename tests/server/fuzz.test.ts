import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { newId, type RequestId, type StoredKeyId, type UserId, type WorkspaceId } from "../../src/ids.ts";
import { type KeyStoreService, noKeyStore } from "../../src/server/ceremony/service.ts";
import type { ServerContext } from "../../src/server/context.ts";
import type { Reply } from "../../src/server/dispatch.ts";
import { createIntegrator } from "../../src/server/keyring/integrator.ts";
import { noRegistry, type RegistryService } from "../../src/server/keyring/service.ts";
import type { Json } from "../../src/wire/codec.ts";
import { type OperationName, operations, type SessionOperation } from "../../src/wire/operations.ts";
import {
  errorOf,
  exchange,
  frameOf,
  logInRaw,
  logOf,
  postFrame,
  type RawOwner,
  type RawSession,
  registerRaw,
  storeRaw,
  utf8,
} from "../support/attacker.ts";
import { badInputs, jsonOf, MARKER, type Shape, shapeOf, smallest } from "../support/codec-shape.ts";
import { type FederatedServer, startFederated } from "../support/federatedserver.ts";
import { random, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore } from "../support/storeprobe.ts";

/** Whatever comes in: one typed 4xx, never a 5xx, and nothing changed but the log, the window and the limits. */

const NAMES = Object.keys(operations) as OperationName[];
const isSession = (name: OperationName): name is SessionOperation => operations[name].auth === "session";
const SHAPES = new Map(NAMES.map((name) => [name, shapeOf(operations[name].input)]));
const shape = (name: OperationName): Shape => SHAPES.get(name) ?? { is: "boolean", nullable: false };

/** A registry that knows every token and nothing else, so that what stands behind tokens is reached. */
const registry = (ctx: ServerContext): RegistryService => ({
  ...(Object.fromEntries(
    NAMES.map((name) => [name, () => Promise.reject(noRegistry())]),
  ) as unknown as RegistryService),
  ...createIntegrator({ ctx }, async () => undefined),
  admitToken: async () => ({
    workspaceId: "7".repeat(64) as WorkspaceId,
    tokenId: "",
    userId: "7".repeat(32) as UserId,
  }),
});

/** The same of a key store. */
const keyStore = (): KeyStoreService => ({
  ...(Object.fromEntries(
    NAMES.map((name) => [name, () => Promise.reject(noKeyStore())]),
  ) as unknown as KeyStoreService),
  admitToken: async () => ({
    keyId: "7".repeat(64) as StoredKeyId,
    tokenId: "",
    userId: "7".repeat(32) as UserId,
  }),
});

let file: FileStore;
let federated: FederatedServer;
let server: TestServer;
let alice: RawOwner;
let session: RawSession;
let addresses = 0;

beforeAll(async () => {
  file = fileStore();
  federated = await startFederated({ path: file.path, promptLog: false, registry, keyStore });
  server = federated.server;
  alice = await registerRaw(server, "alice");
  session = await logInRaw(server, "alice", alice.password);
  await storeRaw(server, session, alice);
});

afterAll(async () => {
  await federated.close();
  file.end();
});

const TRACES = ["session", "audit_entry", "audit_head"];

interface Seen {
  readonly status: number;
  readonly code: string;
  readonly text: string;
  readonly requestId: RequestId | null;
}

/** Sends a body to an operation as its kind is sent; another address each time, so that no limit hides a fault. */
async function send(name: OperationName, body: Uint8Array): Promise<Seen> {
  if (!isSession(name)) {
    addresses += 1;
    const address = `10.${addresses >>> 16}.${(addresses >>> 8) & 255}.${addresses & 255}`;
    const reply: Reply = await server.dispatcher.handle(name, "application/json", body, { address });
    if (reply.status === 200) return { status: 200, code: "ok", text: String(reply.body), requestId: null };
    const { code, message } = errorOf(reply);
    return { status: reply.status, code, text: message, requestId: null };
  }
  const answer = await exchange(server, session, frameOf(session, name, body));
  expect(answer.sealed).toBe(true);
  return { status: answer.status, code: answer.code, text: answer.text, requestId: answer.requestId };
}

/** JSON that keeps a negative zero; undefined for what JSON cannot say. */
function jsonText(value: unknown): string | undefined {
  let sayable = true;
  const text = JSON.stringify(value, (_name, part: unknown) => {
    if (Number.isNaN(part)) sayable = false;
    return Object.is(part, -0) ? "@negative zero@" : part;
  });
  return sayable ? text?.replaceAll('"@negative zero@"', "-0") : undefined;
}

/** Sends a body that must be refused at the door. */
async function refused(name: OperationName, body: Uint8Array, why: string): Promise<void> {
  const seen = await send(name, body);
  expect({ why, code: seen.code, status: seen.status }).toEqual({ why, code: "bad_input", status: 400 });
  expect(seen.text).not.toContain(MARKER);
  if (seen.requestId === null) return;
  const entries = await logOf(server, alice.userId, seen.requestId);
  expect(entries.map(({ action, status }) => [action, status])).toEqual([[name, "bad_input"]]);
}

describe("each operation refuses, with one typed 400 and nothing changed,", () => {
  test.each(NAMES)("%s: every wrong type, length, form and field", async (name) => {
    const bad = badInputs(shape(name), smallest(shape(name)));
    expect(bad.length).toBeGreaterThan(0);
    // a spread of them: the whole table is a codec test, here it is the way through the server
    const step = Math.max(1, Math.floor(bad.length / 60));
    const before = file.dump(...TRACES);
    for (const [i, { why, value }] of bad.entries()) {
      const text = jsonText(value);
      if (i % step !== 0 || text === undefined) continue;
      await refused(name, utf8(text), why);
    }
    expect(file.dump(...TRACES)).toBe(before);
    expect(server.faults).toEqual([]);
  });

  test.each(NAMES)("%s: what is no JSON", async (name) => {
    const good = JSON.stringify(smallest(shape(name)));
    const cases: [string, Uint8Array][] = [
      ["nothing", new Uint8Array(0)],
      ["white space", utf8("   ")],
      ["cut short", utf8(good.slice(0, -1))],
      ["with more behind", utf8(`${good}x`)],
      ["twice", utf8(good + good)],
      ["with a byte order mark", utf8(`\ufeff${good}`)],
      ["with a zero byte", utf8(`${good}\u0000`)],
      ["not UTF-8", Uint8Array.of(0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d)],
      ["not a number", utf8('{"count":NaN}')],
      ["null", utf8("null")],
      ["a list", utf8("[]")],
      ["text", utf8('"text"')],
      ["a prototype", utf8(`{"__proto__":{"count":1},${good.slice(1)}`.replace(",}", "}"))],
      ["a constructor", utf8(`{"constructor":1,${good.slice(1)}`.replace(",}", "}"))],
      ["very deep", utf8(`${"[".repeat(60_000)}${"]".repeat(60_000)}`)],
      ["deep and open", utf8('{"a":'.repeat(20_000))],
      ["large", utf8(`{"${"a".repeat(120_000)}":1}`)],
      ["wide", utf8(`{${Array.from({ length: 9_000 }, (_, i) => `"f${i}":0`).join(",")}}`)],
    ];
    const before = file.dump(...TRACES);
    for (const [why, body] of cases) await refused(name, body, why);
    expect(file.dump(...TRACES)).toBe(before);
    expect(server.faults).toEqual([]);
  });
});

test("well-formed nonsense to any operation: an answer or a typed 4xx, never a 5xx", async () => {
  // five wrong codes end a session
  const closing = new Set<OperationName>(["session.close", "account.factor.enable"]);
  const wanted = NAMES.filter((name) => !closing.has(name));
  const any = fc
    .constantFrom(...wanted)
    .chain((name) => jsonOf(shape(name)).map((value): [OperationName, Json] => [name, value]));
  const before = file.dump(...TRACES, "rate_limit", "login_state", "reservation", "request", "document");
  await fc.assert(
    fc.asyncProperty(any, async ([name, value]) => {
      const seen = await send(name, utf8(JSON.stringify(value)));
      expect(seen.status).toBeLessThan(500);
      if (seen.status !== 200) expect(seen.status).toBeGreaterThanOrEqual(400);
      if (seen.requestId !== null) expect(await logOf(server, alice.userId, seen.requestId)).not.toEqual([]);
    }),
    { numRuns: 600 },
  );
  expect(file.dump(...TRACES, "rate_limit", "login_state", "reservation", "request", "document")).toBe(before);
  // what an account may leave without a state
  expect(file.sql("SELECT DISTINCT kind FROM document")).toEqual([{ kind: "parcel" }]);
  expect(server.faults).toEqual([]);
}, 60_000);

test("random bytes as body, name and content type: a typed 4xx", async () => {
  const names = fc.oneof(fc.constantFrom<string>(...NAMES), fc.string({ maxLength: 40 }));
  const types = fc.constantFrom(
    "application/json",
    "application/octet-stream",
    "text/plain",
    "",
    "application/json; charset=utf-8",
  );
  const before = file.dump();
  await fc.assert(
    fc.asyncProperty(names, types, fc.uint8Array({ maxLength: 400 }), async (name, type, body) => {
      const reply = await server.dispatcher.handle(name, type, body, { address: "10.99.0.1" });
      expect(reply.status).toBeGreaterThanOrEqual(400);
      expect(reply.status).toBeLessThan(500);
      expect(reply.contentType).toBe("application/json");
      errorOf(reply);
    }),
    { numRuns: 500 },
  );
  expect(file.dump()).toBe(before);
  expect(server.faults).toEqual([]);
});

test("any address is answered: none crashes the limits", async () => {
  const body = utf8(JSON.stringify({ account: "x", request: "A".repeat(128), deviceToken: null }));
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.string(), fc.ipV6(), fc.ipV4()), async (address) => {
      const reply = await server.dispatcher.handle("session.login.start", "application/json", body, { address });
      expect(reply.status).toBeLessThan(500);
    }),
    { numRuns: 100 },
  );
  expect(server.faults).toEqual([]);
});

test("OPAQUE messages that are no points of the group: a typed 4xx, no session, no account", async () => {
  const BYTES = [32, 64, 96, 97, 192, 320, 1_024];
  for (const length of BYTES) {
    for (const fill of [0, 1, 0x7f, 0xff]) {
      const message = new Uint8Array(length).fill(fill).toBase64({ alphabet: "base64url", omitPadding: true });
      const account = `n${length}-${fill}`;
      const start = await send(
        "session.login.start",
        utf8(JSON.stringify({ account, request: message, deviceToken: null })),
      );
      const register = await send(
        "account.register.start",
        utf8(JSON.stringify({ account, invite: null, request: message })),
      );
      const change = await send("account.password.start", utf8(JSON.stringify({ request: message })));
      const ids = { requestId: newId<RequestId>(random), sessionId: newId<never>(random) };
      const finish = await send("session.login", utf8(JSON.stringify({ ...ids, finish: message, setup: 0 })));
      for (const { status } of [start, register, change, finish]) expect(status).toBeLessThan(500);
      if (length !== 32) expect(register.code).toBe("bad_input");
      if (length !== 96) expect(start.code).toBe("bad_input");
      expect(finish.code).toBe("login_failed");
    }
  }
  expect(server.faults).toEqual([]);
});

test("after all this the session and the account are as they were", async () => {
  expect((await send("session.check", utf8("{}"))).code).toBe("ok");
  await storeRaw(server, session, alice);
  const again = await logInRaw(server, "alice", alice.password, { address: "10.200.0.1", token: alice.token });
  const reply = await postFrame(server, "session.check", frameOf(again, "session.check", utf8("{}")).bytes);
  expect(reply.status).toBe(200);
});
