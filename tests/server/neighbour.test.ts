import { afterEach, beforeEach, expect, test } from "bun:test";
import { type KeyId, newId, type RequestId } from "../../src/ids.ts";
import type { AuditEntry } from "../../src/protocol/audit.ts";
import type { LeafRecord } from "../../src/protocol/leaf.ts";
import { COMMITS, type CommitName, type InputOf, type SessionOperation } from "../../src/wire/operations.ts";
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
  storeRaw,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore, hookedStore, recorder } from "../support/storeprobe.ts";

/** P8: one user's ids answer another exactly like ids that do not exist. */

const hooked = hookedStore();
let file: FileStore;
let server: TestServer;
let alice: RawOwner;
let bob: RawOwner;
let bobs: RawSession;
let hers: LeafRecord;

beforeEach(async () => {
  file = fileStore();
  server = await startTestServer({ path: file.path, wrap: hooked.wrap });
  alice = await registerRaw(server, "alice");
  bob = await registerRaw(server, "bob");
  hers = await storeRaw(server, await logInRaw(server, "alice", alice.password), alice);
  bobs = await logInRaw(server, "bob", bob.password);
  // so that the process holds the keys of his session
  await call(server, bobs, "session.check", {});
});

afterEach(async () => {
  hooked.hook = null;
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

const READS: [string, SessionOperation, (keyId: KeyId) => InputOf<SessionOperation>][] = [
  ["get", "secret.get", (keyId) => ({ keys: [{ keyId, version: 1 }] })],
  ["a version that is not there", "secret.get", (keyId) => ({ keys: [{ keyId, version: 2 }] })],
  ["export", "secret.export", (keyId) => ({ keys: [{ keyId, version: 1 }] })],
  ["history", "secret.history", (keyId) => ({ keyId, afterSerial: 0 })],
  ["history from later on", "secret.history", (keyId) => ({ keyId, afterSerial: 5 })],
];

/** Runs the same call for her id and for a made-up one. */
async function compare(ask: (keyId: KeyId) => Promise<RawAnswer>) {
  const answers: { answer: RawAnswer; entries: AuditEntry[]; keyId: KeyId; lines: readonly string[] }[] = [];
  for (const keyId of [hers.keyId, newId<KeyId>(random)]) {
    const record = recorder();
    hooked.hook = record.hook;
    const answer = await ask(keyId);
    hooked.hook = null;
    const entries = await logOf(server, bob.userId, answer.requestId);
    answers.push({ answer, entries, keyId, lines: record.lines });
  }
  const [real, fake] = answers;
  if (!real || !fake) throw new Error("nothing was asked");
  expect([real.answer.code, real.answer.status, real.answer.text]).toEqual([
    fake.answer.code,
    fake.answer.status,
    fake.answer.text,
  ]);
  expect(real.lines).toEqual(fake.lines);
  for (const { entries, keyId, answer } of answers) {
    expect(entries).toHaveLength(1);
    expect(entries[0]).toMatchObject({ status: answer.code, keyId });
  }
  return real;
}

test.each(READS)(
  "%s: another's id and a made-up one are one answer, audited as failed",
  async (_what, operation, input) => {
    const before = file.dump("session", "audit_entry", "audit_head");
    const { answer } = await compare((keyId) => call(server, bobs, operation, input(keyId)));
    if (operation !== "secret.history" || (input(hers.keyId) as { afterSerial: number }).afterSerial === 0) {
      expect([answer.code, answer.status]).toEqual(["not_found", 404]);
    }
    expect(file.dump("session", "audit_entry", "audit_head")).toBe(before);
  },
);

test("one of another's among one's own fails them all", async () => {
  const own = await storeRaw(server, bobs, bob);
  const { answer } = await compare((keyId) =>
    call(server, bobs, "secret.get", {
      keys: [
        { keyId, version: 1 },
        { keyId: own.keyId, version: 1 },
      ],
    }),
  );
  expect(answer.code).toBe("not_found");
});

const WRITES = COMMITS.filter((name) => name !== "secret.import");

test.each(WRITES)(
  "%s on another's id and on a made-up one are one answer, audited as failed",
  async (operation: CommitName) => {
    const status = operation === "secret.remove" ? "removed" : operation === "secret.purge" ? "purged" : "live";
    for (const continues of [true, false]) {
      const before = file.dump("session", "audit_entry", "audit_head", "request");
      const sealed = ["secret.generate", "secret.store", "secret.restore"].includes(operation) ? random(120) : null;
      const { answer } = await compare((keyId) => {
        const base = continues ? { ...hers, keyId } : null;
        const leaf = leafOf(keyId, sealed, base, { status, ...(base || sealed ? {} : { version: 1 }) });
        const requestId = newId<RequestId>(random);
        const { input } = commitOf(bob, operation, [{ leaf, sealed }], requestId);
        return call(server, bobs, operation, input, { requestId });
      });
      expect(answer.code).not.toBe("ok");
      expect(file.dump("session", "audit_entry", "audit_head", "request")).toBe(before);
    }
  },
);

test("importing under another's id makes a secret of one's own, as under a made-up one, and leaves hers alone", async () => {
  for (const keyId of [hers.keyId, newId<KeyId>(random)]) {
    const sealed = random(120);
    const requestId = newId<RequestId>(random);
    const made = commitOf(bob, "secret.import", [{ leaf: leafOf(keyId, sealed, null), sealed }], requestId);
    expect((await call(server, bobs, "secret.import", made.input, { requestId })).code).toBe("ok");
    made.done();
    const got = output("secret.get", await call(server, bobs, "secret.get", { keys: [{ keyId, version: 1 }] }));
    expect(got.items[0]?.sealed).toEqual(sealed);
  }
  const session = await logInRaw(server, "alice", alice.password);
  const got = output(
    "secret.get",
    await call(server, session, "secret.get", { keys: [{ keyId: hers.keyId, version: 1 }] }),
  );
  expect(got.items).toHaveLength(1);
  const { leaves } = output(
    "state.sync",
    await call(server, session, "state.sync", { since: 0, after: null, what: "leaves" }),
  );
  expect(leaves).toEqual([hers]);
});

test("another's reservation serves nobody else", async () => {
  const session = await logInRaw(server, "alice", alice.password);
  const { items } = output("secret.reserve", await call(server, session, "secret.reserve", { count: 1 }));
  const keyId = items[0]?.keyId ?? hers.keyId;
  const sealed = random(120);
  const requestId = newId<RequestId>(random);
  const { input } = commitOf(bob, "secret.store", [{ leaf: leafOf(keyId, sealed, null), sealed }], requestId);
  expect((await call(server, bobs, "secret.store", input, { requestId })).code).toBe("not_found");
});

test("another's log, list, states and sessions are out of reach", async () => {
  const log = await call(server, bobs, "audit.list", {
    after: 0,
    limit: 1_000,
    keyId: hers.keyId,
    action: null,
    fromMs: null,
    untilMs: null,
    requestId: null,
  });
  expect(output("audit.list", log)).toEqual({ entries: [], more: false });
  const all = await call(server, bobs, "audit.list", {
    after: 0,
    limit: 1_000,
    keyId: null,
    action: null,
    fromMs: null,
    untilMs: null,
    requestId: null,
  });
  expect(output("audit.list", all).entries.every(({ entry }) => entry.userId === bob.userId)).toBe(true);
  const sync = output("state.sync", await call(server, bobs, "state.sync", { since: 0, after: null, what: "leaves" }));
  expect(sync.leaves).toEqual([]);
  expect(sync.states.every(({ state }) => state.userId === bob.userId)).toBe(true);
  const { items } = output("session.list", await call(server, bobs, "session.list", {}));
  expect(items.map(({ sessionId }) => sessionId)).toEqual([bobs.sessionId]);
});
