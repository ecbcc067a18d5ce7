import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import { type KeyId, newId, type RequestId, type StoredKeyId } from "../../src/ids.ts";
import { auditLink, continueAudit, type SaltedEntry } from "../../src/protocol/audit.ts";
import type { Codec } from "../../src/wire/codec.ts";
import { type InputOf, operations, type SessionOperation } from "../../src/wire/operations.ts";
import {
  call,
  commitOf,
  errorOf,
  exchange,
  finishRaw,
  frameOf,
  leafOf,
  logInRaw,
  logOf,
  output,
  postInput,
  type RawOwner,
  type RawSession,
  registerRaw,
  reserveRaw,
  startRaw,
  storeRaw,
  utf8,
} from "../support/attacker.ts";
import { shapeOf, smallest } from "../support/codec-shape.ts";
import { type FederatedServer, startFederated } from "../support/federatedserver.ts";
import { random, type TestServer } from "../support/harness.ts";
import { startRegistration } from "../support/opaque-oracle.ts";
import { type FileStore, fileStore, hookedStore } from "../support/storeprobe.ts";

const hooked = hookedStore();
let file: FileStore;
let federated: FederatedServer;
let server: TestServer;
let alice: RawOwner;
let session: RawSession;

beforeEach(async () => {
  file = fileStore();
  federated = await startFederated({ path: file.path, wrap: hooked.wrap });
  server = federated.server;
  alice = await registerRaw(server, "alice");
  session = await logInRaw(server, "alice", alice.password);
});

afterEach(async () => {
  hooked.hook = null;
  hooked.around = null;
  expect(server.faults).toEqual([]);
  await federated.close();
  file.end();
});

const ANY = {
  after: 0,
  limit: 1_000,
  keyId: null,
  action: null,
  fromMs: null,
  untilMs: null,
  requestId: null,
} as const;
const freshId = () => newId<RequestId>(random);
const POINT = startRegistration(utf8("another password")).request;

/** A sound or at least well-formed call of each operation of a session. */
async function inputFor(operation: SessionOperation, requestId: RequestId): Promise<InputOf<SessionOperation>> {
  const sync = { since: 0, after: null, what: "leaves" } as const;
  const commit = async (status: "live" | "removed" | "purged", version: boolean, reserved: boolean) => {
    const sealed = version ? random(120) : null;
    const before = reserved ? null : await storeRaw(server, session, alice);
    const keyId = before?.keyId ?? (await reserveRaw(server, session));
    const name = operation as "secret.store";
    return commitOf(alice, name, [{ leaf: leafOf(keyId, sealed, before, { status }), sealed }], requestId).input;
  };
  switch (operation) {
    case "session.check":
    case "session.list":
      return {};
    case "session.close":
      return { sessionId: null, all: false };
    case "account.device.add":
      return { settings: alice.settings, state: alice.state };
    case "account.password.start":
      return { request: POINT };
    case "account.password":
    case "account.reregister":
      return { record: random(192), settings: alice.settings, state: alice.state };
    case "state.sync":
    case "secret.list":
      return sync;
    case "secret.reserve":
      return { count: 3 };
    case "secret.generate":
    case "secret.store":
    case "secret.import":
      return commit("live", true, true);
    case "secret.update":
      return commit("live", false, false);
    case "secret.restore":
      return commit("live", true, false);
    case "secret.remove":
      return commit("removed", false, false);
    case "secret.purge":
      return commit("purged", false, false);
    case "secret.get":
    case "secret.export":
      return { keys: [{ keyId: (await storeRaw(server, session, alice)).keyId, version: 1 }] };
    case "secret.history":
      return { keyId: (await storeRaw(server, session, alice)).keyId, afterSerial: 0 };
    case "audit.list":
    case "audit.verify":
    case "audit.export":
      return ANY;
    case "account.rotate":
      return { record: null, settings: alice.settings, state: alice.state };
    case "account.wraps":
      return { after: null };
    case "account.rewrap": {
      const { keyId } = await storeRaw(server, session, alice);
      return { items: [{ keyId, kind: "value", number: 1, wrapped: random(73) }] };
    }
    case "account.kit":
      return { settings: alice.settings, state: alice.state };
    case "account.device.link":
      return { linkId: random(32), sealed: random(64) };
    case "account.delete":
      return { state: alice.state };
    case "account.adopt":
      return { pin: alice.state, state: alice.state };
    case "log.proof":
      return { since: 0 };
    case "account.parcel":
      return {};
    case "account.parcel.put":
      return { sealed: random(100) };
    case "otp.revoke":
      return { keyId: "ab".repeat(32) as StoredKeyId, grantId: null, askId: null };
    case "otp.check":
      return { keyId: "ab".repeat(32) as StoredKeyId, code: "123456", next: null };
    default: {
      // there is no federation: what names one or something of one is refused, by the handler itself
      const { input } = operations[operation];
      return (input as Codec<InputOf<SessionOperation>>).decode(smallest(shapeOf(input)), "");
    }
  }
}

