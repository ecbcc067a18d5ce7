import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import { type DeviceId, type IncarnationId, type KeyId, newId, type RequestId, type UserId } from "../../src/ids.ts";
import type { LeafRecord } from "../../src/protocol/leaf.ts";
import type { AccountState, Device, Settings } from "../../src/protocol/state.ts";
import { createDispatcher } from "../../src/server/dispatch.ts";
import { type CommitName, requestHash } from "../../src/wire/operations.ts";
import {
  call,
  commitOf,
  exchange,
  type FileStore,
  fileStore,
  frameOf,
  leafOf,
  logInRaw,
  logOf,
  output,
  postFrame,
  type RawAnswer,
  type RawOwner,
  type RawSession,
  registerRaw,
  reserveRaw,
  signNext,
  storeRaw,
} from "../support/attacker.ts";
import { addTestDevice, random, registerDevice, startTestServer, type TestServer } from "../support/harness.ts";

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
const flip = (bytes: Uint8Array): Uint8Array => bytes.map((byte, i) => (i === 7 ? byte ^ 1 : byte));

async function prepared(sealed = random(100)) {
  const keyId = await reserveRaw(server, session);
  const leaf = leafOf(keyId, sealed, null);
  return { keyId, leaf, sealed, changes: [{ leaf, sealed }] };
}

