import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import { type DeviceId, type IncarnationId, type KeyId, newId, type RequestId, type UserId } from "../../src/ids.ts";
import type { LeafRecord } from "../../src/protocol/leaf.ts";
import type { AccountState } from "../../src/protocol/state.ts";
import type { CommitName } from "../../src/wire/operations.ts";
import {
  call,
  commitOf,
  leafOf,
  logInRaw,
  logOf,
  output,
  type RawAnswer,
  type RawOwner,
  type RawSession,
  registerRaw,
  reserveRaw,
  storeRaw,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
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

  const SIGNATURES: [
    string,
    () => Parameters<typeof commitOf>[5],
    (input: ReturnType<typeof commitOf>["input"]) => ReturnType<typeof commitOf>["input"],
  ][] = [
    ["another identity", () => ({ identity: stranger, device: alice.device }), (input) => input],
    ["another device's key", () => ({ identity: alice.identity, device: stranger }), (input) => input],
    ["the two keys swapped", () => ({ identity: alice.device, device: alice.identity }), (input) => input],
    [
      "an altered identity signature",
      () => alice,
      (input) => ({ ...input, state: { ...input.state, identitySignature: flip(input.state.identitySignature) } }),
    ],
    [
      "an altered device signature",
      () => alice,
      (input) => ({ ...input, state: { ...input.state, deviceSignature: flip(input.state.deviceSignature) } }),
    ],
    [
      "a root changed after signing",
      () => alice,
      (input) => ({ ...input, state: { ...input.state, state: { ...input.state.state, root: random(32) } } }),
    ],
    [
      "a value swapped after signing",
      () => alice,
      (input) => ({ ...input, changes: input.changes.map((change) => ({ ...change, sealed: random(100) })) }),
    ],
    [
      "a change dropped after signing",
      () => alice,
      (input) => ({ ...input, changes: [...input.changes, ...input.changes].slice(0, 2) }),
    ],
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
  type Make = (
    leaf: LeafRecord,
    next: Uint8Array,
  ) => { operation: CommitName; leaf: LeafRecord; sealed: Uint8Array | null };
  const CASES: [string, Make][] = [
    [
      "a value with another hash",
      (old, next) => ({
        operation: "secret.store",
        leaf: leafOf(old.keyId, next, old, { sealedHash: sha256(old.sealedHash) }),
        sealed: next,
      }),
    ],
    [
      "metadata with another hash",
      (old, next) => ({
        operation: "secret.store",
        leaf: leafOf(old.keyId, next, old, { metaHash: random(32) }),
        sealed: next,
      }),
    ],
    [
      "no metadata though it lives",
      (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { meta: null }), sealed: next }),
    ],
    [
      "a skipped serial",
      (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { serial: 3 }), sealed: next }),
    ],
    [
      "the same serial",
      (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { serial: 1 }), sealed: next }),
    ],
    [
      "another previous leaf",
      (old, next) => ({
        operation: "secret.store",
        leaf: leafOf(old.keyId, next, old, { previous: random(32) }),
        sealed: next,
      }),
    ],
    [
      "a skipped version",
      (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { version: 3 }), sealed: next }),
    ],
    [
      "the old version with a new value",
      (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old, { version: 1 }), sealed: next }),
    ],
    [
      "a new version without a value",
      (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, old), sealed: null }),
    ],
    [
      "an update that brings a value",
      (old, next) => ({ operation: "secret.update", leaf: leafOf(old.keyId, next, old), sealed: next }),
    ],
    [
      "an update that names another value",
      (old) => ({
        operation: "secret.update",
        leaf: leafOf(old.keyId, null, old, { sealedHash: random(32) }),
        sealed: null,
      }),
    ],
    [
      "an update that removes",
      (old) => ({
        operation: "secret.update",
        leaf: leafOf(old.keyId, null, old, { status: "removed" }),
        sealed: null,
      }),
    ],
    [
      "a store that purges",
      (old, next) => ({
        operation: "secret.store",
        leaf: leafOf(old.keyId, next, old, { status: "purged" }),
        sealed: next,
      }),
    ],
    [
      "a removal that does not remove",
      (old) => ({ operation: "secret.remove", leaf: leafOf(old.keyId, null, old), sealed: null }),
    ],
    [
      "a purge that only removes",
      (old) => ({ operation: "secret.purge", leaf: leafOf(old.keyId, null, old, { status: "removed" }), sealed: null }),
    ],
    [
      "a first version of a secret that is there",
      (old, next) => ({ operation: "secret.store", leaf: leafOf(old.keyId, next, null), sealed: next }),
    ],
    [
      "an id that was not reserved",
      (_old, next) => ({ operation: "secret.store", leaf: leafOf(newId<KeyId>(random), next, null), sealed: next }),
    ],
    [
      "an update of nothing",
      () => ({
        operation: "secret.update",
        leaf: leafOf(newId<KeyId>(random), null, null, { version: 1 }),
        sealed: null,
      }),
    ],
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
    const changes = [...good.changes, { leaf: bad.leaf, sealed: random(120) }];
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
    expect((await call(server, session, "secret.get", { keys: [{ keyId: old.keyId, version: 1 }] })).code).toBe(
      "not_found",
    );
    expect(file.sql("SELECT * FROM sealed_value")).toEqual([]);
    expect(file.sql("SELECT * FROM leaf WHERE meta IS NOT NULL")).toEqual([]);
    const sealed = random(120);
    const next = commitOf(alice, "secret.restore", [{ leaf: leafOf(old.keyId, sealed, purged), sealed }], freshId());
    const head = { requestId: next.input.state.state.requestId };
    expect((await refuses(() => call(server, session, "secret.restore", next.input, head))).code).toBe("not_found");
  });
});