const SESSION_OPERATIONS = Object.entries(operations).flatMap(([name, { auth }]) =>
  auth === "session" ? [name as SessionOperation] : [],
);

describe("exactly one entry", () => {
  test.each(SESSION_OPERATIONS)("%s: for the answer it gives", async (operation) => {
    const requestId = freshId();
    const input = await inputFor(operation, requestId);
    const answer = await call(server, session, operation, input as never, { requestId });
    const entries = await logOf(server, alice.userId, requestId);
    expect(entries).toHaveLength(1);
    expect(entries[0]).toMatchObject({ action: operation, status: answer.code, session: session.sessionId, count: 1 });
    if (operation.startsWith("federation."))
      expect(["bad_input", "integrity", "denied", "not_found", "ok"]).toContain(answer.code);
    else if (/^(workspace|keyring|party|ceremony|otp)\./.test(operation)) expect(answer.code).toBe("unsupported");
    else if (!operation.startsWith("account.")) expect(answer.code).toBe("ok");
    const signed = answer.code === "ok" && operations[operation].mutation;
    expect(entries[0]?.stateHash !== null).toBe(signed);
    expect(answer.head?.auditSeq).toBe(entries[0]?.seq ?? 0);
  });

  test.each(SESSION_OPERATIONS)("%s: for a body that is none", async (operation) => {
    const requestId = freshId();
    const answer = await exchange(server, session, frameOf(session, operation, utf8('{"no":"such"}'), { requestId }));
    expect([answer.code, answer.status, answer.sealed]).toEqual(["bad_input", 400, true]);
    const entries = await logOf(server, alice.userId, requestId);
    expect(entries.map(({ action, status }) => [action, status])).toEqual([[operation, "bad_input"]]);
  });

  test("for each of several secrets in one request, all under its id", async () => {
    const leaves = [await storeRaw(server, session, alice), await storeRaw(server, session, alice)];
    const requestId = freshId();
    const keys = leaves.map(({ keyId }) => ({ keyId, version: 1 }));
    await call(server, session, "secret.get", { keys }, { requestId });
    const entries = await logOf(server, alice.userId, requestId);
    expect(entries.map(({ keyId }) => keyId)).toEqual(leaves.map(({ keyId }) => keyId));
  });

  test("for a login, good or bad, and for an unsealed refusal of a frame none", async () => {
    const before = (await logOf(server, alice.userId)).length;
    const requestId = freshId();
    await finishRaw(server, await startRaw(server, "alice", "wrong"), requestId);
    expect((await logOf(server, alice.userId)).slice(before).map(({ status }) => status)).toEqual(["login_failed"]);
    const frame = frameOf(session, "session.check", utf8("{}"));
    await exchange(server, session, frame);
    await exchange(server, session, frame);
    expect((await logOf(server, alice.userId)).slice(before + 1)).toHaveLength(1);
  });

  test("and together they are a chain without a gap", async () => {
    for (const operation of ["session.check", "secret.get", "secret.store", "audit.list"] as const) {
      const requestId = freshId();
      await call(server, session, operation, (await inputFor(operation, requestId)) as never, { requestId });
    }
    const { entries } = output("audit.verify", await call(server, session, "audit.verify", ANY));
    const result = continueAudit({ seq: 0, link: new Uint8Array(32) }, alice.userId, entries);
    expect(result.ok).toBe(true);
    expect(new Set(entries.map(({ salt }) => salt.toHex())).size).toBe(entries.length);
  });
});