/** A mutation that must fail: one audit entry with the code, nothing else changed. */
async function refuses(send: () => Promise<RawAnswer>, except: string[] = []): Promise<RawAnswer> {
  const before = file.dump(...TRACES, ...except);
  const answer = await send();
  expect(answer.code).not.toBe("ok");
  expect(answer.status).toBeLessThan(500);
  expect(answer.sealed).toBe(true);
  expect(file.dump(...TRACES, ...except)).toBe(before);
  const entries = await logOf(server, alice.userId, answer.requestId);
  expect(entries.map(({ status }) => status)).toEqual([answer.code]);
  return answer;
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
    for (const [over, at] of [[server, session], [server, other], [beside, other]] as const) {
      const again = await call(over, at, "secret.store", input, { requestId });
      expect([again.code, again.text]).toEqual(["ok", first.text]);
    }
    expect(file.dump("session", "audit_entry", "audit_head", "rate_limit")).toBe(
      stored.split("\n").filter((line) => !/^(audit_entry|audit_head|rate_limit):/.test(line)).join("\n"),
    );
    expect(await logOf(server, alice.userId, requestId)).toHaveLength(1);
  });

  test("the same request many times at once has one effect", async () => {
    const { changes } = await prepared();
    const requestId = freshId();
    const { input } = commitOf(alice, "secret.store", changes, requestId);
    const answers = await Promise.all(Array.from({ length: 12 }, () => call(server, session, "secret.store", input, { requestId })));
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
    for (const [operation, changes] of [["secret.store", two.changes], ["secret.import", one.changes], ["secret.generate", two.changes]] as const) {
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
    const sealed = random(50);
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

describe("a mutation whose signed state does not fit is refused, and nothing changed", () => {
  const stranger = signerFromSeed(new Uint8Array(32).fill(5));
  const TWISTS: [string, () => Partial<AccountState>, string][] = [
    ["another previous state", () => ({ previous: random(32) }), "stale"],
    ["no previous state", () => ({ previous: new Uint8Array(32) }), "stale"],
    ["the same revision", () => ({ revision: 1 }), "bad_input"],
    ["a skipped revision", () => ({ revision: 3 }), "bad_input"],
    ["another request hash", () => ({ requestHash: random(32) }), "bad_input"],
    ["another request id", () => ({ requestId: freshId() }), "bad_input"],
    ["another account", () => ({ userId: newId<UserId>(random) }), "bad_input"],
    ["another incarnation", () => ({ incarnation: newId<IncarnationId>(random) }), "bad_input"],
    ["another settings hash", () => ({ settingsHash: random(32) }), "bad_input"],
    ["an unknown device", () => ({ deviceId: newId<DeviceId>(random) }), "bad_input"],
    ["an audit position that is not there yet", () => ({ auditSeq: 10_000 }), "bad_input"],
    ["the root untouched", () => ({ root: alice.state.state.root }), "bad_input"],
  ];
  test.each(TWISTS)("%s", async (_what, twist, code) => {
    const { changes } = await prepared();
    const requestId = freshId();
    const { input } = commitOf(alice, "secret.store", changes, requestId, twist());
    const except = code === "stale" ? ["request"] : [];
    const answer = await refuses(() => call(server, session, "secret.store", input, { requestId }), except);
    expect(answer.code).toBe(code);
  });

  const SIGNATURES: [string, () => Parameters<typeof commitOf>[5], (input: ReturnType<typeof commitOf>["input"]) => ReturnType<typeof commitOf>["input"]][] = [
    ["another identity", () => ({ identity: stranger, device: alice.device }), (input) => input],
    ["another device's key", () => ({ identity: alice.identity, device: stranger }), (input) => input],
    ["the two keys swapped", () => ({ identity: alice.device, device: alice.identity }), (input) => input],
    ["an altered identity signature", () => alice, (input) => ({ ...input, state: { ...input.state, identitySignature: flip(input.state.identitySignature) } })],
    ["an altered device signature", () => alice, (input) => ({ ...input, state: { ...input.state, deviceSignature: flip(input.state.deviceSignature) } })],
    ["a root changed after signing", () => alice, (input) => ({ ...input, state: { ...input.state, state: { ...input.state.state, root: random(32) } } })],
    ["a value swapped after signing", () => alice, (input) => ({ ...input, changes: input.changes.map((change) => ({ ...change, sealed: random(100) })) })],
    ["a change dropped after signing", () => alice, (input) => ({ ...input, changes: [...input.changes, ...input.changes].slice(0, 2) })],
  ];
  test.each(SIGNATURES)("%s", async (_what, signers, change) => {
    const { changes } = await prepared();
    const requestId = freshId();
    const { input } = commitOf(alice, "secret.store", changes, requestId, {}, signers());
    const answer = await refuses(() => call(server, session, "secret.store", change(input), { requestId }));
    expect(answer.code).toBe("bad_input");
  });

  test("a state of one operation does not serve another", async () => {
    const { changes } = await prepared();
    const requestId = freshId();
    const { input } = commitOf(alice, "secret.store", changes, requestId);
    for (const operation of ["secret.generate", "secret.import"] as const) {
      const answer = await call(server, session, operation, input, { requestId });
      expect(answer.code).toBe("bad_input");
    }
  });
});

describe("a change that does not continue its secret is refused, and nothing changed", () => {
  type Make = (leaf: LeafRecord, next: Uint8Array) => { operation: CommitName; leaf: LeafRecord; sealed: Uint8Array | null };
  const CASES: [string, Make][] = [
    ["a value with another hash", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { sealedHash: sha256(old.sealedHash) }), sealed: next })],
    ["metadata with another hash", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { metaHash: random(32) }), sealed: next })],
    ["no metadata though it lives", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { meta: null }), sealed: next })],
    ["a skipped serial", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { serial: 3 }), sealed: next })],
    ["the same serial", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { serial: 1 }), sealed: next })],
    ["another previous leaf", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { previous: random(32) }), sealed: next })],
    ["a skipped version", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { version: 3 }), sealed: next })],
    ["the old version with a new value", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { version: 1 }), sealed: next })],
    ["a new version without a value", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old), sealed: null })],
    ["an update that brings a value", (old, next) => ({ operation: "secret.update", leaf: leafOf(old.keyId, next, old), sealed: next })],
    ["an update that names another value", (old) => ({ operation: "secret.update", leaf: leafOf(old.keyId, null, old, { sealedHash: random(32) }), sealed: null })],
    ["an update that removes", (old) => ({ operation: "secret.update", leaf: leafOf(old.keyId, null, old, { status: "removed" }), sealed: null })],
    ["a store that purges", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { status: "purged" }), sealed: next })],
    ["a removal that does not remove", (old) => ({ operation: "secret.remove", leaf: leafOf(old.keyId, null, old), sealed: null })],
    ["a purge that only removes", (old) => ({ operation: "secret.purge", leaf: leafOf(old.keyId, null, old, { status: "removed" }), sealed: null })],
    ["a first version of a secret that is there", (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, null), sealed: next })],
    ["an id that was not reserved", (_old, next) => ({ operation: "secret.store", leaf: leafOf(newId<KeyId>(random), next, null), sealed: next })],
    ["an update of nothing", () => ({ operation: "secret.update", leaf: leafOf(newId<KeyId>(random), null, null, { version: 1 }), sealed: null })],
  ];
  test.each(CASES)("%s", async (_what, make) => {
    const old = await storeRaw(server, session, alice);
    const { operation, leaf, sealed } = make(old, random(90));
    const requestId = freshId();
    const { input } = commitOf(alice, operation, [{ leaf, sealed }], requestId);
    await refuses(() => call(server, session, operation, input, { requestId }), ["request"]);
    expect((await logOf(server, alice.userId, requestId))[0]).toMatchObject({ action: operation, keyId: leaf.keyId });
  });

  test("one bad change among good ones undoes them all", async () => {
    const good = await prepared();
    const bad = await prepared();
    const requestId = freshId();
    const changes = [...good.changes, { leaf: bad.leaf, sealed: random(40) }];
    const { input } = commitOf(alice, "secret.store", changes, requestId);
    await refuses(() => call(server, session, "secret.store", input, { requestId }));
    const twice = commitOf(alice, "secret.store", [...good.changes, ...good.changes], freshId());
    const head = { requestId: twice.input.state.state.requestId };
    await refuses(() => call(server, session, "secret.store", twice.input, head));
  });

  test("a purged secret is gone for good", async () => {
    const old = await storeRaw(server, session, alice);
    const purged = leafOf(old.keyId, null, old, { status: "purged", meta: null, metaHash: new Uint8Array(32) });
    const requestId = freshId();
    const made = commitOf(alice, "secret.purge", [{ leaf: purged, sealed: null }], requestId);
    output("secret.purge", await call(server, session, "secret.purge", made.input, { requestId }));
    made.done();
    expect((await call(server, session, "secret.get", { keys: [{ keyId: old.keyId, version: 1 }] })).code).toBe("not_found");
    expect(file.sql("SELECT * FROM sealed_value")).toEqual([]);
    expect(file.sql("SELECT * FROM leaf WHERE meta IS NOT NULL")).toEqual([]);
    const sealed = random(30);
    const next = commitOf(alice, "secret.restore", [{ leaf: leafOf(old.keyId, sealed, purged), sealed }], freshId());
    const head = { requestId: next.input.state.state.requestId };
    expect((await refuses(() => call(server, session, "secret.restore", next.input, head))).code).toBe("not_found");
  });
});