describe("no entry, no effect", () => {
  type Breaks = [string, () => void];
  const cut = (when: "before" | "after", error: () => Error): Breaks => [
    `appending fails ${when} it is written (${error().message})`,
    () => {
      hooked.hook = async (method, args, run) => {
        if (method !== "appendAudit") return run(...args);
        if (when === "after") await run(...args);
        throw error();
      };
    },
  ];
  const BREAKS: Breaks[] = [
    cut("before", () => new Error("lost power")),
    cut("after", () => new Error("lost power")),
    cut("before", () => new Fault("storage", "the disk is full")),
    cut("after", () => new Fault("storage", "the disk is full")),
    cut("before", () => new Fault("conflict", "it does not continue the log")),
  ];

  test.each(BREAKS)("%s: the operation fails and nothing changed", async (_what, breakIt) => {
    for (const operation of [
      "secret.store",
      "secret.get",
      "session.list",
      "secret.reserve",
      "session.close",
    ] as const) {
      const requestId = freshId();
      const input = await inputFor(operation, requestId);
      const before = file.dump();
      breakIt();
      const answer = await call(server, session, operation, input as never, { requestId });
      hooked.hook = null;
      expect(answer.sealed).toBe(false);
      expect(answer.code).not.toBe("ok");
      expect(file.dump()).toBe(before);
    }
    server.faults.length = 0;
    // it was the log alone: the same request goes through afterwards
    const requestId = freshId();
    const input = await inputFor("secret.store", requestId);
    expect((await call(server, session, "secret.store", input as never, { requestId })).code).toBe("ok");
  });

  test.each(BREAKS)("%s: no session is opened", async (_what, breakIt) => {
    const started = await startRaw(server, "alice", alice.password);
    breakIt();
    const reply = await finishRaw(server, started);
    hooked.hook = null;
    expect(reply.status).toBeGreaterThanOrEqual(400);
    expect(file.sql("SELECT * FROM session")).toHaveLength(1);
    server.faults.length = 0;
  });

  test("each statement of a mutation failing before or after it was written leaves it undone, and repeatable", async () => {
    const keyId = await reserveRaw(server, session);
    const sealed = random(80);
    const requestId = freshId();
    const made = commitOf(alice, "secret.store", [{ leaf: leafOf(keyId, sealed, null), sealed }], requestId);
    const untouched = file.dump("session");
    for (const method of ["touchSession", "swapState", "appendState", "appendLeaf", "putRequest", "appendAudit"]) {
      for (const when of ["before", "after"]) {
        hooked.hook = async (name, args, run) => {
          if (name !== method) return run(...args);
          if (when === "after") await run(...args);
          throw new Fault("storage", "the disk is full");
        };
        const answer = await call(server, session, "secret.store", made.input, { requestId });
        hooked.hook = null;
        expect([answer.code, answer.sealed]).toEqual(["storage", false]);
        expect(file.dump("session")).toBe(untouched);
      }
    }
    expect((await call(server, session, "secret.store", made.input, { requestId })).code).toBe("ok");
  });

  test("a commit that lasted though it reported failure is found by its request id", async () => {
    const keyId = await reserveRaw(server, session);
    const sealed = random(80);
    const requestId = freshId();
    const made = commitOf(alice, "secret.store", [{ leaf: leafOf(keyId, sealed, null), sealed }], requestId);
    for (const error of [new Fault("storage", "the answer was lost"), new Error("the answer was lost")]) {
      hooked.around = async (run) => {
        await run();
        throw error;
      };
      const answer = await call(server, session, "secret.store", made.input, { requestId });
      hooked.around = null;
      expect(answer.sealed).toBe(false);
    }
    server.faults.length = 0;
    const again = await call(server, session, "secret.store", made.input, { requestId });
    expect(again.code).toBe("ok");
    expect(file.sql("SELECT * FROM leaf")).toHaveLength(1);
    expect(await logOf(server, alice.userId, requestId)).toHaveLength(1);
  });
});

describe("reading the log", () => {
  const COUNT = 10_000;

  async function fill(keys: readonly KeyId[]): Promise<void> {
    await server.store.transaction(async (tx) => {
      let head = await tx.auditHead(alice.userId);
      while (head.seq < COUNT) {
        const seq = head.seq + 1;
        const item: SaltedEntry = {
          entry: {
            seq,
            userId: alice.userId,
            atMs: 1_000_000 + seq,
            action: seq % 3 === 0 ? "secret.store" : "secret.get",
            status: seq % 5 === 0 ? "not_found" : "ok",
            keyId: keys[seq % keys.length] ?? null,
            requestId: seq.toString(16).padStart(32, "0") as RequestId,
            session: session.sessionId,
            bodyHash: new Uint8Array(32),
            stateHash: null,
            count: 1,
            previous: head.link,
          },
          salt: random(32),
        };
        head = { seq, link: auditLink(item) };
        await tx.appendAudit(item, head, null);
      }
    });
  }

  async function all(filter: Partial<InputOf<"audit.list">>): Promise<SaltedEntry[]> {
    const found: SaltedEntry[] = [];
    for (let after = filter.after ?? 0; ; ) {
      const answer = output("audit.list", await call(server, session, "audit.list", { ...ANY, ...filter, after }));
      expect(answer.entries.length).toBeLessThanOrEqual(filter.limit ?? ANY.limit);
      found.push(...answer.entries);
      after = answer.entries.at(-1)?.entry.seq ?? after;
      if (!answer.more) return found;
      expect(answer.entries.length).toBe(filter.limit ?? ANY.limit);
    }
  }

  test("ten thousand events page in order, whole, and filter by action, key, time and request", async () => {
    const keys = [newId<KeyId>(random), newId<KeyId>(random)];
    const first = (await logOf(server, alice.userId)).length;
    await fill(keys);
    const entries = await all({ untilMs: 1_000_000 + COUNT });
    const older = await all({ limit: 700 });
    expect(older.slice(0, COUNT).map(({ entry }) => entry.seq)).toEqual(Array.from({ length: COUNT }, (_, i) => i + 1));
    expect(continueAudit({ seq: 0, link: new Uint8Array(32) }, alice.userId, older).ok).toBe(true);

    const seqs = (list: readonly SaltedEntry[]) => list.map(({ entry }) => entry.seq);
    const expected = (keep: (seq: number) => boolean) =>
      Array.from({ length: COUNT - first }, (_, i) => first + 1 + i).filter(keep);
    expect(seqs(entries)).toEqual(expected(() => true));
    const until = { untilMs: 1_000_000 + COUNT };
    expect(seqs(await all({ ...until, action: "secret.store" }))).toEqual(expected((seq) => seq % 3 === 0));
    expect(seqs(await all({ ...until, keyId: keys[1] ?? null }))).toEqual(expected((seq) => seq % 2 === 1));
    expect(seqs(await all({ fromMs: 1_000_100, untilMs: 1_000_200 }))).toEqual(
      expected((seq) => seq >= 100 && seq <= 200),
    );
    expect(seqs(await all({ requestId: (5_000).toString(16).padStart(32, "0") as RequestId }))).toEqual([5_000]);
    expect(
      seqs(await all({ ...until, action: "secret.store", keyId: keys[0] ?? null, fromMs: 1_009_000, limit: 7 })),
    ).toEqual(expected((seq) => seq % 6 === 0 && seq >= 9_000));
    expect(seqs(await all({ ...until, after: 9_990 }))).toEqual(expected((seq) => seq > 9_990));
    expect(await all({ action: "no.such" })).toEqual([]);
    expect(await all({ keyId: newId<KeyId>(random) })).toEqual([]);
    expect(await all({ after: Number.MAX_SAFE_INTEGER })).toEqual([]);
  }, 20_000);
});

test("an unsealed refusal tells nothing but its code: no stack, no statement, no value", async () => {
  hooked.hook = (method, args, run) => {
    if (method === "credential") throw new Error("SELECT secret FROM account -- canary");
    return run(...args);
  };
  const reply = await postInput(server, "session.login.start", {
    account: "alice",
    request: random(96),
    deviceToken: null,
  });
  hooked.hook = null;
  expect(reply.status).toBe(500);
  expect(errorOf(reply)).toEqual({ code: "internal", message: "the server failed", retryAfterMs: null });
  expect(server.faults.splice(0)).toHaveLength(1);
});