describe("a change of the settings", () => {
  async function addDevice(settings: Settings, deviceSeed: Uint8Array, deviceId: DeviceId, twist: Partial<AccountState> = {}) {
    const requestId = freshId();
    const hash = requestHash("account.device.add", { settings, state: alice.state });
    const signers = { identity: alice.identity, device: signerFromSeed(deviceSeed) };
    const state = signNext(alice, requestId, hash, alice.map.root(), settings, { deviceId, ...twist }, signers);
    return call(server, session, "account.device.add", { settings, state }, { requestId });
  }
  const newcomer = () => {
    const seed = random(32);
    const device: Device = {
      id: newId<DeviceId>(random),
      publicKey: signerFromSeed(seed).publicKey,
      name: random(40),
      tokenHash: random(32),
      addedAtMs: 1,
    };
    return { seed, device };
  };

  test("adds one device that signs for itself", async () => {
    const { seed, device } = newcomer();
    const settings = { ...alice.settings, devices: [...alice.settings.devices, device] };
    expect((await addDevice(settings, seed, device.id)).code).toBe("ok");
  });

  const WRONG: [string, (settings: Settings, device: Device) => Settings][] = [
    ["another device's key swapped on the way", (s, d) => ({ ...s, devices: [...s.devices.map((old) => ({ ...old, publicKey: random(32) })), d] })],
    ["another device's token swapped on the way", (s, d) => ({ ...s, devices: [...s.devices.map((old) => ({ ...old, tokenHash: random(32) })), d] })],
    ["another device's name swapped on the way", (s, d) => ({ ...s, devices: [...s.devices.map((old) => ({ ...old, name: random(9) })), d] })],
    ["another device dropped", (s, d) => ({ ...s, devices: [d] })],
    ["a device listed twice", (s, d) => ({ ...s, devices: [...s.devices, ...s.devices, d] })],
    ["two devices at once", (s, d) => ({ ...s, devices: [...s.devices, newcomer().device, d] })],
    ["the account key replaced", (s, d) => ({ ...s, devices: [...s.devices, d], wrappedAccountKey: random(73) })],
    ["the identity replaced", (s, d) => ({ ...s, devices: [...s.devices, d], identity: random(32) })],
    ["a recovery kit slipped in", (s, d) => ({ ...s, devices: [...s.devices, d], kit: random(64), kitWrapped: random(80) })],
  ];
  test.each(WRONG)("with %s is refused", async (_what, make) => {
    const { seed, device } = newcomer();
    const answer = await refuses(() => addDevice(make(alice.settings, device), seed, device.id));
    expect(answer.code).toBe("bad_input");
  });

  test("does not touch the secrets: another root is refused", async () => {
    const { seed, device } = newcomer();
    const settings = { ...alice.settings, devices: [...alice.settings.devices, device] };
    expect((await refuses(() => addDevice(settings, seed, device.id, { root: random(32) }))).code).toBe("bad_input");
  });

  async function changePassword(changes: Partial<Settings>, at = session, twist: Partial<AccountState> = {}) {
    const requestId = freshId();
    const settings = { ...alice.settings, credentialRevision: 2, ...changes };
    const record = random(192);
    const hash = requestHash("account.password", { record, settings, state: alice.state });
    const state = signNext(alice, requestId, hash, alice.map.root(), settings, twist);
    return call(server, at, "account.password", { record, settings, state }, { requestId });
  }

  test("for a password change closes the other sessions and half logins, and kills the old password", async () => {
    const { startRaw, finishRaw } = await import("../support/attacker.ts");
    const other = await logInRaw(server, "alice", alice.password);
    const half = await startRaw(server, "alice", alice.password);
    const token = await startRaw(server, "alice", alice.password, { token: alice.token });
    expect((await changePassword({ wrappedAccountKey: random(73) })).code).toBe("ok");
    expect((await call(server, other, "session.check", {})).code).toBe("session_invalid");
    expect((await call(server, session, "session.check", {})).code).toBe("ok");
    for (const started of [half, token]) expect((await finishRaw(server, started)).status).toBe(401);
  });

  const BAD_PASSWORD: [string, Partial<Settings>, Partial<AccountState>][] = [
    ["another credential revision", { credentialRevision: 3 }, {}],
    ["the devices changed", { devices: [] }, {}],
    ["the identity's wrapping changed", { wrappedIdentity: random(73) }, {}],
    ["the identity replaced", { identity: random(32) }, {}],
    ["a recovery kit slipped in", { kit: random(64), kitWrapped: random(80) }, {}],
    ["another root", {}, { root: random(32) }],
  ];
  test.each(BAD_PASSWORD)("for a password change with %s is refused", async (_what, changes, twist) => {
    const devices = changes.devices ? [newcomer().device] : alice.settings.devices;
    const answer = await refuses(() => changePassword({ ...changes, devices }, session, twist));
    expect(answer.code).toBe("bad_input");
  });

  test("for a password change needs a login of the last five minutes", async () => {
    server.advance(5 * 60_000 + 1_000);
    expect((await refuses(() => changePassword({}))).code).toBe("denied");
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
        const { value } = await first.client.get({ name: `n${i}`, version: null, reveal: true, fresh: true, save: false });
        expect(value).toEqual(Uint8Array.of(i));
      }
    } finally {
      await first.end();
      await second.end();
    }
  }, 30_000);

  test("of many signed successors of one state, one is taken and the others learn that they are stale", async () => {
    const made = [];
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
